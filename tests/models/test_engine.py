"""models/engine.py: the fake behaves as the protocol says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from briefbox.errors import AdapterError, ModelError, OutOfMemoryError
from briefbox.schemas import AdapterCard
from briefbox.settings import load_settings
from models.engine import Engine, FakeEngine, make_engine
from models.prompt import PROMPT_VERSION
from models.registry import write_card


def test_the_setting_chooses_the_engine() -> None:
    engine: Engine = make_engine(load_settings(engine="fake"))
    assert (engine.name, engine.adapter) == ("fake", "")


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


def test_it_fails_on_demand(request_for: Any) -> None:
    with pytest.raises(ModelError):
        FakeEngine(fail_on="POISON").brief([request_for("POISON")])
    with pytest.raises(OutOfMemoryError):
        FakeEngine(most_at_once=1).brief([request_for(), request_for()])


def test_it_carries_the_name_of_an_adapter_and_refuses_a_wrong_one(tmp_path: Path) -> None:
    engine = FakeEngine()
    card = AdapterCard(
        name="a1",
        base_model="fake",
        base_sha256="0",
        weights_sha256="1",
        prompt_version=PROMPT_VERSION,
        dataset="d",
        dataset_hash="h",
        num_examples=1,
        created_at=datetime.now(UTC),
    )
    write_card(tmp_path, card)
    engine.load_adapter(tmp_path, expected_sha256="1")
    assert engine.adapter == "a1"
    for path, expected in ((tmp_path, "2"), (tmp_path / "gone", None)):
        with pytest.raises(AdapterError):
            engine.load_adapter(path, expected_sha256=expected)
    assert engine.adapter == "a1"
    engine.load_adapter(None)
    assert engine.adapter == ""
