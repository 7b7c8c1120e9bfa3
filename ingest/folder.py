"""One folder, read up to date in steps: list UIDs, fetch what the ledger lacks, commit it, then hint.

1. open it: the same folder as before, or one whose UIDs mean other mail (renumbered, restored, another account)?
2. ask the server for UIDs above the cursor (or, when comparing in full, for all of them);
3. leave out those with a ledger row; fetch the rest in batches bounded by number and bytes;
4. parse each, in a process that may die of it; commit ledger + raw + parsed + cursor in one transaction;
5. after the commit, hint the workers.

A crash between any two steps repeats work and loses nothing: the cursor moves only in step 4. A step is bounded, so that
a folder with very much mail takes turns with the others; mail that was there before us is read beside new mail.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from briefbox.db import Database
from briefbox.errors import MailboxError
from briefbox.schemas import FetchedEmail, Fingerprint, FolderStatus
from briefbox.settings import Settings
from briefbox.store import folders, ledger, mailboxes, recognise
from briefbox.store.handling import Handling
from briefbox.store.ledger import Arrival
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import FolderCursor
from ingest import parser_process
from ingest.kind import as_sent
from ingest.mailbox import Mailbox
from ingest.parser_process import Outcome, ParserProcess
from ingest.partial import most_whole
from ingest.same_folder import NUM_COMPARED, SameFolder
from ingest.suspects import MAX_BREAKS, Suspects

log = logging.getLogger(__name__)

SendHints = Callable[[list[int]], object]

# A step takes so many batches at most: while one is parsed the next one is fetched.
NUM_BATCHES = 4
# How long the server's word that nothing was added is taken for it.
LIST_AT_LEAST_EVERY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison found: how many messages were new to us, and how many emails wait for a brief now."""

    folder: str
    num_new: int
    num_waiting: int
    is_complete: bool = True  # False: there is more new mail than one step takes


class Folder:
    """One watched folder of a mailbox; what it remembers holds for one connection."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: MailboxLease,
        name: str,
        send_hints: SendHints,
        suspects: Suspects | None = None,
        parser: ParserProcess | None = None,
        *,
        is_sent: bool = False,
    ) -> None:
        """`send_hints` gets ids of emails after their commit; it must not raise for a broker that is gone.

        `is_sent`: all mail in it is our own, whoever it says that it is from.
        """
        self.is_sent = is_sent
        self.database, self.settings, self.lease, self.name = database, settings, lease, name
        self.send_hints = send_hints
        self.suspects = suspects if suspects is not None else Suspects()
        self.parser = parser if parser is not None else parser_process.shared()
        self.parser.start()
        self._same = SameFolder(database, settings, lease, name)
        self._cursor: FolderCursor | None = None
        self._own: frozenset[str] | None = None
        # What the folder was compared by, and how much of it concerns us, until all that was found is in the ledger.
        self._compared: tuple[FolderStatus, list[int] | None] | None = None
        self._news: deque[int] = deque()
        self._is_unchanged = False  # as looked at since take_unchanged() asked last
        # The last batch of a step that goes on: it is parsed while others have their turn, and committed by the next step.
        self._pending: _Fetched | None = None
        # What is still to be read of the mail that was there before us; None: not listed yet.
        self._older: deque[int] | None = None

    def reconcile(self, mailbox: Mailbox, *, in_full: bool) -> Reconciled:
        """Bring the ledger up to the server, however long it takes. Raises MailboxError, DatabaseError, LeaseLostError.

        `in_full` compares every UID with the ledger, not only those above the cursor: mail that a server
        adds below it (some do after a move) is found too.
        """
        num_new = num_waiting = 0
        while True:
            step = self.step(mailbox, in_full=in_full)
            in_full, num_new, num_waiting = False, num_new + step.num_new, num_waiting + step.num_waiting
            if step.is_complete:
                break
        while self.has_older:
            older = self.step_back(mailbox)
            num_new, num_waiting = num_new + older.num_new, num_waiting + older.num_waiting
        return Reconciled(self.name, num_new, num_waiting)

    def step(self, mailbox: Mailbox, *, in_full: bool, list_all: bool = False) -> Reconciled:
        """Read new mail, one window of UIDs at most. Raises MailboxError, DatabaseError, LeaseLostError.

        `in_full` compares the folder with the ledger, by what the server says of it where that tells enough; with
        `list_all` by every UID in any case.
        """
        if self._cursor is None or in_full:
            self._commit_pending()
            status = mailbox.open_folder(self.name)
            if not list_all and self._looks_unchanged(status):
                return Reconciled(self.name, 0, 0)
            self._compare(mailbox, status, list_all=list_all)
        cursor = self._cursor
        assert cursor is not None
        if self._compared and not self._news and _is_read_to_its_end(cursor, self._compared[0]):
            done = Reconciled(self.name, 0, 0)
        else:
            if not self._news:
                self._news = deque(mailbox.uids_above(cursor.last_uid))
            done = self._take_window(mailbox, self._news)
        if done.is_complete and self._compared:
            # Not before what was found is in the ledger: a comparison that is noted is not made again.
            self._note(cursor, *self._compared)
        return done

    def take_unchanged(self) -> int | None:
        """The cursor's id, once, when the folder was looked at and is as it was; for folders.note_unchanged()."""
        was_unchanged, self._is_unchanged = self._is_unchanged, False
        return self._cursor.id if was_unchanged and self._cursor is not None else None

    @property
    def has_older(self) -> bool:
        """Whether mail that was there before us, or before the folder was renumbered, is still to be read."""
        return self._cursor is not None and self._cursor.backfill_uid < self._cursor.older_uid

    @property
    def is_reread(self) -> bool:
        """Whether the folder came back under other UIDs: its mail may be new and must not be put off."""
        return self._cursor is not None and self._cursor.reread

    def step_back(self, mailbox: Mailbox) -> Reconciled:
        """Read older mail, one window of UIDs at most, the oldest first. Raises as step() does."""
        cursor = self._cursor
        assert cursor is not None
        if self._older is None:
            self._older = deque(mailbox.uids_above(cursor.backfill_uid, up_to=cursor.older_uid))
        if not self._older:
            self._move(cursor, cursor.older_uid)
            return Reconciled(self.name, 0, 0)
        return self._take_window(mailbox, self._older, backfill=True)

    def _take_window(self, mailbox: Mailbox, uids: deque[int], *, backfill: bool = False) -> Reconciled:
        """Take the first UIDs off the queue and into the ledger."""
        cursor = self._cursor
        assert cursor is not None
        most = NUM_BATCHES * self.settings.fetch_batch
        window = [uids.popleft() for _ in range(min(len(uids), most))]
        try:
            if backfill and cursor.reread:
                num_waiting = self._recognise(mailbox, cursor, window)
            else:
                num_waiting = self._take(mailbox, cursor, window, backfill=backfill)
                # Where the next step is due at once, it finds the last batch parsed.
                if not uids or (backfill and self.settings.backfill_per_second):
                    num_waiting += self._commit_pending()
        except BaseException:
            self._forget()
            raise
        return Reconciled(self.name, len(window), num_waiting, is_complete=not uids)

    # --- the same folder as before?

    def _looks_unchanged(self, status: FolderStatus) -> bool:
        """Whether a folder that this connection has compared before is as it was then.

        Hundreds of folders are looked at every few minutes, and nearly always this is all: it asks the database nothing.
        """
        cursor = self._cursor
        if cursor is None or self._news or self._compared:
            return False
        is_same = cursor.uidvalidity == status.uidvalidity and cursor.missing_since is None
        if not is_same or not _is_unchanged(cursor, status) or not _is_read_to_its_end(cursor, status):
            return False
        cursor.highest_modseq, self._own, self._is_unchanged = status.highest_modseq, None, True
        return True

    def _compare(self, mailbox: Mailbox, status: FolderStatus, *, list_all: bool) -> None:
        """Find or begin the cursor, and list what the ledger lacks."""
        is_first_look, cursor = self._cursor is None, self._same.find(mailbox, status)
        if cursor.id != (self._cursor.id if self._cursor else None):
            self._news, self._older = deque(), None
        self._cursor, self._compared, self._own = cursor, (status, None), None
        is_listed = list_all or not _is_unchanged(cursor, status)
        listed = mailbox.uids_above(cursor.first_uid) if is_listed else None
        with self.database.read() as session:
            if listed is None:
                known = {entry.uid for entry in folders.newest_entries(session, cursor, limit=NUM_COMPARED)}
            else:
                known = ledger.known_uids(session, cursor, listed)
        if is_first_look and self._same.is_other_mail(mailbox, cursor, status, known):
            self._cursor = cursor = self._same.begin_again(mailbox, cursor, status, folders.RESTORED)
            known, listed = set(), mailbox.uids_above(0)
            self._older = None
        if listed is None:
            return
        unread = range(cursor.backfill_uid + 1, cursor.older_uid + 1)
        self._news = deque(uid for uid in listed if uid not in known and uid not in unread)
        self._compared = (status, listed)

    # --- into the ledger

    def _recognise(self, mailbox: Mailbox, cursor: FolderCursor, window: Sequence[int]) -> int:
        """Of a folder that is read again: what is held already needs no fetching; the rest is new mail."""
        prints = mailbox.fingerprints(window)
        # One that the server says nothing about is fetched, and ends as the ledger says then.
        prints = {uid: prints.get(uid, Fingerprint("")) for uid in window}
        with self.database.write() as session:
            left = recognise.commit(
                session, self.lease, cursor, prints, seconds=self.settings.mailbox_lease_seconds
            )
        num_waiting = self._take(mailbox, cursor, left, backfill=True) + self._commit_pending()
        self._move(cursor, window[-1])
        return num_waiting

    def _move(self, cursor: FolderCursor, uid: int) -> None:
        with self.database.write() as session:
            mailboxes.renew(session, self.lease, seconds=self.settings.mailbox_lease_seconds)
            ledger.move_backfill(session, cursor, uid)
        cursor.backfill_uid = max(cursor.backfill_uid, uid)

    def _note(self, cursor: FolderCursor, status: FolderStatus, listed: list[int] | None) -> None:
        """Server and ledger agree, as far as new mail goes."""
        self._compared = None
        with self.database.read() as session:
            known = None if listed is None else len(ledger.known_uids(session, cursor, listed))
        with self.database.write() as session:
            mailboxes.renew(session, self.lease, seconds=self.settings.mailbox_lease_seconds)
            folders.note_reconciled(
                session,
                cursor,
                status,
                server_exists=None if listed is None else len(listed),
                ledger_exists=known,
            )
        cursor.total, cursor.uidnext = status.exists, status.uidnext
        cursor.highest_modseq = status.highest_modseq
        cursor.missing_since = None
        if listed is not None:
            cursor.listed_at = datetime.now(UTC)

    def _batches(self, mailbox: Mailbox, uids: Sequence[int]) -> Iterator[list[tuple[int, int | None]]]:
        """(uid, size) in ascending order, bounded by number and by the sizes that the server states."""
        sizes = mailbox.sizes(uids) if uids else {}
        batch: list[tuple[int, int | None]] = []
        num_bytes = 0
        for uid in uids:
            size = sizes.get(uid)
            alone = (self.name, uid) in self.suspects
            is_full = len(batch) == self.settings.fetch_batch
            if batch and (alone or is_full or num_bytes + (size or 0) > self.settings.fetch_batch_bytes):
                yield batch
                batch, num_bytes = [], 0
            if alone:
                yield [(uid, size)]
                continue
            batch.append((uid, size))
            num_bytes += size or 0
        if batch:
            yield batch

    def _take(
        self, mailbox: Mailbox, cursor: FolderCursor, uids: Sequence[int], *, backfill: bool = False
    ) -> int:
        """Fetch, parse and commit these in batches, in their order: one is parsed while the next one is fetched.

        The last one is left to _commit_pending().
        """
        num_waiting = 0
        try:
            for batch in self._batches(mailbox, uids):
                fetched = self._fetch(mailbox, cursor, batch, backfill=backfill)
                num_waiting += self._commit_pending()
                self._pending = fetched
        except MailboxError:
            self._commit_pending()  # it came before the trouble
            raise
        return num_waiting

    def _commit_pending(self) -> int:
        """Commit what is being parsed, if anything is. Returns how many emails of it wait for a brief."""
        fetched, self._pending = self._pending, None
        if fetched is None:
            return 0
        try:
            return self._commit(fetched)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Something went wrong: what is missing in the ledger is listed afresh."""
        self._cursor, self._older, self._compared, self._pending = None, None, None, None
        self._news.clear()

    def _fetch(
        self,
        mailbox: Mailbox,
        cursor: FolderCursor,
        batch: Sequence[tuple[int, int | None]],
        *,
        backfill: bool,
    ) -> "_Fetched":
        """Get them from the server and give them to the parser."""
        withheld = {
            uid: FetchedEmail(uid, None, size, problem=why)
            for uid, size in batch
            if (why := self._why_not(uid))
        }
        partial = self._partial(mailbox, [(uid, size) for uid, size in batch if uid not in withheld])
        wanted = [uid for uid, _ in batch if uid not in withheld and uid not in partial]
        try:
            emails = mailbox.fetch(wanted)
        except MailboxError:
            self.suspects.broke(self.name, wanted)
            raise
        self.suspects.passed(self.name, [uid for uid, _ in batch])
        given = [*emails, *partial.values()]
        came = [email for email in given if email.raw is not None]
        parsing = self.parser.submit(
            [email.raw or b"" for email in came], self._own_addresses(), [email.left for email in came]
        )
        return _Fetched(
            [*given, *withheld.values()],
            parsing,
            cursor,
            batch[-1][0],
            backfill=backfill,
            sent_folder=self.name if self.is_sent else "",
        )

    def _commit(self, fetched: "_Fetched") -> int:
        cursor, backfill = fetched.cursor, fetched.backfill
        arrivals = fetched.arrivals()
        with self.database.write() as session:
            waiting = ledger.commit_batch(
                session,
                self.lease,
                cursor,
                arrivals,
                up_to=fetched.up_to,
                lease_seconds=self.settings.mailbox_lease_seconds,
                backfill=backfill and not cursor.reread,
                moves="backfill_uid" if backfill else "last_uid",
                handling=Handling.of(self.settings),
            )
        if backfill:
            cursor.backfill_uid = max(cursor.backfill_uid, fetched.up_to)
        else:
            cursor.last_uid = max(cursor.last_uid, fetched.up_to)
        log.info(
            "%s: %d new, %d to brief, up to UID %d", self.name, len(arrivals), len(waiting), fetched.up_to
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

    def _own_addresses(self) -> frozenset[str]:
        if self._own is None:
            with self.database.read() as session:
                self._own = mailboxes.own_addresses(session)
        return self._own

    def _why_not(self, uid: int) -> str:
        """Why this one is not fetched, or ""."""
        if self.suspects.is_condemned(self.name, uid):
            return f"not fetched: the connection broke {MAX_BREAKS} times when it was fetched alone"
        return ""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A batch that is being parsed; the cursor, or its end for older mail (`backfill`), moves to `up_to` with it."""

    emails: list[FetchedEmail]
    parsing: Future[list[Outcome]]
    cursor: FolderCursor
    up_to: int
    backfill: bool
    sent_folder: str = ""

    def arrivals(self) -> list[Arrival]:
        """Wait for the parser. Raises BriefboxError if it cannot be started."""
        outcomes = iter(self.parsing.result())
        return [
            Arrival(e) if e.raw is None else _arrival(e, next(outcomes), self.sent_folder)
            for e in self.emails
        ]


def _arrival(email: FetchedEmail, outcome: Outcome, sent_folder: str) -> Arrival:
    if outcome.parsed is None:
        log.warning("UID %d cannot be parsed: %s", email.uid, outcome.problem)
    elif sent_folder:
        ours = as_sent(outcome.parsed, sent_folder)
        return Arrival(email, ours, json=ours.to_store())
    return Arrival(email, outcome.parsed, outcome.problem, outcome.json)


def _is_unchanged(cursor: FolderCursor, status: FolderStatus) -> bool:
    """Whether the folder can't have new mail since it was last listed: then there is nothing to list.

    A message that is added gets a UID of at least UIDNEXT (RFC 3501, 2.3.1.1). Servers that break this rule are
    found out by the number of messages and, where HIGHESTMODSEQ (RFC 7162) does not vouch for it, once a day.
    """
    if cursor.listed_at is None or cursor.total != status.exists:
        return False
    if status.highest_modseq and status.highest_modseq == cursor.highest_modseq:
        return True  # not even a flag has changed
    is_due = datetime.now(UTC) - cursor.listed_at > LIST_AT_LEAST_EVERY
    return status.uidnext is not None and status.uidnext == cursor.uidnext and not is_due


def _is_read_to_its_end(cursor: FolderCursor, status: FolderStatus) -> bool:
    """Whether the answer to EXAMINE says that there is nothing above the cursor, so that it need not be asked for."""
    return status.uidnext is not None and status.uidnext <= cursor.last_uid + 1
