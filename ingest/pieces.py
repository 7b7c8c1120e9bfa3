"""One part of an email from the server, in pieces and decoded, so that its size does not matter."""

import binascii
import quopri
import re
from collections.abc import Iterable, Iterator

from briefbox.errors import MailboxError
from ingest.partial import Ask, fields_of, value

PIECE = 1_000_000

_NO_LETTERS = re.compile(rb"[^A-Za-z0-9+/=]")


def read_part(ask: Ask, section: str, *, most: int) -> Iterator[bytes]:
    """The bytes of the part without their transfer encoding. Raises MailboxError when it does not come, or when more
    than `most` octets come."""
    headers = "HEADER" if section == "TEXT" else f"{section}.MIME"
    fields = fields_of(value(ask([f"BODY.PEEK[{headers}]"]), headers) or b"")
    encoding = fields.get("content-transfer-encoding", "").strip().lower()
    return decoded(_pieces(ask, section, most), encoding)


def _pieces(ask: Ask, section: str, most: int) -> Iterator[bytes]:
    at = 0
    while True:
        item = [f"BODY.PEEK[{section}]<{at}.{PIECE}>"]
        # Some servers omit something once.
        piece = value(ask(item), section) or value(ask(item), section) or b""
        if not piece and not at:
            raise MailboxError(
                f"The mail server gave an empty answer for part {section} of this email, twice."
            )
        at += len(piece)
        if at > most:
            raise MailboxError(
                f"The mail server gives more of part {section} ({at} bytes) than the whole email has; it cannot be right."
            )
        yield piece
        # A short one is the last; a longer one is everything, from a server that knows no partial answers.
        if len(piece) != PIECE:
            return


def decoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The bytes without their Content-Transfer-Encoding (RFC 2045, 6)."""
    if encoding == "base64":
        return _base64(pieces)
    return _quoted_printable(pieces) if encoding == "quoted-printable" else iter(pieces)


def _base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    run = b""
    for piece in pieces:
        # Some senders join what was encoded in several runs, each with its padding.
        *ended, run = (run + _NO_LETTERS.sub(b"", piece)).split(b"=")
        yield b"".join(map(_run, ended))
        whole = len(run) // 4 * 4
        yield _run(run[:whole])
        run = run[whole:]
    yield _run(run)


def _run(letters: bytes) -> bytes:
    if len(letters) % 4 == 1:
        letters = letters[:-1]  # one letter alone stands for nothing
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


def _quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        rest += piece
        end = rest.rfind(b"\n") + 1
        yield quopri.decodestring(rest[:end])
        rest = rest[end:]
    yield quopri.decodestring(rest)
