"""The run that nobody asked for: begun when the schedule says so, on a fresh harvest. Knows no Celery."""

import logging
import time

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.store import retraining
from briefbox.store import training as store
from briefbox.tables import TrainingRun
from training.dataset import harvest

log = logging.getLogger(__name__)

ACTOR = "schedule"
# After a harvest that brought nothing new it is not tried again for so long.
QUIET_SECONDS = 3600.0


class Schedule:
    """Asked every few seconds by the training worker."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._quiet_until = 0.0

    def start_if_due(self) -> TrainingRun | None:
        """Harvest and ask for a run if one is due. The same content as of an earlier run is no reason for a new one."""
        if time.monotonic() < self._quiet_until:
            return None
        with self._database.read() as session:
            due = retraining.look(session, self._settings)
        if not due.reason:
            return None
        with self._database.write() as session:
            dataset = harvest(session, self._settings, actor=ACTOR).dataset
            if dataset is None or store.was_trained(session, dataset.id):
                self._quiet_until = time.monotonic() + QUIET_SECONDS
                return None
            run = TrainingRun(dataset_id=dataset.id, base_model=self._settings.base_model, cause=ACTOR)
            run = store.add_run(session, run, actor=ACTOR)
        log.info("training run %d begins by schedule: %s", run.id, due.reason)
        return run
