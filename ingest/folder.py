"""One folder, read up to date: list UIDs, fetch what the ledger lacks, commit it, then hint.

1. ask the server for UIDs above the cursor (or, when comparing in full, for all of them);
2. leave out those with a ledger row; fetch the rest in batches bounded by number and bytes;
3. parse each; commit ledger + raw + parsed + cursor in one transaction;
4. after the commit, hint the workers.

A crash between any two steps repeats work and loses nothing: the cursor moves only in step 3.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from briefbox.db import Database
from briefbox.errors import MailboxError, ParseError
from briefbox.schemas import FetchedEmail, FolderStatus
from briefbox.settings import Settings
from briefbox.store import ledger, mailboxes
from briefbox.store.ledger import Arrival
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import FolderCursor
from ingest.mailbox import Mailbox
from ingest.parse import parse_email
from ingest.partial import most_whole

log = logging.getLogger(__name__)

SendHints = Callable[[list[int]], object]

# A server may break the connection on one particular mail. It is then fetched alone, and after this
# many breaks it is a dead letter (with a retry), so that it does not stand before all later mail for ever.
MAX_BREAKS = 4
# After so many it is asked for in part: a server may send far more than the size that it stated.
BREAKS_BEFORE_PART = 2


class Suspects:
    """UIDs during whose fetch the connection broke, and how often it did so while one was fetched alone."""

    def __init__(self) -> None:
        """Kept for as long as the mailbox is watched; a restart starts counting afresh."""
        self._breaks: dict[tuple[str, int], int] = {}

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._breaks

    def broke(self, folder: str, uids: Sequence[int]) -> None:
        """The connection broke while these were fetched."""
        for uid in uids:
            self._breaks[folder, uid] = self._breaks.get((folder, uid), 0) + (len(uids) == 1)

    def passed(self, folder: str, uids: Sequence[int]) -> None:
        """These were fetched well."""
        for uid in uids:
            self._breaks.pop((folder, uid), None)

    def is_hard(self, folder: str, uid: int) -> bool:
        """Whether the connection broke so often on this one alone that only a part of it is asked for."""
        return self._breaks.get((folder, uid), 0) >= BREAKS_BEFORE_PART

    def is_condemned(self, folder: str, uid: int) -> bool:
        """Whether the connection broke too often on this one alone."""
        return self._breaks.get((folder, uid), 0) >= MAX_BREAKS


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison found: how many messages were new to us, and how many emails wait for a brief now."""

    folder: str
    num_new: int
    num_waiting: int


class Folder:
    """One watched folder of an open mailbox."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: MailboxLease,
        name: str,
        send_hints: SendHints,
        suspects: Suspects | None = None,
    ) -> None:
        """`send_hints` gets ids of emails after their commit; it must not raise for a broker that is gone."""
        self.database, self.settings, self.lease, self.name = database, settings, lease, name
        self.send_hints = send_hints
        self.suspects = suspects if suspects is not None else Suspects()

    def reconcile(self, mailbox: Mailbox, *, in_full: bool) -> Reconciled:
        """Bring the ledger up to the server. Raises MailboxError, DatabaseError, LeaseLostError.

        `in_full` compares every UID with the ledger, not only those above the cursor: mail that a server
        adds below it (some do after a move) is found too.
        """
        status = mailbox.open_folder(self.name)
        cursor = self._cursor(mailbox, status)
        listed = mailbox.uids_above(cursor.first_uid if in_full else cursor.last_uid)
        with self.database.read() as session:
            known = ledger.known_uids(session, cursor, listed)
        missing = [uid for uid in listed if uid not in known]
        num_waiting = sum(self._take(mailbox, cursor, batch) for batch in self._batches(mailbox, missing))
        with self.database.write() as session:
            mailboxes.renew(session, self.lease, seconds=self.settings.mailbox_lease_seconds)
            if in_full:
                ledger.note_reconciled(session, cursor, server_exists=len(listed))
            mailboxes.note_success(session, self.lease.mailbox_id)
        return Reconciled(self.name, len(missing), num_waiting)

    def _cursor(self, mailbox: Mailbox, status: FolderStatus) -> FolderCursor:
        with self.database.read() as session:
            starts_now = mailboxes.get_by_id(session, self.lease.mailbox_id).start_at == "now"
        start_after = _last_uid(mailbox, status) if starts_now else 0
        with self.database.write() as session:
            mailboxes.renew(session, self.lease, seconds=self.settings.mailbox_lease_seconds)
            return ledger.open_folder(
                session, self.lease.mailbox_id, self.name, status.uidvalidity, start_after=start_after
            )

    def _batches(self, mailbox: Mailbox, uids: Sequence[int]) -> Iterator[list[tuple[int, int | None]]]:
        """(uid, size) in ascending order, bounded by number and by the sizes that the server states."""
        for start in range(0, len(uids), self.settings.fetch_batch):
            window = list(uids[start : start + self.settings.fetch_batch])
            sizes = mailbox.sizes(window)
            batch: list[tuple[int, int | None]] = []
            num_bytes = 0
            for uid in window:
                size = sizes.get(uid)
                alone = (self.name, uid) in self.suspects
                if batch and (alone or num_bytes + (size or 0) > self.settings.fetch_batch_bytes):
                    yield batch
                    batch, num_bytes = [], 0
                if alone:
                    yield [(uid, size)]
                    continue
                batch.append((uid, size))
                num_bytes += size or 0
            if batch:
                yield batch

    def _take(self, mailbox: Mailbox, cursor: FolderCursor, batch: Sequence[tuple[int, int | None]]) -> int:
        withheld = {
            uid: FetchedEmail(uid, None, size, problem=why)
            for uid, size in batch
            if (why := self._why_not(uid))
        }
        partial = self._partial(mailbox, [(uid, size) for uid, size in batch if uid not in withheld])
        wanted = [uid for uid, _ in batch if uid not in withheld and uid not in partial]
        try:
            fetched = mailbox.fetch(wanted)
        except MailboxError:
            self.suspects.broke(self.name, wanted)
            raise
        self.suspects.passed(self.name, [uid for uid, _ in batch])
        arrivals = [_arrival(email) for email in [*fetched, *partial.values(), *withheld.values()]]
        with self.database.write() as session:
            waiting = ledger.commit_batch(
                session,
                self.lease,
                cursor,
                arrivals,
                up_to=batch[-1][0],
                lease_seconds=self.settings.mailbox_lease_seconds,
            )
        log.info(
            "%s: %d new, %d to brief, up to UID %d", self.name, len(arrivals), len(waiting), batch[-1][0]
        )
        self.send_hints(waiting)
        return len(waiting)

    def _partial(self, mailbox: Mailbox, batch: Sequence[tuple[int, int | None]]) -> dict[int, FetchedEmail]:
        """Those whose attachments stay on the server: too large, or the admin wants it so."""
        with self.database.read() as session:
            row = mailboxes.get_by_id(session, self.lease.mailbox_id)
        most = most_whole(self.settings, row.attachments)
        found: dict[int, FetchedEmail] = {}
        for uid, size in batch:
            if (size or 0) > most or self.suspects.is_hard(self.name, uid):
                try:
                    found[uid] = mailbox.fetch_partial(uid)
                except MailboxError:
                    self.suspects.broke(self.name, [uid])
                    raise
        return found

    def _why_not(self, uid: int) -> str:
        """Why this one is not fetched, or ""."""
        if self.suspects.is_condemned(self.name, uid):
            return f"not fetched: the connection broke {MAX_BREAKS} times when it was fetched alone"
        return ""


def _arrival(email: FetchedEmail) -> Arrival:
    if email.raw is None:
        return Arrival(email)
    try:
        return Arrival(email, parse_email(email.raw, email.left))
    except ParseError as error:
        log.warning("UID %d cannot be parsed: %s", email.uid, error)
        return Arrival(email, problem=str(error))


def _last_uid(mailbox: Mailbox, status: FolderStatus) -> int:
    """The newest UID there is; UIDNEXT may be absent or 0."""
    if status.uidnext:
        return status.uidnext - 1
    uids = mailbox.uids_above(0)
    return uids[-1] if uids else 0
