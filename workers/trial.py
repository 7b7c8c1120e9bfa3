"""Briefs for a look: an admin who connects an inbox sees what the model makes of its newest mail. Nothing is stored."""

import logging
from collections.abc import Callable, Sequence

from briefbox.db import Database
from briefbox.errors import BriefboxError, OutOfMemoryError, ServerAwayError
from briefbox.schemas import Brief, BriefRequest
from briefbox.settings import Settings
from briefbox.store import secrets, trials
from briefbox.store.trials import ClaimedTrial

log = logging.getLogger(__name__)

Ask = Callable[[Sequence[BriefRequest]], list[Brief]]


def claim(database: Database, settings: Settings) -> ClaimedTrial | None:
    """The oldest trial that waits. Nearly always there is none, and that costs one look."""
    with database.read() as session:
        if not trials.any_waiting(session):
            return None
    with database.write() as session:
        return trials.claim(session, secrets.cipher(settings), seconds=settings.lease_seconds)


def run(database: Database, settings: Settings, trial: ClaimedTrial, ask: Ask) -> None:
    """Brief its emails and hand the briefs over. Raises ServerAwayError after putting it back."""
    try:
        briefs = _briefs(trial.requests, ask)
    except ServerAwayError:
        with database.write() as session:
            trials.put_back(session, trial)
        raise
    except Exception as error:
        expected = isinstance(error, BriefboxError)
        log.warning("no briefs for a look: %s", error, exc_info=not expected)
        reason = (
            str(error) if expected else "something failed that should not have; the worker's log says what"
        )
        with database.write() as session:
            trials.fail(session, trial, reason)
        return
    with database.write() as session:
        trials.finish(session, secrets.cipher(settings), trial, briefs)
    log.info("%d briefs for a look", len(briefs))


def _briefs(wanted: Sequence[BriefRequest], ask: Ask) -> list[Brief]:
    try:
        return ask(wanted)
    except OutOfMemoryError:
        if len(wanted) == 1:
            raise
        middle = len(wanted) // 2
        return _briefs(wanted[:middle], ask) + _briefs(wanted[middle:], ask)
