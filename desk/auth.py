"""Signing in and out: with a password, or with a one-time link from an admin.

Opening a link does not use it up, because mail scanners open links too; the button on its page does.
"""

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.store import users
from briefbox.tables import User
from desk.access import SignedIn, cookie_name, session_token
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json

# Reached without a session; everything else is included with `access.signed_in` (desk/app.py).
public = APIRouter()
router = APIRouter()


# --- with a password


@public.get("/sign-in")
def sign_in_page(request: Request, next: Annotated[str, Query()] = "/") -> Response:
    """The form."""
    return page(request, "sign_in.html", next=local(next), email="", problem="")


@public.post("/sign-in")
def sign_in(request: Request, desk: TheDesk, fields: Fields) -> Response:
    """Check the password, open a session, go to where the person wanted to be."""
    email, address = fields.get("email", ""), _address(request)
    to = local(fields.get("next", "/"))

    def refuse(status: int, sentence: str) -> Response:
        return page(request, "sign_in.html", status=status, next=to, email=email[:200], problem=sentence)

    # Looked up first without the right to write: a flood of guesses must not take turns with ingest.
    with desk.database.read() as session:
        until = users.locked_until(session, email, address=address)
        if until is not None:
            remaining = until - now(session)
            refusal = refuse(429, users.locked_sentence(remaining))
            refusal.headers["Retry-After"] = str(max(1, int(remaining.total_seconds())))
            return refusal
    try:
        with desk.database.write() as session:
            user = users.check_password(session, email, fields.get("password", ""), address=address)
            token = _new_session(desk, request, session, user)
    except InvalidValueError as error:
        return refuse(401, str(error))
    return _with_cookie(desk, RedirectResponse(to, status_code=303), token)


@router.post("/sign-out")
def sign_out(request: Request, desk: TheDesk) -> Response:
    """End the session here and in the database."""
    with desk.database.write() as session:
        users.close_session(session, session_token(desk, request))
    response = answer(request, "/sign-in")
    response.delete_cookie(cookie_name(desk), path="/", secure=desk.https, httponly=True, samesite="lax")
    return response


# --- with a one-time link


@public.get("/link/{token}")
def link_page(request: Request, desk: TheDesk, token: str) -> Response:
    """Who you are, and the choice: a password now, or later. Does not use the link up."""
    with desk.database.read() as session:
        person = users.peek_link(session, token)
        return page(request, "link.html", person=person, has_password=bool(person.password_hash), problem="")


@public.post("/link/{token}")
def use_link(request: Request, desk: TheDesk, token: str, fields: Fields) -> Response:
    """Use the link up: set the password if one is given, and sign in."""
    password = fields.get("password", "")
    try:
        with desk.database.write() as session:
            user = users.use_link(session, token)
            if "password" in fields or user.password_hash:
                users.set_password(session, user, password)
            session_token = _new_session(desk, request, session, user)
    except InvalidValueError as error:  # rolled back: the link is still good
        if wants_json(request):
            raise
        with desk.database.read() as session:
            person = users.peek_link(session, token)
            has_password = bool(person.password_hash)
            return page(
                request, "link.html", status=400, person=person, has_password=has_password, problem=str(error)
            )
    return _with_cookie(desk, answer(request, "/"), session_token)


# --- one's own account


@router.get("/account")
def account_page(request: Request, desk: TheDesk, user: SignedIn) -> Response:
    """Name, address, role, and the password form."""
    return _account(request, desk, user, said="saved" in request.query_params)


@router.post("/account/password")
def change_password(request: Request, desk: TheDesk, user: SignedIn, fields: Fields) -> Response:
    """Set a new password; the old one is asked for where there is one. Ends the other sessions."""
    try:
        with desk.database.write() as session:
            person = users.get(session, user.email)
            if person.password_hash:
                users.check_password(
                    session,
                    person.email,
                    fields.get("old_password", ""),
                    address=_address(request),
                    action="old password checked",
                )
            users.set_password(
                session, person, fields.get("password", ""), keep_session=session_token(desk, request)
            )
    except InvalidValueError as error:
        if wants_json(request):
            raise
        return _account(request, desk, user, problem=str(error))
    return answer(request, "/account?saved")


def _account(request: Request, desk: Desk, user: User, *, said: bool = False, problem: str = "") -> Response:
    with desk.database.read() as session:
        num_sessions = users.num_sessions(session, user)
    return page(
        request,
        "account.html",
        status=400 if problem else 200,
        num_sessions=num_sessions,
        has_password=bool(user.password_hash),
        said=said,
        problem=problem,
    )


# --- small parts


def local(target: str) -> str:
    """A path on this desk, whatever a link asks for: nobody is sent to another site after signing in."""
    parts = urlsplit(target) if target.isprintable() and "\\" not in target else None
    if parts is None or parts.scheme or parts.netloc or not target.startswith("/") or target.startswith("//"):
        return "/"
    return quote(parts.path, safe="/%") + (f"?{parts.query}" if parts.query else "")


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _new_session(desk: Desk, request: Request, session: Session, user: User) -> str:
    old = session_token(desk, request)
    if old:
        users.close_session(session, old)
    return users.open_session(session, user, hours=desk.settings.session_hours)


def _with_cookie(desk: Desk, response: Response, token: str) -> Response:
    response.set_cookie(
        cookie_name(desk),
        token,
        max_age=int(desk.settings.session_hours * 3600),
        path="/",
        secure=desk.https,
        httponly=True,
        samesite="lax",
    )
    return response
