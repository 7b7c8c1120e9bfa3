"""models/text.py: what a person would see."""

import pytest

from models.text import compact, one_line, sentence_spans, sentences, shorten, visible


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


def test_a_wrapped_line_does_not_end_its_sentence() -> None:
    text = "On 4 November I sent back the trail saddle from order 47730 with\nyour label. Nothing came.\nAna\nBerlin"
    found = [text[start:end] for start, end in sentence_spans(text)]
    assert found == [
        "On 4 November I sent back the trail saddle from order 47730 with\nyour label.",
        "Nothing came.",
        "Ana",
        "Berlin",
    ]


@pytest.mark.parametrize(
    "greeting", ["Sehr geehrte Damen und Herren,", "Bonjour,", "Hola:", "Dear team,", "Guten Tag Frau Kim,"]
)
def test_greetings_in_other_languages_are_no_sentences(greeting: str) -> None:
    assert sentences(f"{greeting}\nthe saddle is broken.") == ["the saddle is broken."]


def test_abbreviations_and_decimals_end_no_sentence() -> None:
    text = "Mr. X pays 3.5 for No. 5, e.g. at example.com today! Really?"
    assert [text[s:e] for s, e in sentence_spans(text)] == [text[:52].strip(), "Really?"]
