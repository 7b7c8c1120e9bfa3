"""The process that owns the model: claim a batch, brief it, store the result; adapters change between batches.

    claim -> group by adapter -> brief a group -> store it
                                   |  out of memory: in halves, then one email cut to half
                                   |  model server away: given back, uncounted (workers.away)
                                   |  any other error: each email alone, so that only the bad one fails
                                   |  hangs: the process ends (workers.watch)

It knows nothing of Celery: a task only calls `drain`. One process for each GPU.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from threading import Event

from sqlmodel import Session

from briefbox.db import Database
from briefbox.errors import (
    AdapterError,
    BriefboxError,
    ModelError,
    OutOfMemoryError,
    ServerAwayError,
)
from briefbox.schemas import Brief, BriefRequest
from briefbox.settings import Settings
from briefbox.store import alerts, processes, requests, trials, work
from briefbox.store.processes import ProcessName
from briefbox.store.trials import ClaimedTrial
from briefbox.store.work import Claim, ClaimedEmail
from models.engine import Engine
from workers import trial as trial_work
from workers.away import ModelServer
from workers.pace import Pace
from workers.residents import Residents
from workers.watch import Watch, end_process

log = logging.getLogger(__name__)

# A hint's task ends after this long even if more mail waits, so that the worker can hear Redis and signals.
MAX_DRAIN_SECONDS = 60.0
# Mail that arrives while an adapter on trial works waits for one such batch.
SHADOW_BATCH = 4
# What waits for the adapter on trial lives in this process only; the oldest is forgotten first.
MAX_UNSEEN = 500
# So many errors in a row that nobody foresaw, on emails alone: the device or the process is broken, not the mail.
MAX_STRANGE = 3
SLOW_ALERT = "worker slow"


def is_sampled(email_id: int, share: float) -> bool:
    """Whether an email is among the `share` that the adapter on trial briefs: the same answer in every process."""
    return int.from_bytes(sha256(str(email_id).encode()).digest()[:8]) < share * 2**64


class BriefWorker:
    """Turns waiting emails into briefs with one engine."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        engine: Engine,
        process: ProcessName,
        *,
        end: Callable[[str], None] = end_process,
    ) -> None:
        """The engine's weights are loaded at its first use, or by `engine.warm_up()`.

        `end` is called with a reason when only a new process can help.
        """
        self.database, self.settings, self.engine, self.process = database, settings, engine, process
        self.stop = Event()
        self.pace = Pace()
        self.residents = Residents(database, settings, engine)
        self.server = ModelServer(database, engine)
        self._end = end
        self._unseen: deque[ClaimedEmail] = deque(maxlen=MAX_UNSEEN)
        self._num_strange = 0
        self._slow: bool | None = None  # not known before the first batch

    def drain(self) -> int:
        """Brief what waits. Returns how many emails were finished: 0 while the model server is away."""
        num_done, started = 0, time.monotonic()
        while (
            not (self.stop.is_set() or self.server.paused) and time.monotonic() - started < MAX_DRAIN_SECONDS
        ):
            done = self.step()
            if done is None:
                break
            num_done += done
        return num_done

    def step(self) -> int | None:
        """One claim, or with none a batch for the adapter on trial. Returns how many briefs were shown, None when nothing waits."""
        settings = self.settings
        if (trial := trial_work.claim(self.database, settings)) is not None:
            self._brief_trial(trial)
            if self._is_over:
                return 0
        with self.database.write() as session:
            claim = work.claim(
                session,
                owner=self.process.name,
                limit=settings.batch_size,
                seconds=settings.lease_seconds,
                max_attempts=settings.max_attempts,
                written_in="" if settings.brief_language == "email" else settings.brief_language,
            )
        if claim is None:
            return self._brief_unseen()
        groups: dict[str, list[ClaimedEmail]] = {}
        for email in claim.emails:
            groups.setdefault(email.adapter, []).append(email)
        self.residents.look(groups)
        num_done = 0
        with self._watch(claim) as watch:
            for wanted, emails in groups.items():
                if self._is_over:
                    break
                try:
                    with watch.timing():
                        adapter = self.residents.use(wanted, emails[0].request.categories)
                    num_done += self._group(claim, emails, adapter, watch)
                except ServerAwayError as error:  # while an adapter was loaded
                    self.server.gone(error)
        if self._is_over:
            self._give_back(claim)
        if self._num_strange >= MAX_STRANGE:
            self._end(f"the last {self._num_strange} emails failed with errors that no email explains")
        return num_done

    def sweep(self) -> int:
        """Park what died too often, then brief what is overdue. Called every few seconds by beat."""
        with self.database.write() as session:
            parked = work.park_exhausted(session, max_attempts=self.settings.max_attempts)
            self.residents.tidy(session)
            self._beat(session)
        # A promoted adapter is loaded before mail asks for it, and a broken one is known before it does.
        with self._watch(None) as watch, watch.timing():
            try:
                self.server.look_again()
                self.residents.look()
                self.residents.use("")
            except ModelError as error:
                self.server.gone(error)
        if parked:
            log.warning("%d emails parked as dead letters: the worker died too often on them", parked)
        return self.drain()

    @property
    def _is_over(self) -> bool:
        """Whether this process begins nothing more now: it was told to stop, it is broken, or its server is away."""
        return self.stop.is_set() or self._num_strange >= MAX_STRANGE or self.server.paused

    # --- one group: emails of a claim under one adapter

    def _group(self, claim: Claim, emails: Sequence[ClaimedEmail], adapter: str, watch: Watch) -> int:
        """Brief and store these emails, in smaller parts where they do not go together. Returns how many were stored."""
        if self._is_over and len(emails) < len(claim.emails):
            return 0  # between batches: what is not begun is given back
        started = time.monotonic()
        try:
            briefs = self._ask([email.request for email in emails], adapter, watch)
        except OutOfMemoryError as error:
            if len(emails) == 1:
                return self._halved(claim, emails[0], adapter, watch, error)
            log.warning("a batch of %d does not fit into memory; halving it", len(emails))
            middle = len(emails) // 2
            parts = [emails[:middle], emails[middle:]]
        except ServerAwayError as error:
            self.server.gone(error)
            return 0
        except Exception as error:
            if adapter and isinstance(error, AdapterError):
                with watch.timing():
                    adapter = self.residents.lost(adapter, error, emails[0].request.categories)
                return self._group(claim, emails, adapter, watch)
            if len(emails) == 1:
                return self._fail(claim, emails[0], error)
            log.warning("a batch of %d failed, each email is tried alone: %s", len(emails), error)
            parts = [[email] for email in emails]
        else:
            return self._store(claim, emails, briefs, time.monotonic() - started)
        return sum(self._group(claim, part, adapter, watch) for part in parts)

    def _ask(self, wanted: Sequence[BriefRequest], adapter: str, watch: Watch) -> list[Brief]:
        try:
            with watch.timing():
                briefs = self.engine.brief(wanted, adapter)
        except ServerAwayError as error:
            with watch.timing():
                if self.server.is_away(adapter):
                    raise
            # It works for others: an email that makes it fail each time must not hold up the line for ever.
            raise ModelError(str(error)) from error
        if len(briefs) != len(wanted):
            raise ModelError(f"The engine gave {len(briefs)} briefs for {len(wanted)} emails.")
        return briefs

    def _halved(
        self, claim: Claim, email: ClaimedEmail, adapter: str, watch: Watch, error: OutOfMemoryError
    ) -> int:
        """An email that does not fit alone: once more with half of its text, then never again."""
        request, omitted = requests.half(email.request, self.settings.max_email_tokens)
        email = replace(email, request=request, omitted=(*email.omitted, *omitted))
        log.warning("email %d does not fit into memory; trying half of its text", email.email_id)
        started = time.monotonic()
        try:
            briefs = self._ask([request], adapter, watch)
        except OutOfMemoryError:
            why = f"It does not fit into memory, not even half of its text. {error}"
            return self._fail(claim, email, OutOfMemoryError(why), permanent=True)
        except ServerAwayError as away:
            self.server.gone(away)
            return 0
        except Exception as other:
            return self._fail(claim, email, other)
        return self._store(claim, [email], briefs, time.monotonic() - started)

    def _store(
        self, claim: Claim, emails: Sequence[ClaimedEmail], briefs: Sequence[Brief], seconds: float
    ) -> int:
        """Write the briefs of a batch that went well. Returns how many were stored."""
        self._num_strange = 0
        times = self.pace.note(len(emails), seconds)
        num_stored = self._write(claim, emails, briefs)
        with self.database.write() as session:
            self.server.back(session)
            self._note_slowness(session, times, len(emails), seconds)
            self._beat(session)
        if on_trial := self.residents.shadow_name:
            made = zip(emails, briefs, strict=True)
            self._unseen.extend(
                email
                for email, brief in made
                if brief.provenance.adapter != on_trial
                and is_sampled(email.email_id, self.settings.shadow_share)
            )
        adapter = briefs[0].provenance.adapter or "bare base model"
        log.info("%d briefs in %.1f s (%s)", num_stored, seconds, adapter)
        return num_stored

    def _write(self, claim: Claim, emails: Sequence[ClaimedEmail], briefs: Sequence[Brief]) -> int:
        """All in one transaction; each in its own where the database refuses what the model wrote about one."""
        try:
            with self.database.write() as session:
                stored = [
                    work.finish(session, claim.token, email, brief)
                    for email, brief in zip(emails, briefs, strict=True)
                ]
        except BriefboxError:
            raise  # the database is away: nothing is written, and the lease lapses
        except Exception as error:
            if len(emails) == 1:
                return self._fail(claim, emails[0], error)
            log.warning("a batch of %d could not be stored, each is stored alone: %s", len(emails), error)
            return sum(self._write(claim, [e], [b]) for e, b in zip(emails, briefs, strict=True))
        if not all(stored):
            log.warning(
                "%d results were not written: another worker owns those emails now", stored.count(False)
            )
        return stored.count(True)

    def _fail(self, claim: Claim, email: ClaimedEmail, error: Exception, *, permanent: bool = False) -> int:
        """Count the attempt of one email as failed. Always 0: nothing was stored."""
        expected = isinstance(error, BriefboxError)
        self._num_strange = 0 if expected else self._num_strange + 1
        reason = str(error) if expected else f"{type(error).__name__}: {error}"
        log.warning("email %d failed: %s", email.email_id, reason, exc_info=None if expected else error)
        with self.database.write() as session:
            work.fail(
                session,
                claim.token,
                email,
                reason,
                max_attempts=self.settings.max_attempts,
                permanent=permanent,
            )
        return 0

    def _give_back(self, claim: Claim) -> None:
        """Return what was claimed and not begun, uncounted."""
        with self.database.write() as session:
            if num := work.give_back(session, claim.token):
                log.info("%d claimed emails are given back, uncounted", num)

    # --- for a look

    def _brief_trial(self, trial: ClaimedTrial) -> None:
        """Somebody waits in front of a page: before all other mail, and nothing of it is stored."""
        self.residents.look()
        with self._watch(None, trial) as watch:

            def ask(wanted: Sequence[BriefRequest]) -> list[Brief]:
                with watch.timing():
                    adapter = self.residents.use("", wanted[0].categories if wanted else ())
                return self._ask(wanted, adapter, watch)

            try:
                trial_work.run(self.database, self.settings, trial, ask)
            except ServerAwayError as error:
                self.server.gone(error)

    # --- the adapter on trial

    def _brief_unseen(self) -> int | None:
        """A few emails for the adapter on trial, while nobody waits for anything. Whatever fails here is only logged."""
        if not self._unseen or self.stop.is_set():
            return None
        self.residents.look()
        emails = [self._unseen.popleft() for _ in range(min(SHADOW_BATCH, len(self._unseen)))]
        with self._watch(None) as watch:
            try:
                with watch.timing():
                    name = self.residents.shadow(emails[0].request.categories)
                if not name:
                    self._unseen.clear()
                    return None
                briefs = self._ask([email.request for email in emails], name, watch)
                with self.database.write() as session:
                    for email, brief in zip(emails, briefs, strict=True):
                        work.finish_shadow(session, email.email_id, brief, email.request)
            except Exception as error:
                expected = isinstance(error, BriefboxError)
                log.warning("no shadow briefs of %d emails: %s", len(emails), error, exc_info=not expected)
        return 0

    # --- signs of life

    def _watch(self, claim: Claim | None, trial: ClaimedTrial | None = None) -> Watch:
        """The thread that renews the batch's lease while the model works, and ends the process when it hangs."""

        def renew(busy: float) -> None:
            with self.database.write() as session:
                if claim is not None:
                    work.renew(session, claim.token, seconds=self.settings.lease_seconds)
                if trial is not None:
                    trials.renew(session, trial, seconds=self.settings.lease_seconds)
                self._beat(session, f"; {busy:.0f} s into a batch" if busy >= 1 else "")

        return Watch(
            renew,
            every=self.settings.lease_seconds / 3,
            limit=2 * self.settings.batch_timeout_seconds,
            end=self._end,
        )

    def _beat(self, session: Session, more: str = "") -> None:
        processes.beat(
            session, self.process, f"{self.engine.name}{self.server}; {self.pace}{more}; {self.residents}"
        )

    def _note_slowness(self, session: Session, times: float | None, num: int, seconds: float) -> None:
        slow = times is not None
        if slow:
            text = f"{self.process.name} took {seconds:.1f} s for {num} emails, {times:.0f} times its usual time. Look at what else runs on that machine."
            if not self._slow:
                log.warning("%s", text)
            alerts.raise_alert(session, SLOW_ALERT, text)
        elif self._slow is not False:
            # Also at the first batch: the process before this one may have ended while it was slow.
            alerts.resolve(session, SLOW_ALERT)
        self._slow = slow
