import pytest

from briefbox.schemas import Omission
from briefbox.settings import load_settings
from desk.agents.brief_view import (
    LANGUAGES,
    foreign_language,
    left_out,
    locate,
    mail_pieces,
    summary_pieces,
    usual_language,
    words,
)
from tests.desk.conftest import Inbox


@pytest.mark.parametrize(
    ("asked", "span", "shown", "found"),
    [
        ("one two three", (4, 7), "one two three", "two"),
        ("one two three", (4, 13), "one\n\ntwo\n three", "two\n three"),
        ("a b. a b.", (5, 9), "a b.  a b.", "a b."),
        ("lost one two", (5, 12), "one  two", "one  two"),
        ("Grüße 😀 aus Köln", (6, 7), "Grüße\n😀 aus Köln", "😀"),
    ],
)
def test_a_span_is_found_whatever_the_spaces(
    asked: str, span: tuple[int, int], shown: str, found: str
) -> None:
    place = locate(asked, *span, shown)
    assert place is not None
    assert shown[slice(*place)] == found


def test_of_two_equal_texts_the_same_one_is_taken() -> None:
    assert locate("a b. a b.", 5, 9, "a b.  a b.") == (6, 10)


@pytest.mark.parametrize("span", [(0, 0), (3, 4), (90, 99), (5, 2), (0, 12)])
def test_what_is_not_there_is_not_found(span: tuple[int, int]) -> None:
    assert locate("one two three", *span, "one two") is None


def test_overlapping_spans_share_their_middle() -> None:
    pieces = mail_pieces("abcdef", [(0, 4), None, (2, 6)])
    assert [(p.text, p.supports, p.first_of) for p in pieces] == [
        ("ab", (0,), (0,)),
        ("cd", (0, 2), (2,)),
        ("ef", (2,), ()),
    ]
    assert "".join(p.text for p in mail_pieces("whole text", [])) == "whole text"


def test_a_summary_keeps_every_character() -> None:
    summary = "First one.  Second one.\nThird."
    sentences = ["First one.", "Second one.", "Not there."]
    pieces = summary_pieces(summary, sentences, [(0, 3), None, (4, 5)], "a b c d")
    assert "".join(piece.text for piece in pieces) == summary
    assert [(p.text, p.sentence, p.quote) for p in pieces if p.sentence is not None] == [
        ("First one.", 0, "a b")
    ]


def test_a_long_quotation_is_cut() -> None:
    [piece] = summary_pieces("Yes.", ["Yes."], [(0, 900)], "word " * 200)
    assert len(piece.quote) <= 200
    assert piece.quote.endswith("word…")


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (0, "about 1 word"),
        (1, "about 1 word"),
        (40, "about 30 words"),
        (170, "about 130 words"),
        (4000, "about 3,000 words"),
        (123_456, "about 93,000 words"),
    ],
)
def test_tokens_are_told_in_words(tokens: int, said: str) -> None:
    assert words(tokens) == said


def test_what_was_left_out_is_one_sentence() -> None:
    assert left_out([]) == ""
    original = Omission(part="original", emails=1, tokens=200)
    earlier = Omission(part="earlier", emails=1, tokens=40)
    assert (
        left_out([original, earlier])
        == "The model did not read: about 150 words of the first mail, about 30 words of an earlier mail."
    )


def test_the_usual_language_is_the_configured_one_or_the_most_frequent(inbox: Inbox) -> None:
    by_mail = load_settings(brief_language="email")
    with inbox.database.read() as session:
        assert usual_language(session, by_mail) == "en"
    for language in ("de", "de", "en", "en", ""):
        inbox.receive(brief={"language": language})
    with inbox.database.read() as session:
        assert usual_language(session, by_mail) == "en"
    inbox.receive(brief={"language": "de"})
    with inbox.database.read() as session:
        assert usual_language(session, by_mail) == "de"
        assert usual_language(session, load_settings(brief_language="fr")) == "fr"


def test_languages_have_names() -> None:
    assert foreign_language("de", "en") == "German"
    assert foreign_language("xx", "en") == "xx"
    assert foreign_language("de", "de") == foreign_language("", "de") == ""
    assert all(len(code) == 2 and name.istitle() for code, name in LANGUAGES.items())
