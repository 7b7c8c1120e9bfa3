"""Training stands aside while customer mail waits, and still comes to its end.

Between two steps it looks at the queue. While mail waits it sleeps, but only so long that its share of the
time stays at BRIEFBOX_TRAIN_FLOOR: a queue that is never empty slows a run down and does not stop it.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from briefbox.db import Database
from briefbox.errors import BriefboxError
from briefbox.store import work

LOOK_SECONDS = 0.5
# On a CPU the kernel gives the briefing worker the time that both want.
NICE = 15


class Yielding:
    """Call `stand_aside` between steps. `check` is called while it sleeps; what it raises ends the sleep."""

    def __init__(
        self,
        waiting: Callable[[], bool],
        *,
        floor: float,
        check: Callable[[], None] = lambda: None,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.paused_seconds = 0.0
        self._waiting, self._floor, self._check = waiting, floor, check
        self._look, self._clock, self._sleep = look_seconds, clock, sleep
        self._since = clock()  # when training last went on

    def stand_aside(self) -> None:
        """Sleep while mail waits, as long as the floor allows."""
        trained = self._clock() - self._since
        begun = self._clock()
        longest = trained * (1 / self._floor - 1)
        while self._waiting() and (left := longest - (self._clock() - begun)) > 0:
            self._check()
            self._sleep(min(self._look, left))
        self.paused_seconds += self._clock() - begun
        self._since = self._clock()


def mail_waits(database: Database) -> bool:
    """Whether a customer's email waits for its brief. No, when the database cannot say."""
    with suppress(BriefboxError), database.read() as session:
        return work.num_waiting(session) > 0
    return False


def be_nice() -> None:
    """Take the rest of the CPU's time, not the first."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
