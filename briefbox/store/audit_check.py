"""Checking the chain of the audit log step by step, so that a log of millions of entries is checked while it grows.

How far it came is kept with the hash of that entry. Every week it begins again at the first entry, since what was
checked once can be changed later; `briefbox audit` reads everything at once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.store import alerts, audit_log
from briefbox.tables import AuditCheck, AuditEntry

STEP = 2_000
AGAIN_AFTER = timedelta(days=7)
MAX_BROKEN = 100
ALERT = "audit log"


@dataclass(frozen=True, slots=True)
class Chain:
    """What is known of the chain."""

    verified_up_to: int  # id of the last entry that was checked; 0: none yet
    last: int  # id of the last entry there is
    broken: tuple[int, ...]
    began_at: datetime | None
    checked_at: datetime | None


def state(session: Session) -> Chain:
    """How far the chain was checked, and what was found."""
    row = _row(session)
    last = session.exec(select(func.max(AuditEntry.id))).one() or 0
    if row is None:
        return Chain(0, last, (), None, None)
    return Chain(row.entry_id, last, tuple(row.broken), row.began_at, row.checked_at)


def is_due(session: Session) -> bool:
    """Whether there is anything to check."""
    chain = state(session)
    return chain.last != chain.verified_up_to or (
        chain.began_at is not None and chain.began_at < now(session) - AGAIN_AFTER
    )


def step(session: Session, *, limit: int = STEP) -> bool:
    """Check the next entries; True when there are more. What is broken raises an alert."""
    moment = now(session)
    row = session.exec(select(AuditCheck).order_by(col(AuditCheck.id)).with_for_update()).first()
    if row is None:
        row = AuditCheck(began_at=moment, checked_at=moment)
        session.add(row)
    at_end = session.exec(select(AuditEntry.id).where(AuditEntry.id > row.entry_id).limit(1)).first() is None
    if at_end and row.began_at < moment - AGAIN_AFTER:
        row.entry_id, row.entry_hash, row.broken, row.began_at = 0, "", [], moment
    broken = list(row.broken)
    if row.entry_id and not _still_stands(session, row):
        broken.append(row.entry_id)
    entries = session.exec(
        select(AuditEntry).where(AuditEntry.id > row.entry_id).order_by(col(AuditEntry.id)).limit(limit)
    ).all()
    for entry in entries:
        if not audit_log.follows(entry, row.entry_hash):
            broken.append(entry.id)
        row.entry_id, row.entry_hash = entry.id, entry.hash
    row.broken, row.checked_at = sorted(set(broken))[:MAX_BROKEN], moment
    session.add(row)
    session.flush()
    if row.broken:
        alerts.raise_alert(
            session,
            ALERT,
            f"The audit log was changed, or entries are missing: see entry {row.broken[0]} on the page Audit log. Compare it with a backup.",
        )
    elif len(entries) < limit:
        alerts.resolve(session, ALERT)
    return len(entries) == limit


def begin_again(session: Session, *, actor: str) -> None:
    """Check everything anew, from the first entry on."""
    row = _row(session)
    if row is not None:
        row.entry_id, row.entry_hash, row.broken, row.began_at = 0, "", [], now(session)
        session.add(row)
    audit_log.record(session, actor, "audit log check begun")


def _still_stands(session: Session, row: AuditCheck) -> bool:
    entry = session.get(AuditEntry, row.entry_id)
    return entry is not None and entry.hash == row.entry_hash


def _row(session: Session) -> AuditCheck | None:
    return session.exec(select(AuditCheck).order_by(col(AuditCheck.id)).limit(1)).first()
