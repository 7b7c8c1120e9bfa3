"""The dry run: briefs of the ten newest mails, written by a worker, shown once, and stored nowhere."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.errors import InvalidValueError, MailboxError
from briefbox.queue import hints_for
from briefbox.store import drafts, processes, secrets, trials, work
from briefbox.store.trials import Outcome
from briefbox.tables import MailboxDraft
from desk.access import Admin
from desk.admin.connect import PREFIX, tell, to
from desk.admin.connect_draft import Key, found_of, mailbox_of, tools_of
from desk.context import TheDesk, page

router = APIRouter(prefix=PREFIX)

NUM_TRIED = 10
REFRESH_SECONDS = 2


@router.get("/{key}/try")
def trial_page(request: Request, desk: TheDesk, key: Key, user: Admin) -> Response:
    """The briefs, or how long they take, or why there are none."""
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        if found_of(draft) is None:
            return to(key, "server")
        outcome = _outcome(session, draft, desk.settings)
        response = page(
            request,
            "connect_try.html",
            draft=draft,
            outcome=outcome,
            trouble=draft.facts.get("trouble", ""),
            tried=draft.facts.get("tried"),
            shown=_shown(draft, outcome),
            has_worker=any(row.kind == "worker" and is_alive for row, is_alive in processes.all_of(session)),
            number=NUM_TRIED,
        )
    if outcome.state in ("waiting", "running"):
        response.headers["Refresh"] = str(REFRESH_SECONDS)
    return response


@router.post("/{key}/try")
def try_it(desk: TheDesk, key: Key, user: Admin) -> Response:
    """Fetch the newest mails and offer them to a worker."""
    with desk.database.read() as session:
        draft = drafts.get(session, key, user)
        row, categories = mailbox_of(draft, desk.settings), work.active_categories(session)
    try:
        wanted = tools_of(desk).newest_requests(row, categories, limit=NUM_TRIED)
    except (InvalidValueError, MailboxError) as error:
        tell(desk, key, user, error)
        return to(key, "try")
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        if old := draft.facts.get("trial"):
            trials.forget(session, old)
        trial = trials.create(session, secrets.cipher(desk.settings), wanted) if wanted else ""
        tried = [{"subject": request.subject, "sender": request.sender} for request in wanted]
        drafts.change(session, draft, facts={"trial": trial, "tried": tried, "trouble": ""})
    if wanted:
        hints_for(desk.settings).brief([0])
    return to(key, "try")


def _outcome(session: Session, draft: MailboxDraft, settings: Any) -> Outcome:
    key = draft.facts.get("trial")
    if not key:
        return Outcome("none")
    outcome = trials.take(session, secrets.cipher(settings), key)
    if outcome.state in ("done", "failed"):
        drafts.change(session, draft, facts={"trial": ""})
    return outcome


def _shown(draft: MailboxDraft, outcome: Outcome) -> list[tuple[dict[str, str], Any]]:
    tried = draft.facts.get("tried") or []
    return list(zip(tried, outcome.briefs, strict=False))
