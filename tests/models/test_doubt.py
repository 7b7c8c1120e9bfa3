"""models/doubt.py: a threshold for each field and label."""

from datetime import UTC, datetime

import pytest

from briefbox.errors import SettingsError
from briefbox.schemas import AdapterCard, LabelScore
from briefbox.settings import load_settings
from models.doubt import check_thresholds, needs_human, thresholds


def score(label: str, confidence: float | None) -> LabelScore:
    return LabelScore(label=label, confidence=confidence, scores={})


def card(**limits: float) -> AdapterCard:
    return AdapterCard(
        name="a",
        base_model="b",
        base_sha256="0",
        weights_sha256="1",
        prompt_version="p",
        dataset="d",
        dataset_hash="h",
        num_examples=1,
        thresholds=limits,
        created_at=datetime.now(UTC),
    )


def test_the_narrowest_threshold_counts() -> None:
    limits = {"": 0.5, "priority": 0.7, "priority/urgent": 0.2}
    assert needs_human({"priority": score("urgent", 0.3), "category": score("x", 0.6)}, limits) == ()
    assert needs_human({"priority": score("low", 0.6), "category": score("x", 0.4)}, limits) == (
        "priority",
        "category",
    )


def test_an_unknown_confidence_is_not_judged() -> None:
    assert needs_human({"priority": score("low", None)}, {"": 1.0}) == ()


def test_settings_win_over_the_card_which_wins_over_the_default() -> None:
    settings = load_settings(needs_human_below=0.4, needs_human_at={"priority/urgent": 0.9})
    limits = thresholds(settings, card(**{"priority/urgent": 0.1, "category": 0.6}))
    assert limits == {"": 0.4, "priority/urgent": 0.9, "category": 0.6}
    assert thresholds(settings) == {"": 0.4, "priority/urgent": 0.9}


@pytest.mark.parametrize(
    ("key", "words"), [("mood", "'mood'; expected priority"), ("priority/asap", "priority 'asap'")]
)
def test_a_threshold_for_nothing_is_refused(key: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        check_thresholds(load_settings(needs_human_at={key: 0.5}))
    check_thresholds(load_settings(needs_human_at={"category/Billing": 0.5, "priority": 0.1}))
