"""A training run from its row to a judged adapter, under a lease.

    claim the run -> read its dataset -> fine-tune from the base -> judge -> register
         |                                   |                        |
         | nothing to claim: return          | yields to mail         | candidate, rejected, or in use

Every write carries the lease's token. A process that lost its lease stops, and leaves nothing but its
checkpoints; the one that took the run over goes on from them and makes the run's only adapter. Knows no Celery.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from briefbox.db import Database
from briefbox.errors import (
    BriefboxError,
    DatabaseBusyError,
    LeaseLostError,
    TrainingCancelledError,
    TrainingError,
)
from briefbox.schemas import AdapterCard, Example, ProgressCallback, TrainingProgress
from briefbox.settings import Settings
from briefbox.store import training as store
from briefbox.store.adapters import champion
from briefbox.tables import Adapter, Dataset, TrainingRun
from training.dataset import read_dataset
from training.lease import Lease
from training.yielding import Yielding, mail_waits

log = logging.getLogger(__name__)

FOLDER = "adapters"
CHECKPOINTS = "checkpoints"
# Stored with the run as it starts, so that it says what it was made with.
RUN_SETTINGS = (
    "train_start",
    "lora_rank",
    "learning_rate",
    "epochs",
    "train_tokens",
    "replay_examples",
    "max_email_tokens",
    "promotion",
)


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
    lease = Lease(
        database,
        training_run.id,
        token,
        seconds=settings.training_lease_seconds,
        losses=training_run.losses,
        owner=owner,
    )
    try:
        with lease.kept(), _work_folder(settings, training_run.id, token) as folder:
            _work(database, settings, training_run, folder, lease)
    except LeaseLostError as error:
        log.info("%s", error)
        return None
    except DatabaseBusyError:
        raise
    except Exception as error:
        log.warning(
            "training run %d ended: %s",
            training_run.id,
            error,
            exc_info=not isinstance(error, BriefboxError),
        )
        if not _failed(database, lease, error):
            return None
    _forget(settings, training_run.id)
    with database.read() as session:
        return store.get_run(session, training_run.id)


def _work(
    database: Database, settings: Settings, training_run: TrainingRun, folder: Path, lease: Lease
) -> None:
    # Imported here: torch takes seconds, and a second delivery should return at once.
    from models.base import resolve_base_model
    from training.default_adapter import shipped
    from training.finetune import Data, finetune
    from training.judge import InUse, judge
    from training.seeds import replay

    # 1. What to learn from.
    with database.read() as session:
        dataset = session.get_one(Dataset, training_run.dataset_id)
    examples = read_dataset(settings.data_dir / dataset.path, content_hash=dataset.content_hash)
    base = resolve_base_model(settings)
    if training_run.base_model not in (settings.base_model, base.name):
        raise TrainingError(
            f"The run was asked for with base model {training_run.base_model}, but this worker has {settings.base_model}; set BRIEFBOX_BASE_MODEL to the same in every process."
        )
    lease.write(settings={key: getattr(settings, key) for key in RUN_SETTINGS})
    learned = [e for e in examples if e.split in ("train", None)]
    # 2. Train. This and the judging stand aside for mail.
    on_progress = _polite(database, settings, lease)
    name = f"{training_run.method}-run{training_run.id:04}"
    card = finetune(
        Data(
            [*learned, *replay(settings.replay_examples, learned)],
            part(examples, "validation"),
            dataset.name,
            dataset.content_hash,
        ),
        base,
        settings,
        folder / name,
        on_progress=on_progress,
        name=name,
        method=training_run.method,
        start=shipped(settings) if settings.train_start == "starter" else None,
        checkpoints=_checkpoints(settings, training_run.id),
    )
    # 3. Judge: candidate, the adapter in use and the bare base, on the same test part in one go.
    with database.read() as session:
        row = champion(session)
    in_use = InUse(row.name, settings.data_dir / row.path, row.weights_sha256) if row is not None else None
    card = judge(settings, examples, card, folder / name, in_use, on_progress=on_progress)
    # 4. Register.
    if training_run.method == "lora":
        _register(database, settings, lease, folder / name, card, training_run)
    else:
        _keep_model(database, settings, lease, folder / name, card)


def part(examples: list[Example], split: str) -> list[Example]:
    """The examples of one part."""
    return [example for example in examples if example.split == split]


def _polite(database: Database, settings: Settings, lease: Lease) -> ProgressCallback:
    """Note the progress, and stand aside while mail waits."""
    yielding = Yielding(lambda: mail_waits(database), floor=settings.train_floor, check=lease.check)

    def on_progress(progress: TrainingProgress, /) -> None:
        lease.on_progress(progress)
        yielding.stand_aside()
        lease.paused_seconds = yielding.paused_seconds

    return on_progress


def _register(
    database: Database,
    settings: Settings,
    lease: Lease,
    finished: Path,
    card: AdapterCard,
    training_run: TrainingRun,
) -> None:
    """Put the finished folder in place and its row beside it, in one transaction that only the lease's owner can make."""
    from briefbox.store.adapters import promote
    from models.base import publish_folder

    target = settings.data_dir / FOLDER / card.name
    decision = card.verdict.get("decision")
    row = Adapter(
        name=card.name,
        path=f"{FOLDER}/{card.name}",
        base_model=card.base_model,
        weights_sha256=card.weights_sha256,
        card=card.model_dump(mode="json"),
        state="rejected" if decision == "rejected" else "candidate",
    )
    with database.write() as session:
        # 1. The fence: from here to the commit nobody else can own the run.
        store.progress(session, lease.run_id, lease.token, seconds=lease.seconds, **lease.values())
        store.finish_run(session, lease.run_id, lease.token, row, verdict=card.verdict)
        # 2. A folder of this name has no row, or the row above would have been refused: a process died in between.
        if target.exists():
            shutil.rmtree(target)
        publish_folder(finished, target)
        # 3. The gate alone may put it in use, and only where an admin said so.
        if decision == "promoted" and settings.promotion == "automatic":
            promote(session, card.name, actor="gate")
    log.info(
        "training run %d made %s: %s", lease.run_id, card.name, card.verdict.get("sentence", "not judged")
    )


def _keep_model(
    database: Database, settings: Settings, lease: Lease, finished: Path, card: AdapterCard
) -> None:
    """A whole model is no adapter: it is put beside the base models, for BRIEFBOX_BASE_MODEL."""
    from models.base import publish_folder

    target = settings.models_path / card.name
    with database.write() as session:
        store.progress(session, lease.run_id, lease.token, seconds=lease.seconds, **lease.values())
        store.finish_run(
            session, lease.run_id, lease.token, None, verdict=card.verdict | {"model": str(target)}
        )
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        publish_folder(finished, target)
    log.info("training run %d made the model %s", lease.run_id, target)


def _failed(database: Database, lease: Lease, error: Exception) -> bool:
    """End the run with its reason in one sentence. False when another process owns it."""
    reason = str(error)
    if not isinstance(error, BriefboxError):
        reason = f"Training stopped on an unexpected error ({type(error).__name__}: {reason}). The training worker's log has the details."
    state = "cancelled" if isinstance(error, TrainingCancelledError) else "failed"
    try:
        with database.write() as session:
            store.fail_run(session, lease.run_id, lease.token, reason, state=state)
    except LeaseLostError as lost:
        log.info("%s", lost)
        return False
    return True


# --- the work folder


@contextmanager
def _work_folder(settings: Settings, run_id: int, token: str) -> Iterator[Path]:
    """A private folder beside the adapters, gone at the end; those of dead attempts at this run go first."""
    adapters = settings.data_dir / FOLDER
    _forget(settings, run_id, but=CHECKPOINTS)
    folder = adapters / f"{_prefix(run_id)}{token[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _checkpoints(settings: Settings, run_id: int) -> Path:
    """Where all attempts at a run keep their checkpoints: the next one goes on from the last."""
    return settings.data_dir / FOLDER / f"{_prefix(run_id)}{CHECKPOINTS}"


def _forget(settings: Settings, run_id: int, *, but: str = "/") -> None:
    for path in (settings.data_dir / FOLDER).glob(f"{_prefix(run_id)}*"):
        if not path.name.endswith(but):
            shutil.rmtree(path, ignore_errors=True)


def _prefix(run_id: int) -> str:
    return f".run{run_id:04}-"


def describe(run: TrainingRun) -> dict[str, Any]:
    """A run for people and programs, without what belongs to its lease."""
    return run.model_dump(exclude={"lease_token", "lease_owner", "lease_until"})
