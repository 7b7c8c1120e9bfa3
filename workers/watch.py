"""Watches the model at work: renews the lease of its emails, and ends the process when the model hangs.

A hanging model cannot be interrupted from inside, so the process ends and the supervisor starts a new one.
The attempt was counted when the emails were claimed, so mail that hangs a model each time is parked.
"""

import faulthandler
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Self

from briefbox.errors import BriefboxError

log = logging.getLogger(__name__)

# EX_TEMPFAIL of sysexits.h: trying again may help.
EXIT_CODE = 75
STDERR = 2
# A call into native code that never gives Python's lock back stops our thread too; a timer without it ends
# the process this much later.
BACKSTOP = 1.5


def end_process(reason: str) -> None:
    """End this process at once, saying why and what each thread was doing. Never returns."""
    log.critical("%s; this process ends and is started again. What each thread was doing:", reason)
    faulthandler.dump_traceback(STDERR, all_threads=True)
    os._exit(EXIT_CODE)


class Watch:
    """A thread beside the model, for the time of the `with` block."""

    def __init__(
        self,
        renew: Callable[[float], None],
        *,
        every: float,
        limit: float,
        end: Callable[[str], None] = end_process,
    ) -> None:
        """`renew` is called every so many seconds with how long the model has worked on its batch.

        When that is longer than `limit`, nothing is renewed any more and `end` is called with the reason.
        """
        self._renew, self._every, self._limit, self._end = renew, every, limit, end
        self._since: float | None = None
        self._finished = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Around each call of the model: its time counts from here."""
        self._since = time.monotonic()
        if self._end is end_process:
            faulthandler.dump_traceback_later(self._limit * BACKSTOP, exit=True, file=STDERR)
        try:
            yield
        finally:
            self._since = None
            if self._end is end_process:
                faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        renewed = time.monotonic()
        while not self._finished.wait(min(self._every, self._limit / 4)):
            moment, since = time.monotonic(), self._since
            busy = 0.0 if since is None else moment - since
            if busy > self._limit:
                self._end(f"the model has worked on one batch for {busy:.0f} s, twice what is allowed")
                return
            if moment - renewed >= self._every:
                renewed = moment
                try:
                    self._renew(busy)
                except BriefboxError as error:
                    log.warning("lease not renewed: %s", error)
