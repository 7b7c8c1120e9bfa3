"""The end of every way in: a new session under a new token, or one that still waits for the second factor."""

from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from briefbox.store import login_sessions, second_factor
from briefbox.tables import User
from desk.context import Desk
from desk.context import answer as answer_
from desk.cookies import browser_name, network_address, session_token, with_cookie


@dataclass(frozen=True, slots=True)
class Entry:
    """The token of a new session."""

    token: str
    pending: bool  # the second factor is still to come

    def answer(self, desk: Desk, request: Request, to: str) -> Response:
        """On to where the person wanted to be, by way of the second factor where it is still to come."""
        if self.pending:
            response: Response = RedirectResponse(
                f"/sign-in/code?next={quote(to, safe='/')}", status_code=303
            )
        else:
            response = answer_(request, to)
        return with_cookie(desk, response, self.token)


def enter(desk: Desk, request: Request, session: Session, user: User, *, proved: bool = False) -> Entry:
    """Open a session for who has just shown a password, a link or an account elsewhere, or (`proved`) the second
    factor too. What the browser had before is ended: no token outlives a sign-in."""
    pending = second_factor.is_on(user) and not proved
    old = session_token(desk, request)
    if old:
        login_sessions.close_session(session, old)
    token = login_sessions.open_session(
        session,
        user,
        hours=desk.settings.session_hours,
        address=network_address(request),
        browser=browser_name(request),
        pending=pending,
    )
    return Entry(token, pending)
