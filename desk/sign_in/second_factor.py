"""Setting a second factor up, its recovery codes, and taking it away. Who does it proves first who they are.

Codes are shown in the answer to the form itself and never again, so that here no redirect follows.
"""

import segno
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from briefbox.errors import InvalidValueError
from briefbox.store import login_sessions, secrets, users
from briefbox.store import second_factor as store
from briefbox.tables import User
from desk.access import SecondFactorNeeded, Verified
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.cookies import needs_second_factor, session_token, with_cookie

router = APIRouter(prefix="/account/second-factor")


async def set_up_first(request: Request, error: Exception) -> Response:
    """The answer to somebody who needs a second factor and has none: the page that sets it up."""
    assert isinstance(error, SecondFactorNeeded)
    if wants_json(request):
        return JSONResponse({"error": error.detail}, status_code=403)
    return RedirectResponse("/account/second-factor", status_code=303)


@router.get("")
def second_factor_page(request: Request, desk: TheDesk, user: Verified) -> Response:
    """The square to scan, or what there is already."""
    with desk.database.read() as session:
        sealed = "" if store.is_on(user) else store.offer(session, secrets.cipher(desk.settings), user)
    return _page(request, desk, user, sealed)


@router.post("")
def turn_on(request: Request, desk: TheDesk, user: Verified, fields: Fields) -> Response:
    """After a first right code: on, and the recovery codes."""
    cipher, sealed = secrets.cipher(desk.settings), fields.get("sealed", "")
    try:
        with desk.database.write() as session:
            person = users.by_id(session, user.id)
            secret = store.opened(session, cipher, person, sealed)
            codes = store.turn_on(session, cipher, person, secret, fields.get("code", ""))
            token = login_sessions.renew(session, session_token(desk, request))
    except InvalidValueError as error:
        if wants_json(request):
            raise
        return _page(request, desk, user, sealed, problem=str(error))
    return with_cookie(desk, _codes(request, codes, fresh=True), token)


@router.post("/recovery")
def new_codes(request: Request, desk: TheDesk, user: Verified) -> Response:
    """Ten other recovery codes."""
    with desk.database.write() as session:
        codes = store.new_recovery_codes(session, users.by_id(session, user.id))
    return _codes(request, codes, fresh=False)


@router.post("/remove")
def turn_off(request: Request, desk: TheDesk, user: Verified) -> Response:
    """Off."""
    kept = session_token(desk, request)
    with desk.database.write() as session:
        person = users.by_id(session, user.id)
        store.turn_off(session, person, actor=person.email, keep_session=kept)
        token = login_sessions.renew(session, kept)
    return with_cookie(desk, answer(request, "/account?note=no-second-factor"), token)


def _codes(request: Request, codes: list[str], *, fresh: bool) -> Response:
    if wants_json(request):
        return JSONResponse({"ok": True, "recovery_codes": codes})
    return page(request, "recovery_codes.html", codes=codes, fresh=fresh)


def _page(request: Request, desk: Desk, user: User, sealed: str, *, problem: str = "") -> Response:
    secret = ""
    if sealed:
        try:
            with desk.database.read() as session:
                secret = store.opened(session, secrets.cipher(desk.settings), user, sealed)
        except InvalidValueError:  # too old, or not ours: a new one
            with desk.database.read() as session:
                sealed = store.offer(session, secrets.cipher(desk.settings), user)
                secret = store.opened(session, secrets.cipher(desk.settings), user, sealed)
    return page(
        request,
        "second_factor.html",
        status=400 if problem else 200,
        problem=problem,
        sealed=sealed,
        secret=" ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
        square=_square(store.uri(user, secret)) if secret else "",
        num_codes=len(user.recovery_hashes),
        required=needs_second_factor(desk.settings.require_second_factor, user),
    )


def _square(text: str) -> str:
    """A QR code as an address that the page's policy allows. Dark on white in dark mode too: cameras need it."""
    code = segno.make(text, error="m")
    return code.svg_data_uri(scale=4, border=3, light="#fff")
