"""A run is claimed once, keeps its lease, and ends as one candidate or with its reason."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import ConflictError
from briefbox.settings import Settings
from briefbox.store import processes
from briefbox.store import training as store
from briefbox.tables import Adapter, TrainingRun
from models.base import BaseModel
from models.registry import verify_adapter
from tests.conftest import make_email
from tests.training.conftest import Support
from training import finetune, lease, pipeline
from training.dataset import harvest


@pytest.fixture
def run_id(database: Database, settings: Settings, support: Support) -> int:
    """A waiting run on a dataset of three examples."""
    for number in (1, 2, 3):
        support.correct(support.brief(make_email(number)), "priority", "urgent")
    with database.write() as session:
        dataset = harvest(session, settings, actor="test").dataset
        assert dataset is not None
        row = TrainingRun(dataset_id=dataset.id, base_model=settings.base_model)
        return store.add_run(session, row, actor="test").id


def stored(database: Database, run_id: int) -> TrainingRun:
    with database.read() as session:
        return store.get_run(session, run_id)


def change(database: Database, run_id: int, **values: object) -> None:
    with database.write() as session:
        row = store.get_run(session, run_id)
        for key, value in values.items():
            setattr(row, key, value)


def folders(settings: Settings) -> list[str]:
    """But for checkpoints, which stay for the process that takes the run over."""
    names = (path.name for path in (settings.data_dir / "adapters").iterdir())
    return sorted(name for name in names if not name.endswith(pipeline.CHECKPOINTS))


def test_a_run_becomes_a_candidate(
    database: Database, settings: Settings, base: BaseModel, run_id: int
) -> None:
    run = pipeline.run(database, settings, run_id, owner="w1")
    assert run is not None
    assert (run.state, run.step, run.total_steps, run.error) == ("done", 6, 6, "")
    assert run.loss is not None
    assert run.settings["lora_rank"] == 4
    with database.read() as session:
        adapter = session.exec(select(Adapter)).one()
        [(beat, _)] = processes.all_of(session)
    assert (beat.name, beat.detail.split(",")[0]) == ("w1", "run 1"), "it gives signs of life while it works"
    assert (adapter.id, adapter.name, adapter.state) == (run.adapter_id, "lora-run0001", "candidate")
    verified = verify_adapter(settings.data_dir / adapter.path, base, adapter.weights_sha256)
    assert verified.card.dataset_hash in verified.card.model_dump_json()
    assert verified.card.num_examples == 2  # the third is the test part
    assert run.verdict["decision"] == verified.card.verdict["decision"] == "not enough data"
    assert len(verified.card.fingerprint["answers"]) == 24
    assert folders(settings) == ["lora-run0001"]


def test_a_second_delivery_returns_at_once(database: Database, settings: Settings, run_id: int) -> None:
    with database.write() as session:
        assert store.claim_run(session, run_id, owner="w1", seconds=60, max_attempts=3)
    assert pipeline.run(database, settings, run_id, owner="w2") is None
    assert pipeline.run(database, settings, None, owner="w2") is None
    change(database, run_id, state="done")
    assert pipeline.run(database, settings, run_id, owner="w2") is None
    assert not (settings.data_dir / "adapters").exists()


def test_a_run_of_a_dead_process_begins_again_and_makes_one_adapter(
    database: Database, settings: Settings, run_id: int
) -> None:
    with database.write() as session:
        store.claim_run(session, run_id, owner="dead", seconds=60, max_attempts=3)
    change(database, run_id, lease_until=datetime.now(UTC) - timedelta(seconds=1))
    # It died between putting its folder in place and its commit, and left its work folder too.
    for name in ("lora-run0001", ".run0001-0badcafe"):
        (settings.data_dir / "adapters" / name).mkdir(parents=True)
        (settings.data_dir / "adapters" / name / "rubbish").write_text("x")
    run = pipeline.run(database, settings, None, owner="w2")
    assert run is not None
    assert (run.state, run.attempts) == ("done", 2)
    assert folders(settings) == ["lora-run0001"]
    assert not (settings.data_dir / "adapters" / "lora-run0001" / "rubbish").exists()


def test_a_process_that_lost_its_lease_stops_and_leaves_nothing(
    database: Database, settings: Settings, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PROGRESS_SECONDS", 0.05)
    steps = []

    def slow(_model: object, _batch: object) -> object:
        # Another process takes the run over while this one computes its first step.
        if not steps:
            change(database, run_id, lease_token="another", lease_owner="w2")
        steps.append(1)
        time.sleep(0.5)
        return loss(_model, _batch)  # type: ignore[arg-type]

    loss = finetune.answer_loss
    monkeypatch.setattr(finetune, "answer_loss", slow)
    assert pipeline.run(database, settings, run_id, owner="w1") is None
    assert len(steps) == 1
    run = stored(database, run_id)
    assert (run.state, run.lease_owner, run.step) == ("running", "w2", 0)
    assert folders(settings) == []


def test_a_lease_lost_before_the_end_registers_nothing(
    database: Database, settings: Settings, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PROGRESS_SECONDS", 60)
    quiet = settings.model_copy(update={"training_lease_seconds": 600.0})
    write = finetune.write_adapter

    def taken_over(*args: object, **values: object) -> object:
        change(database, run_id, lease_token="another")
        return write(*args, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(finetune, "write_adapter", taken_over)
    assert pipeline.run(database, quiet, run_id, owner="w1") is None
    assert stored(database, run_id).state == "running"
    assert folders(settings) == []
    with database.read() as session:
        assert session.exec(select(Adapter)).first() is None


def test_a_step_longer_than_the_lease_keeps_it(
    database: Database, settings: Settings, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_step = settings.model_copy(update={"training_lease_seconds": 2.0, "epochs": 1.0, "train_tokens": 64})
    kept = []

    def slow(_model: object, _batch: object) -> object:
        time.sleep(2.5)
        until = stored(database, run_id).lease_until
        kept.append(until is not None and until > datetime.now(UTC))
        return loss(_model, _batch)  # type: ignore[arg-type]

    loss = finetune.answer_loss
    monkeypatch.setattr(finetune, "answer_loss", slow)
    run = pipeline.run(database, one_step, run_id, owner="w1")
    assert run is not None
    assert (run.state, run.attempts) == ("done", 1)
    assert kept
    assert all(kept)


def test_a_changed_dataset_fails_the_run_with_its_reason(
    database: Database, settings: Settings, run_id: int
) -> None:
    (path,) = (settings.data_dir / "datasets").glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"urgent", b"low"))
    run = pipeline.run(database, settings, run_id, owner="w1")
    assert run is not None
    assert run.state == "failed"
    assert "was changed after it was written" in run.error
    assert folders(settings) == []


def test_an_unexpected_error_is_one_sentence(
    database: Database, settings: Settings, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("cosmic ray")

    monkeypatch.setattr(finetune, "answer_loss", broken)
    run = pipeline.run(database, settings, run_id, owner="w1")
    assert run is not None
    assert run.state == "failed"
    assert run.error.startswith("Training stopped on an unexpected error (RuntimeError: cosmic ray).")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"method": "qlora"}, "The method qlora is not known"),
        ({"base_model": "other"}, "set BRIEFBOX_BASE_MODEL to the same"),
    ],
)
def test_a_run_that_cannot_be_made_says_why(
    database: Database, settings: Settings, run_id: int, values: dict[str, str], reason: str
) -> None:
    change(database, run_id, **values)
    run = pipeline.run(database, settings, run_id, owner="w1")
    assert run is not None
    assert run.state == "failed"
    assert reason in run.error


def test_a_cancelled_run_stops_after_its_step(
    database: Database, settings: Settings, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PROGRESS_SECONDS", 0.05)

    def slow(_model: object, _batch: object) -> object:
        with database.write() as session:
            store.cancel_run(session, run_id, actor="test")
        time.sleep(0.5)
        return loss(_model, _batch)  # type: ignore[arg-type]

    loss = finetune.answer_loss
    monkeypatch.setattr(finetune, "answer_loss", slow)
    run = pipeline.run(database, settings, run_id, owner="w1")
    assert run is not None
    assert (run.state, run.step) == ("cancelled", 0)
    assert folders(settings) == []
    with database.write() as session, pytest.raises(ConflictError, match="is cancelled already"):
        store.cancel_run(session, run_id, actor="test")


def test_judging_stands_aside_for_mail_as_training_does(
    database: Database, settings: Settings, base: BaseModel, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []

    def stand_aside(_self: object) -> None:
        stages.append(stored(database, run_id).stage)

    monkeypatch.setattr("training.yielding.Yielding.stand_aside", stand_aside)
    monkeypatch.setattr(lease, "PROGRESS_SECONDS", 0.001)
    pipeline.run(database, settings, run_id, owner="w1")
    assert {"training", "evaluating"} <= set(stages)


def test_a_waiting_run_is_cancelled_at_once(database: Database, settings: Settings, run_id: int) -> None:
    with database.write() as session:
        store.cancel_run(session, run_id, actor="test")
    assert pipeline.run(database, settings, run_id, owner="w1") is None
    assert stored(database, run_id).state == "cancelled"


def test_an_attempt_that_was_killed_is_gone_on_with(
    database: Database, settings: Settings, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill -9 leaves it: the row runs with a lapsed lease, the checkpoints lie there."""
    steps: list[int] = []

    class Killed(BaseException):
        pass

    def counted(_model: object, _batch: object) -> object:
        steps.append(1)
        if len(steps) == 3:
            raise Killed
        return loss(_model, _batch)  # type: ignore[arg-type]

    loss = finetune.answer_loss
    monkeypatch.setattr(finetune, "answer_loss", counted)
    with pytest.raises(Killed):
        pipeline.run(database, settings, run_id, owner="w1")
    assert list((settings.data_dir / "adapters").glob(".run0001-checkpoints/checkpoint-*"))
    change(database, run_id, lease_until=datetime.now(UTC) - timedelta(seconds=1))
    run = pipeline.run(database, settings, None, owner="w2")
    assert run is not None
    assert (run.state, run.attempts, run.step) == ("done", 2, 6)
    assert len(steps) == 3 + 4  # two of six steps were not done again
    assert folders(settings) == ["lora-run0001"]


def test_importing_the_pipeline_does_not_load_torch() -> None:
    code = "import sys, training.pipeline, training.dataset; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
