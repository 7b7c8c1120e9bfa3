"""Webhooks, for admins: who is told what, the secret shown once, the log, sending again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError
from briefbox.store import events, mailboxes, secrets
from briefbox.store import webhooks as store
from briefbox.tables import Webhook, WebhookDelivery
from desk.access import Admin, admin, verified
from desk.admin.webhook_sender import target
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json

router = APIRouter(prefix="/admin/webhooks", dependencies=[Depends(admin)])

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
PAGE_SIZE = 30
NOTES = {
    "tested": "The test is on its way; the log below shows the answer in a moment.",
    "again": "It is on its way again.",
    "disabled": "Switched off: it is told nothing.",
    "enabled": "Switched on: it is told what happens from now on.",
    "none": "Nothing of that time has failed that was not sent again already.",
}


@dataclass(frozen=True, slots=True)
class Entered:
    """What stands in the form for a new webhook."""

    name: str = ""
    url: str = ""
    events: Sequence[str] = ()
    mailboxes: Sequence[int] = ()
    full: bool = False


@dataclass(frozen=True, slots=True)
class WebhookView:
    """A webhook with the state of what it was told."""

    webhook: Webhook
    counts: dict[str, int] = field(default_factory=dict)


@router.get("")
def webhooks_page(request: Request, desk: TheDesk, user: Admin) -> Response:
    """All of them, and a form for a new one."""
    return _list(request, desk)


@router.post("", dependencies=[Depends(verified)])
async def add(request: Request, desk: TheDesk, user: Admin) -> Response:
    """Add one. Its secret is shown in this answer and never again."""
    entered = _entered(await request.form(max_files=0, max_fields=200))
    try:
        target(entered.url, desk.settings.private_networks)
        with desk.database.write() as session:
            row, secret = store.add(
                session,
                secrets.cipher(desk.settings),
                name=entered.name,
                url=entered.url,
                wanted=entered.events,
                mailbox_ids=entered.mailboxes,
                full=entered.full,
                actor=user.email,
            )
    except (InvalidValueError, ConflictError) as error:
        if wants_json(request):
            raise
        return _list(request, desk, entered=entered, problem=str(error))
    return _one(request, desk, row.id, secret=secret)


@router.get("/{webhook_id}")
def webhook_page(
    request: Request,
    desk: TheDesk,
    webhook_id: Id,
    user: Admin,
    note: str = "",
    sent: Annotated[int, Query(ge=0, le=10**9)] = 0,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """One, with its log."""
    said = NOTES.get(note, "")
    if note == "again" and sent > 1:
        said = f"{sent} messages are on their way again."
    return _one(request, desk, webhook_id, note=said, before=before)


@router.post("/{webhook_id}/test")
def test(request: Request, desk: TheDesk, webhook_id: Id, user: Admin) -> Response:
    """Send it a message that means nothing."""
    with desk.database.write() as session:
        store.test(session, webhook_id, actor=user.email)
    return answer(request, f"/admin/webhooks/{webhook_id}?note=tested")


@router.post("/{webhook_id}/secret", dependencies=[Depends(verified)])
def new_secret(request: Request, desk: TheDesk, webhook_id: Id, user: Admin) -> Response:
    """Another secret, shown once; the one before it is good for a day."""
    with desk.database.write() as session:
        secret = store.new_secret(session, secrets.cipher(desk.settings), webhook_id, actor=user.email)
    return _one(request, desk, webhook_id, secret=secret)


@router.post("/{webhook_id}/disable")
def disable(request: Request, desk: TheDesk, webhook_id: Id, user: Admin) -> Response:
    """Tell it nothing more."""
    with desk.database.write() as session:
        store.disable(session, webhook_id, f"{user.email} switched it off.", actor=user.email)
    return answer(request, f"/admin/webhooks/{webhook_id}?note=disabled")


@router.post("/{webhook_id}/enable")
def enable(request: Request, desk: TheDesk, webhook_id: Id, user: Admin) -> Response:
    """Tell it again."""
    with desk.database.write() as session:
        store.enable(session, webhook_id, actor=user.email)
    return answer(request, f"/admin/webhooks/{webhook_id}?note=enabled")


@router.post("/{webhook_id}/replay")
def replay_failed(request: Request, desk: TheDesk, webhook_id: Id, user: Admin, fields: Fields) -> Response:
    """Send again all that failed since a time."""
    text = fields.get("since", "")
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValueError(
            f"since: “{text[:40]}” is no time; expected one like 2026-11-24T09:00 (UTC)."
        ) from None
    since = since.replace(tzinfo=UTC) if since.tzinfo is None else since
    with desk.database.write() as session:
        sent = store.replay_failed(session, webhook_id, since, actor=user.email)
    note = "again" if sent else "none"
    return answer(request, f"/admin/webhooks/{webhook_id}?note={note}&sent={sent}", sent=sent)


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay")
def replay(request: Request, desk: TheDesk, webhook_id: Id, delivery_id: Id, user: Admin) -> Response:
    """Send one again."""
    with desk.database.write() as session:
        store.replay(session, webhook_id, delivery_id, actor=user.email)
    return answer(request, f"/admin/webhooks/{webhook_id}?note=again")


# --- the pages


def _list(request: Request, desk: Desk, *, entered: Entered = Entered(), problem: str = "") -> Response:
    with desk.database.read() as session:
        counts = store.counts(session)
        return page(
            request,
            "webhooks.html",
            status=400 if problem else 200,
            webhooks=[WebhookView(row, counts.get(row.id, {})) for row in store.all_of(session)],
            entered=entered,
            problem=problem,
            events=events.EVENTS,
            mailboxes=mailboxes.active(session),
        )


def _one(
    request: Request,
    desk: Desk,
    webhook_id: int,
    *,
    note: str = "",
    secret: str = "",
    before: int | None = None,
) -> Response:
    with desk.database.read() as session:
        row = store.get(session, webhook_id)
        found = store.deliveries(session, webhook_id, before=before, limit=PAGE_SIZE + 1)
        shown, moment = found[:PAGE_SIZE], now(session)
        return page(
            request,
            "webhook.html",
            webhook=row,
            counts=store.counts(session).get(webhook_id, {}),
            note=note,
            secret=secret,
            old_until=row.old_secret_until if _is_ahead(row.old_secret_until, moment) else None,
            mailboxes=[m.name for m in mailboxes.get_many(session, row.mailbox_ids)],
            deliveries=shown,
            before=before,
            more=shown[-1].id if len(found) > PAGE_SIZE else None,
            yesterday=f"{moment - timedelta(days=1):%Y-%m-%dT%H:%M}",
            state_words=_state_words,
        )


def _is_ahead(until: datetime | None, moment: datetime) -> bool:
    return until is not None and until > moment


def _state_words(row: WebhookDelivery) -> str:
    """How one delivery stands, in words."""
    answered = f"answered {row.status}" if row.status is not None else "no answer"
    if row.state == "done":
        return f"delivered, {answered}"
    if row.state == "failed":
        return f"failed after {row.attempts} {'try' if row.attempts == 1 else 'tries'}, {answered}"
    if not row.attempts:
        return "waits to be sent"
    return f"{answered}; try {row.attempts + 1} follows" if row.state == "waiting" else "is being sent"


def _entered(form: FormData) -> Entered:
    def texts(name: str) -> list[str]:
        return [value for value in form.getlist(name) if isinstance(value, str)]

    def text(name: str) -> Any:
        return next(iter(texts(name)), "").replace("\0", "").strip()

    return Entered(
        name=text("name"),
        url=text("url"),
        events=texts("event"),
        mailboxes=[int(x) for x in texts("mailbox") if x.isascii() and x.isdigit() and len(x) < 10],
        full=text("full") == "yes",
    )
