"""The audit log: who did what. Each row's hash covers the row before it, so that a gap or an edit shows."""

import json
from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import text
from sqlmodel import Session, col, select

from briefbox.db import now
from briefbox.tables import AuditEntry

# Any constant will do: it names the lock that makes writers of the chain take turns on PostgreSQL.
_CHAIN_LOCK = 7_220_415
DENIED = "denied"


def record(session: Session, actor: str, action: str, object: str = "", **detail: Any) -> AuditEntry:
    """Append one entry inside the caller's writing transaction. `detail` holds no secrets."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHAIN_LOCK})
    previous = session.exec(select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(1)).first()
    entry = AuditEntry(
        at=now(session),
        actor=actor,
        action=action,
        object=object,
        detail=detail,
        previous_hash=previous.hash if previous else "",
    )
    entry.hash = _hash(entry)
    session.add(entry)
    session.flush()
    return entry


def record_denial(session: Session, actor: str, object: str) -> None:
    """Note that somebody asked for what is not for them: once a minute for each thing, so that nobody fills the log."""
    since = now(session) - timedelta(minutes=1)
    known = select(AuditEntry.id).where(
        AuditEntry.actor == actor,
        AuditEntry.action == DENIED,
        AuditEntry.object == object,
        AuditEntry.at > since,
    )
    if session.exec(known.limit(1)).first() is None:
        record(session, actor, DENIED, object)


def broken_links(session: Session) -> list[int]:
    """Ids of entries whose hash does not match their content or the entry before them."""
    broken, previous = [], ""
    for entry in session.exec(select(AuditEntry).order_by(col(AuditEntry.id))):
        if not follows(entry, previous):
            broken.append(entry.id)
        previous = entry.hash
    return broken


def follows(entry: AuditEntry, previous_hash: str) -> bool:
    """Whether an entry is as it was written, and comes after the one with this hash."""
    return entry.previous_hash == previous_hash and entry.hash == _hash(entry)


def _hash(entry: AuditEntry) -> str:
    fields = [
        entry.previous_hash,
        entry.at.isoformat(),
        entry.actor,
        entry.action,
        entry.object,
        entry.detail,
    ]
    return sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
