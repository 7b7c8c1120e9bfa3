"""Runs Celery: the worker process of a queue, and beat. Solo pool, because one process owns one model."""

import logging
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from briefbox.db import Database
from briefbox.queue import BRIEFS, make_celery, ping
from briefbox.settings import Settings
from briefbox.store import processes
from models.engine import make_engine
from workers.gpu import BriefWorker
from workers.schedule import beat_schedule
from workers.tasks import register_brief_tasks, register_training_tasks

log = logging.getLogger(__name__)


def run_worker(database: Database, settings: Settings, queue: str) -> None:
    """Work on `queue` until SIGTERM or SIGINT.

    Raises QueueError when Redis is not there at the start (later it is waited for), and ModelError before
    anything is taken when the model cannot be used.
    """
    ping(settings)
    app = make_celery(settings)
    process = processes.this_process("worker" if queue == BRIEFS else queue)
    if queue == BRIEFS:
        engine = make_engine(settings)
        engine.warm_up()
        worker = BriefWorker(database, settings, engine, process)
        register_brief_tasks(app, worker)

        def ready(**_: Any) -> None:
            # Mail that waited while nobody worked needs no hint: look once before the first tick.
            log.info("ready: %s with %s", engine.name, engine.base_model)
            _sweep_quietly(worker)

        def stopping(**_: Any) -> None:
            worker.stop.set()

        worker_ready.connect(ready, weak=False)
        worker_shutting_down.connect(stopping, weak=False)
    else:
        register_training_tasks(app, database, settings, process)
    with database.write() as session:
        processes.beat(session, process, "started")
    try:
        app.Worker(
            pool="solo",
            queues=[queue],
            hostname=process.name,
            loglevel=settings.log_level,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        ).start()
    finally:
        with database.write() as session:
            processes.leave(session, process)


def run_beat(settings: Settings) -> None:
    """Send the schedule's ticks until SIGTERM or SIGINT. Raises QueueError when Redis is not there at the start."""
    ping(settings)
    app = make_celery(settings)
    app.conf.beat_schedule = beat_schedule(settings)
    # Kept in memory: nothing in this schedule is worth remembering over a restart.
    app.Beat(scheduler="celery.beat:Scheduler", loglevel=settings.log_level, quiet=True, max_interval=1).run()


def _sweep_quietly(worker: BriefWorker) -> None:
    try:
        worker.sweep()
    except Exception:
        log.exception("first sweep failed; beat will ask again")
