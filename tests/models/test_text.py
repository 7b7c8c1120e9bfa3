"""models/text.py: what a person would see."""

import pytest

from models.text import compact, one_line, sentences, shorten, visible


@pytest.mark.parametrize(
    "char",
    [
        "\x00",
        "\x1b",
        "\x7f",
        "\u200b",
        "\u202e",
        "\u2066",
        "\ufeff",
        "\u00ad",
        "\ufe0f",
        "\U000e0041",
        "\ue000",
    ],
)
def test_characters_that_a_person_cannot_see_are_dropped(char: str) -> None:
    assert visible(f"a{char}b") == "ab"


def test_text_of_any_script_stays() -> None:
    text = "Grüße, 你好, مرحبا, 🙂\nline two"
    assert visible(text) == text


def test_runs_of_space_and_blank_lines_become_one() -> None:
    assert compact("  a \t b\r\n\r\n\r\n\r\nc  ") == "a b\n\nc"
    assert one_line(" a\n\n b ") == "a b"


def test_greetings_and_sign_offs_are_no_sentences() -> None:
    text = "Hi Tom,\n\nmy order is late. Where is it?\n\nKind regards\nMaria"
    assert sentences(text)[:2] == ["my order is late.", "Where is it?"]


def test_shortening_cuts_between_words_and_says_so() -> None:
    assert shorten("one two three", 9) == "one two…"
    assert shorten("one two", 9) == "one two"
    assert len(shorten("x" * 500, 50)) == 50
