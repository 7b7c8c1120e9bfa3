"""The process that owns the model: claim a batch, brief it, store the result; follow the champion between batches.

It knows nothing of Celery: a task only calls `drain`. One process for each GPU.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from briefbox.db import Database
from briefbox.errors import AdapterError, BriefboxError, OutOfMemoryError
from briefbox.schemas import Brief
from briefbox.settings import Settings
from briefbox.store import processes, training, work
from briefbox.store.processes import ProcessName
from briefbox.store.work import Claim, ClaimedEmail
from models.engine import Engine

log = logging.getLogger(__name__)

# A hint's task ends after this long even if more mail waits, so that the worker can hear Redis and signals.
MAX_DRAIN_SECONDS = 60.0


class BriefWorker:
    """Turns waiting emails into briefs with one engine."""

    def __init__(self, database: Database, settings: Settings, engine: Engine, process: ProcessName) -> None:
        """The engine's weights are loaded at its first use, or by `engine.warm_up()`."""
        self.database, self.settings, self.engine, self.process = database, settings, engine, process
        self.stop = Event()
        self._refused = ""

    def drain(self) -> int:
        """Brief what waits. Returns how many emails were finished."""
        num_done, started = 0, time.monotonic()
        while not self.stop.is_set() and time.monotonic() - started < MAX_DRAIN_SECONDS:
            done = self.step()
            if done is None:
                break
            num_done += done
        return num_done

    def step(self) -> int | None:
        """One batch. Returns how many briefs were stored, or None when nothing waits."""
        settings = self.settings
        with self.database.write() as session:
            claim = work.claim(
                session,
                owner=self.process.name,
                limit=settings.batch_size,
                seconds=settings.lease_seconds,
                max_attempts=settings.max_attempts,
            )
        if claim is None:
            return None
        self._follow_champion()
        started = time.monotonic()
        with self._lease_kept(claim):
            try:
                briefs = self._brief(claim.emails)
            except Exception as error:
                log.warning(
                    "batch of %d failed: %s",
                    len(claim.emails),
                    error,
                    exc_info=not isinstance(error, BriefboxError),
                )
                self._fail(claim, error)
                return 0
        num_done = self._store(claim, briefs)
        log.info(
            "%d briefs in %.1f s (%s)",
            num_done,
            time.monotonic() - started,
            self.engine.adapter or "bare base model",
        )
        return num_done

    def sweep(self) -> int:
        """Park what died too often, then brief what is overdue. Called every few seconds by beat."""
        with self.database.write() as session:
            parked = work.park_exhausted(session, max_attempts=self.settings.max_attempts)
            processes.beat(
                session,
                self.process,
                f"{self.engine.name}, {self.engine.adapter or 'bare base model'}{self._refused}",
            )
        if parked:
            log.warning("%d emails parked as dead letters: the worker died too often on them", parked)
        return self.drain()

    def _brief(self, emails: Sequence[ClaimedEmail]) -> list[Brief]:
        """The briefs of a batch; halved when it does not fit into the device's memory."""
        try:
            return self.engine.brief([email.request for email in emails])
        except OutOfMemoryError:
            if len(emails) == 1:
                raise
            log.warning("a batch of %d does not fit into memory; halving it", len(emails))
            middle = len(emails) // 2
            return self._brief(emails[:middle]) + self._brief(emails[middle:])

    def _store(self, claim: Claim, briefs: Sequence[Brief]) -> int:
        with self.database.write() as session:
            stored = [
                work.finish(
                    session, claim.token, email, brief, needs_human_below=self.settings.needs_human_below
                )
                for email, brief in zip(claim.emails, briefs, strict=True)
            ]
        if not all(stored):
            log.warning(
                "%d results were not written: another worker owns those emails now", stored.count(False)
            )
        return stored.count(True)

    def _fail(self, claim: Claim, error: Exception) -> None:
        reason = str(error) if isinstance(error, BriefboxError) else f"{type(error).__name__}: {error}"
        with self.database.write() as session:
            for email in claim.emails:
                work.fail(session, claim.token, email, reason, max_attempts=self.settings.max_attempts)

    def _follow_champion(self) -> None:
        """Load the adapter in use, between batches. A broken one is refused and the last good one goes on."""
        with self.database.read() as session:
            champion = training.champion(session)
        wanted = champion.name if champion else ""
        if wanted == self.engine.adapter:
            return
        try:
            path = self.settings.data_dir / champion.path if champion else None
            self.engine.load_adapter(
                path, name=wanted, expected_sha256=champion.weights_sha256 if champion else None
            )
        except AdapterError as error:
            if not self._refused:
                log.error(
                    "adapter %s refused, %s stays in use: %s",
                    wanted,
                    self.engine.adapter or "the bare base model",
                    error,
                )
            self._refused = f"; adapter {wanted} refused: {error}"
        else:
            self._refused = ""
            log.info("adapter in use: %s", wanted or "none, the bare base model")

    @contextmanager
    def _lease_kept(self, claim: Claim) -> Iterator[None]:
        """Renew the batch's lease from a thread while the model works."""
        finished = Event()

        def renew() -> None:
            while not finished.wait(self.settings.lease_seconds / 3):
                try:
                    with self.database.write() as session:
                        work.renew(session, claim.token, seconds=self.settings.lease_seconds)
                except BriefboxError as error:
                    log.warning("lease not renewed: %s", error)

        thread = Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
