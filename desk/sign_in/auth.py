"""Signing in and out: with a password, or with a one-time link from an admin; then the second factor, where there is one.

Opening a link does not use it up, because mail scanners open links too; the button on its page does.
Signing in with an account of an OpenID provider is desk/sign_in/oidc.py.
"""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError
from briefbox.store import login_sessions, passwords, second_factor, secrets, throttle, users
from briefbox.tables import User
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.cookies import local, network_address, session_token, without_cookie
from desk.sign_in.entry import enter

# Reached without a session; everything else is included with `access.signed_in` (desk/app.py).
public = APIRouter()
router = APIRouter()


# --- with a password


@public.get("/sign-in")
def sign_in_page(request: Request, desk: TheDesk, next: Annotated[str, Query()] = "/") -> Response:
    """The form."""
    return _sign_in_page(request, desk, next=local(next))


@public.post("/sign-in")
def sign_in(request: Request, desk: TheDesk, fields: Fields) -> Response:
    """Check the password, open a session, go to where the person wanted to be."""
    email, address = fields.get("email", ""), network_address(request)
    to = local(fields.get("next", "/"))

    def refuse(status: int, sentence: str) -> Response:
        return _sign_in_page(request, desk, status=status, next=to, email=email[:200], problem=sentence)

    # Looked up first without the right to write: a flood of guesses must not take turns with ingest.
    wait = _wait(desk, email, address)
    if wait:
        return _with_wait(refuse(429, throttle.locked_sentence(timedelta(seconds=wait))), wait)
    try:
        with desk.database.write() as session:
            user = passwords.check_password(session, email, fields.get("password", ""), address=address)
            entry = enter(desk, request, session, user)
    except InvalidValueError as error:
        return refuse(401, str(error))
    return entry.answer(desk, request, to)


def _sign_in_page(
    request: Request,
    desk: Desk,
    *,
    status: int = 200,
    next: str = "/",
    email: str = "",
    problem: str = "",
) -> Response:
    name = desk.settings.oidc_name if desk.settings.oidc_issuer else ""
    return page(
        request, "sign_in.html", status=status, next=next, email=email, problem=problem, oidc_name=name
    )


@router.post("/sign-out")
def sign_out(request: Request, desk: TheDesk) -> Response:
    """End the session here and in the database."""
    with desk.database.write() as session:
        login_sessions.close_session(session, session_token(desk, request))
    return without_cookie(desk, answer(request, "/sign-in"))


# --- the second factor


@public.get("/sign-in/code")
def code_page(request: Request, desk: TheDesk, next: Annotated[str, Query()] = "/") -> Response:
    """Asks for the code, after the password; nobody is signed in yet."""
    with desk.database.read() as session:
        user = login_sessions.pending_user(session, session_token(desk, request))
    if user is None:
        return RedirectResponse("/sign-in", status_code=303)
    return page(request, "code.html", next=local(next), problem="", person=user)


@public.post("/sign-in/code")
def check_code(request: Request, desk: TheDesk, fields: Fields) -> Response:
    """Check it, and sign in under a new token."""
    to, token = local(fields.get("next", "/")), session_token(desk, request)
    address = network_address(request)
    with desk.database.read() as session:
        user = login_sessions.pending_user(session, token)
    if user is None:
        return RedirectResponse("/sign-in", status_code=303)

    def refuse(status: int, sentence: str) -> Response:
        return page(request, "code.html", status=status, next=to, problem=sentence, person=user)

    wait = _wait(desk, user.email, address)
    if wait:
        return _with_wait(refuse(429, throttle.locked_sentence(timedelta(seconds=wait))), wait)
    cipher = secrets.cipher(desk.settings)
    try:
        with desk.database.write() as session:
            person = users.by_id(session, user.id)
            code = fields.get("code", "")
            second_factor.check(session, cipher, person, code, address=address, action="signed in")
            entry = enter(desk, request, session, person, proved=True)
    except InvalidValueError as error:
        return refuse(401, str(error))
    return entry.answer(desk, request, to)


# --- with a one-time link


@public.get("/link/{token}")
def link_page(request: Request, desk: TheDesk, token: str) -> Response:
    """Who you are, and the choice: a password now, or later. Does not use the link up."""
    with desk.database.read() as session:
        person = users.peek_link(session, token)
        return _link_page(request, desk, token, person, {})


@public.post("/link/{token}")
def use_link(request: Request, desk: TheDesk, token: str, fields: Fields) -> Response:
    """Use the link up: set the password if one is given, and sign in."""
    try:
        with desk.database.write() as session:
            user = users.use_link(session, token)
            first = users.needs_address(user)
            if first:
                users.introduce(session, user, email=fields.get("email", ""), name=fields.get("name", ""))
            if first or "password" in fields or user.password_hash:
                passwords.set_password(session, user, fields.get("password", ""))
            entry = enter(desk, request, session, user)
    except (InvalidValueError, ConflictError) as error:  # rolled back: the link is still good
        if wants_json(request):
            raise
        with desk.database.read() as session:
            person = users.peek_link(session, token)
            return _link_page(request, desk, token, person, fields, problem=str(error))
    # The first admin's first step; everybody else works in the queue.
    return entry.answer(desk, request, "/admin/mailboxes" if first else "/")


def _link_page(
    request: Request, desk: Desk, token: str, person: User, typed: dict[str, str], *, problem: str = ""
) -> Response:
    return page(
        request,
        "set_up.html" if users.needs_address(person) else "link.html",
        status=400 if problem else 200,
        person=person,
        token=token,
        has_password=bool(person.password_hash),
        problem=problem,
        email=typed.get("email", "")[:200],
        name=typed.get("name", "")[:200],
        oidc_name=desk.settings.oidc_name if desk.settings.oidc_issuer else "",
    )


# --- the brake


def _wait(desk: Desk, account: str, address: str) -> int:
    """For how many seconds sign-ins to this account or from this network address wait."""
    with desk.database.read() as session:
        until = throttle.locked_until(session, account, address=address)
        return 0 if until is None else max(1, int((until - now(session)).total_seconds()))


def _with_wait(response: Response, seconds: int) -> Response:
    response.headers["Retry-After"] = str(seconds)
    return response
