"""Look at a mailbox without storing or changing anything: what is there, what we will do, and whether the ledger agrees."""

import time
from dataclasses import dataclass, field
from typing import Any

from briefbox.db import Database, now
from briefbox.errors import BriefboxError, FolderMissingError, ParseError
from briefbox.settings import Settings
from briefbox.store import mailbox_state, mailboxes
from briefbox.store.folders import is_sent, read_folders
from briefbox.tables import Mailbox as MailboxRow
from ingest.accounts import account_of
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import Mailbox, fetch_one
from ingest.parse import parse_email
from ingest.partial import SMALL_EMAIL

NUM_NEWEST = 5
CAPABILITIES_THAT_MATTER = ("IDLE", "UIDPLUS", "CONDSTORE", "QRESYNC", "ESEARCH", "MOVE")
PROMISE = "We will not delete, move or mark anything."
# Mail that arrived a moment ago is not missing yet.
SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FolderComparison:
    """One folder: what the server lists of the mail that concerns us, and which of it has no ledger row."""

    mailbox: str
    folder: str
    uidvalidity: int
    server: int
    ledger: int
    missing: tuple[int, ...] = ()
    problem: str = ""
    to_read: int = 0  # of what was there before us, not read yet
    left: tuple[int, ...] = ()  # we have a row, and the server no longer lists it: deleted or moved by others
    states: dict[str, int] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether every mail of the server has its row, or is still to be read."""
        return not self.missing and not self.problem

    @property
    def words(self) -> str:
        """The comparison in a sentence."""
        if self.problem:
            return f"{self.folder}: {self.problem}"
        if self.missing:
            some = ", ".join(map(str, self.missing[:10])) + (", ..." if len(self.missing) > 10 else "")
            return f"{self.folder}: server {self.server:,}, ledger {self.ledger:,}: {len(self.missing):,} without a row (UID {some})."
        if self.to_read:
            return f"{self.folder}: server {self.server:,}, ledger {self.ledger:,}, still to be read {self.to_read:,} of what was there before."
        return f"{self.folder}: server {self.server:,} = ledger {self.ledger:,}."


def look(row: MailboxRow, settings: Settings, database: Database | None = None) -> dict[str, Any]:
    """Folders with counts, the newest subjects, capabilities, and what we will do. Raises MailboxError.

    Without a database the mailbox is one that is not stored yet.
    """
    watched = read_folders(row)
    with IMAPMailbox(account_of(row, settings, database)) as mailbox:
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
        capabilities = mailbox.capabilities
        return {
            "server": f"{row.host}:{row.port}",
            "folders": folders,
            "newest": _newest(mailbox),
            "capabilities": [c for c in CAPABILITIES_THAT_MATTER if c in capabilities],
            "will": _will(row, settings, database, capabilities),
        }


def compare(database: Database, settings: Settings, row: MailboxRow) -> list[FolderComparison]:
    """Server N against ledger N for each watched folder, read afresh from the server."""
    names = read_folders(row)
    try:
        with IMAPMailbox(account_of(row, settings, database)) as mailbox:
            return [_compare_folder(database, row, mailbox, name) for name in names]
    except BriefboxError as error:
        return [FolderComparison(row.name, name, 0, 0, 0, problem=str(error)) for name in names]


def compare_settled(
    database: Database, settings: Settings, name: str, *, seconds: float = SETTLE_SECONDS
) -> list[FolderComparison]:
    """As `compare`, and again for some seconds while a poller is just taking what came in."""
    deadline = time.monotonic() + seconds
    while True:
        with database.read() as session:
            row = mailboxes.get(session, name)
            is_read = mailbox_state.is_read(row, now(session))
        found = compare(database, settings, row)
        if not any(c.missing for c in found) or not is_read or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _compare_folder(database: Database, row: MailboxRow, mailbox: Mailbox, name: str) -> FolderComparison:
    try:
        status = mailbox.open_folder(name)
    except FolderMissingError as error:
        return FolderComparison(row.name, name, 0, 0, 0, problem=str(error))
    with database.read() as session:
        cursor = mailbox_state.newest_cursor(session, row.id, name, status.uidvalidity)
    if cursor is None:
        return FolderComparison(row.name, name, status.uidvalidity, status.exists, 0, problem="not read yet")
    listed = set(mailbox.uids_above(cursor.first_uid))
    with database.read() as session:
        known = mailbox_state.uids(session, cursor)
        states = mailbox_state.states(session, cursor)
    unknown = listed - known
    older = {uid for uid in unknown if cursor.backfill_uid < uid <= cursor.older_uid}
    return FolderComparison(
        row.name,
        name,
        status.uidvalidity,
        len(listed),
        len(listed & known),
        missing=tuple(sorted(unknown - older)),
        to_read=len(older),
        left=tuple(sorted(known - listed)),
        states=states,
    )


def _will(
    row: MailboxRow, settings: Settings, database: Database | None, capabilities: frozenset[str]
) -> list[str]:
    """In sentences: what will and will not be done with this mailbox."""
    said = [
        "IDLE: new mail is seen at once."
        if "IDLE" in capabilities
        else f"No IDLE: looked at every {settings.poll_seconds:g} s.",
        "CONDSTORE: the server vouches for a folder that has not changed."
        if "CONDSTORE" in capabilities
        else "No CONDSTORE: a folder's counts tell whether it has changed, and it is listed afresh at least once a day.",
        f"Every folder is compared every {settings.reconcile_seconds:g} s, whatever the server announces.",
    ]
    begun = []
    if database is not None:
        with database.read() as session:
            begun = [f.folder for f in mailbox_state.folder_states(session, row.id)]
    if begun:
        said.append(f"Reading has begun in {', '.join(begun)} and goes on where it stopped.")
    if any(not is_sent(row, name) for name in set(read_folders(row)) - set(begun)):
        said.append(_start_words(row.start_at, row.older))
    if row.sent_folder:
        said.append(f"{row.sent_folder} is watched for answers; what is in it is never briefed.")
    if row.attachments == "reference":
        said.append("Attachments stay on the server; their names and sizes are kept.")
    return [*said, PROMISE]


def _start_words(start_at: str, older: str) -> str:
    if start_at == "now":
        return "Mail that is there already will not be read."
    which = (
        "Mail that is there already"
        if start_at == "all"
        else f"Mail of the last {start_at} that is there already"
    )
    becomes = {
        "closed": "becomes closed conversations without a brief",
        "briefed": "becomes closed conversations, briefed after all new mail",
        "open": "is treated like new mail and appears in the queue",
    }[older]
    rest = "" if start_at == "all" else " What is older will not be read."
    return f"{which} {becomes}.{rest}"


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
