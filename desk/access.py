"""Who may do what: the role that a route asks for, and the mailboxes that a person sees.

Every route depends on exactly one of `anyone`, `signed_in`, `reviewer`, `admin` (or, in the REST API, on a token's
scope); tests/desk/test_access.py fails for one that does not. An id in a route's path (`conversation_id`,
`email_id`, `mailbox_id`) is checked here, before the route runs: what somebody does not see is not there.
What comes in a form or a list is checked with `Seen`.
"""

from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session
from starlette.exceptions import HTTPException

from briefbox.store import users
from briefbox.store.sight import Sight
from briefbox.tables import User
from desk.context import Desk, desk_of


def anyone() -> None:
    """Declares a route that needs no session."""


def signed_in(request: Request) -> User:
    """The person whose browser asks, agent or more. Raises HTTPException 401, NotFoundError."""
    desk = desk_of(request)
    token = session_token(desk, request)
    with desk.database.read() as session:
        user = users.session_user(session, token) if token else None
        if user is None:
            raise HTTPException(401)
        request.state.sight = Sight.of(session, user)
        check_path(session, request.state.sight, request.path_params)
        session.expunge(user)  # it outlives this transaction
    request.state.user = user
    return user


def reviewer(user: Annotated[User, Depends(signed_in)]) -> User:
    """The same for what reviewers and admins may do."""
    return _at_least(user, "reviewer")


def admin(user: Annotated[User, Depends(signed_in)]) -> User:
    """The same for what only admins may do."""
    return _at_least(user, "admin")


def sight(request: Request, _user: Annotated[User, Depends(signed_in)]) -> Sight:
    """The mailboxes that the person sees."""
    seen: Sight = request.state.sight
    return seen


SignedIn = Annotated[User, Depends(signed_in)]
Reviewer = Annotated[User, Depends(reviewer)]
Admin = Annotated[User, Depends(admin)]
Seen = Annotated[Sight, Depends(sight)]


def may(user: User, role: str) -> bool:
    """Whether somebody has this role or a higher one."""
    return users.ROLES.index(user.role) >= users.ROLES.index(role)


def _at_least(user: User, role: str) -> User:
    if not may(user, role):
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


# --- the session's cookie


def cookie_name(desk: Desk) -> str:
    """`__Host-` makes browsers refuse the cookie from anything but this very host; it needs https."""
    return "__Host-briefbox" if desk.https else "briefbox"


def session_token(desk: Desk, request: Request) -> str:
    """The token that the browser sent, or nothing."""
    return request.cookies.get(cookie_name(desk), "")
