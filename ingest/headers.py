"""Header fields as the bytes hold them, decoded when they are asked for.

The standard library's header classes raise on headers that real mail has, and take minutes or gigabytes on hostile
ones; its structure parser is quadratic in some. Here each field is looked at a fixed number of times.
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from briefbox.errors import ParseError
from ingest.charset import decode

MAX_HEADER_BLOCK = 256_000
MAX_HEADER = 64_000
MAX_PARAMETERS = 8_000

# Some senders leave a blank before the colon. A continuation begins with a blank, and may be all blank.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_ENVELOPE_LINE = re.compile(rb">?From [^\n]*\n")
_FOLD = re.compile(rb"\r?\n[ \t]?|\r")
_WORD = re.compile(r"=\?([^?\s]{1,80})\?([BbQq])\?([^?]*)\?=")
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_SECTION = re.compile(r"^(.+?)\*(?:(\d{1,3})(\*?))?$")
# Control characters, byte order mark, soft hyphen, zero-width space, joiners without effect, overrides, tags, marks.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\ue000\ue001\U000e0000-\U000e007f]"
)


class Headers(Mapping[str, str]):
    """The fields of a header block by their lower-case names; a value is the first of its name, decoded, on one line."""

    __slots__ = ("_fields", "_texts", "guessed")

    def __init__(self) -> None:
        self._fields: dict[str, list[bytes]] = {}
        self._texts: dict[str, str] = {}
        self.guessed: set[str] = set()  # names whose charset had to be guessed

    def add(self, name: str, value: bytes) -> None:
        """One more field; `value` is what stands behind the colon, folds and all."""
        self._fields.setdefault(name, []).append(value)

    def all(self, name: str) -> list[bytes]:
        """The bytes of every field of that name, in order, folds and all."""
        return self._fields.get(name, [])

    def __getitem__(self, name: str) -> str:
        text = self._texts.get(name)
        if text is None:
            text, guessed = decode_header(self._fields[name][0])
            text = self._texts[name] = one_line(text)
            if guessed:
                self.guessed.add(name)
        return text

    def get(self, key: str, default: Any = None) -> Any:
        """As a mapping's, without an exception for each field that is not there."""
        return self[key] if key in self._fields else default

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def read_headers(raw: bytes, start: int, end: int) -> tuple[Headers, int]:
    """The header block that begins at `start`, and where the body begins. Raises ParseError beyond the limits."""
    headers = Headers()
    at = start
    if envelope := _ENVELOPE_LINE.match(raw, at, end):
        at = envelope.end()
    # Text without a blank line before it is no header: the first line that is none ends the block.
    while field := _FIELD.match(raw, at, end):
        if field.end() - at > MAX_HEADER:
            raise ParseError(f"One header is longer than {MAX_HEADER} bytes.")
        headers.add(field[1].decode("ascii").lower(), field[2])
        at = field.end()
        if at - start > MAX_HEADER_BLOCK:
            raise ParseError(f"The headers are longer than {MAX_HEADER_BLOCK} bytes.")
    if raw.startswith(b"\n", at, end):
        at += 1
    elif raw.startswith(b"\r\n", at, end):
        at += 2
    return headers, at


def unfold(value: bytes) -> bytes:
    """A field's value on one line."""
    return _FOLD.sub(b" ", value) if b"\n" in value or b"\r" in value else value


def decode_header(value: bytes) -> tuple[str, bool]:
    """Unfold and decode RFC 2047 words, and raw bytes where senders put them; whether a charset was guessed."""
    text, guessed = decode(unfold(value), None)
    if "=?" not in text:
        return text, guessed
    parts: list[str] = []
    run: list[bytes] = []
    charset, end = "", 0
    for word in _WORD.finditer(text):
        between = text[end : word.start()]
        name = word[1].split("*")[0].lower()
        # Words in a row are one text, with their letters possibly cut in the middle of their bytes.
        if run and (between.strip() or name != charset):
            decoded, unsure = decode(b"".join(run), charset)
            parts.append(decoded)
            guessed = guessed or unsure
            run = []
        if between.strip() or end == 0:
            parts.append(between)
        run.append(_word_bytes(word[2], word[3]))
        charset, end = name, word.end()
    if run:
        decoded, unsure = decode(b"".join(run), charset)
        parts.append(decoded)
        guessed = guessed or unsure
    return "".join(parts) + text[end:], guessed


def holds_word(text: str) -> bool:
    """Whether there is an RFC 2047 encoded word in it."""
    return "=?" in text and bool(_WORD.search(text))


def _word_bytes(encoding: str, payload: str) -> bytes:
    data = payload.encode("utf-8", "replace")
    if encoding in "Bb":
        return from_base64(data)
    return binascii.a2b_qp(data.replace(b" ", b"_"), header=True)


def from_base64(data: bytes) -> bytes:
    """Base64 with what senders do to it: stray bytes, no padding, several ends, a list's footer behind it."""
    try:
        return binascii.a2b_base64(data.translate(None, b" \t\r\n"), strict_mode=True)
    except ValueError:
        pass
    taken: list[bytes] = []
    for line in data.split(b"\n"):
        stripped = line.strip()
        if taken and (b" " in stripped or stripped.startswith((b"__", b"--"))):
            break
        taken.append(_NO_BASE64.sub(b"", stripped))
    decoded = []
    for run in b"".join(taken).split(b"="):
        whole = run[:-1] if len(run) % 4 == 1 else run
        decoded.append(binascii.a2b_base64(whole + b"=" * (-len(whole) % 4)))
    return b"".join(decoded)


def one_line(text: str) -> str:
    """Text without invisible characters, its white space narrowed to single blanks."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(INVISIBLE.sub("", text.replace("\r", " ").replace("\n", " ")).split())


def parameters(value: bytes) -> tuple[str, dict[str, str]]:
    """The main value in lower case and its parameters by lower-case names, RFC 2231 or not, the first of each name.

    Raises ParseError when the field is longer than any honest one.
    """
    if len(value) > MAX_PARAMETERS:
        raise ParseError(
            f"A Content-Type or Content-Disposition header is longer than {MAX_PARAMETERS} bytes."
        )
    text = decode(unfold(value), None)[0]
    main = text.partition(";")[0].strip().lower()
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for found in _PARAMETER.finditer(text):
        name, content = found[1].lower(), found[2].strip()
        if content.startswith('"'):
            content = re.sub(r'\\(["\\])', r"\1", content[1:-1] if content.endswith('"') else content[1:])
        if "*" in name and (section := _SECTION.match(name)):
            number, escaped = int(section[2] or 0), section[2] is None or bool(section[3])
            sections.setdefault(section[1], {}).setdefault(number, (content, escaped))
        else:
            plain.setdefault(name, content)
    return main, plain | {name: _joined(pieces) for name, pieces in sections.items()}


def _joined(pieces: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231 sections in their order; the first names the charset."""
    charset = ""
    data: list[bytes] = []
    for number, (content, escaped) in sorted(pieces.items()):
        if escaped and number == 0 and content.count("'") >= 2:
            charset, _, content = content.split("'", 2)
        data.append(unquote_to_bytes(content) if escaped else content.encode("utf-8", "replace"))
    return decode(b"".join(data), charset)[0]
