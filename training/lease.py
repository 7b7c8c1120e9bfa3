"""The lease of one attempt at a training run: kept by a thread, because one step may take longer than it.

The same thread writes the progress that people watch, and hears when somebody cancels.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from threading import Event, Thread
from typing import Any

from briefbox.db import Database
from briefbox.errors import BriefboxError, LeaseLostError, TrainingCancelledError
from briefbox.schemas import TrainingProgress
from briefbox.store import processes
from briefbox.store import training as store
from briefbox.store.processes import ProcessName

log = logging.getLogger(__name__)

# A person who watches a run sees it move; the database is not kept busy by it.
PROGRESS_SECONDS = 2.0
# Points of the curve that are kept: as many as a screen shows.
MAX_POINTS = 200


class Lease:
    """Renewed in a thread inside `kept`; `on_progress` and `check` raise when the run must stop."""

    def __init__(
        self,
        database: Database,
        run_id: int,
        token: str,
        *,
        seconds: float,
        losses: Sequence[Sequence[float]] = (),
        owner: str = "",
    ) -> None:
        """`losses` are those of earlier attempts at the run; `owner` is the process, which gives its signs of life here."""
        self._owner = owner
        self.run_id, self.token, self.seconds = run_id, token, seconds
        self.paused_seconds = 0.0  # how long training stood aside, for people
        self._database = database
        self._progress = self._trained = TrainingProgress(0, 0)
        self._lost, self._cancelled = Event(), Event()
        self._losses = [[float(step), float(loss)] for step, loss in losses]

    def on_progress(self, progress: TrainingProgress, /) -> None:
        """See ProgressCallback. Raises LeaseLostError, TrainingCancelledError."""
        self.check()
        self._progress = progress
        # What is calibrated and evaluated afterwards counts emails, not steps.
        if progress.stage == "training":
            self._trained = progress
            if progress.loss is not None and isfinite(progress.loss):
                self._losses = with_point(self._losses, progress.step, progress.loss)

    def check(self) -> None:
        """Raises LeaseLostError when the thread has found that the lease is gone, TrainingCancelledError."""
        if self._lost.is_set():
            raise LeaseLostError(
                f"Another process has taken over training run {self.run_id}; this one stopped."
            )
        if self._cancelled.is_set():
            raise TrainingCancelledError(f"Training run {self.run_id} was cancelled.")

    def values(self) -> dict[str, Any]:
        """The progress as columns of the run."""
        trained = self._trained
        values: dict[str, Any] = {
            "stage": self._progress.stage,
            "paused_seconds": round(self.paused_seconds, 1),
        }
        if trained.total_steps:
            values |= {
                "step": trained.step,
                "total_steps": trained.total_steps,
                "loss": trained.loss,
                "seconds_left": trained.seconds_left,
                "losses": list(self._losses),
            }
        return values

    def write(self, **values: Any) -> None:
        """Write progress (and `values`) and prolong the lease. Raises LeaseLostError."""
        with self._database.write() as session:
            store.progress(session, self.run_id, self.token, seconds=self.seconds, **self.values(), **values)
            if self._owner:
                doing = f"run {self.run_id}, {self._progress.stage}: step {self._progress.step} of {self._progress.total_steps}"
                processes.beat(session, ProcessName("training", self._owner), doing)
            if store.get_run(session, self.run_id).cancel_requested:
                self._cancelled.set()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease inside the block."""
        finished = Event()
        thread = Thread(target=self._renew, args=(finished,), name="training-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _renew(self, finished: Event) -> None:
        while not finished.wait(min(PROGRESS_SECONDS, self.seconds / 4)):
            try:
                self.write()
            except LeaseLostError:
                # The run's own end looks the same from here: then nobody asks any more.
                self._lost.set()
                return
            except BriefboxError as error:
                log.warning("the lease of training run %d was not renewed: %s", self.run_id, error)


def with_point(curve: list[list[float]], step: int, loss: float) -> list[list[float]]:
    """The curve with one more point; where it has too many, every second one is left out.

    An attempt that goes on from a checkpoint takes the place of what was beyond it.
    """
    points = [*(point for point in curve if point[0] < step), [float(step), round(float(loss), 4)]]
    if len(points) > MAX_POINTS:
        # The first and the last stay: they are what people read.
        points = [*points[:-1:2], points[-1]]
    return points
