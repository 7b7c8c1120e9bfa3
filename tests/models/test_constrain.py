"""models/constrain.py: in its second try a line can hold the email's numbers only."""

from typing import Any

import pytest
import torch

from models.constrain import Figures, OnlyFacts


@pytest.fixture(scope="module")
def figures(tokenizer: Any) -> Figures:
    return Figures(tokenizer, 49152)


def writable(rule: OnlyFacts, tokenizer: Any, text: str) -> bool:
    """Whether every token of `text` may follow the ones before it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return not any(bool(rule.forbidden(ids[:n])[token]) for n, token in enumerate(ids))


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("Order 48213 is late.", True),
        ("Order 48214 is late.", False),
        ("Order 4821 is late.", False),
        ("Order 482130 is late.", False),
        ("Paid 1,200.50 twice", True),
        ("Paid 1200 twice", True),
        ("Paid 1300 twice", False),
        ("No figures at all.", True),
    ],
)
def test_numbers_are_written_along_those_of_the_email(
    figures: Figures, tokenizer: Any, request_for: Any, text: str, allowed: bool
) -> None:
    request = request_for("Order 48213, I paid EUR 1,200.50 on 3 March.", subject="", sender="")
    assert writable(OnlyFacts(figures, request, ["99"]), tokenizer, text) is allowed


def test_a_wrong_phrase_cannot_be_written_again(figures: Figures, tokenizer: Any, request_for: Any) -> None:
    rule = OnlyFacts(figures, request_for("Write to me."), ["eve@evil.example"])
    assert not writable(rule, tokenizer, "Mail eve@evil.example now")
    assert writable(rule, tokenizer, "Mail the customer now")


def test_an_email_without_numbers_allows_none(figures: Figures, tokenizer: Any, request_for: Any) -> None:
    rule = OnlyFacts(figures, request_for("Hello there", subject="", sender=""), ["7"])
    mask = rule.forbidden([])
    assert bool(mask[tokenizer("7", add_special_tokens=False)["input_ids"]].all())
    assert not bool(mask[tokenizer("hello", add_special_tokens=False)["input_ids"]].any())
    assert mask.dtype is torch.bool
