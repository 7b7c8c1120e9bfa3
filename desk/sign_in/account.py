"""One's own account: password, second factor, accounts elsewhere, and the browsers that are signed in."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from briefbox.errors import InvalidValueError
from briefbox.store import identities, login_sessions, passwords, people, users
from briefbox.tables import User
from desk.access import SignedIn, Verified
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.cookies import network_address, session_token, with_cookie
from desk.sign_in.browsers import browser_in_words
from desk.sign_in.roles import ROLES

router = APIRouter()

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

NOTES = {
    "saved": "The password is saved. Other browsers that were signed in as you are signed out.",
    "ended": "That browser is signed out.",
    "others-ended": "You are signed out everywhere else.",
    "linked": "Linked. You can sign in with that account from now on.",
    "unlinked": "No longer linked.",
    "second-factor": "The second factor is on. Signing in asks for a code from now on.",
    "no-second-factor": "The second factor is off. Other browsers that were signed in as you are signed out.",
}


@router.get("/account")
def account_page(request: Request, desk: TheDesk, user: SignedIn, note: str = "") -> Response:
    """Who you are here, and how you sign in."""
    return _account(request, desk, user, note=NOTES.get(note, ""))


@router.post("/account/password")
def change_password(request: Request, desk: TheDesk, user: SignedIn, fields: Fields) -> Response:
    """Set a new password; the old one is asked for where there is one. Ends the other sessions."""
    kept = session_token(desk, request)
    try:
        with desk.database.write() as session:
            person = users.by_id(session, user.id)
            if person.password_hash:
                passwords.check_password(
                    session,
                    person.email,
                    fields.get("old_password", ""),
                    address=network_address(request),
                    action="old password checked",
                )
            elif not request.state.login.is_verified:
                raise InvalidValueError(
                    "It is more than 15 minutes since you signed in, and there is no password to ask for. Sign in once more, then choose one."
                )
            passwords.set_password(session, person, fields.get("password", ""), keep_session=kept)
            token = login_sessions.renew(session, kept)
    except InvalidValueError as error:
        if wants_json(request):
            raise
        return _account(request, desk, user, problem=str(error))
    return with_cookie(desk, answer(request, "/account?note=saved"), token)


@router.post("/account/sessions/{login_id}/end")
def end_session(request: Request, desk: TheDesk, login_id: Id, user: SignedIn) -> Response:
    """Sign one of one's browsers out."""
    with desk.database.write() as session:
        login_sessions.end(session, user, login_id)
    return answer(request, "/account?note=ended")


@router.post("/account/sessions/end-others")
def end_other_sessions(request: Request, desk: TheDesk, user: SignedIn) -> Response:
    """Sign all but this one out."""
    with desk.database.write() as session:
        login_sessions.end_all(session, user, keep=session_token(desk, request), actor=user.email)
    return answer(request, "/account?note=others-ended")


@router.post("/account/identities/{identity_id}/unlink")
def unlink(request: Request, desk: TheDesk, identity_id: Id, user: Verified) -> Response:
    """No longer sign in with an account elsewhere."""
    with desk.database.write() as session:
        identities.unlink(session, users.by_id(session, user.id), identity_id)
    return answer(request, "/account?note=unlinked")


def _account(request: Request, desk: Desk, user: User, *, note: str = "", problem: str = "") -> Response:
    token = session_token(desk, request)
    with desk.database.read() as session:
        person = people.one(session, user.id)
        rows = login_sessions.of_user(session, user, idle_minutes=desk.settings.session_idle_minutes)
        linked = identities.of_user(session, user)
    browsers = [(row, browser_in_words(row.browser), login_sessions.is_this(row, token)) for row in rows]
    return page(
        request,
        "account.html",
        status=400 if problem else 200,
        person=person,
        role=ROLES[user.role],
        browsers=sorted(browsers, key=lambda browser: not browser[2]),
        linked=linked,
        oidc_name=desk.settings.oidc_name if desk.settings.oidc_issuer else "",
        note=note,
        problem=problem,
    )
