"""What no model should learn is taken out, and what briefs are about stays."""

import pytest

from briefbox.schemas import ExampleOutput
from tests.training.conftest import make_example, request_about
from training.redact import Redactor, redact_example

PLANTED: dict[str, tuple[str, ...]] = {
    "card": (
        "My card is 4111 1111 1111 1111, please charge it.",
        "Kartennummer 5500-0000-0000-0004 bitte",
        "use 378282246310005 for the deposit",
        "la carte 6011000990139424 ne passe pas",
        "card 4012888888881881 exp 04/29",
    ),
    "IBAN": (
        "Please pay to DE89 3704 0044 0532 0130 00, thanks",
        "IBAN: GB29NWBK60161331926819",
        "sur le compte FR14 2004 1010 0505 0001 3M02 606",
        "NL91ABNA0417164300 is my account",
        "op ES91 2100 0418 4502 0005 1332 bitte",
    ),
    "phone": (
        "Call me at +49 30 901820 today",
        "ring 020 7946 0958 after five",
        "my number is (415) 555-2671",
        "Tel. 030 901820-44 tagsüber",
        "appelez le 01 42 68 53 00",
        "+44 7911 123456 is my mobile",
        "llámame al +34 912 34 56 78",
    ),
    "email": (
        "write to ana.lopez+shop@mail.example.org please",
        "Meine Adresse: k.weiss@example.com.",
        "cc bob_o'neil@sub.example.co.uk",
    ),
    "secret": (
        "my password is Hunter2!blue",
        "Passwort: geh3im-99",
        "le mot de passe : s0leil!",
        "mein Kennwort lautet Xy77-zz",
        "PIN 4471 does not work",
        "I got the SMS code 993120 twice",
        "key sk-abcdEFGH1234567890abcdEFGH",
        "AKIAIOSFODNN7EXAMPLE leaked",
        "Authorization: Bearer abcDEF123456ghiJKL789",
        "ftp://joe:p4ss@files.example.org/x",
        "https://example.org/reset?token=a8f7c6d5e4b3",
        "contraseña: Luna2024",
    ),
}
STAYS = (
    "Order 48213 has not come",
    "invoice 2026-00418 of 3 May 2026",
    "order no. 4111111111111112",
    "tracking 00340434161094022115",
    "Bestellung 100-200-300 fehlt",
    "customer number 5550123456",
    "it cost 1,249.00 EUR in 2025",
    "between 10:30 and 12:45 on 2026-11-24",
    "serial LX4-00917",
    "my password does not work any more",
    "the PIN pad is broken",
    "10115 Berlin, Lindenstraße 44",
    "I waited 50 minutes and then 30 more",
    "RR 123 456 789 DE",
    "version 5.1.3 build 20261",
    "the password page says I am not the owner",
    "meter reading 14,220 on the 1st",
    "Auftrag 8123-77-1",
)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in PLANTED.items() for t in texts])
def test_what_is_planted_is_taken_out(kind: str, text: str) -> None:
    redactor = Redactor()
    result = redactor.redact(text)
    assert f"[{kind}]" in result, result
    assert redactor.counts[kind] == 1


@pytest.mark.parametrize("text", STAYS)
def test_what_briefs_are_about_stays(text: str) -> None:
    assert Redactor().redact(text) == text


def test_the_same_value_is_the_same_placeholder_in_email_and_brief() -> None:
    example = make_example(
        input=request_about("Call +49 30 901820 or +44 7911 123456. Not +49 30 901820 after six."),
        output=ExampleOutput(summary="Wants a call at +44 7911 123456."),
    )
    clean, counts = redact_example(example)
    assert clean.input.text == "Call [phone] or [phone 2]. Not [phone] after six."
    assert clean.output.summary == "Wants a call at [phone 2]."
    assert counts["phone"] == 4
    assert "[email]" in clean.input.sender


def test_names_are_taken_out_where_that_is_asked_for() -> None:
    text = (
        "Dear Ms Okonkwo,\nplease call my wife Sofia back about Tuesday.\nKind regards,\nJonas P. Albrecht\n"
    )
    request = request_about(text).model_copy(update={"sender": "Jonas Albrecht <j.a@example.org>"})
    example = make_example(
        input=request, output=ExampleOutput(summary="Jonas Albrecht wants Okonkwo to call his wife back.")
    )
    kept, _ = redact_example(example)
    assert kept.input.text == text
    clean, counts = redact_example(example, names=True)
    assert (
        clean.input.text
        == "Dear Ms [name],\nplease call my wife Sofia back about Tuesday.\nKind regards,\n[name 2]\n"
    )
    assert clean.input.sender == "[name 3] <[email]>"
    assert clean.output.summary == "[name 3] wants [name] to call his wife back."
    assert counts["name"] == 5
