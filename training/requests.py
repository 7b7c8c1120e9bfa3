"""The training worker does what people asked for on the desk: look, train, roll back. Knows no Celery."""

import logging
from collections.abc import Callable
from typing import TypeVar

from briefbox.db import Database
from briefbox.errors import BriefboxError, DatabaseBusyError, LeaseLostError
from briefbox.settings import Settings
from briefbox.store import training as store
from briefbox.store import training_requests as requests
from briefbox.tables import RollBackRequest, TrainingRequest, TrainingRun
from training.dataset import gather, harvest
from training.rollback import roll_back

log = logging.getLogger(__name__)

Request = TypeVar("Request", TrainingRequest, RollBackRequest)

NOTHING = "There is nothing to learn from: no finished conversation was corrected or confirmed."


def serve(database: Database, settings: Settings) -> int:
    """Do all that waits, roll-backs first. Returns how many; what fails ends with its reason in its row.

    Raises DatabaseBusyError: then the lease lapses, and it is done later.
    """
    with database.read() as session:
        if not requests.any_waiting(session):
            return 0
    served = 0
    while (_serve_one(database, settings, RollBackRequest, _roll_back)) or (
        _serve_one(database, settings, TrainingRequest, _train)
    ):
        served += 1
    return served


def _serve_one(
    database: Database,
    settings: Settings,
    table: type[Request],
    do: Callable[[Database, Settings, Request], None],
) -> bool:
    with database.write() as session:
        request = requests.claim(session, table)
    if request is None:
        return False
    try:
        do(database, settings, request)
    except DatabaseBusyError:
        raise
    except LeaseLostError as error:
        log.warning("%s", error)
    except Exception as error:
        reason = str(error)
        if not isinstance(error, BriefboxError):
            log.exception("what %s asked for on the desk failed", request.actor)
            reason = f"It stopped on an unexpected error ({type(error).__name__}: {reason}). The training worker's log has the details."
        with database.write() as session:
            requests.fail(session, request, reason)
    return True


def _roll_back(database: Database, settings: Settings, request: RollBackRequest) -> None:
    # Its end is written with the switch: done twice, it would go back further than anybody asked for.
    done = roll_back(
        database,
        settings,
        actor=request.actor,
        then=lambda session, entry: requests.finish(session, request, promotion_id=entry.id),
    )
    log.info("rolled back for %s: %s", request.actor, done)


def _train(database: Database, settings: Settings, request: TrainingRequest) -> None:
    if request.kind == "look":
        with database.read() as session:
            facts = gather(session, settings).facts()
        with database.write() as session:
            requests.finish(session, request, report=facts)
        return
    with database.write() as session:
        made = harvest(session, settings, actor=request.actor)
        if made.dataset is None:
            requests.fail(session, request, NOTHING)
            return
        if store.was_trained(session, made.dataset.id):
            requests.fail(
                session,
                request,
                f"There is nothing new: the same {made.num_examples} examples ({made.dataset.name}) were trained on already.",
            )
            return
        run = TrainingRun(dataset_id=made.dataset.id, base_model=settings.base_model)
        run = store.add_run(session, run, actor=request.actor)
        requests.finish(session, request, training_run_id=run.id, report={"examples": made.num_examples})
    log.info("training run %d begins, asked for by %s on the desk", run.id, request.actor)
