"""models/compose.py and models/grounding.py: what people read is plain, grounded and never empty."""

from typing import Any

import pytest

from models.compose import compose_headline, compose_summary
from models.grounding import is_grounded


def test_hidden_characters_and_line_breaks_do_not_reach_people(request_for: Any) -> None:
    assert compose_summary("Late\u202e\x00\n parcel.", request_for(), ended=True) == "Late parcel."


@pytest.mark.parametrize("nothing", ["", "  ", "\u200b", "...", "#"])
def test_an_empty_answer_falls_back_to_the_email(request_for: Any, nothing: str) -> None:
    request = request_for("Hello,\nmy parcel 4711 is late. Where is it? Bye.")
    assert compose_headline(nothing, request, ended=True) == "Late parcel"
    assert compose_summary(nothing, request, ended=True) == "my parcel 4711 is late. Where is it?"


def test_an_empty_email_says_so(request_for: Any) -> None:
    empty = request_for("", subject="")
    assert compose_headline("", empty, ended=True) == compose_summary("", empty, ended=True) == "(no text)"


def test_a_summary_that_ran_out_of_tokens_ends_with_a_whole_sentence(request_for: Any) -> None:
    assert compose_summary("It is late. The custom", request_for(), ended=False) == "It is late."
    assert compose_summary("It is late and", request_for(), ended=False) == "It is late and…"


def test_a_sentence_with_an_invented_number_is_left_out(request_for: Any) -> None:
    text = "Parcel 4711 is late. The customer wants 99 EUR. She waits."
    assert compose_summary(text, request_for(), ended=True) == "Parcel 4711 is late. She waits."
    assert compose_headline("Refund of 99 EUR", request_for(), ended=True) == "Late parcel"


@pytest.mark.parametrize(
    ("text", "grounded"),
    [
        ("paid 5,000 dollars", True),
        ("paid 5000 dollars", True),
        ("paid 500 dollars", False),
        ("on 1 March 2026", True),
        ("order JX99812", True),
        ("order JX99821", False),
        ("no numbers", True),
    ],
)
def test_numbers_are_compared_by_their_figures(request_for: Any, text: str, grounded: bool) -> None:
    request = request_for("I paid 5,000 dollars for JX99812 on 2026-03-01.")
    assert is_grounded(text, request) is grounded
