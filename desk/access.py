"""Who may do what: the role that a route asks for, and the mailboxes that a person sees.

Every route depends on exactly one of `anyone`, `signed_in`, `reviewer`, `admin` (or, in the REST API, on a token's
scope), and on `verified` too where somebody has to prove anew who they are; tests/desk/test_access.py fails for one
that does not. An id in a route's path (`conversation_id`, `email_id`, `mailbox_id`) is checked here, before the route
runs: what somebody does not see is not there. What comes in a form or a list is checked with `Seen`.
"""

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session
from starlette.exceptions import HTTPException

from briefbox.errors import DatabaseError
from briefbox.store import audit_log, login_sessions, users
from briefbox.store.sight import Sight
from briefbox.tables import User
from desk.context import Desk, desk_of
from desk.cookies import needs_second_factor
from desk.cookies import session_token as session_token


class NotVerified(HTTPException):
    """Somebody is signed in, and has to prove again who they are."""

    def __init__(self) -> None:
        super().__init__(
            403, "Prove first that it is you: /account/verify asks for your password or your second factor."
        )


class SecondFactorNeeded(HTTPException):
    """Somebody is signed in, and has to set up a second factor before anything else."""

    def __init__(self) -> None:
        super().__init__(
            403,
            "This desk asks for a second factor (BRIEFBOX_REQUIRE_SECOND_FACTOR); set yours up at /account/second-factor.",
        )


def anyone() -> None:
    """Declares a route that needs no session."""


def signed_in(request: Request) -> User:
    """The person whose browser asks, agent or more. Raises HTTPException 401, NotFoundError."""
    desk = desk_of(request)
    token = session_token(desk, request)
    with desk.database.read() as session:
        found = (
            login_sessions.current(session, token, idle_minutes=desk.settings.session_idle_minutes)
            if token
            else None
        )
        if found is None:
            raise HTTPException(401)
        user = found.user
        request.state.sight = Sight.of(session, user)
        check_path(session, request.state.sight, request.path_params)
    request.state.user, request.state.login = user, found
    if found.is_stale and counts_as_use(request):
        _touch(desk, found.row.id)
    if needs_second_factor(desk.settings.require_second_factor, user) and not _leads_to_it(request):
        raise SecondFactorNeeded
    return user


def reviewer(request: Request, user: Annotated[User, Depends(signed_in)]) -> User:
    """The same for what reviewers and admins may do."""
    return _at_least(request, user, "reviewer")


def admin(request: Request, user: Annotated[User, Depends(signed_in)]) -> User:
    """The same for what only admins may do."""
    return _at_least(request, user, "admin")


def verified(request: Request, user: Annotated[User, Depends(signed_in)]) -> User:
    """Beside a role: for what would hurt most in other hands. Who has not proved for a quarter of an hour who they
    are is asked first (desk/sign_in/verify.py). Raises NotVerified."""
    login: login_sessions.Login = request.state.login
    if not login.is_verified:
        raise NotVerified
    return user


def sight(request: Request, _user: Annotated[User, Depends(signed_in)]) -> Sight:
    """The mailboxes that the person sees."""
    seen: Sight = request.state.sight
    return seen


SignedIn = Annotated[User, Depends(signed_in)]
Reviewer = Annotated[User, Depends(reviewer)]
Admin = Annotated[User, Depends(admin)]
Verified = Annotated[User, Depends(verified)]
Seen = Annotated[Sight, Depends(sight)]


def may(user: User, role: str) -> bool:
    """Whether somebody has this role or a higher one."""
    return users.ROLES.index(user.role) >= users.ROLES.index(role)


def _at_least(request: Request, user: User, role: str) -> User:
    if not may(user, role):
        with desk_of(request).database.write() as session:
            audit_log.record_denial(session, user.email, f"{request.method} {request.url.path}"[:200])
        raise HTTPException(
            403, f"This is for {role}s." if role == "admin" else f"This is for {role}s and admins."
        )
    return user


def check_path(session: Session, seen: Sight, path: dict[str, str]) -> None:
    """Refuse ids in a path that the person does not see. Raises NotFoundError."""
    # What is no number, the route itself refuses.
    ids = {
        name: int(value) for name, value in path.items() if str(value).isdecimal() and len(str(value)) < 10
    }
    if seen.mailboxes is None:
        return
    if "mailbox_id" in ids:
        seen.check_mailbox(ids["mailbox_id"])
    if "conversation_id" in ids:
        seen.check_conversation(session, ids["conversation_id"])
    if "email_id" in ids:
        seen.check_email(session, ids["email_id"])


# --- signs of life


def counts_as_use(request: Request) -> bool:
    """Whether a request shows that somebody is there. Open pages listen and say they are open by themselves:
    those requests are streams, or say so with the header X-Background."""
    return "x-background" not in request.headers and "text/event-stream" not in request.headers.get(
        "accept", ""
    )


def _touch(desk: Desk, login_id: int) -> None:
    # A full disk or a locked database must not keep anybody from reading.
    with suppress(DatabaseError), desk.database.write() as session:
        login_sessions.touch(session, login_id)


def _leads_to_it(request: Request) -> bool:
    path = request.url.path
    return path == "/sign-out" or path.startswith(("/account/second-factor", "/account/verify"))


def still_signed_in(desk: Desk, token: str) -> bool:
    """Whether a stream that was opened with this token may go on."""
    with desk.database.read() as session:
        idle = desk.settings.session_idle_minutes
        return login_sessions.current(session, token, idle_minutes=idle) is not None
