from typing import Any

import pytest

from briefbox.schemas import LabelScore
from models.openai_labels import read_tokens, score
from tests.models.openai_server import tokens

PRIORITIES = ("urgent", "high", "normal", "low")
CATEGORIES = ("Billing", "Billing dispute", "Delivery")
KEY = ('{"', "priority", '":', ' "')


def priority(logprobs: Any, chosen: str = "high", temperature: float = 1.0) -> LabelScore:
    return score(read_tokens(logprobs), "priority", PRIORITIES, chosen, "json", temperature)


def category(logprobs: Any, chosen: str) -> LabelScore:
    return score(read_tokens(logprobs), "category", CATEGORIES, chosen, "json")


def test_listed_labels_are_normalised_over_the_allowed_ones() -> None:
    others = {"low": 0.2, "normal": 0.1, "urgent": 0.1, "banana": 0.2}
    found = priority(tokens(*KEY, ("high", 0.4, others), '"}'))
    assert found.label == "high"
    assert found.confidence == pytest.approx(0.5)
    assert found.scores == pytest.approx({"urgent": 0.125, "high": 0.5, "normal": 0.125, "low": 0.25})


def test_an_unlisted_label_gets_at_most_the_least_listed_probability() -> None:
    found = priority(tokens(*KEY, ("high", 0.6, {"low": 0.05}), '"}'))
    # 0.35 is not listed: half of it for each of two labels would be more than the least listed token has.
    assert found.scores == pytest.approx({"high": 0.8, "low": 0.2 / 3, "normal": 0.2 / 3, "urgent": 0.2 / 3})


def test_an_unlisted_label_gets_no_more_than_what_is_left() -> None:
    found = priority(tokens(*KEY, ("high", 0.5, {"low": 0.3, "x": 0.16}), '"}'))
    assert found.scores["urgent"] == pytest.approx(0.02 / 0.84)


def test_labels_with_the_same_first_token_part_where_they_differ() -> None:
    key = ('{"category":', ' "')
    short = category(
        tokens(*key, ("Billing", 0.8, {"Delivery": 0.2}), ('",', 0.75, {" dispute": 0.25})), "Billing"
    )
    assert short.scores == pytest.approx({"Billing": 0.6, "Billing dispute": 0.2, "Delivery": 0.2})
    long = category(
        tokens(*key, ("Bill", 0.8, {"Delivery": 0.2}), "ing", (" dis", 0.75, {'"': 0.25}), "pute", '"}'),
        "Billing dispute",
    )
    assert long.scores == pytest.approx({"Billing": 0.2, "Billing dispute": 0.6, "Delivery": 0.2})


def test_another_spelling_of_the_same_label_counts_for_it() -> None:
    found = priority(tokens(*KEY, ("high", 0.5, {"h": 0.1, "low": 0.3, "lo": 0.1}), '"}'))
    assert found.scores["high"] == pytest.approx(0.6)
    assert found.scores["low"] == pytest.approx(0.4)


def test_a_token_that_leads_to_several_labels_is_shared() -> None:
    found = category(tokens('{"category": "', ("Delivery", 0.6, {"Bill": 0.4}), '"'), "Delivery")
    assert found.scores == pytest.approx({"Delivery": 0.6, "Billing": 0.2, "Billing dispute": 0.2})


def test_a_token_may_hold_the_quote_before_the_label() -> None:
    found = priority(tokens('{"priority":', (' "high', 0.5, {' "low': 0.25, ' "': 0.25}), '"}'))
    # The bare quote fits every label, so it says nothing.
    assert found.scores["high"] == pytest.approx(0.5 / 0.75)
    assert found.scores["urgent"] == 0


def test_a_key_inside_a_text_is_not_taken_for_the_field() -> None:
    text = '{"summary": "\\"priority\\": \\"low\\"", "priority": "'
    assert priority(tokens(text, ("high", 0.9, {"low": 0.1}), '"}')).confidence == pytest.approx(0.9)


def test_a_character_that_is_split_between_tokens_is_read_by_its_bytes() -> None:
    logprobs = tokens('{"category": "', "B", "x", 'cher", "priority": "', ("high", 0.9, {"low": 0.1}), '"}')
    umlaut = "ü".encode()
    logprobs["content"][1] |= {"token": "B\ufffd", "bytes": [*b"B", umlaut[0]]}
    logprobs["content"][1]["top_logprobs"] = []
    logprobs["content"][2] |= {"token": "\ufffd", "bytes": [umlaut[1]], "top_logprobs": []}
    assert priority(logprobs).confidence == pytest.approx(0.9)
    found = score(read_tokens(logprobs), "category", ("Bücher", "Musik"), "Bücher", "json")
    assert found.confidence == 1


def test_lines_end_with_the_line() -> None:
    written = tokens(
        "Priority:",
        (" high", 0.7, {" low": 0.3}),
        "\n",
        "Category:",
        " Billing",
        ("\n", 0.9, {" dispute": 0.1}),
        "Headline:",
    )
    found = score(read_tokens(written), "priority", PRIORITIES, "high", "lines")
    assert found.scores == pytest.approx({"high": 0.7, "low": 0.3, "normal": 0, "urgent": 0}, abs=1e-9)
    found = score(read_tokens(written), "category", CATEGORIES, "Billing", "lines")
    assert found.scores == pytest.approx({"Billing": 0.9, "Billing dispute": 0.1, "Delivery": 0}, abs=1e-9)


def test_a_temperature_softens_and_keeps_the_sum() -> None:
    logprobs = tokens(*KEY, ("high", 0.8, {"low": 0.2}), '"}')
    found = priority(logprobs, temperature=2.0)
    assert found.scores["high"] == pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5), abs=1e-6)
    assert sum(found.scores.values()) == pytest.approx(1)
    assert priority(logprobs, temperature=1e-3).confidence == pytest.approx(1)
    assert priority(logprobs, temperature=1e3).confidence == pytest.approx(0.25, abs=0.15)


UNKNOWN = LabelScore(label="high", confidence=None, scores={})


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "high"}]},
        {"content": [{"token": "high", "logprob": None}]},
        {"content": [{"token": "high", "logprob": float("nan")}]},
        {"content": "text"},
        {"tokens": ["high"], "token_logprobs": [-0.1]},
        tokens("token_id:12", "token_id:7"),
        tokens('{"priority": "low"}'),
    ],
)
def test_without_usable_logprobs_the_confidence_is_unknown(logprobs: Any) -> None:
    assert priority(logprobs) == UNKNOWN


def test_minus_infinity_is_probability_zero() -> None:
    logprobs = tokens(*KEY, ("high", 0.5, {"low": 0.5}), '"}')
    logprobs["content"][4]["top_logprobs"].append({"token": "urgent", "logprob": -9999.0})
    logprobs["content"][4]["top_logprobs"].append({"token": "normal", "logprob": float("-inf")})
    assert priority(logprobs).scores == pytest.approx({"high": 0.5, "low": 0.5, "urgent": 0, "normal": 0})


def test_a_single_label_is_certain() -> None:
    found = score(read_tokens(tokens('{"category": "Other"}')), "category", ("Other",), "Other", "json")
    assert found == LabelScore(label="Other", confidence=1.0, scores={"Other": 1.0})
