"""Mails made to be slow, large or broken: each ends as a ParsedEmail or a ParseError, in bounded time."""

import random
from pathlib import Path

import pytest

from bench.hostile import hostile_mails
from briefbox.errors import ParseError
from briefbox.schemas import ParsedEmail
from ingest.parse import parse_body, parse_email

DEMO = sorted((Path(__file__).parents[2] / "briefbox" / "demo" / "emails").glob("*.eml"))
HOSTILE = hostile_mails()


def read(raw: bytes) -> ParsedEmail | str:
    """The parsed email, or why it is refused."""
    try:
        return parse_email(raw, own_addresses=frozenset({"support@larkspur.example"}))
    except ParseError as error:
        return str(error)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_mail_is_read_or_refused(name: str) -> None:
    parsed = read(HOSTILE[name])
    assert parsed
    if isinstance(parsed, ParsedEmail):
        parsed.model_dump_json().encode("utf-8")
    else:
        # Refused for a limit, not for an exception that nobody thought of.
        assert "cannot be parsed" not in parsed


@pytest.mark.parametrize("html", [True, False])
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["nested HTML", "angle brackets", "quote marks", "NUL bytes"])
def test_a_hostile_body_is_read(name: str, html: bool) -> None:
    assert isinstance(parse_body(HOSTILE[name].partition(b"\n\n")[2], html=html), ParsedEmail)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(8))
def test_damaged_mails_are_read_or_refused_and_their_text_is_storable(seed: int) -> None:
    chance = random.Random(seed)
    sources = [path.read_bytes() for path in DEMO] + [m for m in HOSTILE.values() if len(m) < 20_000]
    for _ in range(60):
        raw = bytearray(chance.choice(sources))
        for _ in range(chance.randrange(1, 12)):
            at = chance.randrange(len(raw))
            change = chance.randrange(4)
            if change == 0:
                raw[at] = chance.randrange(256)
            elif change == 1:
                del raw[at : at + chance.randrange(1, 200)]
            elif change == 2:
                raw[at:at] = chance.choice(
                    [b"\n", b"\r", b"--", b"=?utf-8?b?", b'"', b"\x00", b";", b"<div>", b"\xff"]
                )
            else:
                raw[at:at] = raw[at : at + chance.randrange(300)]
            raw = raw or bytearray(b"x")
        parsed = read(bytes(raw))
        if isinstance(parsed, str):
            assert "cannot be parsed" not in parsed
            continue
        parsed.model_dump_json().encode("utf-8")
        assert "\x00" not in parsed.text + parsed.subject + parsed.message_id
