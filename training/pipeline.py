"""A training run from its row to a candidate adapter, under a lease.

    claim the run -> read its dataset -> fine-tune from the base -> register the candidate
         |                                   |
         | nothing to claim: return          | a thread renews the lease and writes progress

Every write carries the lease's token. A process that lost its lease stops, and leaves nothing behind; the
one that took the run over begins again from the base and makes the run's only adapter. Knows no Celery.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from briefbox.db import Database
from briefbox.errors import BriefboxError, DatabaseBusyError, LeaseLostError, TrainingError
from briefbox.schemas import AdapterCard, TrainingProgress
from briefbox.settings import Settings
from briefbox.store import training as store
from briefbox.tables import Adapter, Dataset, TrainingRun
from training.dataset import read_dataset

log = logging.getLogger(__name__)

FOLDER = "adapters"
# A person who watches a run sees it move; the database is not kept busy by it.
PROGRESS_SECONDS = 2.0
# Stored with the run as it starts, so that it says what it was made with.
RUN_SETTINGS = ("lora_rank", "learning_rate", "epochs", "train_tokens", "max_email_tokens")


def run(database: Database, settings: Settings, run_id: int | None, *, owner: str) -> TrainingRun | None:
    """Train this run, or the oldest that waits. None when there is nothing to do or it was taken over.

    A run that fails ends with its reason in its row; only a database that is away raises (DatabaseBusyError),
    and then the run is taken up again when its lease has lapsed.
    """
    with database.write() as session:
        claimed = store.claim_run(
            session,
            run_id,
            owner=owner,
            seconds=settings.training_lease_seconds,
            max_attempts=settings.max_attempts,
        )
    if claimed is None:
        return None
    training_run, token = claimed
    log.info("training run %d begins, attempt %d", training_run.id, training_run.attempts)
    lease = _Lease(database, settings, training_run.id, token)
    try:
        with lease.kept(), _work_folder(settings, training_run.id, token) as folder:
            card = _train(database, settings, training_run, folder, lease)
            _register(database, settings, lease, folder / card.name, card)
    except LeaseLostError as error:
        log.info("%s", error)
        return None
    except DatabaseBusyError:
        raise
    except Exception as error:
        log.warning(
            "training run %d failed: %s",
            training_run.id,
            error,
            exc_info=not isinstance(error, BriefboxError),
        )
        if not _failed(database, lease, error):
            return None
    with database.read() as session:
        return store.get_run(session, training_run.id)


def _train(
    database: Database, settings: Settings, training_run: TrainingRun, folder: Path, lease: "_Lease"
) -> AdapterCard:
    """The run's adapter, written into the work folder."""
    # Imported here: torch takes seconds, and a second delivery should return at once.
    from models.base import resolve_base_model
    from training.finetune import Data, finetune

    with database.read() as session:
        dataset = session.get_one(Dataset, training_run.dataset_id)
    examples = read_dataset(settings.data_dir / dataset.path, content_hash=dataset.content_hash)
    base = resolve_base_model(settings)
    if training_run.base_model not in (settings.base_model, base.name):
        raise TrainingError(
            f"The run was asked for with base model {training_run.base_model}, but this worker has {settings.base_model}; set BRIEFBOX_BASE_MODEL to the same in every process."
        )
    lease.write(settings={key: getattr(settings, key) for key in RUN_SETTINGS})
    name = f"{training_run.method}-run{training_run.id:04}"
    return finetune(
        Data(examples, (), dataset.name, dataset.content_hash),
        base,
        settings,
        folder / name,
        on_progress=lease.on_progress,
        name=name,
        method=training_run.method,
    )


def _register(
    database: Database, settings: Settings, lease: "_Lease", finished: Path, card: AdapterCard
) -> None:
    """Put the finished folder in place and its row beside it, in one transaction that only the lease's owner can make."""
    from models.base import publish_folder

    target = settings.data_dir / FOLDER / card.name
    row = Adapter(
        name=card.name,
        path=f"{FOLDER}/{card.name}",
        base_model=card.base_model,
        weights_sha256=card.weights_sha256,
        card=card.model_dump(mode="json"),
    )
    with database.write() as session:
        # 1. The fence: from here to the commit nobody else can own the run.
        store.progress(session, lease.run_id, lease.token, seconds=lease.seconds, **lease.values())
        store.finish_run(session, lease.run_id, lease.token, row)
        # 2. A folder of this name has no row, or the row above would have been refused: a process died in between.
        if target.exists():
            shutil.rmtree(target)
        publish_folder(finished, target)
    log.info("training run %d made the candidate %s", lease.run_id, card.name)


def _failed(database: Database, lease: "_Lease", error: Exception) -> bool:
    """End the run with its reason in one sentence. False when another process owns it."""
    reason = str(error)
    if not isinstance(error, BriefboxError):
        reason = f"Training stopped on an unexpected error ({type(error).__name__}: {reason}). The training worker's log has the details."
    try:
        with database.write() as session:
            store.fail_run(session, lease.run_id, lease.token, reason)
    except LeaseLostError as lost:
        log.info("%s", lost)
        return False
    return True


@contextmanager
def _work_folder(settings: Settings, run_id: int, token: str) -> Iterator[Path]:
    """A private folder beside the adapters, gone at the end; those of dead attempts at this run go first."""
    adapters = settings.data_dir / FOLDER
    prefix = f".run{run_id:04}-"
    for leftover in adapters.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = adapters / f"{prefix}{token[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Lease:
    """The lease of one attempt. A thread renews it, because one step may take longer than the lease."""

    def __init__(self, database: Database, settings: Settings, run_id: int, token: str) -> None:
        self.run_id, self.token, self.seconds = run_id, token, settings.training_lease_seconds
        self._database = database
        self._progress = TrainingProgress(0, 0)
        self._lost = Event()

    def on_progress(self, progress: TrainingProgress, /) -> None:
        """See ProgressCallback. Raises LeaseLostError when the thread has found that the lease is gone."""
        if self._lost.is_set():
            raise LeaseLostError(
                f"Another process has taken over training run {self.run_id}; this one stopped."
            )
        self._progress = progress

    def values(self) -> dict[str, Any]:
        """The progress as columns of the run."""
        progress = self._progress
        if not progress.total_steps:
            return {}
        return {"step": progress.step, "total_steps": progress.total_steps, "loss": progress.loss}

    def write(self, **values: Any) -> None:
        """Write progress (and `values`) and prolong the lease. Raises LeaseLostError."""
        with self._database.write() as session:
            store.progress(session, self.run_id, self.token, seconds=self.seconds, **self.values(), **values)

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
