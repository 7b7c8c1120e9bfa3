"""The structure of mails: as the standard library sees whole ones, and as a person would broken ones."""

import random
from email import message_from_bytes
from email.message import EmailMessage, Message
from typing import Any

import pytest

from ingest.headers import parameters
from ingest.mime import Part, read_part, uu_files
from ingest.parse import parse_email
from tests.ingest.mails import mail, multipart, part


def whole_mail(chance: random.Random) -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "x" * chance.randrange(1, 200)
    message.set_content("text\n" * chance.randrange(1, 50))
    if chance.random() < 0.7:
        message.add_alternative("<p>text é</p>" * chance.randrange(1, 50), subtype="html")
    for _ in range(chance.randrange(3)):
        data = chance.randbytes(chance.randrange(1, 3000))
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename="ü ü.bin")
    if chance.random() < 0.3:
        inner = EmailMessage()
        inner["Subject"] = "inner"
        inner.set_content("inner text")
        message.add_attachment(inner)
    raw = message.as_bytes()
    return raw.replace(b"\n", b"\r\n") if chance.random() < 0.5 else raw


def shape(part: Part) -> Any:
    if part.parts:
        return part.type, [shape(one) for one in part.parts]
    return part.type, None if part.type == "message/rfc822" else part.payload().replace(b"\r\n", b"\n")


def library_shape(message: "Message[str, str]") -> Any:
    kind = message.get_content_type()
    if kind.startswith("multipart/"):
        return kind, [library_shape(one) for one in message.get_payload() if isinstance(one, Message)]
    data = message.get_payload(decode=True)
    if kind == "message/rfc822" or not isinstance(data, bytes):
        return kind, None
    return kind, data.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("seed", range(60))
def test_whole_mails_have_the_parts_that_the_standard_library_finds(seed: int) -> None:
    raw = whole_mail(random.Random(seed))
    assert shape(read_part(raw)) == library_shape(message_from_bytes(raw))


@pytest.mark.parametrize("seed", range(20))
def test_counted_sizes_are_the_sizes_of_what_is_decoded(seed: int) -> None:
    def leaves(part: Part) -> list[Part]:
        return [leaf for one in part.parts for leaf in leaves(one)] if part.parts else [part]

    for leaf in leaves(read_part(whole_mail(random.Random(seed)))):
        assert leaf.size() == len(leaf.payload())


def test_a_multipart_that_was_never_closed_keeps_its_parts_and_says_so() -> None:
    parsed = parse_email(
        multipart("mixed", part("text/plain", "one"), part("text/plain", "two")).rpartition(b"--b0--")[0]
    )
    assert parsed.text == "one\n\ntwo"
    assert "multipart not closed" in parsed.warnings


def test_an_inner_multipart_that_was_never_closed_ends_where_the_outer_goes_on() -> None:
    inner = (
        b"Content-Type: multipart/alternative; boundary=in\n\n--in\nContent-Type: text/html\n\n<p>said</p>\n"
    )
    parsed = parse_email(multipart("mixed", inner, part("application/pdf; name=a.pdf", "x")))
    assert parsed.text == "said"
    assert [one.name for one in parsed.attachments] == ["a.pdf"]


def test_a_boundary_that_begins_like_another_is_another() -> None:
    inner = b"Content-Type: multipart/alternative; boundary=b00\n\n--b00\n\nplain\n--b00\nContent-Type: text/html\n\nh\n--b00--\n"
    assert parse_email(multipart("mixed", inner, part("text/plain", "after"))).text == "plain\n\nafter"


def test_a_multipart_whose_boundary_is_not_declared_is_read_by_its_first_line() -> None:
    raw = multipart("mixed", part("text/plain", "words"), part("application/pdf; name=a.pdf", "x"))
    parsed = parse_email(raw.replace(b"; boundary=b0", b""))
    assert parsed.text == "words"
    assert [one.name for one in parsed.attachments] == ["a.pdf"]


def test_text_without_a_blank_line_after_the_headers_is_the_body() -> None:
    assert parse_email(b"From: a@example.org\nSubject: Hi\nThis is what I want.\nThanks\n").text.startswith(
        "This is"
    )


@pytest.mark.parametrize(
    "start", [b"\xef\xbb\xbf", b"\r\n\r\n", b"From ana@example.org Mon Nov 16 17:20:00 2026\n"]
)
def test_what_files_begin_with_is_no_part_of_the_mail(start: bytes) -> None:
    parsed = parse_email(start + mail("Words.\n"))
    assert (parsed.subject, parsed.text) == ("Hi", "Words.")


def test_lines_may_end_with_a_carriage_return_alone() -> None:
    parsed = parse_email(mail("One.\nTwo.\n").replace(b"\n", b"\r"))
    assert (parsed.subject, parsed.text) == ("Hi", "One.\nTwo.")


def test_attached_mail_is_never_opened_for_its_structure() -> None:
    parsed = parse_email(
        b"From: a@b\nContent-Type: message/rfc822\n\n"
        + b"Content-Type: message/rfc822\n\n" * 3000
        + b"Subject: x\n\nhi"
    )
    assert len(parsed.attachments) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/plain; charset=utf-8", {"charset": "utf-8"}),
        ('text/plain; CHARSET="utf-8" ; format=flowed', {"charset": "utf-8", "format": "flowed"}),
        ("a/b; name*=iso-8859-1'en'%E9t%E9.pdf", {"name": "été.pdf"}),
        ("a/b; name*1*=%A4.pdf; name*0*=utf-8''%C3", {"name": "ä.pdf"}),
        ("a/b; name*0=one; name*1=two", {"name": "onetwo"}),
        ("a/b; name=plain.pdf; name*=utf-8''%C3%A4.pdf", {"name": "ä.pdf"}),
        ('a/b; name="one; two.pdf"', {"name": "one; two.pdf"}),
        ('a/b; name="C:\\temp\\a.pdf"', {"name": "C:\\temp\\a.pdf"}),
        ("a/b; name=a b.pdf", {"name": "a b.pdf"}),
        ('a/b; name="never closed', {"name": "never closed"}),
        ("a/b; name*", {}),
        ("a/b; name*=x; ;;", {"name": "x"}),
    ],
)
def test_parameters_of_all_shapes(value: str, expected: dict[str, str]) -> None:
    assert parameters(value.encode())[1] == expected


def test_an_inline_uuencoded_file_becomes_an_attachment() -> None:
    block = "begin 644 note.txt\n#0V%T\n`\nend\n"
    parsed = parse_email(mail(f"Before.\n{block}After.\n"))
    assert parsed.text == "Before.\n\nAfter."
    assert [(one.name, one.type, one.size) for one in parsed.attachments] == [("note.txt", "text/plain", 3)]


@pytest.mark.parametrize(
    "text", ["begin 644 the story\nOnce upon a time, there was\nend\n", "begin 2027 well\n", "begin 644 x"]
)
def test_prose_that_begins_like_a_uuencoded_file_stays(text: str) -> None:
    assert list(uu_files(text)) == []
    assert parse_email(mail(text)).text == text.strip()
