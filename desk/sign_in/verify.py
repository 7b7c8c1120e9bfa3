"""Proving once more who one is, before what would hurt most in other hands: password or second factor, then on.

A form that was sent is not sent again by itself: the page that it stood on comes back.
"""

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from briefbox.errors import InvalidValueError
from briefbox.store import identities, login_sessions, passwords, second_factor, secrets, users
from briefbox.tables import User
from desk.access import NotVerified, SignedIn
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.cookies import local, network_address, session_token, with_cookie

router = APIRouter()


async def ask_again(request: Request, error: Exception) -> Response:
    """The answer to somebody who has to prove it again: the page that asks."""
    assert isinstance(error, NotVerified)
    if wants_json(request):
        return JSONResponse({"error": error.detail}, status_code=403)
    return RedirectResponse(f"/account/verify?next={quote(_way_back(request), safe='/')}", status_code=303)


@router.get("/account/verify")
def verify_page(
    request: Request, desk: TheDesk, user: SignedIn, next: Annotated[str, Query()] = "/account"
) -> Response:
    """The form."""
    return _page(request, desk, user, local(next))


@router.post("/account/verify")
def verify(request: Request, desk: TheDesk, user: SignedIn, fields: Fields) -> Response:
    """Check it and go on."""
    to = local(fields.get("next", "/account"))
    address, token = network_address(request), session_token(desk, request)
    try:
        with desk.database.write() as session:
            person = users.by_id(session, user.id)
            if second_factor.is_on(person) and fields.get("code"):
                second_factor.check(
                    session,
                    secrets.cipher(desk.settings),
                    person,
                    fields["code"],
                    address=address,
                    action="verified again",
                )
            else:
                passwords.check_password(
                    session,
                    person.email,
                    fields.get("password", ""),
                    address=address,
                    action="verified again",
                )
            token = login_sessions.renew(session, token)
    except InvalidValueError as error:
        if wants_json(request):
            raise
        return _page(request, desk, user, to, problem=str(error))
    return with_cookie(desk, answer(request, to), token)


def _page(request: Request, desk: Desk, user: User, to: str, *, problem: str = "") -> Response:
    with desk.database.read() as session:
        is_linked = any(row.issuer == desk.settings.oidc_issuer for row in identities.of_user(session, user))
    return page(
        request,
        "verify.html",
        status=400 if problem else 200,
        next=to,
        problem=problem,
        has_password=bool(user.password_hash),
        has_second_factor=second_factor.is_on(user),
        oidc_name=desk.settings.oidc_name if is_linked else "",
    )


def _way_back(request: Request) -> str:
    """The page that was asked for, or the one that the form stood on."""
    if request.method == "GET":
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    parts = urlsplit(request.headers.get("referer", ""))
    if parts.netloc.lower() != request.headers.get("host", "").lower():
        return "/account"
    return local(parts.path + (f"?{parts.query}" if parts.query else ""))
