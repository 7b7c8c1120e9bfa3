"""Signing in with an account of an OpenID provider, linking one to oneself, and taking an invitation up with one.

What has to be remembered while the browser is at the provider lies sealed in a cookie of ten minutes, so that any desk
process can take the answer. The provider sends the browser back by GET; that request opens a session (or renews the proof
of who one is), and `state` in that cookie is what shows that this browser asked for it. Linking is a form of its own after
it: a link that somebody lures you to must not give them a way into your account.
"""

import hmac
import json
import time
from dataclasses import asdict, dataclass
from secrets import token_urlsafe
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from briefbox.errors import InvalidValueError, NotFoundError, SettingsError
from briefbox.store import audit_log, identities, login_sessions, second_factor, secrets, users
from desk.access import SignedIn, Verified
from desk.context import Desk, Fields, TheDesk, answer, page
from desk.cookies import local, network_address, session_token, with_cookie
from desk.sign_in import oidc_client
from desk.sign_in.entry import enter
from desk.sign_in.oidc_client import Account, ProviderError

public = APIRouter()
router = APIRouter()

BACK = "/sign-in/oidc/back"
LIFE_SECONDS = 600
UNKNOWN = "Nobody here signs in with that account yet. Sign in with your password or a link first, then link it on the page of your account."
BROKEN_OFF = "This sign-in took too long or was begun in another browser. Begin again."


@dataclass(frozen=True, slots=True)
class Errand:
    """Why a browser was sent to the provider."""

    purpose: str  # sign-in, link, invitation, verify
    made: int
    state: str
    nonce: str
    verifier: str
    next: str = "/"
    link: str = ""  # the invitation's token
    user_id: int = 0  # who was signed in


# --- there


@public.get("/sign-in/oidc")
def begin_sign_in(
    request: Request,
    desk: TheDesk,
    next: Annotated[str, Query()] = "/",
    link: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Send the browser to the provider, to sign in or (`link`) to take an invitation up."""
    errand = _errand("invitation" if link else "sign-in", next=local(next), link=link)
    return _send(request, desk, errand)


@router.get("/account/identities/start")
def begin_link(request: Request, desk: TheDesk, user: Verified) -> Response:
    """The same, to link an account to one's own."""
    return _send(request, desk, _errand("link", user_id=user.id))


@router.get("/account/verify/oidc")
def begin_verify(
    request: Request, desk: TheDesk, user: SignedIn, next: Annotated[str, Query()] = "/account"
) -> Response:
    """The same, to prove who one is."""
    return _send(request, desk, _errand("verify", next=local(next), user_id=user.id))


def _send(request: Request, desk: Desk, errand: Errand) -> Response:
    _check_on(desk)
    try:
        provider = oidc_client.discover(desk.settings)
    except ProviderError as error:
        return _refuse(request, str(error), status=503)
    url = oidc_client.authorize_url(
        desk.settings,
        provider,
        back=_back(desk),
        state=errand.state,
        nonce=errand.nonce,
        verifier=errand.verifier,
        fresh=errand.purpose == "verify",
    )
    response = RedirectResponse(url, status_code=303)
    response.set_cookie(
        _cookie_name(desk),
        _seal(desk, "oidc errand", asdict(errand)),
        max_age=LIFE_SECONDS,
        path="/",
        secure=desk.https,
        httponly=True,
        samesite="lax",
    )
    return response


# --- and back


@public.get(BACK)
def come_back(
    request: Request,
    desk: TheDesk,
    state: Annotated[str, Query(max_length=500)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """The browser comes from the provider."""
    _check_on(desk)
    response = _come_back(request, desk, state=state, code=code, refused=error)
    response.delete_cookie(_cookie_name(desk), path="/", secure=desk.https, httponly=True, samesite="lax")
    return response


def _come_back(request: Request, desk: Desk, *, state: str, code: str, refused: str) -> Response:
    errand = _errand_of(desk, request)
    if errand is None or not hmac.compare_digest(errand.state.encode(), state.encode("utf-8", "replace")):
        return _refuse(request, BROKEN_OFF, status=400)
    if refused or not code:
        return _refuse(request, f"{desk.settings.oidc_name} did not sign you in.", status=403)
    try:
        account = oidc_client.redeem(
            desk.settings,
            back=_back(desk),
            code=code,
            nonce=errand.nonce,
            verifier=errand.verifier,
            fresh=errand.purpose == "verify",
        )
    except ProviderError as error:
        return _refuse(request, str(error), status=503)
    if errand.purpose == "sign-in":
        return _sign_in(request, desk, errand, account)
    if errand.purpose == "verify":
        return _verify(request, desk, errand, account)
    return _ask_to_link(request, desk, errand, account)


def _sign_in(request: Request, desk: Desk, errand: Errand, account: Account) -> Response:
    with desk.database.write() as session:
        user = identities.find_user(session, account.issuer, account.subject)
        about = {"issuer": account.issuer, "subject": account.subject, "address": network_address(request)}
        if user is None:
            audit_log.record(session, account.subject, "sign-in refused", account.issuer, **about)
        else:
            action = "account elsewhere accepted" if second_factor.is_on(user) else "signed in"
            audit_log.record(session, user.email, action, user.email, **about)
            entry = enter(desk, request, session, user)
    if user is None:
        return _refuse(request, UNKNOWN, status=403)
    return entry.answer(desk, request, errand.next)


def _verify(request: Request, desk: Desk, errand: Errand, account: Account) -> Response:
    kept = session_token(desk, request)
    with desk.database.write() as session:
        user = identities.find_user(session, account.issuer, account.subject)
        login = login_sessions.current(session, kept, idle_minutes=desk.settings.session_idle_minutes)
        if login is None or user is None or not user.id == login.user.id == errand.user_id:
            return _refuse(request, "That account is not linked to yours.", status=403)
        address = network_address(request)
        audit_log.record(session, user.email, "verified again", user.email, address=address)
        token = login_sessions.renew(session, kept)
    return with_cookie(desk, RedirectResponse(errand.next, status_code=303), token)


def _ask_to_link(request: Request, desk: Desk, errand: Errand, account: Account) -> Response:
    with desk.database.read() as session:
        try:
            person = (
                users.peek_link(session, errand.link) if errand.link else users.by_id(session, errand.user_id)
            )
        except NotFoundError as error:
            return _refuse(request, str(error), status=404)
        sealed = _seal(
            desk,
            f"oidc account for {errand.link or errand.user_id}",
            asdict(account) | {"made": int(time.time())},
        )
        return page(
            request,
            "identity.html",
            person=person,
            account=account,
            sealed=sealed,
            action=f"/link/{quote(errand.link)}/account" if errand.link else "/account/identities",
            invited=bool(errand.link),
            oidc_name=desk.settings.oidc_name,
        )


# --- linking


@router.post("/account/identities")
def link(request: Request, desk: TheDesk, user: Verified, fields: Fields) -> Response:
    """Link the account that the browser has just come back with."""
    account = _account(desk, str(user.id), fields.get("sealed", ""))
    with desk.database.write() as session:
        person = users.by_id(session, user.id)
        identities.link(session, person, account.issuer, account.subject)
        token = login_sessions.renew(session, session_token(desk, request))
    return with_cookie(desk, answer(request, "/account?note=linked"), token)


@public.post("/link/{token}/account")
def take_up(request: Request, desk: TheDesk, token: str, fields: Fields) -> Response:
    """Use an invitation up: link the account instead of choosing a password, and sign in."""
    account = _account(desk, token, fields.get("sealed", ""))
    with desk.database.write() as session:
        user = users.use_link(session, token)
        if users.needs_address(user):
            raise InvalidValueError(
                "The first admin chooses a password, so that there is a way in without the provider."
            )
        identities.link(session, user, account.issuer, account.subject)
        entry = enter(desk, request, session, user)
    return entry.answer(desk, request, "/")


def _account(desk: Desk, bound_to: str, sealed: str) -> Account:
    values = _open(desk, f"oidc account for {bound_to}", sealed)
    if values is None:
        raise InvalidValueError(BROKEN_OFF)
    return Account(values["issuer"], values["subject"], values["label"])


# --- small parts


def _errand(purpose: str, *, next: str = "/", link: str = "", user_id: int = 0) -> Errand:
    state, nonce, verifier = (token_urlsafe(48) for _ in range(3))
    return Errand(purpose, int(time.time()), state, nonce, verifier, next, link, user_id)


def _errand_of(desk: Desk, request: Request) -> Errand | None:
    values = _open(desk, "oidc errand", request.cookies.get(_cookie_name(desk), ""))
    return None if values is None else Errand(**values)


def _seal(desk: Desk, name: str, values: dict[str, Any]) -> str:
    return secrets.cipher(desk.settings).encrypt(name, json.dumps(values))


def _open(desk: Desk, name: str, sealed: str) -> dict[str, Any] | None:
    """What was sealed under this name within the last ten minutes."""
    try:
        values: dict[str, Any] = json.loads(secrets.cipher(desk.settings).decrypt(name, sealed))
    except SettingsError:
        return None
    return values if time.time() - values["made"] < LIFE_SECONDS else None


def _refuse(request: Request, sentence: str, *, status: int) -> Response:
    return page(request, "oidc_refused.html", status=status, sentence=sentence)


def _check_on(desk: Desk) -> None:
    if not desk.settings.oidc_issuer:
        raise HTTPException(
            404, "Signing in with an account elsewhere is not set up here (BRIEFBOX_OIDC_ISSUER)."
        )


def _back(desk: Desk) -> str:
    return desk.settings.desk_address + BACK


def _cookie_name(desk: Desk) -> str:
    return "__Host-briefbox-oidc" if desk.https else "briefbox-oidc"
