"""Is this folder the one that we know, and do its UIDs mean the mail that they meant?

A server may renumber a folder (UIDVALIDITY changes), come back from a backup, or lead to another account. Then the folder
is read again under a new cursor, which is told to the admin; what is held already is recognised and not fetched twice.
"""

import logging
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from briefbox.db import Database
from briefbox.errors import MailboxPausedError
from briefbox.schemas import FolderStatus
from briefbox.settings import Settings
from briefbox.store import folders, ledger, mailboxes, recognise
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import Email, FolderCursor, LedgerEntry
from ingest.mailbox import Mailbox, fetch_one

log = logging.getLogger(__name__)

# How many known mails, the newest and as many over the whole folder, are compared when a connection is new.
NUM_COMPARED = 5


class SameFolder:
    """Finds the cursor of one folder, and notices when the server shows another folder under its name."""

    def __init__(self, database: Database, settings: Settings, lease: MailboxLease, name: str) -> None:
        """Asks nothing yet."""
        self.database, self.settings, self.lease, self.name = database, settings, lease, name

    def find(self, mailbox: Mailbox, status: FolderStatus) -> FolderCursor:
        """The cursor by which the folder is read now; begun where there is none, changed where the UIDs are others.

        Raises MailboxPausedError when they change too often, MailboxError, DatabaseError, LeaseLostError.
        """
        with self.database.read() as session:
            known = folders.cursors_of(session, self.lease.mailbox_id, self.name)
            start = folders.starts_at(mailboxes.get_by_id(session, self.lease.mailbox_id), self.name)
        current = next((c for c in known if c.current), None)
        if current is None:
            first, newest = _starting_point(mailbox, status, start)
            with self.database.write() as session:
                mailboxes.renew(session, self.lease, seconds=self.settings.mailbox_lease_seconds)
                return folders.begin(
                    session, self.lease.mailbox_id, self.name, status, first_uid=first, newest_uid=newest
                )
        if current.uidvalidity == status.uidvalidity:
            return current
        earlier = max(
            (c for c in known if c.uidvalidity == status.uidvalidity),
            key=lambda c: c.generation,
            default=None,
        )
        if earlier is None:
            return self.begin_again(mailbox, current, status, folders.RENUMBERED)
        self._tell(current, status, folders.RENUMBERED, earlier)
        return earlier

    def is_other_mail(
        self, mailbox: Mailbox, cursor: FolderCursor, status: FolderStatus, known: set[int]
    ) -> bool:
        """Whether the server shows other mail under UIDs that we know: a restored backup, another account."""
        uids = sorted(known)
        with self.database.read() as session:
            held = ledger.held(
                session, cursor, {*uids[-NUM_COMPARED:], *uids[:: max(1, len(uids) // NUM_COMPARED)]}
            )
        shown = mailbox.fingerprints(sorted(held)) if held else {}
        strange = [uid for uid, found in shown.items() if not recognise.agrees(*held[uid], found)]
        # A header may be told differently by a server that is otherwise right: the bytes decide.
        if strange and self._has_other_bytes(mailbox, *held[strange[0]]):
            return True
        # Nothing to compare: UIDNEXT never goes back (RFC 3501, 2.3.1.1), so one that does belongs to another folder.
        return not shown and bool(status.uidnext) and status.uidnext <= cursor.last_uid  # type: ignore[operator]

    def _has_other_bytes(self, mailbox: Mailbox, entry: LedgerEntry, email: Email) -> bool:
        """Whether the server gives other bytes for this email, fetched in the form in which it is held."""
        with self.database.read() as session:
            left = ledger.left_on_server(session, email.raw_id)
        # One that is held whole was no larger; what is larger now is not fetched whole to see that it differs.
        most = -1 if left else max(self.settings.max_email_bytes, entry.size or 0)
        found = fetch_one(mailbox, entry.uid, most)
        return found.raw is not None and sha256(found.raw).hexdigest() != email.sha256

    def begin_again(
        self, mailbox: Mailbox, old: FolderCursor, status: FolderStatus, kind: str
    ) -> FolderCursor:
        """A cursor for the same folder with other mail in it. Raises as find() does."""
        return self._tell(old, status, kind, None, newest_uid=_last_uid(mailbox, status))

    def _tell(
        self,
        old: FolderCursor,
        status: FolderStatus,
        kind: str,
        earlier: FolderCursor | None,
        *,
        newest_uid: int = 0,
    ) -> FolderCursor:
        """Change the cursor, say why, and stop when it happens too often."""
        why = (
            f"UIDVALIDITY was {old.uidvalidity} and is {status.uidvalidity} now"
            if kind == folders.RENUMBERED
            else f"UIDVALIDITY is {status.uidvalidity} as before, but other mail stands under the UIDs that we know (a restored backup, or another account)"
        )
        text = f"The folder {self.name!r} came back with other UIDs: {why}. It is read again; mail that is held already is recognised."
        with self.database.write() as session:
            mailboxes.renew(session, self.lease, seconds=self.settings.mailbox_lease_seconds)
            if earlier is None:
                cursor = folders.begin_again(session, old, status, newest_uid=newest_uid)
            else:
                cursor = earlier
                folders.make_current(session, cursor)
            folders.note_event(session, self.lease.mailbox_id, self.name, kind, text)
            paused = folders.why_pause(session, self.lease.mailbox_id, self.name)
            if paused:
                row = mailboxes.get_by_id(session, self.lease.mailbox_id)
                mailboxes.pause(session, row.name, reason=paused, actor="poller", alert=True)
        log.warning("mailbox %d: %s", self.lease.mailbox_id, text)
        if paused:
            raise MailboxPausedError(paused)
        return cursor


def _starting_point(mailbox: Mailbox, status: FolderStatus, start_at: str) -> tuple[int, int]:
    """Where reading begins, and the newest UID there is: what lies between was there before us."""
    newest, days = _last_uid(mailbox, status), folders.start_days(start_at)
    if days is None:
        return 0, newest
    if days == 0:
        return newest, newest
    # SINCE knows days only, and those of the server (RFC 3501, 6.4.4): rather one day more than one less.
    recent = mailbox.uids_since(datetime.now(UTC) - timedelta(days=days + 1))
    return (min(recent) - 1 if recent else newest), newest


def _last_uid(mailbox: Mailbox, status: FolderStatus) -> int:
    """The newest UID there is; UIDNEXT may be absent or 0."""
    if status.uidnext:
        return status.uidnext - 1
    uids = mailbox.uids_above(0)
    return uids[-1] if uids else 0
