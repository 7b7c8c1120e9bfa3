"""How a mailbox stands: how far each folder is read, what became of its mail, and that in a few words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.schemas import LedgerState, WorkState
from briefbox.store.folders import entries_of
from briefbox.tables import Email, FolderCursor, LedgerEntry, Mailbox


@dataclass(frozen=True, slots=True)
class FolderState:
    """One folder as the database knows it. Progress through older mail is in UIDs, since only the server knows the mails."""

    folder: str
    uidvalidity: int
    older_done: int
    older_total: int
    states: dict[str, int]
    reconciled_at: datetime | None
    missing_since: datetime | None
    total: int | None = None  # messages in the folder when it was compared last
    server_exists: int | None = None  # of these, how many are ours to read
    ledger_exists: int | None = None  # and how many of those had their row
    listed_at: datetime | None = None  # when that was

    @property
    def compared(self) -> str:
        """The last comparison in a few words."""
        if self.missing_since is not None:
            return "The server has no such folder."
        if self.server_exists is None or self.ledger_exists is None:
            return "Not compared yet."
        if self.server_exists == self.ledger_exists:
            return f"server {self.server_exists:,} = ledger {self.ledger_exists:,}"
        unread = f"server {self.server_exists:,}, ledger {self.ledger_exists:,}"
        if self.older_done < self.older_total:
            return f"{unread}, the others are on their way"
        return f"{unread}: {self.server_exists - self.ledger_exists:,} without a row"

    @property
    def agrees(self) -> bool:
        """Whether the last comparison found a row for every message."""
        return self.server_exists is not None and self.server_exists == self.ledger_exists

    @property
    def ledger(self) -> int:
        """How many messages have their row."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class MailboxState:
    """A mailbox with its folders, in words."""

    words: str
    folders: list[FolderState] = field(default_factory=list)
    lag: timedelta | None = None  # between the server's receipt and our commit, of the newest mail

    @property
    def states(self) -> dict[str, int]:
        """Ledger rows by state, over all folders."""
        return {s.value: sum(f.states.get(s, 0) for f in self.folders) for s in LedgerState}


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One ledger row for people."""

    id: int
    folder: str
    uidvalidity: int
    uid: int
    state: str
    reason: str
    subject: str
    seen_at: datetime


def state_of(session: Session, row: Mailbox) -> MailboxState:
    """How this mailbox stands now."""
    folders = folder_states(session, row.id)
    return MailboxState(_words(row, folders, now(session)), folders, _lag(session, row.id))


def is_read(row: Mailbox, moment: datetime) -> bool:
    """Whether a poller has the mailbox now."""
    return row.lease_until is not None and row.lease_until > moment


def folder_states(session: Session, mailbox_id: int) -> list[FolderState]:
    """Every folder that is read, by name."""
    cursors = session.exec(
        select(FolderCursor)
        .where(FolderCursor.mailbox_id == mailbox_id, col(FolderCursor.current))
        .order_by(FolderCursor.folder)
    )
    return [
        FolderState(
            folder=cursor.folder,
            uidvalidity=cursor.uidvalidity,
            older_done=cursor.backfill_uid - cursor.first_uid,
            older_total=cursor.older_uid - cursor.first_uid,
            states=states(session, cursor),
            reconciled_at=cursor.reconciled_at,
            missing_since=cursor.missing_since,
            total=cursor.total,
            server_exists=cursor.server_exists,
            ledger_exists=cursor.ledger_exists,
            listed_at=cursor.listed_at,
        )
        for cursor in cursors
    ]


def newest_cursor(
    session: Session, mailbox_id: int, folder: str, uidvalidity: int | None = None
) -> FolderCursor | None:
    """The folder's cursor under this UIDVALIDITY, the latest generation; without one, the cursor in use."""
    query = select(FolderCursor).where(FolderCursor.mailbox_id == mailbox_id, FolderCursor.folder == folder)
    if uidvalidity is None:
        return session.exec(query.where(col(FolderCursor.current))).first()
    query = query.where(FolderCursor.uidvalidity == uidvalidity)
    return session.exec(query.order_by(col(FolderCursor.generation).desc())).first()


def states(session: Session, cursor: FolderCursor) -> dict[str, int]:
    """Ledger rows of a cursor by state."""
    counts = select(LedgerEntry.state, func.count()).where(*entries_of(cursor)).group_by(LedgerEntry.state)
    return dict(session.exec(counts).all())


def uids(session: Session, cursor: FolderCursor) -> set[int]:
    """Every UID of a cursor that has its ledger row."""
    return set(session.exec(select(LedgerEntry.uid).where(*entries_of(cursor))))


def reasons(session: Session, mailbox_id: int, state: str) -> list[tuple[str, str, int]]:
    """Folder, reason and how often, for the rows in this state of the folders in use; the most frequent first."""
    number = func.count()
    query = (
        select(LedgerEntry.folder, LedgerEntry.reason, number)
        .join(FolderCursor, _is_current())
        .where(LedgerEntry.mailbox_id == mailbox_id, LedgerEntry.state == state)
        .group_by(LedgerEntry.folder, LedgerEntry.reason)
    )
    return [(f, r, n) for f, r, n in session.exec(query.order_by(number.desc(), LedgerEntry.reason))]


def lines(
    session: Session, mailbox_id: int, *, state: str = "", folder: str = "", limit: int = 200
) -> list[LedgerLine]:
    """Ledger rows of the folders in use, newest first."""
    query = (
        select(LedgerEntry, Email.subject)
        .join(FolderCursor, _is_current())
        .join(Email, col(LedgerEntry.email_id) == col(Email.id), isouter=True)
        .where(LedgerEntry.mailbox_id == mailbox_id)
    )
    if state:
        query = query.where(LedgerEntry.state == state)
    if folder:
        query = query.where(LedgerEntry.folder == folder)
    return [
        LedgerLine(e.id, e.folder, e.uidvalidity, e.uid, e.state, e.reason, subject or "", e.seen_at)
        for e, subject in session.exec(query.order_by(col(LedgerEntry.id).desc()).limit(limit))
    ]


def progress(session: Session, mailbox_id: int) -> dict[str, int]:
    """How many emails of a mailbox wait for a brief, and how many are briefed just now."""
    found = session.exec(
        select(Email.work_state, func.count())
        .where(
            col(Email.work_state).in_((WorkState.WAITING, WorkState.RUNNING)), Email.mailbox_id == mailbox_id
        )
        .group_by(Email.work_state)
    )
    return {"waiting": 0, "running": 0, **dict(found.all())}


def older_words(folders: Sequence[FolderState]) -> str:
    """How far the mail is read that was there before us: "34,000 of 100,000 (34%)"; "" when all of it is."""
    done, total = sum(f.older_done for f in folders), sum(f.older_total for f in folders)
    if done >= total:
        return ""
    return f"{done:,} of {total:,} ({100 * done // total}%)"


def _words(row: Mailbox, folders: Sequence[FolderState], moment: datetime) -> str:
    if row.removed_at is not None:
        return f"removed on {row.removed_at:%Y-%m-%d}"
    if row.paused_at is not None:
        return f"paused: {row.paused_reason or 'no reason given'}"
    if row.last_error:
        since = f" since {row.last_error_at:%Y-%m-%d %H:%M}" if row.last_error_at else ""
        return f"error{since}"
    if missing := [f.folder for f in folders if f.missing_since is not None]:
        return f"folder missing on the server: {', '.join(missing)}"
    if not is_read(row, moment):
        return "no poller reads it"
    if older := older_words(folders):
        return f"reading, older mail {older}"
    return "reading" if row.last_success_at else "connecting"


def _lag(session: Session, mailbox_id: int) -> timedelta | None:
    newest = session.exec(
        select(LedgerEntry.seen_at, LedgerEntry.internal_date)
        .join(Email, col(LedgerEntry.email_id) == col(Email.id))
        .where(
            LedgerEntry.mailbox_id == mailbox_id,
            col(LedgerEntry.internal_date).is_not(None),
            LedgerEntry.state == LedgerState.QUEUED,
            col(Email.backfill).is_(False),
        )
        .order_by(col(LedgerEntry.id).desc())
        .limit(1)
    ).first()
    if newest is None or newest[1] is None:
        return None
    return max(timedelta(0), newest[0] - newest[1])


def _is_current() -> ColumnElement[bool]:
    """That a ledger row belongs to a folder as it is read now, for a join."""
    return (
        col(FolderCursor.current)
        & (col(FolderCursor.mailbox_id) == col(LedgerEntry.mailbox_id))
        & (col(FolderCursor.folder) == col(LedgerEntry.folder))
        & (col(FolderCursor.uidvalidity) == col(LedgerEntry.uidvalidity))
        & (col(FolderCursor.generation) == col(LedgerEntry.generation))
    )
