"""Webhooks as admins look after them: what each is told, its secret, its log, sending again."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import alerts, audit_log, events
from briefbox.store.secrets import Cipher
from briefbox.tables import Mailbox, Webhook, WebhookDelivery

MAX_WEBHOOKS, MAX_NAME, MAX_URL = 50, 80, 2000
BEGINNING = "whsec_"
SECRET_BYTES = 32
# After a new secret was made both are good for so long: time to bring the new one to the receiver.
BOTH_GOOD = timedelta(days=1)
TEST_EVENT = "webhook.test"
SWITCHED_OFF = "The webhook was switched off before this was sent."
# Most events that are sent again at one time.
MAX_REPLAYED = 10_000


def add(
    session: Session,
    cipher: Cipher,
    *,
    name: str,
    url: str,
    wanted: Sequence[str],
    mailbox_ids: Sequence[int] = (),
    full: bool = False,
    actor: str,
) -> tuple[Webhook, str]:
    """Add a webhook. Returns it with its secret, which is stored encrypted. Raises InvalidValueError, ConflictError."""
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidValueError(f"The name has {len(name)} characters; expected 1 to {MAX_NAME}.")
    if not wanted or any(event not in events.EVENTS for event in wanted):
        raise InvalidValueError(f"Choose what it is told: one or more of {', '.join(events.EVENTS)}.")
    if not 0 < len(url) <= MAX_URL:
        raise InvalidValueError(f"The address has {len(url)} characters; expected 1 to {MAX_URL}.")
    known = set(session.exec(select(Mailbox.id)))
    if unknown := sorted(set(mailbox_ids) - known):
        raise InvalidValueError(f"There is no mailbox {unknown[0]}.")
    if session.exec(select(Webhook.id).where(Webhook.name == name)).first() is not None:
        raise ConflictError(f"A webhook named {name} exists already. Choose another name.")
    if len(all_of(session)) >= MAX_WEBHOOKS:
        raise ConflictError(f"There are {MAX_WEBHOOKS} webhooks already; remove one that nobody needs.")
    secret = _new_secret()
    row = Webhook(
        name=name,
        url=url,
        secret_encrypted=cipher.encrypt(_bound_to(name), secret),
        events=[event for event in events.EVENTS if event in wanted],
        mailbox_ids=sorted(set(mailbox_ids)),
        full=full,
        created_by=actor,
        created_at=now(session),
    )
    session.add(row)
    session.flush()
    audit_log.record(session, actor, "webhook added", name, url=url, events=row.events, full=full)
    events.forget(session)
    return row, secret


def all_of(session: Session) -> list[Webhook]:
    """All of them, by name."""
    return list(session.exec(select(Webhook).order_by(Webhook.name)))


def get(session: Session, webhook_id: int) -> Webhook:
    """Raises NotFoundError."""
    row = session.get(Webhook, webhook_id)
    if row is None:
        raise NotFoundError(f"There is no webhook {webhook_id}.")
    return row


def secrets_of(row: Webhook, cipher: Cipher, moment: datetime) -> list[str]:
    """What signs now: the secret, and the one before it while that is good. Raises SettingsError."""
    found = [cipher.decrypt(_bound_to(row.name), row.secret_encrypted)]
    if row.old_secret_encrypted and row.old_secret_until is not None and row.old_secret_until > moment:
        found.append(cipher.decrypt(_bound_to(row.name), row.old_secret_encrypted))
    return found


def new_secret(session: Session, cipher: Cipher, webhook_id: int, *, actor: str) -> str:
    """Make another secret; the one before it signs too for a day. Raises NotFoundError."""
    row, secret = get(session, webhook_id), _new_secret()
    row.old_secret_encrypted, row.old_secret_until = row.secret_encrypted, now(session) + BOTH_GOOD
    row.secret_encrypted = cipher.encrypt(_bound_to(row.name), secret)
    session.add(row)
    audit_log.record(session, actor, "webhook secret replaced", row.name)
    return secret


def disable(session: Session, webhook_id: int, reason: str, *, actor: str, alert: bool = False) -> Webhook:
    """Tell it nothing more, with an alert when nobody asked for it. What waits counts as failed, and can be sent later.

    Raises NotFoundError.
    """
    row = get(session, webhook_id)
    if row.disabled_at is not None:
        return row
    row.disabled_at, row.disabled_reason = now(session), reason
    session.add(row)
    session.exec(
        update(WebhookDelivery)
        .where(col(WebhookDelivery.webhook_id) == row.id, col(WebhookDelivery.state) == "waiting")
        .values(state="failed", answer=SWITCHED_OFF, finished_at=row.disabled_at)
    )
    if alert:
        alerts.raise_alert(session, alert_key(row), f"The webhook {row.name} was switched off: {reason}")
    audit_log.record(session, actor, "webhook disabled", row.name, reason=reason)
    events.forget(session)
    return row


def enable(session: Session, webhook_id: int, *, actor: str) -> Webhook:
    """Tell it again what happens from now on. Raises NotFoundError."""
    row = get(session, webhook_id)
    if row.disabled_at is not None:
        row.disabled_at, row.disabled_reason = None, ""
        row.num_failures, row.failing_since = 0, None
        session.add(row)
        alerts.resolve(session, alert_key(row))
        audit_log.record(session, actor, "webhook enabled", row.name)
        events.forget(session)
    return row


def alert_key(row: Webhook) -> str:
    """What an alert about it is known by."""
    return f"webhook {row.name}"


# --- the log


def deliveries(
    session: Session, webhook_id: int, *, before: int | None = None, limit: int = 50
) -> list[WebhookDelivery]:
    """What it was told, newest first; `before` is the id of the last row of the page before."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if before is not None:
        query = query.where(col(WebhookDelivery.id) < before)
    return list(session.exec(query.order_by(col(WebhookDelivery.id).desc()).limit(limit)))


def counts(session: Session) -> dict[int, dict[str, int]]:
    """How many deliveries of each webhook are in each state."""
    number = func.count()
    query = select(WebhookDelivery.webhook_id, WebhookDelivery.state, number)
    found: dict[int, dict[str, int]] = {}
    for id_, state, total in session.exec(
        query.group_by(col(WebhookDelivery.webhook_id), col(WebhookDelivery.state))
    ):
        found.setdefault(id_, {})[state] = total
    return found


def test(session: Session, webhook_id: int, *, actor: str) -> WebhookDelivery:
    """Send it a message that means nothing. Raises NotFoundError, ConflictError."""
    row = _enabled(session, webhook_id)
    moment = now(session)
    data = {"text": f"A test of the webhook {row.name}, asked for by {actor}.", "links": {"desk": "/"}}
    return _queue(
        session,
        row,
        event_id=f"evt_{secrets.token_hex(16)}",
        event=TEST_EVENT,
        body=events.body_of(TEST_EVENT, moment, data),
    )


def replay(session: Session, webhook_id: int, delivery_id: int, *, actor: str) -> WebhookDelivery:
    """Send one again, under the same webhook-id. Raises NotFoundError, ConflictError."""
    row = _enabled(session, webhook_id)
    old = session.get(WebhookDelivery, delivery_id)
    if old is None or old.webhook_id != row.id:
        raise NotFoundError(f"There is no delivery {delivery_id} of the webhook {row.name}.")
    if old.state not in ("done", "failed"):
        raise ConflictError("It waits to be sent already.")
    audit_log.record(session, actor, "webhook replayed", row.name, delivery=old.id)
    return _again(session, row, old)


def replay_failed(session: Session, webhook_id: int, since: datetime, *, actor: str) -> int:
    """Send again what failed since then and was not sent again yet, oldest first. Returns how many.

    Raises NotFoundError, ConflictError.
    """
    row = _enabled(session, webhook_id)
    again = select(WebhookDelivery.replay_of).where(col(WebhookDelivery.replay_of).is_not(None))
    query = select(WebhookDelivery).where(
        WebhookDelivery.webhook_id == row.id,
        WebhookDelivery.state == "failed",
        WebhookDelivery.created_at >= since,
        col(WebhookDelivery.id).not_in(again),
    )
    found = session.exec(query.order_by(col(WebhookDelivery.id)).limit(MAX_REPLAYED)).all()
    for old in found:
        _again(session, row, old)
    audit_log.record(session, actor, "webhook replayed", row.name, deliveries=len(found))
    return len(found)


def _again(session: Session, row: Webhook, old: WebhookDelivery) -> WebhookDelivery:
    return _queue(session, row, event_id=old.event_id, event=old.event, body=old.body, replay_of=old.id)


def _queue(
    session: Session, row: Webhook, *, event_id: str, event: str, body: str, replay_of: int | None = None
) -> WebhookDelivery:
    moment = now(session)
    delivery = WebhookDelivery(
        webhook_id=row.id,
        event_id=event_id,
        event=event,
        body=body,
        replay_of=replay_of,
        not_before=moment,
        created_at=moment,
    )
    session.add(delivery)
    session.flush()
    return delivery


def _enabled(session: Session, webhook_id: int) -> Webhook:
    row = get(session, webhook_id)
    if row.disabled_at is not None:
        raise ConflictError(f"The webhook {row.name} is switched off. Switch it on first.")
    return row


def _bound_to(name: str) -> str:
    return f"webhook {name}"


def _new_secret() -> str:
    return BEGINNING + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
