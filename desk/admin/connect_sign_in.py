"""The sign-in with a code: the page shows it, waits, and asks the provider again each time it refreshes itself."""

from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.connecting import SignInCode
from briefbox.db import now
from briefbox.errors import InvalidValueError, MailboxError
from briefbox.store import drafts, secrets
from briefbox.tables import MailboxDraft, User
from desk.access import Admin
from desk.admin.connect import PREFIX, tell, test, to
from desk.admin.connect_draft import Key, tools_of
from desk.context import Desk, TheDesk, page

router = APIRouter(prefix=PREFIX)

MIN_SECONDS, MAX_SECONDS = 3.0, 30.0


@router.get("/{key}/sign-in")
def sign_in_page(request: Request, desk: TheDesk, key: Key, user: Admin) -> Response:
    """The address and the code. Asked from here, since the person's click is elsewhere; how often is the provider's word."""
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        code = draft.facts.get("code")
        if not code:
            return to(key, "server")
        is_due = _is_due(session, draft, code)
    try:
        if is_due and _is_signed_in(desk, key, user):
            return to(key, test(desk, key, user))
    except (InvalidValueError, MailboxError) as error:
        tell(desk, key, user, error)
        return to(key, "server")
    seconds = round(min(max(code["interval"], MIN_SECONDS), MAX_SECONDS))
    response = page(request, "connect_sign_in.html", draft=draft, code=code, seconds=seconds)
    response.headers["Refresh"] = str(seconds)
    return response


def _is_due(session: Session, draft: MailboxDraft, code: dict[str, Any]) -> bool:
    """Whether the provider may be asked again; noted at once, so that of several pages one asks."""
    moment, last = now(session), draft.facts.get("code_at")
    wait = timedelta(seconds=max(code["interval"] - 1, MIN_SECONDS - 1))
    if last and moment - datetime.fromisoformat(last) < wait:
        return False
    drafts.change(session, draft, facts={"code_at": moment.isoformat()})
    # The first look is at once: nobody can have signed in yet.
    return bool(last)


def _is_signed_in(desk: Desk, key: str, user: User) -> bool:
    cipher = secrets.cipher(desk.settings)
    with desk.database.read() as session:
        draft = drafts.get(session, key, user)
        kept, code = drafts.secret(draft, cipher), draft.facts["code"]
    tokens = tools_of(desk).signed_in(
        draft.values["oauth"],
        kept.get("client_secret", ""),
        SignInCode(device_code=kept["device_code"], **code),
    )
    if tokens is None:
        return False
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        kept.pop("device_code")
        drafts.keep_secret(session, draft, cipher, {**kept, "tokens": tokens})
        drafts.change(session, draft, facts={"code": None})
    return True
