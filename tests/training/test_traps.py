"""What loops of other projects got wrong, with the trap put back in front of ours.

The gate's traps (a stored number, a first candidate that always passes, tiny test sets, any gain above zero) are in
test_gate.py; roll-back's (a rejected one, only logged) and the second door in tests/briefbox/test_store_adapters.py and
test_cli_adapters.py; merging into a quantised base in tests/models/test_merge.py; a part that changes in test_splits.py.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import TrainingError
from briefbox.settings import Settings
from briefbox.store import adapters
from briefbox.store import training as store
from briefbox.tables import Adapter, Correction, TrainingRun
from models.base import BaseModel
from tests.conftest import make_email
from tests.training.conftest import Support
from training import default_adapter, finetune, pipeline
from training.dataset import harvest, read_dataset

LETTERS = (
    "The blue lamp in our hall flickers every evening and the dealer does not answer.",
    "Please send the invoice for the two chairs to my office instead of my home.",
    "Our team cannot sign in since the update of last night, nobody can work.",
    "Thank you for the quick exchange, the new kettle is lovely.",
)


def judged(support: Support) -> None:
    """Two corrected, one confirmed, one finished as it was."""
    briefs = [support.brief(make_email(n, body=text + "\n")) for n, text in enumerate(LETTERS, start=1)]
    support.correct(briefs[0], "priority", "urgent")
    support.correct(briefs[2], "headline", "Nobody can sign in")
    support.confirm(briefs[1], "strong")
    support.confirm(briefs[3], "weak")


def ask(database: Database, settings: Settings) -> int:
    with database.write() as session:
        dataset = harvest(session, settings, actor="test").dataset
        assert dataset is not None
        row = TrainingRun(dataset_id=dataset.id, base_model=settings.base_model)
        return store.add_run(session, row, actor="test").id


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a run hands to fine-tuning; the training itself is left out."""
    calls: list[Any] = []

    def instead(data: Any, base: BaseModel, *_: Any, **__: Any) -> None:
        calls.append(data)
        raise TrainingError("enough seen")

    monkeypatch.setattr(finetune, "finetune", instead)
    return calls


def test_trap_training_on_corrections_alone_forgets_what_nobody_corrected(
    database: Database, settings: Settings, support: Support, base: BaseModel, learned: list[Any]
) -> None:
    judged(support)
    with_replay = settings.model_copy(update={"replay_examples": 200})
    pipeline.run(database, with_replay, ask(database, with_replay), owner="w")
    (data,) = learned
    strengths = {example.strength for example in (*data.train, *data.validation)}
    assert {"imported"} < strengths, "what agents confirmed is learned beside the starter's examples"
    labels = {e.output.category for e in data.train if e.strength == "imported"}
    assert len(labels) == 10
    assert {e.output.priority for e in data.train if e.strength == "imported"} == {
        "low",
        "normal",
        "high",
        "urgent",
    }


def test_trap_a_filter_for_good_ones_throws_the_corrections_away(
    database: Database, settings: Settings, support: Support
) -> None:
    judged(support)
    with database.write() as session:
        dataset = harvest(session, settings, actor="test").dataset
        assert dataset is not None
    examples = read_dataset(settings.data_dir / dataset.path)
    assert sorted(e.strength for e in examples) == ["confirmed", "corrected", "corrected", "finished"]


def test_trap_the_models_own_words_as_truth(database: Database, settings: Settings, support: Support) -> None:
    judged(support)
    with database.write() as session:
        dataset = harvest(session, settings, actor="test").dataset
        assert dataset is not None
        corrections = {c.after for c in session.exec(select(Correction))}
    examples = read_dataset(settings.data_dir / dataset.path)
    assert corrections == {"urgent", "Nobody can sign in"}
    for example in examples:
        # The target of what was corrected is the agent's, and the model's is kept apart from it.
        for field in example.changed:
            assert getattr(example.output, field) in corrections
            assert getattr(example.model_output, field) != getattr(example.output, field)
        assert example.input.text, "the text of the email is learned from, not its subject alone"


def test_trap_a_harvest_that_clears_the_corrections(
    database: Database, settings: Settings, support: Support
) -> None:
    judged(support)
    for _ in range(2):
        with database.write() as session:
            result = harvest(session, settings, actor="test")
            assert result.num_corrected == 2
            assert len(list(session.exec(select(Correction)))) == 2


def test_trap_training_on_top_of_the_last_adapter_and_over_its_file(
    database: Database, settings: Settings, support: Support, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.judge.judge", lambda _s, _e, card, *_a, **_k: card
    )  # not what is looked at here
    judged(support)
    run = ask(database, settings)
    pipeline.run(database, settings, run, owner="w")
    with database.write() as session:
        first = session.exec(select(Adapter)).one()
        adapters.promote(session, first.name, actor="test", four_eyes=False, reason="to train beside it")
        dataset_id = store.get_run(session, run).dataset_id
        again = store.add_run(
            session, TrainingRun(dataset_id=dataset_id, base_model=settings.base_model), actor="test"
        ).id
    before = _weights(settings, first)
    pipeline.run(database, settings, again, owner="w")
    with database.read() as session:
        second = session.exec(select(Adapter).where(Adapter.id != first.id)).one()
    assert second.weights_sha256 == first.weights_sha256, (
        "the champion leaves no trace in what is trained next"
    )
    assert second.path != first.path
    assert _weights(settings, first) == before


def test_trap_a_run_begins_with_the_starter_and_never_with_the_adapter_in_use(
    database: Database, settings: Settings, support: Support, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path | None] = []

    def instead(*_: Any, start: Path | None, **__: Any) -> None:
        begun.append(start)
        raise TrainingError("enough seen")

    monkeypatch.setattr(finetune, "finetune", instead)
    # The starter goes with the packaged model; its files are all that is looked at here.
    monkeypatch.setattr(default_adapter, "PACKAGED_MODEL", settings.base_model)
    ours = settings.model_copy(update={"engine": "transformers"})
    judged(support)
    in_use = Adapter(
        name="in-use",
        path="adapters/in-use",
        base_model="m",
        weights_sha256="w",
        created_at=datetime.now(UTC),
    )
    with database.write() as session:
        session.add(in_use)
        session.flush()
        adapters.promote(session, "in-use", actor="test", four_eyes=False, reason="to train beside it")
    for changes in ({}, {"train_start": "base"}, {"starter_adapter": False}):
        changed = ours.model_copy(update=changes)
        pipeline.run(database, changed, ask(database, changed), owner="w")
    assert begun == [default_adapter.STARTER, None, None]


def test_trap_a_long_run_delivered_again_runs_twice(
    database: Database, settings: Settings, support: Support, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(support)
    run = ask(database, settings)
    begun = 0

    def instead(*_: Any, **__: Any) -> None:
        nonlocal begun
        begun += 1
        # Redis delivers the task once more while it still runs.
        assert pipeline.run(database, settings, run, owner="second worker") is None
        raise TrainingError("enough seen")

    monkeypatch.setattr(finetune, "finetune", instead)
    pipeline.run(database, settings, run, owner="w")
    assert pipeline.run(database, settings, run, owner="third worker") is None
    assert begun == 1


def _weights(settings: Settings, adapter: Adapter) -> bytes:
    path: Path = settings.data_dir / adapter.path / "adapter_model.safetensors"
    return path.read_bytes()
