"""Look at a mailbox without storing or changing anything: what is there, and whether the ledger agrees."""

from dataclasses import dataclass
from typing import Any

from sqlmodel import col, select

from briefbox.db import Database
from briefbox.errors import BriefboxError, ParseError
from briefbox.settings import Settings
from briefbox.store import ledger
from briefbox.tables import FolderCursor
from briefbox.tables import Mailbox as MailboxRow
from ingest.mailbox import IMAPMailbox, Mailbox, fetch_one
from ingest.parse import parse_email
from ingest.partial import SMALL_EMAIL
from ingest.poller import DEFAULT_FOLDER, account_of

NUM_NEWEST = 5
CAPABILITIES_THAT_MATTER = ("IDLE", "UIDPLUS", "CONDSTORE", "QRESYNC", "ESEARCH", "MOVE")


@dataclass(frozen=True, slots=True)
class FolderComparison:
    """One folder: what the server lists, and which of it has no ledger row."""

    mailbox: str
    folder: str
    uidvalidity: int
    server: int
    ledger: int
    missing: tuple[int, ...] = ()
    problem: str = ""


def look(row: MailboxRow, settings: Settings) -> dict[str, Any]:
    """Folders with counts, the newest subjects, the server's capabilities. Raises MailboxError."""
    watched = row.folders or [DEFAULT_FOLDER]
    with IMAPMailbox(account_of(row, settings)) as mailbox:
        folders = []
        for name in dict.fromkeys([*watched, *mailbox.folders()]):
            try:
                folders.append(
                    {"name": name, "messages": mailbox.open_folder(name).exists, "watched": name in watched}
                )
            except BriefboxError:
                if name in watched:
                    raise
        mailbox.open_folder(watched[0])
        return {
            "server": f"{row.host}:{row.port}",
            "folders": folders,
            "newest": _newest(mailbox),
            "capabilities": [c for c in CAPABILITIES_THAT_MATTER if c in mailbox.capabilities],
        }


def compare(database: Database, settings: Settings, row: MailboxRow) -> list[FolderComparison]:
    """Server N against ledger N for each watched folder, read afresh from the server."""
    names = row.folders or [DEFAULT_FOLDER]
    try:
        with IMAPMailbox(account_of(row, settings)) as mailbox:
            return [_compare_folder(database, row, mailbox, name) for name in names]
    except BriefboxError as error:
        return [FolderComparison(row.name, name, 0, 0, 0, problem=str(error)) for name in names]


def _compare_folder(database: Database, row: MailboxRow, mailbox: Mailbox, name: str) -> FolderComparison:
    status = mailbox.open_folder(name)
    with database.read() as session:
        cursor = session.exec(
            select(FolderCursor)
            .where(
                FolderCursor.mailbox_id == row.id,
                FolderCursor.folder == name,
                FolderCursor.uidvalidity == status.uidvalidity,
            )
            .order_by(col(FolderCursor.generation).desc())
        ).first()
        if cursor is None:
            return FolderComparison(
                row.name, name, status.uidvalidity, status.exists, 0, problem="not read yet"
            )
        listed = mailbox.uids_above(cursor.first_uid)
        known = ledger.known_uids(session, cursor, listed)
    missing = tuple(uid for uid in listed if uid not in known)
    return FolderComparison(row.name, name, status.uidvalidity, len(listed), len(known), missing)


def _newest(mailbox: Mailbox) -> list[dict[str, Any]]:
    newest = []
    for uid in reversed(mailbox.uids_above(0)[-NUM_NEWEST:]):
        email = fetch_one(mailbox, uid, SMALL_EMAIL)
        if email.raw is None:
            continue
        try:
            parsed = parse_email(email.raw)
            sender, subject = parsed.sender.name or parsed.sender.address, parsed.subject
        except ParseError:
            sender, subject = "", "(cannot be parsed)"
        date = email.internal_date.strftime("%Y-%m-%d %H:%M") if email.internal_date else ""
        newest.append({"date": date, "from": sender, "subject": subject})
    return newest
