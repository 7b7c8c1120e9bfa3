"""The poller: one thread for each mailbox that connects, reads it up to date, waits for news, and never gives up.

Failures are told on the mailbox's row in the server's own words. Connecting is retried with exponential
back-off and jitter; a refused password waits longer, because hammering a log-in gets accounts locked.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from briefbox.db import Database
from briefbox.errors import BriefboxError, LeaseLostError, MailboxError
from briefbox.settings import Settings
from briefbox.store import mailboxes, processes, secrets
from briefbox.store.mailboxes import MailboxLease
from briefbox.store.processes import ProcessName
from briefbox.tables import Mailbox as MailboxRow
from ingest.folder import Folder, SendHints, Suspects
from ingest.mailbox import Account, IMAPMailbox, Mailbox

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 60.0
PERMANENT_ERROR_SECONDS = 120.0
# How often the list of mailboxes is read again, and the process says that it lives.
WATCH_SECONDS = 2.0
DEFAULT_FOLDER = "INBOX"

OpenMailbox = Callable[[MailboxRow, Event], Mailbox]


def account_of(row: MailboxRow, settings: Settings) -> Account:
    """The account of a stored mailbox, its password decrypted. Raises SettingsError."""
    return Account(
        host=row.host,
        port=row.port,
        username=row.username,
        password=secrets.cipher(settings).decrypt(row.name, row.password_encrypted),
        security=row.security,  # type: ignore[arg-type]  # the column holds one of the three words
        ca_file=Path(row.ca_file) if row.ca_file else None,
        timeout=settings.imap_timeout_seconds,
        max_email_bytes=settings.max_email_bytes,
    )


class MailboxWatcher:
    """Keeps one mailbox read up to date until stopped."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        row: MailboxRow,
        owner: str,
        send_hints: SendHints,
        open_mailbox: OpenMailbox,
    ) -> None:
        """Nothing is connected until `run`."""
        self.database, self.settings, self.row, self.owner = database, settings, row, owner
        self.send_hints, self.open_mailbox = send_hints, open_mailbox
        self.stop = Event()
        self.suspects = Suspects()

    def run(self) -> None:
        """Connect, read, wait, again and again. Returns when `stop` is set."""
        while not self.stop.is_set():
            try:
                self._one_session()
            except Exception as error:
                # Whatever it was must not end the watching of this mailbox; it is shown and tried again.
                log.exception("mailbox %s: unexpected error", self.row.name)
                self._note(f"unexpected error: {error!r}")
                self.stop.wait(5)

    def _one_session(self) -> None:
        lease = self._claim()
        if lease is None:
            self.stop.wait(min(2.0, self.settings.mailbox_lease_seconds / 3))
            return
        mailbox = self.open_mailbox(self.row, self.stop)
        try:
            self._retrying()(self._catch_up, mailbox, lease)
            self._watch(mailbox, lease)
        except LeaseLostError as error:
            log.warning("mailbox %s: %s", self.row.name, error)
        except BriefboxError as error:
            if not self.stop.is_set():
                log.warning("mailbox %s: %s", self.row.name, error)
                self._note(str(error))
                self.stop.wait(1)
        finally:
            mailbox.close()
            self._release(lease)

    def _catch_up(self, mailbox: Mailbox, lease: MailboxLease) -> None:
        """Connect afresh and compare every folder in full: whatever an outage left out is found here."""
        mailbox.close()
        with self.database.write() as session:
            mailboxes.renew(session, lease, seconds=self.settings.mailbox_lease_seconds)
        mailbox.open()
        self._reconcile(mailbox, lease, in_full=True)

    def _watch(self, mailbox: Mailbox, lease: MailboxLease) -> None:
        """Wait for news in the first folder; look at all folders in full every reconcile_seconds."""
        due = time.monotonic() + self.settings.reconcile_seconds
        # A wait must end in time to renew the lease.
        longest = min(self.settings.idle_seconds, self.settings.mailbox_lease_seconds / 2)
        while not self.stop.is_set():
            mailbox.wait(max(0.1, min(longest, due - time.monotonic())))
            if self.stop.is_set():
                return
            in_full = time.monotonic() >= due
            self._reconcile(mailbox, lease, in_full=in_full)
            if in_full:
                due = time.monotonic() + self.settings.reconcile_seconds

    def _reconcile(self, mailbox: Mailbox, lease: MailboxLease, *, in_full: bool) -> None:
        # The first folder comes last, so that it is the selected one while we wait.
        for name in reversed(self.row.folders or [DEFAULT_FOLDER]):
            Folder(self.database, self.settings, lease, name, self.send_hints, self.suspects).reconcile(
                mailbox, in_full=in_full
            )

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type((MailboxError, OSError)),
            wait=_wait,
            stop=stop_when_event_set(self.stop),
            sleep=sleep_using_event(self.stop),
            before_sleep=self._before_sleep,
            reraise=True,
        )

    def _before_sleep(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0
        log.warning("mailbox %s: %s Next try in %.0f s.", self.row.name, error, seconds)
        self._note(str(error))

    def _claim(self) -> MailboxLease | None:
        with self.database.write() as session:
            return mailboxes.claim(
                session, self.row.id, owner=self.owner, seconds=self.settings.mailbox_lease_seconds
            )

    def _release(self, lease: MailboxLease) -> None:
        try:
            with self.database.write() as session:
                mailboxes.release(session, lease)
        except BriefboxError as error:
            log.warning("mailbox %s: lease not given back (%s); it lapses by itself", self.row.name, error)

    def _note(self, sentence: str) -> None:
        try:
            with self.database.write() as session:
                mailboxes.note_error(session, self.row.id, sentence)
        except BriefboxError as error:
            log.warning("mailbox %s: error not noted (%s)", self.row.name, error)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, BriefboxError) and error.permanent:
        return PERMANENT_ERROR_SECONDS
    return float(wait_random_exponential(multiplier=0.5, max=MAX_BACKOFF_SECONDS)(state))


class Poller:
    """Watches every mailbox that is not paused; notices added, changed and removed ones."""

    def __init__(
        self, database: Database, settings: Settings, process: ProcessName, send_hints: SendHints
    ) -> None:
        """`send_hints` gets ids of committed emails."""
        self.database, self.settings, self.process, self.send_hints = database, settings, process, send_hints
        self._watchers: dict[int, tuple[tuple[object, ...], MailboxWatcher, Thread]] = {}

    def run(self, stop: Event) -> None:
        """Watch until `stop` is set, then let every watcher end cleanly."""
        try:
            while not stop.is_set():
                try:
                    self._look()
                except BriefboxError as error:
                    log.warning("%s Trying again.", error)
                stop.wait(WATCH_SECONDS)
        finally:
            for mailbox_id in list(self._watchers):
                self._end(mailbox_id)

    def _look(self) -> None:
        with self.database.write() as session:
            rows = {row.id: row for row in mailboxes.all_of(session) if row.paused_at is None}
            processes.beat(session, self.process, f"{len(rows)} mailboxes")
        for mailbox_id, (version, _, thread) in list(self._watchers.items()):
            if mailbox_id not in rows or version != _version(rows[mailbox_id]) or not thread.is_alive():
                self._end(mailbox_id)
        for mailbox_id, row in rows.items():
            if mailbox_id not in self._watchers:
                self._begin(row)

    def _begin(self, row: MailboxRow) -> None:
        watcher = MailboxWatcher(
            self.database, self.settings, row, self.process.name, self.send_hints, self._open
        )
        thread = Thread(target=watcher.run, name=f"mailbox-{row.name}", daemon=True)
        self._watchers[row.id] = (_version(row), watcher, thread)
        thread.start()

    def _end(self, mailbox_id: int) -> None:
        _, watcher, thread = self._watchers.pop(mailbox_id)
        watcher.stop.set()
        thread.join(timeout=self.settings.imap_timeout_seconds + 5)

    def _open(self, row: MailboxRow, stop: Event) -> Mailbox:
        return IMAPMailbox(account_of(row, self.settings), stop=stop)


def _version(row: MailboxRow) -> tuple[object, ...]:
    """What, when changed, needs a new connection."""
    return (
        row.host,
        row.port,
        row.security,
        row.username,
        row.password_encrypted,
        row.ca_file,
        tuple(row.folders),
    )
