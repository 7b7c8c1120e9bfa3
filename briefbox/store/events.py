"""What is told to webhooks: written in the transaction of what happened, so that neither is without the other.

    brief.made, conversation.changed, mailbox.stopped, mailbox.recovered, adapter.promoted, adapter.rolled_back

A body holds ids, labels, the headline and links back. What the mail says goes only to webhooks that ask for it.
Where nobody listens this costs a look into a cache: it is called with every change of a conversation.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from sqlalchemy import Pool, bindparam
from sqlmodel import Session, col, select

from briefbox.db import now
from briefbox.schemas import ParsedEmail
from briefbox.store import rows
from briefbox.tables import Adapter, Brief, Conversation, Email, Mailbox, Webhook, WebhookDelivery

EVENTS = {
    "brief.made": "A brief was written",
    "conversation.changed": "A conversation has changed: new mail, labels, state, who has it",
    "mailbox.stopped": "A mailbox can no longer be read",
    "mailbox.recovered": "It is read again",
    "adapter.promoted": "An adapter was put in use",
    "adapter.rolled_back": "The adapter before it is in use again",
}
CHANGED = "conversation.changed"
# Changes of one conversation within this time are told as one.
FOLD = timedelta(seconds=1)
# How long a process may not know of a webhook that another one has added.
LOOK_SECONDS = 2.0
MAX_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class _Listener:
    """A webhook, as far as it is asked with every event."""

    id: int
    events: frozenset[str]
    mailboxes: frozenset[int]  # empty: all
    full: bool

    def wants(self, event: str, mailbox_id: int | None) -> bool:
        if event not in self.events:
            return False
        return mailbox_id is None or not self.mailboxes or mailbox_id in self.mailboxes


_known: WeakKeyDictionary[Pool, tuple[float, list[_Listener]]] = WeakKeyDictionary()


def forget(session: Session) -> None:
    """Webhooks have changed: this process looks at them again."""
    _known.pop(_pool(session), None)


def emit(
    session: Session,
    event: str,
    data: Callable[[bool], dict[str, Any]],
    *,
    mailbox_id: int | None = None,
) -> None:
    """Tell all webhooks that want to know. `data` makes the body, with what the mail says when it is given True."""
    wanting = [one for one in _listeners(session) if one.wants(event, mailbox_id)]
    if not wanting:
        return
    moment, event_id = now(session), _new_id()
    bodies = {full: body_of(event, moment, data(full)) for full in {one.full for one in wanting}}
    for one in wanting:
        session.add(
            WebhookDelivery(
                webhook_id=one.id,
                event_id=event_id,
                event=event,
                body=bodies[one.full],
                not_before=moment,
                created_at=moment,
            )
        )
    session.flush()


def body_of(event: str, moment: datetime, data: dict[str, Any]) -> str:
    """The body of a message, but for the desk's own address in its links."""
    return json.dumps({"type": event, "timestamp": moment.isoformat(), "data": data}, ensure_ascii=False)


def with_address(body: str, address: str) -> str:
    """The body with links that lead to the desk at this address."""
    said = json.loads(body)
    links = said["data"].get("links", {})
    said["data"]["links"] = {
        name: address + link if link.startswith("/") else link for name, link in links.items()
    }
    return json.dumps(said, ensure_ascii=False)


# --- the events


def conversations_changed(session: Session, changed: Sequence[Conversation]) -> None:
    """Something about these is other than before. What waits unsent about one of them gets the newer contents."""
    told = [
        (one, conversation)
        for one in _listeners(session)
        for conversation in changed
        if one.wants(CHANGED, conversation.mailbox_id)
    ]
    if not told:
        return
    session.flush()
    moment = now(session)
    ids = {conversation.id: _new_id() for _, conversation in told}
    waiting = _waiting(session, [_subject(conversation) for _, conversation in told])
    newer, new = [], []
    for one, conversation in told:
        body = body_of(CHANGED, moment, _conversation(session, conversation, full=one.full))
        row = waiting.get((one.id, _subject(conversation)))
        if row is not None:
            newer.append({"row": row, "newer": body})
            continue
        new.append(
            {
                "webhook_id": one.id,
                "event_id": ids[conversation.id],
                "event": CHANGED,
                "subject": _subject(conversation),
                "body": body,
                "not_before": moment + FOLD,
                "created_at": moment,
            }
        )
    if newer:
        table = rows.table_of(WebhookDelivery)
        statement = table.update().where(table.c.id == bindparam("row")).values(body=bindparam("newer"))
        session.connection().execute(statement, newer)
    rows.insert(session, WebhookDelivery, new)


def changed_by_id(session: Session, mailbox_id: int, ids: Sequence[int]) -> None:
    """The same for some of one mailbox, which are read only if somebody wants to know."""
    if ids and any(one.wants(CHANGED, mailbox_id) for one in _listeners(session)):
        found = session.exec(select(Conversation).where(col(Conversation.id).in_(ids)))
        conversations_changed(session, found.all())


def brief_made(session: Session, brief: Brief, conversation: Conversation) -> None:
    """A brief was stored that is shown."""
    emit(
        session,
        "brief.made",
        lambda full: _brief(session, brief, conversation, full=full),
        mailbox_id=conversation.mailbox_id,
    )


def mailbox_event(session: Session, mailbox_id: int, event: str, folder: str, text: str) -> None:
    """A mailbox stopped being read, or is read again."""

    emit(
        session,
        f"mailbox.{event}",
        lambda _full: {
            "mailbox_id": mailbox_id,
            "mailbox": session.get_one(Mailbox, mailbox_id).name,
            "folder": folder,
            "text": text,
            "links": {"desk": "/status", "api": f"/api/v1/mailboxes/{mailbox_id}"},
        },
        mailbox_id=mailbox_id,
    )


def adapter_event(
    session: Session, event: str, before: Adapter | None, after: Adapter | None, actor: str
) -> None:
    """Another adapter is in use."""
    came, went = after.name if after else "", before.name if before else ""
    links = {"desk": "/training", "api": f"/api/v1/adapters/{came}" if came else "/api/v1/adapters"}
    said = {"adapter": came, "before": went, "actor": actor, "links": links}
    emit(session, f"adapter.{event}", lambda _full: said)


# --- parts


def _conversation(session: Session, row: Conversation, *, full: bool) -> dict[str, Any]:
    said = {
        "conversation_id": row.id,
        "mailbox_id": row.mailbox_id,
        "mailbox": session.get_one(Mailbox, row.mailbox_id).name,
        "state": row.state,
        "priority": row.priority,
        "category": row.category,
        "headline": row.headline,
        "needs_human": list(row.needs_human),
        "assigned_to": row.assigned_to,
        "num_emails": row.num_emails,
        "brief_id": row.brief_id,
        "version": row.version,
        "links": _links(row.id),
    }
    if full:
        said |= {
            "subject": row.subject,
            "customer_name": row.customer_name,
            "customer_address": row.customer_address,
            "summary": row.summary,
        }
    return said


def _brief(session: Session, row: Brief, conversation: Conversation, *, full: bool) -> dict[str, Any]:
    email = session.get_one(Email, row.email_id)
    said = {
        "brief_id": row.id,
        "email_id": row.email_id,
        "message_id": email.message_id,
        "conversation_id": conversation.id,
        "mailbox_id": conversation.mailbox_id,
        "mailbox": session.get_one(Mailbox, conversation.mailbox_id).name,
        "headline": row.headline,
        "priority": row.priority,
        "priority_confidence": row.priority_confidence,
        "category": row.category,
        "category_confidence": row.category_confidence,
        "needs_human": list(row.needs_human),
        "language": row.language,
        "adapter": row.adapter,
        "links": _links(conversation.id),
    }
    if full:
        parsed = ParsedEmail.model_validate(email.parsed)
        said |= {
            "summary": row.summary,
            "subject": email.subject,
            "from_name": email.from_name,
            "from_address": email.from_address,
            "text": parsed.reply[:MAX_TEXT],
        }
    return said


def _links(conversation_id: int) -> dict[str, str]:
    path = f"/conversations/{conversation_id}"
    return {"desk": path, "api": f"/api/v1{path}"}


def _waiting(session: Session, subjects: Sequence[str]) -> dict[tuple[int, str], int]:
    """What nobody has begun to send, held until the commit: row ids by webhook and subject."""
    query = select(WebhookDelivery.webhook_id, WebhookDelivery.subject, WebhookDelivery.id).where(
        col(WebhookDelivery.subject).in_(subjects),
        WebhookDelivery.state == "waiting",
        WebhookDelivery.attempts == 0,
        WebhookDelivery.event == CHANGED,
        col(WebhookDelivery.replay_of).is_(None),
    )
    return {(webhook, subject): id_ for webhook, subject, id_ in session.exec(query.with_for_update())}


def _subject(conversation: Conversation) -> str:
    return f"conversation {conversation.id}"


def _new_id() -> str:
    return f"evt_{uuid4().hex}"


def _listeners(session: Session) -> list[_Listener]:
    pool = _pool(session)
    found = _known.get(pool)
    if found is None or found[0] < monotonic():
        with session.no_autoflush:
            hooks = session.exec(select(Webhook).where(col(Webhook.disabled_at).is_(None))).all()
        listeners = [_Listener(w.id, frozenset(w.events), frozenset(w.mailbox_ids), w.full) for w in hooks]
        found = _known[pool] = monotonic() + LOOK_SECONDS, listeners
    return found[1]


def _pool(session: Session) -> Pool:
    # Reading and writing sessions have engines of their own, which share their pool.
    return session.get_bind().engine.pool
