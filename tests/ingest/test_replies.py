"""The new part of labelled mails as many programs write them, in eleven languages."""

import random
import time

import pytest

from ingest.html import visible_text
from ingest.parse import parse_email
from ingest.reply import ReplyParts, split_reply
from tests.ingest.reply_cases import BY_ANOTHER_HAND, Case, fold, read_cases

CASES = read_cases()
OTHERS = read_cases(BY_ANOTHER_HAND)
# What we are known to get wrong. Each must still be wrong: who mends one takes it off the list.
MISSES = {
    # A contact block without a closing formula may be the address that was asked for.
    "de-kontakt-ohne-gruss",
    # Titles below a name without a closing formula, a phone or an address.
    "en-b-notes-two-generations",
    # A help-desk's own update, with the earlier ones below a rule.
    "en-b-zendesk-vendor",
}


def raw_of(case: Case) -> bytes:
    subject = "Fwd: lamp" if case.forward else "Re: lamp"
    kind = "html" if case.html else "plain"
    head = f"From: a@b.example\nSubject: {subject}\nMIME-Version: 1.0\nContent-Type: text/{kind}; charset=utf-8\n"
    return f"{head}Content-Transfer-Encoding: 8bit\n\n{case.body}\n".encode()


@pytest.mark.parametrize("case", [*CASES, *OTHERS], ids=lambda case: case.id)
def test_the_new_part_is_the_labelled_one(case: Case) -> None:
    reply = parse_email(raw_of(case)).reply
    assert case.is_met(reply) == (case.id not in MISSES), f"{reply!r} from {case.body!r}"


@pytest.mark.parametrize("case", [*CASES, *OTHERS], ids=lambda case: case.id)
def test_no_word_of_the_text_is_in_no_part(case: Case) -> None:
    parsed = parse_email(raw_of(case))
    parts = fold(parsed.reply + parsed.signature + parsed.quoted)
    for line in parsed.text.split("\n"):
        assert fold(line).strip("-_*") in parts, f"{line!r} is gone"


def test_the_set_is_as_large_and_as_varied_as_it_says() -> None:
    assert len(CASES) >= 150
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.id for case in [*CASES, *OTHERS]} >= MISSES
    languages = {case.language for case in CASES}
    assert len(languages) == 11
    for language in languages:
        cases = [case for case in CASES if case.language == language]
        assert len(cases) >= 14
        assert any(case.html for case in cases)
        assert sum(case.held_out for case in cases) == len(cases) // 3


def test_the_other_set_has_every_language_too() -> None:
    assert len({case.id for case in OTHERS}) == len(OTHERS) >= 180
    assert {case.language for case in OTHERS} == {case.language for case in CASES}


def test_nearly_all_are_right_and_hardly_a_word_is_lost() -> None:
    replies = {case.id: parse_email(raw_of(case)).reply for case in CASES}
    assert sum(case.is_met(replies[case.id]) for case in CASES) >= 0.95 * len(CASES)
    assert {case.id for case in CASES if case.lost(replies[case.id])} <= MISSES


def test_the_parts_are_told_apart() -> None:
    text = (
        "Yes, please.\n\nRegards,\nAna\n\nReed Ltd\nTel: +44 113 496 0000\n\n"
        "On Mon, 16 Nov 2026 at 17:20, Larkspur <s@l.example> wrote:\n> Shall we?\n> Larkspur"
    )
    assert split_reply(text) == ReplyParts(
        reply="Yes, please.\n\nRegards,\nAna",
        signature="Reed Ltd\nTel: +44 113 496 0000",
        quoted="On Mon, 16 Nov 2026 at 17:20, Larkspur <s@l.example> wrote:\n> Shall we?\n> Larkspur",
    )


def test_nothing_is_cut_where_nothing_would_remain() -> None:
    text = "On Mon, 16 Nov 2026 at 17:20, Larkspur wrote:\n> Shall we?\n\nSent from my iPhone"
    assert split_reply(text) == ReplyParts(text)


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        ("Regards,\nAna\nReed Ltd\nTel: +44 113 496 0000", False),
        ("Regards,\nAna\nTel: +44 113 496 0000", True),
        ("Regards,\nAna\nOrder A-4471\nTel: +44 113 496 0000", True),
        ("Regards,\nAna\nIBAN DE00 0000\nTel: +44 113 496 0000", True),
        ("Send it to my new address.\n\nRegards,\nAna\n12 Mill Lane\nTel: +44 113 496 0000", True),
        ("Regards,\nAna\nOrder number 4471\nTel: +44 113 496 0000", True),
        ("Regards,\nAna\n\nP.S. Call +44 113 496 0000 after five.", True),
        ("Regards,\nAna\n\nCan you call me on +44 113 496 0000?", True),
        ("You can call me:\nTel: +44 113 496 0000", True),
    ],
)
def test_a_contact_block_goes_only_where_nothing_in_it_is_asked_or_needed(end: str, *, kept: bool) -> None:
    assert ("496 0000" in split_reply(f"The lamp hums.\n\n{end}").reply) == kept


@pytest.mark.parametrize(
    "table",
    ["From: Oslo\nTo: Bergen\nDate: 3 May 2026 10:15", "Date: 3 May 2026 10:15\nFrom: Oslo\nTo: Bergen"],
)
def test_an_itinerary_is_no_header_of_a_mail(table: str) -> None:
    text = f"I booked this:\n\n{table}\n\nPlease cancel it."
    assert split_reply(text).reply == text


def test_words_below_a_marked_signature_stay() -> None:
    source = '<div>One.</div><div class="gmail_signature">Ana<br>Tel 1</div><div>And a second lamp is broken.</div>'
    assert "second lamp" in split_reply(visible_text(source).text).reply


@pytest.mark.parametrize(
    "piece",
    [
        '<div id="divRplyFwdMsg">x</div>',
        '<div class="gmail_signature">x</div>',
        '<div name="quote">x</div>',
        '<div class="yahoo_quoted">x',
    ],
)
def test_marks_repeated_without_end_cost_no_more_than_their_length(piece: str) -> None:
    started = time.process_time()
    visible_text("hello" + piece * (400_000 // len(piece)))
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "line", ["Regards,\n", "Tel: 0113 496 0000\n", "*****\n", "Sent from my iPhone\n", "Subject: x\n"]
)
def test_ends_without_end_cost_no_more_than_their_length(line: str) -> None:
    started = time.process_time()
    split_reply("hello\n" + line * (200_000 // len(line)))
    assert time.process_time() - started < 5


def test_a_quote_that_only_its_look_and_its_introduction_mark_is_one() -> None:
    source = (
        "<p>Fine.</p>Thu, 12 Nov 2026 14:00:51 +0400 от Larkspur &lt;help@larkspur.example&gt;:<br>"
        '<blockquote style="border-left:1px solid #0857A6; margin:10px">And how are you?</blockquote>'
    )
    assert split_reply(visible_text(source).text).reply == "Fine."
    cited = '<p>Your page says</p><blockquote style="border-left:1px solid">Free for 30 days.</blockquote><p>No.</p>'
    assert "Free for 30 days." in split_reply(visible_text(cited).text).reply


def test_what_the_sender_announces_is_shown_and_not_answered() -> None:
    shown = "This came from you:\n\nFrom: Pay <p@l.example>\nDate: 10 Nov 2026\nTo: ana@x.example\nSubject: Pay now\n\nIs it real?"
    history = "On Mon, 16 Nov 2026 at 17:20, Larkspur <s@l.example> wrote:\n> Hello"
    assert split_reply(f"{shown}\n\n{history}") == ReplyParts(reply=shown, quoted=history)
    mailed = "On 10 Nov 2026 I wrote to help@l.example and got this:\n\n> Mailbox full\n\nWhom do I ask?"
    assert split_reply(mailed).reply == mailed


def test_a_sentence_that_begins_like_a_phones_footer_stays() -> None:
    text = "When do you open?\n\nSent from my kitchen, where the lamp still hums."
    assert split_reply(text).reply == text


def test_lines_that_are_passed_over_as_prose_would_have_been_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for case in CASES for line in case.body.split("\n")]
    chance = random.Random(7)
    texts = [case.body for case in CASES]
    texts += ["\n".join(chance.choices(lines, k=chance.randint(1, 14))) for _ in range(3000)]
    quick = [split_reply(text) for text in texts]
    monkeypatch.setattr("ingest.reply.telling", lambda lines: list(range(len(lines))))
    assert quick == [split_reply(text) for text in texts]
