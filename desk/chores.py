"""What the desk does when nobody asks: bring back what was put off, and whatever else is due.

One thread for each process; several processes may do it at once, since every chore claims its rows. A chore that
fails is tried again and stops no other.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic

from briefbox.db import Database
from briefbox.errors import BriefboxError
from briefbox.settings import Settings
from briefbox.store import actions, categories, drafts, mailbox_watch, throttle, trials

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every so many seconds; `do` says whether more of it waits."""

    name: str
    seconds: float
    do: Callable[[], bool]


class Chores:
    """Runs chores in a thread of its own."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = chores
        self._stop = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = Thread(target=self._run, name="chores", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the chore that is being done."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        due = dict.fromkeys(self._chores, 0.0)
        wait = {chore: chore.seconds for chore in self._chores}
        while not self._stop.is_set():
            for chore in self._chores:
                if due[chore] > monotonic() or self._stop.is_set():
                    continue
                more = self._do(chore)
                # One that fails is asked less and less often.
                wait[chore] = min(2 * wait[chore], LONGEST_WAIT) if more is None else chore.seconds
                due[chore] = monotonic() + (0 if more else wait[chore])
            self._stop.wait(max(0.02, min(due.values(), default=1.0) - monotonic()))

    def _do(self, chore: Chore) -> bool | None:
        try:
            return chore.do()
        except BriefboxError as error:
            log.warning("%s waits: %s", chore.name, error)
        except Exception:
            log.exception("%s failed; trying again", chore.name)
        return None


def watch_mailboxes(database: Database, settings: Settings) -> bool:
    """Tell admins of mailboxes that nobody reads, and that they are read again."""
    longest = mailbox_watch.limit(settings)
    with database.read() as session:
        if not mailbox_watch.is_any_due(session, longest):
            return False
    with database.write() as session:
        for name in mailbox_watch.look(session, longest):
            log.warning("mailbox %s: stopped or recovered, see its page", name)
    return False


def forget_drafts(database: Database) -> bool:
    """Delete what was entered or fetched for a mailbox that nobody went on to connect."""
    with database.read() as session:
        if not (drafts.any_lapsed(session) or trials.any_lapsed(session)):
            return False
    with database.write() as session:
        drafts.end_lapsed(session)
        trials.end_lapsed(session)
    return False


def wake(database: Database) -> bool:
    """Bring back conversations whose time has come."""
    with database.read() as session:
        if not actions.any_due(session):
            return False
    with database.write() as session:
        return actions.wake_due(session) > 0


def calm(database: Database) -> bool:
    """Take the alert about guessed passwords back when nobody guesses any more."""
    with database.read() as session:
        if not throttle.is_alert_open(session):
            return False
    with database.write() as session:
        throttle.close_alert(session)
    return False


def move_merged(database: Database) -> bool:
    """Give conversations of merged categories their new name, a batch at a time."""
    with database.read() as session:
        if not categories.any_to_move(session):
            return False
    with database.write() as session:
        return categories.move_merged(session) > 0
