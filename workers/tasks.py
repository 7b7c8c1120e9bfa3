"""The Celery tasks: thin wrappers that wake the code behind them. Arguments are row ids and only hints."""

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery

from briefbox.db import Database
from briefbox.errors import BriefboxError
from briefbox.queue import TASK_BRIEF, TASK_SWEEP, TASK_TRAIN
from briefbox.settings import Settings
from briefbox.store import processes
from briefbox.store.processes import ProcessName
from workers.gpu import BriefWorker

log = logging.getLogger(__name__)


def register_brief_tasks(app: Celery, worker: BriefWorker) -> None:
    """`briefbox.brief` and `briefbox.sweep`, run by `worker`."""

    def brief(email_id: int) -> None:
        # The id says which row woke us; the claim takes whatever waits longest.
        _told(worker.drain)

    def sweep() -> None:
        _told(worker.sweep)

    app.task(brief, name=TASK_BRIEF)
    app.task(sweep, name=TASK_SWEEP)


def register_training_tasks(
    app: Celery, database: Database, settings: Settings, process: ProcessName
) -> None:
    """`briefbox.train`: the run of this id, or with 0 what people asked for, what is due, or any that waits."""
    from training import pipeline, requests
    from training.scheduled import Schedule
    from training.yielding import be_nice

    be_nice()
    schedule = Schedule(database, settings)

    def alive() -> None:
        # A run gives its own signs of life (training/lease.py).
        with database.write() as session:
            processes.beat(session, process, "waits for a run")

    def train(run_id: int) -> None:
        _told(alive)
        if not run_id:
            _told(lambda: requests.serve(database, settings))
            _told(schedule.start_if_due)
        _told(lambda: pipeline.run(database, settings, run_id or None, owner=process.name))

    app.task(train, name=TASK_TRAIN)


def _told(body: Callable[[], Any]) -> None:
    """Run a task's body; an expected error (a database that is away) is one line, and the sweeper tries again."""
    try:
        body()
    except BriefboxError as error:
        log.warning("%s", error)
