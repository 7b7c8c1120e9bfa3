"""Sending to webhooks: claim what is due under a lease, write down what came of it.

    waiting --claim--> running --2xx--> done
       ^                  |
       |  another answer  |-- the last try, or the webhook is gone --> failed
       +------------------+

A process that dies between sending and writing leaves a lease that ends: the same message is sent again under the same
webhook-id, by which receivers tell doubles.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import uniform

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, delete, or_, select, update

from briefbox.db import now
from briefbox.errors import SettingsError
from briefbox.store import alerts, events, webhooks
from briefbox.store.secrets import Cipher
from briefbox.tables import Webhook, WebhookDelivery

# Seconds before the second, third... try: all of them take about a day. Each is made longer or shorter by chance, so
# that a receiver that comes back is not met by everything at once.
WAITS = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 36_000)
JITTER = 0.2
LEASE_SECONDS = 60.0
# What one webhook gets at a time: few while it fails, so that it holds up nobody else.
AT_ONCE, AT_ONCE_FAILING = 4, 1
# A webhook that has failed for so long, and so often, in a row is switched off.
GIVE_UP_AFTER, GIVE_UP_FAILURES = timedelta(days=3), 20
MAX_ANSWER = 2000
KEPT = timedelta(days=30)
GONE = 410


@dataclass(frozen=True, slots=True)
class Due:
    """A message that this process is to send now."""

    id: int
    token: str
    webhook_id: int
    event_id: str
    url: str
    body: str
    secrets: tuple[str, ...]
    problem: str = ""  # why it can't be signed


def any_due(session: Session) -> bool:
    """Whether anything is to be sent: asked without the right to write."""
    query = select(WebhookDelivery.id).where(_due(now(session)))
    return session.exec(query.limit(1)).first() is not None


def claim(session: Session, cipher: Cipher, *, address: str) -> list[Due]:
    """Take what is due, some of each webhook. `address` is where links lead."""
    moment, token = now(session), secrets.token_hex(16)
    _fail_switched_off(session, moment)
    found: list[Due] = []
    for webhook in session.exec(select(Webhook).where(col(Webhook.disabled_at).is_(None))).all():
        query = (
            select(WebhookDelivery)
            .where(WebhookDelivery.webhook_id == webhook.id, _due(moment))
            .order_by(col(WebhookDelivery.not_before), col(WebhookDelivery.id))
            .limit(AT_ONCE_FAILING if webhook.num_failures else AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        for row in session.exec(query).all():
            if not row.attempts:
                row.body = events.with_address(row.body, address)
            row.state, row.attempts = "running", row.attempts + 1
            row.lease_token, row.lease_until = token, moment + timedelta(seconds=LEASE_SECONDS)
            session.add(row)
            found.append(_of(row, webhook, cipher, moment))
    return found


def record(session: Session, sent: Due, status: int | None, answer: str) -> bool:
    """Write down what came of it. False, and nothing written, when the lease is no longer ours."""
    mine = (
        WebhookDelivery.id == sent.id,
        WebhookDelivery.lease_token == sent.token,
        WebhookDelivery.state == "running",
    )
    row = session.exec(select(WebhookDelivery).where(*mine).with_for_update()).first()
    if row is None:
        return False
    moment = now(session)
    row.status, row.answer = status, answer.replace("\0", "")[:MAX_ANSWER]
    row.lease_token, row.lease_until = "", None
    session.add(row)
    if status is not None and 200 <= status < 300:
        row.state, row.finished_at = "done", moment
        _note_success(session, sent.webhook_id)
        return True
    if row.attempts > len(WAITS) or status == GONE:
        row.state, row.finished_at = "failed", moment
    else:
        wait = WAITS[row.attempts - 1] * uniform(1 - JITTER, 1 + JITTER)
        row.state, row.not_before = "waiting", moment + timedelta(seconds=wait)
    _note_failure(session, sent.webhook_id, status, row.answer, moment)
    return True


def forget_old(session: Session) -> int:
    """Drop what was sent or given up a month ago. Returns how many."""
    old = delete(WebhookDelivery).where(
        col(WebhookDelivery.finished_at) < now(session) - KEPT,
        col(WebhookDelivery.state).in_(("done", "failed")),
    )
    return int(session.exec(old).rowcount)


# --- parts


def _due(moment: datetime) -> ColumnElement[bool]:
    return or_(
        (col(WebhookDelivery.state) == "waiting") & (col(WebhookDelivery.not_before) <= moment),
        (col(WebhookDelivery.state) == "running") & (col(WebhookDelivery.lease_until) < moment),
    )


def _of(row: WebhookDelivery, webhook: Webhook, cipher: Cipher, moment: datetime) -> Due:
    try:
        keys, problem = tuple(webhooks.secrets_of(webhook, cipher, moment)), ""
    except SettingsError:
        keys, problem = (), "Its secret cannot be decrypted with this installation's key; make a new one."
    return Due(row.id, row.lease_token, webhook.id, row.event_id, webhook.url, row.body, keys, problem)


def _note_success(session: Session, webhook_id: int) -> None:
    failing = update(Webhook).where(col(Webhook.id) == webhook_id, col(Webhook.num_failures) > 0)
    if session.exec(failing.values(num_failures=0, failing_since=None)).rowcount:
        alerts.resolve(session, webhooks.alert_key(webhooks.get(session, webhook_id)))


def _note_failure(
    session: Session, webhook_id: int, status: int | None, answer: str, moment: datetime
) -> None:
    webhook = session.exec(select(Webhook).where(Webhook.id == webhook_id).with_for_update()).one()
    webhook.num_failures += 1
    webhook.failing_since = webhook.failing_since or moment
    session.add(webhook)
    session.flush()
    reason = ""
    if status == GONE:
        reason = "its address answered 410 Gone."
    elif webhook.num_failures >= GIVE_UP_FAILURES and moment - webhook.failing_since >= GIVE_UP_AFTER:
        days = (moment - webhook.failing_since).days
        reason = f"it has failed {webhook.num_failures} times in a row in {days} days. The last answer: {answer[:200] or status}"
    if reason:
        webhooks.disable(session, webhook_id, reason, actor="webhooks", alert=True)


def _fail_switched_off(session: Session, moment: datetime) -> None:
    """What was written for a webhook a moment after it was switched off."""
    off = select(Webhook.id).where(col(Webhook.disabled_at).is_not(None))
    session.exec(
        update(WebhookDelivery)
        .where(col(WebhookDelivery.webhook_id).in_(off), _due(moment))
        .values(state="failed", answer=webhooks.SWITCHED_OFF, finished_at=moment, lease_token="")
        .execution_options(synchronize_session=False)
    )
