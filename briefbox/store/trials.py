"""Emails that a worker briefs for a look: encrypted, taken once, stored nowhere else.

    waiting --claim--> running --finish--> done --take--> gone
       ^                  |-- fail ------> failed --take--> gone
       +---- put_back ----+

One that was claimed is never claimed again, unless it was put back: mail that kills a worker must not kill the next.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_urlsafe
from uuid import uuid4

from sqlmodel import Session, col, delete, select, update

from briefbox.db import now
from briefbox.errors import SettingsError
from briefbox.schemas import Brief, BriefRequest
from briefbox.store.secrets import Cipher
from briefbox.tables import Trial

LIFE = timedelta(minutes=15)
WORKER_GONE = "The worker ended while it read them; ask again."


@dataclass(frozen=True, slots=True)
class ClaimedTrial:
    """A trial leased to this worker. `token` goes with every write."""

    key: str
    token: str
    requests: tuple[BriefRequest, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial stands: `state` is waiting, running, done, failed, or gone where there is none any more."""

    state: str
    briefs: tuple[Brief, ...] = ()
    error: str = ""


def create(session: Session, cipher: Cipher, wanted: Sequence[BriefRequest]) -> str:
    """Offer these to the workers. Returns the key by which the briefs are taken."""
    moment, key = now(session), token_urlsafe(24)
    said = json.dumps([request.model_dump(mode="json") for request in wanted])
    session.add(
        Trial(
            key=key,
            requests_encrypted=cipher.encrypt(_bound_to(key), said),
            created_at=moment,
            expires_at=moment + LIFE,
        )
    )
    session.flush()
    return key


def claim(session: Session, cipher: Cipher, *, seconds: float) -> ClaimedTrial | None:
    """Lease the oldest one that waits. One that cannot be decrypted with the worker's key has failed."""
    moment, token = now(session), uuid4().hex
    waiting = Trial.state == "waiting", col(Trial.expires_at) > moment
    query = select(Trial).where(*waiting).order_by(col(Trial.id)).limit(1)
    row = session.exec(query.with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    row.state, row.lease_token, row.lease_until = "running", token, moment + timedelta(seconds=seconds)
    session.add(row)
    session.flush()
    try:
        said = json.loads(cipher.decrypt(_bound_to(row.key), row.requests_encrypted))
    except SettingsError:
        row.state, row.error = "failed", "The worker has another BRIEFBOX_SECRET_KEY than the desk."
        return None
    return ClaimedTrial(row.key, token, tuple(BriefRequest.model_validate(one) for one in said))


def any_waiting(session: Session) -> bool:
    """Whether one waits: asked without the right to write."""
    return session.exec(select(Trial.id).where(Trial.state == "waiting").limit(1)).first() is not None


def renew(session: Session, trial: ClaimedTrial, *, seconds: float) -> None:
    """Say that it is still worked on."""
    _write(session, trial, lease_until=now(session) + timedelta(seconds=seconds))


def finish(session: Session, cipher: Cipher, trial: ClaimedTrial, briefs: Sequence[Brief]) -> bool:
    """Give the briefs, in the order of the requests. False when nobody waits for them any more."""
    said = json.dumps([brief.model_dump(mode="json") for brief in briefs])
    encrypted = cipher.encrypt(_bound_to(trial.key), said)
    return _write(session, trial, state="done", briefs_encrypted=encrypted, requests_encrypted="")


def fail(session: Session, trial: ClaimedTrial, reason: str) -> bool:
    """Say why there are no briefs. The emails are forgotten."""
    return _write(session, trial, state="failed", error=reason, requests_encrypted="")


def put_back(session: Session, trial: ClaimedTrial) -> bool:
    """Nothing was tried: it waits again."""
    return _write(session, trial, state="waiting", lease_token="", lease_until=None)


def take(session: Session, cipher: Cipher, key: str) -> Outcome:
    """How it stands. What has ended is handed over once and deleted."""
    row = session.exec(select(Trial).where(Trial.key == key).with_for_update()).first()
    moment = now(session)
    if row is None or row.expires_at <= moment:
        return Outcome("gone")
    if row.state == "running" and row.lease_until is not None and row.lease_until < moment:
        row.state, row.error = "failed", WORKER_GONE
    if row.state not in ("done", "failed"):
        return Outcome(row.state)
    briefs: tuple[Brief, ...] = ()
    if row.state == "done":
        said = json.loads(cipher.decrypt(_bound_to(key), row.briefs_encrypted))
        briefs = tuple(Brief.model_validate(one) for one in said)
    outcome = Outcome(row.state, briefs, row.error)
    session.delete(row)
    session.flush()
    return outcome


def forget(session: Session, key: str) -> None:
    """Nobody wants to see it any more."""
    session.exec(delete(Trial).where(col(Trial.key) == key))


def any_lapsed(session: Session) -> bool:
    """Whether the time of one is over: asked without the right to write."""
    query = select(Trial.id).where(col(Trial.expires_at) <= now(session))
    return session.exec(query.limit(1)).first() is not None


def end_lapsed(session: Session) -> int:
    """Delete those whose time is over. Returns how many."""
    return session.exec(delete(Trial).where(col(Trial.expires_at) <= now(session))).rowcount


def _write(session: Session, trial: ClaimedTrial, **values: object) -> bool:
    mine = col(Trial.key) == trial.key, col(Trial.lease_token) == trial.token, col(Trial.state) == "running"
    return bool(session.exec(update(Trial).where(*mine).values(**values)).rowcount)


def _bound_to(key: str) -> str:
    return f"trial {key}"
