"""A watched folder is missing: was it renamed? Told by its UIDVALIDITY and by the mail in it, never by its name."""

from contextlib import suppress

from briefbox.db import Database
from briefbox.errors import MailboxError
from briefbox.store import folders, ledger, recognise
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import Email, FolderCursor, LedgerEntry, Mailbox
from ingest.mailbox import Mailbox as OpenMailbox

# A mailbox with more folders is asked about the first of them only.
MAX_FOLDERS = 200
NUM_COMPARED = 5


def follow(database: Database, mailbox: OpenMailbox, lease: MailboxLease, folder: str) -> str:
    """The folder's new name, under which it is read from now on; "" when no folder is certain to be it.

    Raises MailboxError, DatabaseError.
    """
    with database.read() as session:
        cursor = folders.current(session, lease.mailbox_id, folder)
        row = session.get_one(Mailbox, lease.mailbox_id)
        if cursor is None or cursor.missing_since is not None:
            return ""
        newest = folders.newest_entries(session, cursor, limit=NUM_COMPARED)
        held = ledger.held(session, cursor, [entry.uid for entry in newest])
    if not held:
        return ""
    watched = set(folders.read_folders(row))
    candidates = [name for name in mailbox.folders()[:MAX_FOLDERS] if name not in watched]
    same = [name for name in candidates if _is_it(mailbox, name, cursor, held)]
    if len(same) != 1:
        return ""
    with database.write() as session:
        folders.rename(session, lease.mailbox_id, folder, same[0])
    return same[0]


def _is_it(
    mailbox: OpenMailbox,
    name: str,
    cursor: FolderCursor,
    held: dict[int, tuple[LedgerEntry, Email]],
) -> bool:
    with suppress(MailboxError):
        if mailbox.uidvalidity_of(name) != cursor.uidvalidity:
            return False
        mailbox.open_folder(name)
        shown = mailbox.fingerprints(sorted(held))
        return bool(shown) and all(recognise.agrees(*held[uid], found) for uid, found in shown.items())
    return False
