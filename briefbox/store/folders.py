"""How far each folder of a mailbox has been read, and what became of it on the server.

A folder's UIDs hold within one UIDVALIDITY (RFC 3501, 2.3.1.1). When the server says another one, or shows other mail
under UIDs that we know, a new cursor begins at UID 0: the folder is read again, and what we hold is recognised.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlmodel import Session, col, func, select, update

from briefbox.db import now
from briefbox.schemas import FolderStatus
from briefbox.store import events as told
from briefbox.tables import FolderCursor, LedgerEntry, Mailbox, MailboxEvent

# A folder that comes back under other UIDs this often within the hour is not read on by itself.
FLAPS = 4
FLAP_SPAN = timedelta(hours=1)
# How far a mail server's clock may be behind ours: rather read an hour of older mail than leave out a new one.
CLOCKS_DIFFER = timedelta(hours=1)
RENUMBERED, RESTORED = "renumbered", "restored"


def current(session: Session, mailbox_id: int, folder: str) -> FolderCursor | None:
    """The cursor by which this folder is read now; None when it was never opened."""
    return session.exec(
        select(FolderCursor).where(
            FolderCursor.mailbox_id == mailbox_id, FolderCursor.folder == folder, col(FolderCursor.current)
        )
    ).first()


def cursors_of(session: Session, mailbox_id: int, folder: str) -> list[FolderCursor]:
    """Every cursor of this folder, the newest first."""
    query = select(FolderCursor).where(FolderCursor.mailbox_id == mailbox_id, FolderCursor.folder == folder)
    return list(session.exec(query.order_by(col(FolderCursor.id).desc())))


def begin(
    session: Session, mailbox_id: int, folder: str, status: FolderStatus, *, first_uid: int, newest_uid: int
) -> FolderCursor:
    """The first cursor of a folder: mail up to `first_uid` is not ours, mail up to `newest_uid` was there before us."""
    moment = now(session)
    days = start_days(starts_at(session.get_one(Mailbox, mailbox_id), folder))
    cursor = FolderCursor(
        mailbox_id=mailbox_id,
        folder=folder,
        uidvalidity=status.uidvalidity,
        first_uid=first_uid,
        backfill_uid=first_uid,
        older_uid=newest_uid,
        last_uid=newest_uid,
        since=None if days is None else moment - timedelta(days=days) - CLOCKS_DIFFER,
        created_at=moment,
    )
    session.add(cursor)
    session.flush()
    return cursor


def begin_again(
    session: Session, old: FolderCursor, status: FolderStatus, *, newest_uid: int
) -> FolderCursor:
    """A new cursor for a folder whose UIDs mean other mail than before. `newest_uid` is the highest there is now."""
    same = [c for c in cursors_of(session, old.mailbox_id, old.folder) if c.uidvalidity == status.uidvalidity]
    cursor = FolderCursor(
        mailbox_id=old.mailbox_id,
        folder=old.folder,
        uidvalidity=status.uidvalidity,
        generation=1 + max((c.generation for c in same), default=-1),
        older_uid=newest_uid,
        last_uid=newest_uid,
        reread=True,
        since=old.since,
        created_at=now(session),
    )
    session.add(cursor)
    session.flush()
    make_current(session, cursor)
    return cursor


def make_current(session: Session, cursor: FolderCursor) -> None:
    """Read the folder by this cursor from now on."""
    session.exec(
        update(FolderCursor)
        .where(col(FolderCursor.mailbox_id) == cursor.mailbox_id, col(FolderCursor.folder) == cursor.folder)
        .values(current=col(FolderCursor.id) == cursor.id)
    )
    cursor.current = True


def note_reconciled(
    session: Session,
    cursor: FolderCursor,
    status: FolderStatus,
    *,
    server_exists: int | None = None,
    ledger_exists: int | None = None,
) -> None:
    """Server and ledger were compared just now; the server holds `server_exists` messages that concern us (None: not listed).

    Of these `ledger_exists` have their row.
    """
    moment = now(session)
    values = {
        "reconciled_at": moment,
        "total": status.exists,
        "uidnext": status.uidnext,
        "highest_modseq": status.highest_modseq,
        "missing_since": None,
    }
    if server_exists is not None:
        values |= {"server_exists": server_exists, "ledger_exists": ledger_exists, "listed_at": moment}
    session.exec(update(FolderCursor).where(col(FolderCursor.id) == cursor.id).values(**values))


def note_unchanged(session: Session, cursor_ids: Sequence[int]) -> None:
    """These folders were looked at just now and are as they were."""
    session.exec(
        update(FolderCursor).where(col(FolderCursor.id).in_(cursor_ids)).values(reconciled_at=now(session))
    )


def note_missing(session: Session, cursor: FolderCursor, sentence: str) -> None:
    """The server has no such folder; told once. Its cursor is kept for when it comes back."""
    changed = session.exec(
        update(FolderCursor)
        .where(col(FolderCursor.id) == cursor.id, col(FolderCursor.missing_since).is_(None))
        .values(missing_since=now(session))
    )
    if changed.rowcount:
        note_event(session, cursor.mailbox_id, cursor.folder, "folder missing", sentence)


def rename(session: Session, mailbox_id: int, old: str, new: str) -> None:
    """A folder has another name on the server: all that we know of it goes with it."""
    for table in (FolderCursor, LedgerEntry):
        session.exec(
            update(table)
            .where(col(table.mailbox_id) == mailbox_id, col(table.folder) == old)
            .values(folder=new)
        )
    row = session.get_one(Mailbox, mailbox_id)
    row.folders = [new if name == old else name for name in row.folders or ["INBOX"]]
    if row.sent_folder == old:
        row.sent_folder = new
    session.add(row)
    note_event(
        session,
        mailbox_id,
        new,
        "folder renamed",
        f"The folder {old!r} is called {new!r} on the server now, and is read on under that name.",
    )


def note_event(session: Session, mailbox_id: int, folder: str, kind: str, text: str) -> None:
    """Keep what happened to a mailbox, for the admin who asks."""
    session.add(
        MailboxEvent(mailbox_id=mailbox_id, folder=folder, kind=kind, text=text, created_at=now(session))
    )
    session.flush()
    if kind in ("stopped", "recovered"):
        told.mailbox_event(session, mailbox_id, kind, folder, text)


def events(session: Session, mailbox_id: int, *, limit: int = 50) -> list[MailboxEvent]:
    """What happened to a mailbox, newest first."""
    query = select(MailboxEvent).where(MailboxEvent.mailbox_id == mailbox_id)
    return list(session.exec(query.order_by(col(MailboxEvent.id).desc()).limit(limit)))


def why_pause(session: Session, mailbox_id: int, folder: str) -> str:
    """Why a mailbox should not be read on whose folder came back under other UIDs too often; "" while it may be."""
    resumed = session.exec(
        select(func.max(MailboxEvent.created_at)).where(
            MailboxEvent.mailbox_id == mailbox_id, MailboxEvent.kind == "resumed"
        )
    ).one()
    since = max(filter(None, (now(session) - FLAP_SPAN, resumed)))
    times = session.exec(
        select(func.count())
        .select_from(MailboxEvent)
        .where(
            MailboxEvent.mailbox_id == mailbox_id,
            MailboxEvent.folder == folder,
            col(MailboxEvent.kind).in_((RENUMBERED, RESTORED)),
            col(MailboxEvent.created_at) > since,
        )
    ).one()
    if times < FLAPS:
        return ""
    return (
        f"The server gave the folder {folder!r} other UIDs {times} times within the hour, so reading was stopped before it "
        "goes round in circles. Nothing is lost: find out what the server does, then `briefbox mailbox resume NAME`."
    )


def read_folders(row: Mailbox) -> list[str]:
    """The folders that are read: those with customers' mail, then that of sent mail."""
    return list(dict.fromkeys([*(row.folders or ["INBOX"]), *([row.sent_folder] if row.sent_folder else [])]))


def is_sent(row: Mailbox, folder: str) -> bool:
    """Whether all mail of this folder is our own."""
    return folder == row.sent_folder and folder not in (row.folders or ["INBOX"])


def starts_at(row: Mailbox, folder: str) -> str:
    """Where this folder begins when it is first seen: what was sent before us is nobody's answer now."""
    return "now" if is_sent(row, folder) else row.start_at


def start_days(start_at: str) -> float | None:
    """How many days of what is there already are wanted: 0 for "now", None for "all"."""
    if start_at == "all":
        return None
    return 0.0 if start_at == "now" else float(start_at.split()[0])


def entries_of(cursor: FolderCursor) -> tuple[bool, ...]:
    """The conditions that a ledger row belongs to this cursor."""
    return (
        LedgerEntry.mailbox_id == cursor.mailbox_id,
        LedgerEntry.folder == cursor.folder,
        LedgerEntry.uidvalidity == cursor.uidvalidity,
        LedgerEntry.generation == cursor.generation,
    )


def newest_entries(session: Session, cursor: FolderCursor, *, limit: int) -> list[LedgerEntry]:
    """The newest ledger rows of a cursor that have an email."""
    query = (
        select(LedgerEntry)
        .where(*entries_of(cursor), col(LedgerEntry.email_id).is_not(None))
        .order_by(col(LedgerEntry.uid).desc())
    )
    return list(session.exec(query.limit(limit)))
