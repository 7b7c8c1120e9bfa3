"""The poller: one process, any number of mailboxes and folders, none of which has a thread while it waits.

    selector: idling connections, all in one select()        what is due: news, renewal, next try, older mail
                       |                                                      |
                       +-----------------> a few threads, one step each <-----+
                                  (connect, list, fetch, commit, idle again)

Who goes first: folders with news, the longest waiting first; older mail after that. A step is bounded, so a folder with
100,000 new mails takes turns with the others; folders in trouble get half of the threads at most, since a server that does
not answer holds one until the timeout. Several pollers share the mailboxes by lease; the leases of one that dies lapse.
"""

import logging
import math
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from threading import Event
from uuid import uuid4

from sqlmodel import Session

from briefbox.db import Database
from briefbox.errors import BriefboxError
from briefbox.settings import Settings
from briefbox.store import alerts, folders, leases, mailboxes, processes
from briefbox.store.mailboxes import MailboxLease, Watched
from briefbox.store.processes import ProcessName
from briefbox.tables import Mailbox as MailboxRow
from ingest.accounts import account_of
from ingest.folder import SendHints
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import Mailbox
from ingest.watch import FolderWatch, Surroundings

log = logging.getLogger(__name__)

# How often the list of mailboxes is read again and leases are renewed; more rarely where there are very many.
LOOK_SECONDS = 2.0
MAILBOXES_PER_LOOK_SECOND = 100
# A step that takes longer is broken off: its server sends just enough not to time out.
STEP_SECONDS = 900.0
# How soon a stop is noticed.
SELECT_SECONDS = 0.5
# How soon those are looked at again that were due and found no thread.
BLOCKED_SECONDS = 0.05


class Poller:
    """Watches every mailbox that is not paused; notices added, changed and removed ones."""

    def __init__(
        self, database: Database, settings: Settings, process: ProcessName, send_hints: SendHints
    ) -> None:
        """`send_hints` gets ids of committed emails."""
        self.database, self.settings, self.process = database, settings, process
        # No other process has this name, not even one with the same number in another container.
        self._owner = f"{process.name}#{uuid4().hex[:8]}"
        self._shared = Surroundings(database, settings, send_hints, self._open)
        self._watches: dict[int, tuple[tuple[object, ...], list[FolderWatch]]] = {}
        self._running: dict[FolderWatch, float] = {}
        self._finished: deque[FolderWatch] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._pool = ThreadPoolExecutor(settings.poller_threads, thread_name_prefix="folder")
        self._look_at = 0.0
        self._soonest = 0.0  # when the next of those that wait is due
        self._is_blocked = False  # somebody is due who found no thread
        self._crowded: set[tuple[str, ...]] = set()  # hosts and accounts with more folders than connections

    def run(self, stop: Event) -> None:
        """Watch until `stop` is set, then leave every mailbox to the next poller."""
        try:
            while not stop.is_set():
                if time.monotonic() >= self._look_at:
                    self._try_to_look()
                self._dispatch()
                for key, _ in self._selector.select(self._next_due()):
                    self._heard(key)
                self._collect()
        finally:
            self._end()

    # --- mailboxes and leases

    def _try_to_look(self) -> None:
        try:
            self._look()
        except BriefboxError as error:
            log.warning("%s Trying again.", error)
        num_mailboxes = len(self._watches)
        self._look_at = time.monotonic() + max(LOOK_SECONDS, num_mailboxes / MAILBOXES_PER_LOOK_SECOND)

    def _look(self) -> None:
        """Renew leases, take mailboxes that are free, leave those that are paused, changed or more than our share."""
        owner, seconds = self._owner, self.settings.mailbox_lease_seconds
        with self.database.write() as session:
            wanted = mailboxes.watched(session)
            ours = leases.renew_owned(session, owner, seconds=seconds)
            processes.beat(session, self.process, f"{len(ours)} of {len(wanted)} mailboxes")
            share = -(-len(wanted) // max(1, self._num_pollers(session)))
            if surplus := [i for i in ours if i not in wanted] + list(ours)[share:]:
                log.info("giving %d mailboxes back", len(surplus))
                leases.release_all(session, owner, surplus)
                ours = {i: lease for i, lease in ours.items() if i not in surplus}
            if len(ours) < share:
                free = [i for i in wanted if i not in ours]
                ours |= leases.claim_free(
                    session, free, owner=owner, seconds=seconds, limit=share - len(ours)
                )
            self._note_successes(session)
            asked = [i for i in ours if wanted[i].is_asked]
            if asked:
                mailboxes.take_requests(session, asked)
        self._keep_only(wanted, ours)
        self._begin({i: lease for i, lease in ours.items() if i not in self._watches})
        for mailbox_id in asked:
            for watch in self._of(mailbox_id):
                watch.wants_comparison, watch.due = True, 0.0
        num_folders = Counter(chain.from_iterable(watch.places for watch in self._all()))
        self._crowded = {place for place, number in num_folders.items() if number > self._limit(place)}

    def _begin(self, new: Mapping[int, MailboxLease]) -> None:
        """Watch these mailboxes too."""
        if not new:
            return
        with self.database.read() as session:
            versions = mailboxes.watched(session)
            rows = [row for row in mailboxes.get_many(session, list(new)) if row.id in versions]
        for row in rows:
            names = folders.read_folders(row)
            watches = [FolderWatch(self._shared, row, new[row.id], name) for name in names]
            self._watches[row.id] = (versions[row.id].version, watches)

    def _num_pollers(self, session: Session) -> int:
        alive = {row.name for row, is_alive in processes.all_of(session) if is_alive and row.kind == "poll"}
        return len(alive | {self.process.name})

    def _note_successes(self, session: Session) -> None:
        unchanged = [cursor for watch in self._all() if (cursor := watch.take_unchanged()) is not None]
        if unchanged:
            folders.note_unchanged(session, unchanged)
        well = []
        for mailbox_id in self._watches:
            watches = self._of(mailbox_id)
            if any(w.has_succeeded for w in watches) and not any(w.error for w in watches):
                well.append(mailbox_id)
        if well:
            mailboxes.note_success(session, well)
            # Raised by a poller that is gone: whoever raised it here has said so already.
            over = alerts.resolve_all(session, [w.key for i in well for w in self._of(i)])
            for watch in (w for i in well for w in self._of(i) if w.key in over):
                folders.note_event(session, watch.row.id, watch.folder, "recovered", watch.read_again)
            for mailbox_id in well:
                for watch in self._of(mailbox_id):
                    watch.has_succeeded = False

    def _keep_only(self, wanted: Mapping[int, Watched], ours: Mapping[int, MailboxLease]) -> None:
        for mailbox_id, (version, watches) in list(self._watches.items()):
            same = mailbox_id in ours and version == wanted[mailbox_id].version
            if same and not any(w.is_lost or w.lease != ours[mailbox_id] for w in watches):
                continue
            for watch in watches:
                self._unregister(watch)
                watch.is_lost = True
                if watch in self._running:
                    _abort(watch)  # collected when its step has ended
                else:
                    watch.disconnect()
            # What still runs writes under its lease, which the next watch of this mailbox would share.
            if not any(w in self._running for w in watches):
                del self._watches[mailbox_id]

    def _of(self, mailbox_id: int) -> list[FolderWatch]:
        # None where a mailbox was paused since we looked.
        return self._watches[mailbox_id][1] if mailbox_id in self._watches else []

    def _all(self) -> list[FolderWatch]:
        return [watch for _, watches in self._watches.values() for watch in watches]

    # --- steps

    def _next_due(self) -> float:
        """Seconds until something is due by itself. The end of a step wakes the selector in any case."""
        soonest = min(self._look_at, self._soonest) - time.monotonic()
        return min(SELECT_SECONDS, max(BLOCKED_SECONDS if self._is_blocked else 0.0, soonest))

    def _dispatch(self) -> None:
        """Give threads to those that are due, as far as threads and connections go."""
        moment = time.monotonic()
        self._abort_endless(moment)
        self._is_blocked, self._soonest = False, math.inf
        due: list[FolderWatch] = []
        for watch in self._all():
            if watch in self._running or watch.is_lost:
                continue
            if watch.due <= moment:
                due.append(watch)
            elif watch.due < self._soonest:
                self._soonest = watch.due
        if due:
            self._start_some(due, moment)

    def _start_some(self, due: list[FolderWatch], moment: float) -> None:
        due.sort(key=lambda w: (w.is_behind, w.due))
        num_threads = self.settings.poller_threads
        num_troubled = sum(w.failures > 0 for w in self._running)
        num_behind = sum(w.is_behind for w in self._running)
        connections = self._connections() if any(w.mailbox is None for w in due) else Counter()
        for watch in due:
            if len(self._running) >= num_threads:
                self._is_blocked = True
                return
            troubled, behind = watch.failures > 0, watch.is_behind
            if (troubled and num_troubled >= num_threads // 2) or (
                behind and num_behind >= num_threads // 4 + 1
            ):
                self._is_blocked = True
                continue
            if watch.mailbox is None and not self._has_room(watch, connections):
                watch.due = moment + 0.2
                self._soonest = min(self._soonest, watch.due)
                continue
            if watch.mailbox is None:
                connections.update(watch.places)
            num_troubled, num_behind = num_troubled + troubled, num_behind + behind
            self._start(watch, moment)

    def _start(self, watch: FolderWatch, moment: float) -> None:
        self._unregister(watch)
        self._running[watch] = moment
        self._pool.submit(self._step, watch)

    def _step(self, watch: FolderWatch) -> None:
        try:
            watch.step()
        finally:
            self._finished.append(watch)
            with suppress(OSError):  # a full pipe wakes as well
                self._wake.send(b"!")

    def _collect(self) -> None:
        """Take back those whose step has ended; their connections idle in the selector."""
        while self._finished:
            watch = self._finished.popleft()
            self._running.pop(watch, None)
            if watch.is_lost:
                watch.disconnect()
            elif watch.is_idle and watch.mailbox is not None:
                if self._must_rest(watch):
                    watch.rest()
                elif watch.mailbox.heard():
                    watch.due = 0.0  # it came before the socket was watched
                else:
                    self._selector.register(watch.mailbox.fileno(), selectors.EVENT_READ, watch)
            elif watch.mailbox is not None and self._must_rest(watch) and watch.due > time.monotonic():
                watch.rest()

    def _heard(self, key: selectors.SelectorKey) -> None:
        watch: FolderWatch | None = key.data
        if watch is None:
            with suppress(BlockingIOError):
                while self._woken.recv(4096):
                    pass
        elif watch.mailbox is None or watch.mailbox.heard():
            self._unregister(watch)
            watch.due = 0.0

    def _unregister(self, watch: FolderWatch) -> None:
        if watch.mailbox is None:
            return
        with suppress(KeyError, ValueError):
            self._selector.unregister(watch.mailbox.fileno())

    def _abort_endless(self, moment: float) -> None:
        for watch, since in self._running.items():
            if moment - since > STEP_SECONDS:
                log.warning("mailbox %s: a step took over %.0f s; reconnecting", watch.row.name, STEP_SECONDS)
                _abort(watch)
                self._running[watch] = moment

    # --- connections

    def _connections(self) -> Counter[tuple[str, ...]]:
        """Connections in use, by host and by account."""
        return Counter(
            chain.from_iterable(w.places for w in self._all() if w.mailbox is not None or w in self._running)
        )

    def _limit(self, place: tuple[str, ...]) -> int:
        return (
            self.settings.connections_per_host if len(place) == 1 else self.settings.connections_per_account
        )

    def _has_room(self, watch: FolderWatch, used: Counter[tuple[str, ...]]) -> bool:
        return all(used[place] < self._limit(place) for place in watch.places)

    def _must_rest(self, watch: FolderWatch) -> bool:
        """Whether others need the connection: where there are more folders than connections, one is passed round."""
        for place in self._crowded.intersection(watch.places):
            others = (w for w in self._all() if w.is_idle and w is not watch and w not in self._running)
            if sum(place in w.places for w in others) >= self._limit(place) - 1:
                return True
        return False

    def _open(self, row: MailboxRow) -> Mailbox:
        return IMAPMailbox(account_of(row, self.settings, self.database))

    # --- the end

    def _end(self) -> None:
        for watch in list(self._running):
            _abort(watch)
        self._pool.shutdown(wait=True, cancel_futures=True)
        for watch in self._all():
            watch.disconnect()
        self._watches.clear()
        try:
            with self.database.write() as session:
                leases.release_all(session, self._owner)
        except BriefboxError as error:
            log.warning("Leases not given back (%s); they lapse by themselves.", error)
        self._selector.close()
        self._woken.close()
        self._wake.close()


def _abort(watch: FolderWatch) -> None:
    if watch.mailbox is not None:
        watch.mailbox.abort()
