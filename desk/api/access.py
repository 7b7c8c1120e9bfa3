"""Who may ask: a token in the header, its scope, and the mailboxes that its owner sees.

Each route of the API depends on exactly one `scope(...)`, or on desk.access.anyone. A browser's session is no key here,
and a token is none to the pages.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from briefbox.db import now
from briefbox.store import api_tokens
from briefbox.store.sight import Sight
from briefbox.tables import APIToken, User
from desk.access import check_path, may
from desk.context import Desk, desk_of
from desk.cookies import network_address

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token of yours, made on the desk under Account, API tokens.",
)
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="briefbox"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose program asks, with which token, and what it sees."""

    token: APIToken
    user: User
    sight: Sight


@dataclass(frozen=True)
class scope:
    """The scope that a route asks for, and the least role of the token's owner."""

    name: str
    role: str = "agent"

    @property
    def scope(self) -> str:
        """By which tests over all routes tell that a route is for programs."""
        return self.name

    def __call__(
        self, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
    ) -> Caller:
        """The caller. Raises HTTPException 401, 403 or 429, NotFoundError for what the owner does not see."""
        desk = desk_of(request)
        text = given.credentials if given is not None else ""
        with desk.database.read() as session:
            key = api_tokens.find(session, text)
            moment = now(session)
            if key is not None:
                caller = Caller(key.token, key.user, Sight.of(session, key.user))
                self._check(caller)
                check_path(session, caller.sight, request.path_params)
        if key is None:
            raise _refusal(desk, request, text)
        if api_tokens.needs_note(caller.token, moment):
            with desk.database.write() as session:
                api_tokens.note_used(session, caller.token.id)
        request.state.caller = caller
        return caller

    def _check(self, caller: Caller) -> None:
        if self.name not in caller.token.scopes:
            raise HTTPException(
                403,
                f"This token has the scopes {', '.join(caller.token.scopes)}; this needs {self.name}.",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{self.name}"'},
            )
        role = "admin" if self.name == api_tokens.ADMIN else self.role
        if not may(caller.user, role):
            raise HTTPException(403, f"This is for {role}s, and the token's owner is none.")


def _refusal(desk: Desk, request: Request, text: str) -> HTTPException:
    if not text:
        return HTTPException(
            401, "No token was sent; expected the header Authorization: Bearer bbx_...", headers=CHALLENGE
        )
    address = network_address(request)
    with desk.database.read() as session:
        until, moment = api_tokens.locked_until(session, address), now(session)
    if until is not None:
        wait = max(1, round((until - moment).total_seconds()))
        return HTTPException(
            429,
            f"Too many wrong tokens came from your address. Try again in {wait} seconds.",
            headers={"Retry-After": str(wait)},
        )
    with desk.database.write() as session:
        api_tokens.note_wrong(session, address)
    return HTTPException(
        401,
        "This token is not good: it is unknown, has ended or was revoked. Make one on the desk under Account, API tokens.",
        headers=CHALLENGE | {"WWW-Authenticate": CHALLENGE["WWW-Authenticate"] + ', error="invalid_token"'},
    )


Reading = Annotated[Caller, Depends(scope(api_tokens.READ))]
Writing = Annotated[Caller, Depends(scope(api_tokens.WRITE))]
Administering = Annotated[Caller, Depends(scope(api_tokens.ADMIN))]
# Reads what the desk shows to admins only, and what it shows to those who judge datasets.
ReadingAsAdmin = Annotated[Caller, Depends(scope(api_tokens.READ, role="admin"))]
ReadingAsReviewer = Annotated[Caller, Depends(scope(api_tokens.READ, role="reviewer"))]
