"""One watched folder: its connection, what it does next, and what is wrong with it.

A watch never waits for news itself: it does one bounded step in a thread and says when it wants the next one. In between
its connection idles in the poller's selector.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random

from briefbox.db import Database
from briefbox.errors import (
    BriefboxError,
    DatabaseError,
    FolderMissingError,
    LeaseLostError,
    MailboxPausedError,
)
from briefbox.settings import Settings
from briefbox.store import alerts, folders, mailboxes
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import Mailbox as MailboxRow
from ingest.folder import Folder, SendHints
from ingest.mailbox import Mailbox
from ingest.renamed import follow
from ingest.suspects import Suspects

log = logging.getLogger(__name__)

_PASSING = wait_exponential(multiplier=0.5, max=60) + wait_random(0, 1)
# A refused password is asked again ever more rarely: hammering a log-in gets accounts locked.
_PERMANENT = wait_exponential(multiplier=60, max=900) + wait_random(0, 10)
# Failures in a row after which an admin is told; a permanent one is told at once.
TELL_AFTER = 3


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all watches of a poller share."""

    database: Database
    settings: Settings
    send_hints: SendHints
    open_mailbox: Callable[[MailboxRow], Mailbox]


class FolderWatch:
    """Keeps one folder read up to date, step by step."""

    def __init__(self, shared: Surroundings, row: MailboxRow, lease: MailboxLease, folder: str) -> None:
        """Nothing is connected until `step`."""
        self.shared, self.row, self.lease, self.folder = shared, row, lease, folder
        # What limits the number of connections: the host, and the account on it.
        self.places: tuple[tuple[str, ...], ...] = ((row.host.lower(),), (row.host.lower(), row.username))
        self.due = time.monotonic()  # when the next step is wanted at the latest
        self.is_idle = False  # the server announces news on `mailbox`
        self.is_lost = False  # another poller has the mailbox, or it is paused
        self.is_behind = False  # only older mail is left to read
        self.failures = 0
        self.error = ""
        self.has_succeeded = False  # since the poller asked last
        self.wants_comparison = False  # somebody asked for one: of every UID
        self.mailbox: Mailbox | None = None
        self._reader: Folder | None = None
        self._suspects = Suspects()
        self._compare_at = 0.0
        self._older_at = 0.0

    @property
    def key(self) -> str:
        """What its alert is known by."""
        return mailboxes.alert_key(self.row.name, self.folder)

    @property
    def read_again(self) -> str:
        """What an admin is told when it is over."""
        return f"The mailbox {self.row.name} ({self.folder}) is read again."

    def step(self) -> None:
        """Connect if need be, read a bounded amount of mail, and go back to waiting. Raises nothing."""
        try:
            self._step()
        except (LeaseLostError, MailboxPausedError) as error:
            log.warning("mailbox %s: %s", self.row.name, error)
            self.is_lost = True
            self.disconnect()
        except FolderMissingError as error:
            self._missing(error)
        except DatabaseError as error:
            # The database's trouble is not the mailbox's; the poller says it once for all.
            log.warning("mailbox %s: %s", self.row.name, error)
            self._back_off(error)
        except (BriefboxError, OSError) as error:
            self._fail(error)
        except Exception as error:
            # Whatever it was must not end the watching of this folder; it is shown and tried again.
            log.exception("mailbox %s: unexpected error", self.row.name)
            self._fail(error)

    def _step(self) -> None:
        mailbox = self._connected()
        if self.is_idle:
            self.is_idle = False
            mailbox.stop_idle()
        assert self._reader is not None
        moment = time.monotonic()
        in_full = self.wants_comparison or moment >= self._compare_at
        done = self._reader.step(mailbox, in_full=in_full, list_all=self.wants_comparison)
        if in_full:
            self.wants_comparison = False
            self._compare_at = moment + self.shared.settings.reconcile_seconds
        if done.is_complete and self._reader.has_older and moment >= self._older_at:
            self._step_back(mailbox)
        self._succeed()
        self.is_behind = done.is_complete and self._reader.has_older
        if not done.is_complete or (self.is_behind and self._older_at <= time.monotonic()):
            self.due = time.monotonic()  # after the others that are due; the next step looks for news first
            return
        self.is_idle = mailbox.start_idle()
        settings = self.shared.settings
        longest = settings.idle_seconds if self.is_idle else settings.poll_seconds
        self.due = min(time.monotonic() + longest, self._compare_at)
        if self.wants_comparison:
            self.due = time.monotonic()
        if self._reader.has_older:
            self.due = min(self.due, self._older_at)

    def _step_back(self, mailbox: Mailbox) -> None:
        assert self._reader is not None
        done = self._reader.step_back(mailbox)
        if not self._reader.has_older:
            self.wants_comparison = True  # all of it has its place now: say so
        rate = 0.0 if self._reader.is_reread else self.shared.settings.backfill_per_second
        self._older_at = time.monotonic() + (done.num_new / rate if rate else 0.0)

    def _connected(self) -> Mailbox:
        if self.mailbox is None:
            shared = self.shared
            mailbox = shared.open_mailbox(self.row)
            mailbox.open()
            self.mailbox = mailbox
            self._reader = Folder(
                shared.database,
                shared.settings,
                self.lease,
                self.folder,
                shared.send_hints,
                self._suspects,
                is_sent=folders.is_sent(self.row, self.folder),
            )
            self._compare_at = self._older_at = 0.0
        return self.mailbox

    def take_unchanged(self) -> int | None:
        """Folder.take_unchanged() of the folder as it is read now."""
        reader = self._reader  # a step that runs now may end the connection
        return reader.take_unchanged() if reader is not None else None

    def disconnect(self) -> None:
        """Leave the server without ceremony; never raises."""
        mailbox, self.mailbox, self._reader = self.mailbox, None, None
        self.is_idle = False
        if mailbox is not None:
            mailbox.abort()
            mailbox.close()

    def rest(self) -> None:
        """Give the connection to another folder, and look again in a while."""
        self.disconnect()
        self.due = time.monotonic() + self.shared.settings.poll_seconds

    # --- when it does not go well

    def _succeed(self) -> None:
        was_told = self.failures >= TELL_AFTER
        self.failures, self.error, self.has_succeeded = 0, "", True
        if was_told:
            self._tell("recovered", self.read_again)

    def _fail(self, error: Exception) -> None:
        is_permanent = isinstance(error, BriefboxError) and error.permanent
        self.error = str(error) if isinstance(error, BriefboxError) else f"unexpected error: {error!r}"
        before = self.failures
        self._back_off(error)
        if is_permanent:
            self.failures = max(self.failures, TELL_AFTER)
        log.warning(
            "mailbox %s: %s Next try in %.0f s.", self.row.name, self.error, self.due - time.monotonic()
        )
        if before < TELL_AFTER <= self.failures:
            self._tell("stopped", self.error)
        else:
            self._note()

    def _back_off(self, error: Exception) -> None:
        self.disconnect()
        self.failures += 1
        wait = _PERMANENT if isinstance(error, BriefboxError) and error.permanent else _PASSING
        state = RetryCallState(Retrying(), fn=None, args=(), kwargs={})
        state.attempt_number = self.failures
        self.due = time.monotonic() + wait(state)

    def _missing(self, error: FolderMissingError) -> None:
        """Renamed? Then read on under the new name; else say so and look again, while other folders go on."""
        try:
            assert self.mailbox is not None
            if follow(self.shared.database, self.mailbox, self.lease, self.folder):
                self.is_lost = True  # the mailbox's folders have changed: the poller begins afresh
                self.disconnect()
                return
            with self.shared.database.write() as session:
                cursor = folders.current(session, self.lease.mailbox_id, self.folder)
                if cursor is not None:
                    folders.note_missing(session, cursor, str(error))
        except (BriefboxError, OSError) as worse:
            log.warning("mailbox %s: %s", self.row.name, worse)
        self._fail(error)
        self.due = time.monotonic() + self.shared.settings.poll_seconds

    def _note(self) -> None:
        try:
            with self.shared.database.write() as session:
                mailboxes.note_error(session, self.row.id, self.error)
        except BriefboxError as error:
            log.warning("mailbox %s: error not noted (%s)", self.row.name, error)

    def _tell(self, kind: str, text: str) -> None:
        """An event for the admin, and an alert while it lasts."""
        try:
            with self.shared.database.write() as session:
                if kind == "stopped":
                    mailboxes.note_error(session, self.row.id, text)
                    alerts.raise_alert(session, self.key, text)
                else:
                    alerts.resolve(session, self.key)
                folders.note_event(session, self.row.id, self.folder, kind, text)
        except BriefboxError as error:
            log.warning("mailbox %s: %s not noted (%s)", self.row.name, kind, error)
