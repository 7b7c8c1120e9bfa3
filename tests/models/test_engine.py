"""models/engine.py: the fake behaves as the protocol says."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from briefbox.errors import AdapterError, ModelError, OutOfMemoryError, SettingsError
from briefbox.schemas import AdapterCard
from briefbox.settings import load_settings
from models.engine import Engine, FakeEngine, make_engine
from models.prompt import PROMPT_VERSION
from models.registry import write_card


def test_the_setting_chooses_the_engine() -> None:
    engine: Engine = make_engine(load_settings(engine="fake"))
    assert (engine.name, engine.adapters) == ("fake", ())


def test_keywords_decide_and_scores_sum_to_one(request_for: Any) -> None:
    (brief,) = FakeEngine().brief([request_for("The shop is down. A refund for my parcels, please.")])
    assert (brief.priority.label, brief.category.label) == ("urgent", "Delivery")
    assert sum(brief.priority.scores.values()) == pytest.approx(1)
    assert sum(brief.category.scores.values()) == pytest.approx(1)
    assert brief.headline == "Late parcel"
    assert brief.summary == "The shop is down. A refund for my parcels, please."
    assert brief.provenance.prompt_version == PROMPT_VERSION


def test_the_same_email_gives_the_same_brief_and_is_remembered(request_for: Any) -> None:
    engine = FakeEngine()
    assert engine.brief([request_for()]) == engine.brief([request_for()])
    assert engine.history == [[request_for()], [request_for()]]


def test_an_empty_email_has_a_brief_too(request_for: Any) -> None:
    (brief,) = FakeEngine().brief([request_for("", subject="", sender="", categories=())])
    assert (brief.headline, brief.summary, brief.category.label) == ("(no text)", "(no text)", "Other")


@pytest.mark.parametrize(
    ("how", "error"), [("fail_on", ModelError), ("nan_on", ModelError), ("break_on", RuntimeError)]
)
def test_it_fails_on_demand(request_for: Any, how: str, error: type[Exception]) -> None:
    engine = FakeEngine(**{how: "POISON"})
    with pytest.raises(error):
        engine.brief([request_for(), request_for("POISON")])
    assert len(engine.brief([request_for()])) == 1


def test_its_memory_is_as_small_as_it_is_told(request_for: Any) -> None:
    with pytest.raises(OutOfMemoryError):
        FakeEngine(most_at_once=1).brief([request_for(), request_for()])
    with pytest.raises(OutOfMemoryError):
        FakeEngine(most_chars=100).brief([request_for("x" * 101)])


def test_it_writes_nothing_on_demand_and_the_email_speaks_for_itself(request_for: Any) -> None:
    [brief] = FakeEngine(empty_on="POISON").brief([request_for("The POISON came. It is empty.")])
    assert (brief.headline, brief.summary) == ("Late parcel", "The POISON came.")
    assert brief.grounding.quoted == ("headline", "summary")


def test_a_doubtful_label_needs_a_human_by_the_settings_and_by_the_adapters_card(
    tmp_path: Path, request_for: Any
) -> None:
    engine = FakeEngine(load_settings(needs_human_at={"category": 0.9}))
    a_card(tmp_path, thresholds={"priority/urgent": 0.95})
    engine.load_adapter(tmp_path)
    [calm, bare] = engine.brief([request_for("Hi there"), request_for("The shop is down.")])
    [urgent] = engine.brief([request_for("The shop is down.")], "a1")
    assert calm.needs_human == bare.needs_human == ("category",)
    assert urgent.needs_human == ("priority", "category")


def test_it_hangs_on_demand(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.engine.HANG_SECONDS", 0.2)
    started = time.monotonic()
    FakeEngine(hang_on="POISON").brief([request_for("POISON")])
    assert time.monotonic() - started >= 0.2


def a_card(path: Path, name: str = "a1", **changes: Any) -> None:
    path.mkdir(exist_ok=True)
    card = AdapterCard(
        name=name,
        base_model="fake",
        base_sha256="0",
        weights_sha256="1",
        prompt_version=PROMPT_VERSION,
        dataset="d",
        dataset_hash="h",
        num_examples=1,
        created_at=datetime.now(UTC),
        **changes,
    )
    write_card(path, card)


def test_it_keeps_several_adapters_and_writes_which_one_was_used(tmp_path: Path, request_for: Any) -> None:
    engine = FakeEngine()
    for name in ("a1", "a2"):
        a_card(tmp_path / name, name)
        assert engine.load_adapter(tmp_path / name, expected_sha256="1") == name
    assert engine.load_adapter(tmp_path / "a1", "other-name") == "other-name"
    assert engine.adapters == ("a1", "a2", "other-name")
    for name in ("a2", "", "a1"):
        [brief] = engine.brief([request_for()], name)
        assert brief.provenance.adapter == name
    engine.drop_adapter("a1")
    engine.drop_adapter("never there")
    assert engine.adapters == ("a2", "other-name")
    with pytest.raises(AdapterError, match="a1 is not resident"):
        engine.brief([request_for()], "a1")


def test_it_refuses_a_wrong_adapter_and_keeps_what_it_has(tmp_path: Path) -> None:
    engine = FakeEngine()
    a_card(tmp_path)
    engine.load_adapter(tmp_path)
    for path, expected in ((tmp_path, "2"), (tmp_path / "gone", None)):
        with pytest.raises(AdapterError):
            engine.load_adapter(path, expected_sha256=expected)
    assert engine.adapters == ("a1",)


def test_a_threshold_for_something_that_does_not_exist_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="BRIEFBOX_NEEDS_HUMAN_AT names 'mood'"):
        make_engine(load_settings(engine="fake", needs_human_at={"mood": 0.5}))
