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

from sqlalchemy import Pool
from sqlmodel import Session, col, select, update

from briefbox.db import now
from briefbox.schemas import ParsedEmail
from briefbox.tables import Adapter, Brief, Conversation, Email, Mailbox, Webhook, WebhookDelivery

EVENTS = {
    "brief.made": "A brief was written",
    "conversation.changed": "A conversation has changed: new mail, labels, state, who has it",
    "mailbox.stopped": "A mailbox can no longer be read",
    "mailbox.recovered": "It is read again",
    "adapter.promoted": "An adapter was put in use",
    "adapter.rolled_back": "The adapter before it is in use again",
}
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
    subject: str = "",
) -> None:
    """Tell all webhooks that want to know. `data` makes the body, with what the mail says when it is given True.

    What waits unsent with the same `subject` is replaced by the newer one.
    """
    wanting = [one for one in _listeners(session) if one.wants(event, mailbox_id)]
    if not wanting:
        return
    moment, event_id = now(session), f"evt_{uuid4().hex}"
    bodies = {full: body_of(event, moment, data(full)) for full in {one.full for one in wanting}}
    for one in wanting:
        if subject and _replace(session, one.id, event, subject, bodies[one.full]):
            continue
        session.add(
            WebhookDelivery(
                webhook_id=one.id,
                event_id=event_id,
                event=event,
                subject=subject,
                body=bodies[one.full],
                not_before=moment + FOLD if subject else moment,
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


def conversation_changed(session: Session, conversation: Conversation) -> None:
    """Something about a conversation is other than before."""
    emit(
        session,
        "conversation.changed",
        lambda full: _conversation(session, conversation, full=full),
        mailbox_id=conversation.mailbox_id,
        subject=f"conversation {conversation.id}",
    )


def conversations_changed(session: Session, mailbox_id: int, ids: Sequence[int]) -> None:
    """The same for several of one mailbox, which are read only if somebody wants to know."""
    if not ids or not any(one.wants("conversation.changed", mailbox_id) for one in _listeners(session)):
        return
    for conversation in session.exec(select(Conversation).where(col(Conversation.id).in_(ids))).all():
        conversation_changed(session, conversation)


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


def _replace(session: Session, webhook_id: int, event: str, subject: str, body: str) -> bool:
    """Put the newer body into what waits already. False when there is none, or it is being sent."""
    unsent = (
        col(WebhookDelivery.subject) == subject,
        col(WebhookDelivery.state) == "waiting",
        col(WebhookDelivery.attempts) == 0,
        col(WebhookDelivery.webhook_id) == webhook_id,
        col(WebhookDelivery.event) == event,
        col(WebhookDelivery.replay_of).is_(None),
    )
    return bool(session.exec(update(WebhookDelivery).where(*unsent).values(body=body)).rowcount)


def _listeners(session: Session) -> list[_Listener]:
    pool = _pool(session)
    found = _known.get(pool)
    if found is None or found[0] < monotonic():
        with session.no_autoflush:
            rows = session.exec(select(Webhook).where(col(Webhook.disabled_at).is_(None))).all()
        listeners = [_Listener(w.id, frozenset(w.events), frozenset(w.mailbox_ids), w.full) for w in rows]
        found = _known[pool] = monotonic() + LOOK_SECONDS, listeners
    return found[1]


def _pool(session: Session) -> Pool:
    # Reading and writing sessions have engines of their own, which share their pool.
    return session.get_bind().engine.pool
