"""Known mail under new UIDs: told by Message-ID, INTERNALDATE and size together, without fetching it again.

A Message-ID alone proves nothing, since anybody can write one. The date and the size are the server's: the three agree
only for a mail that the same folder held before. What is not recognised is fetched, and its bytes decide.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import Session, col, or_, select

from briefbox.db import now
from briefbox.schemas import Fingerprint, LedgerState
from briefbox.store import mailboxes
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import Email, FolderCursor, LedgerEntry

SKIPPED_OLDER = "it was there before this mailbox was connected"


def commit(
    session: Session,
    lease: MailboxLease,
    cursor: FolderCursor,
    prints: Mapping[int, Fingerprint],
    *,
    seconds: float,
) -> list[int]:
    """Write a row for each UID that is known mail (a sighting), or was there before us (skipped). The UIDs left over.

    Raises LeaseLostError.
    """
    mailboxes.renew(session, lease, seconds=seconds)
    held = _held(session, cursor, prints)
    moment, left = now(session), []
    for uid, found in sorted(prints.items()):
        email_id = held.get((found.message_id, found.internal_date, found.size)) if found.message_id else None
        if email_id is not None:
            state, reason = LedgerState.SIGHTING, "known mail: the folder came back under other UIDs"
        elif cursor.since and found.internal_date and found.internal_date < cursor.since:
            state, reason = LedgerState.SKIPPED, SKIPPED_OLDER
        else:
            left.append(uid)
            continue
        session.add(_entry(cursor, uid, found, moment, state=state, reason=reason, email_id=email_id))
    session.flush()
    return left


def agrees(entry: LedgerEntry, email: Email, found: Fingerprint) -> bool:
    """Whether what the server shows under a known UID is the mail that we took from there."""
    if email.message_id or found.message_id:
        return email.message_id == found.message_id
    return entry.internal_date == found.internal_date or entry.size == found.size


def _held(
    session: Session, cursor: FolderCursor, prints: Mapping[int, Fingerprint]
) -> dict[tuple[str, datetime | None, int | None], int]:
    """Emails that this folder held under earlier UIDs, by the three marks."""
    ids = sorted({p.message_id for p in prints.values() if p.message_id})
    held = {}
    for start in range(0, len(ids), 500):
        rows = session.exec(
            select(Email.message_id, LedgerEntry.internal_date, LedgerEntry.size, Email.id)
            .join(LedgerEntry, col(LedgerEntry.email_id) == col(Email.id))
            .where(
                Email.mailbox_id == cursor.mailbox_id,
                col(Email.message_id).in_(ids[start : start + 500]),
                LedgerEntry.mailbox_id == cursor.mailbox_id,
                LedgerEntry.folder == cursor.folder,
                col(LedgerEntry.internal_date).is_not(None),
                or_(
                    col(LedgerEntry.uidvalidity) != cursor.uidvalidity,
                    col(LedgerEntry.generation) != cursor.generation,
                ),
            )
        )
        held.update({(message_id, date, size): email_id for message_id, date, size, email_id in rows})
    return held


def _entry(
    cursor: FolderCursor,
    uid: int,
    found: Fingerprint,
    moment: datetime,
    *,
    state: LedgerState,
    reason: str,
    email_id: int | None,
) -> LedgerEntry:
    return LedgerEntry(
        mailbox_id=cursor.mailbox_id,
        folder=cursor.folder,
        uidvalidity=cursor.uidvalidity,
        generation=cursor.generation,
        uid=uid,
        state=state,
        reason=reason,
        email_id=email_id,
        size=found.size,
        internal_date=found.internal_date,
        seen_at=moment,
    )
