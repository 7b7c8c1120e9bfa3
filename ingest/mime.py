"""The parts of a mail: where each begins and ends in the raw bytes (RFC 2046), within limits.

A part holds places, not copies. An outer multipart is cut before what is in it, so that a part that was never
closed ends where the one around it goes on. Attached mail is not opened here.
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from briefbox.errors import ParseError
from ingest.headers import Headers, from_base64, parameters, read_headers

MAX_PARTS = 1_000
MAX_DEPTH = 50

_DELIMITER_END = re.compile(rb"(--)?[ \t]*\r?(?:\n|\Z)")
_UNDECLARED = re.compile(rb"(?:^|\n)--([^\s]{1,200})[ \t]*\r?\n[Cc]ontent-[A-Za-z-]{1,40}:")
_UNDECLARED_WITHIN = 64_000
_CLEAN_BASE64 = re.compile(rb"[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*\Z")


@dataclass(slots=True)
class Part:
    """One part: its headers, type ("text/plain"), parameters, and body as raw[start:end]; or the parts in it."""

    raw: bytes = field(repr=False)
    headers: Headers
    start: int
    end: int
    type: str = "text/plain"
    parameters: dict[str, str] = field(default_factory=dict)
    parts: list["Part"] = field(default_factory=list)
    is_closed: bool = True  # of a multipart: its last delimiter is there
    section: str = ""  # how IMAP calls it; only after name_sections()

    @property
    def body(self) -> bytes:
        """The bytes as they came, in their transfer encoding."""
        return self.raw[self.start : self.end]

    @property
    def encoding(self) -> str:
        """The transfer encoding in lower case; "" where none is named."""
        values = self.headers.all("content-transfer-encoding")
        return self.headers["content-transfer-encoding"].strip().lower() if values else ""

    def payload(self) -> bytes:
        """The bytes without their transfer encoding, as far as they can be made out."""
        encoding = self.encoding
        if encoding == "base64":
            return from_base64(self.body)
        if encoding == "quoted-printable":
            return binascii.a2b_qp(self.body)
        if encoding in {"x-uuencode", "uuencode", "x-uue", "uue"}:
            files = list(uu_files(self.body.decode("latin-1")))
            return files[0].data if files else self.body
        return self.body

    def size(self) -> int:
        """Length of the payload in bytes, counted without decoding where that can be."""
        if self.encoding == "base64":
            body = self.body
            if _CLEAN_BASE64.match(body):
                return len(body.translate(None, b"\r\n=")) * 3 // 4
            return len(from_base64(body))
        return len(self.payload()) if self.encoding else self.end - self.start

    def disposition(self) -> tuple[str, dict[str, str]]:
        """Content-Disposition's word ("" where it is missing) and parameters. Raises ParseError beyond the limits."""
        values = self.headers.all("content-disposition")
        return parameters(values[0]) if values else ("", {})


def read_part(raw: bytes) -> Part:
    """The whole mail as a Part. Raises ParseError beyond the limits, nothing else."""
    start = 0
    if raw.startswith(b"\xef\xbb\xbf"):
        start = 3
    while raw.startswith((b"\n", b"\r\n"), start):
        start += 1
    return _Reader(raw).part(start, len(raw), depth=0, default="text/plain")


def content_type(headers: Headers, default: str) -> tuple[str, dict[str, str]]:
    """The type that a part declares, and its parameters. Raises ParseError beyond the limits."""
    values = headers.all("content-type")
    if not values:
        return default, {}
    kind, found = parameters(values[0])
    # RFC 2045, 5.2: what cannot be understood is plain text.
    return kind if kind.count("/") == 1 and kind.isascii() and " " not in kind else "text/plain", found


def declared_boundary(parameters: Mapping[str, str]) -> bytes:
    """What stands between the parts of a multipart of these parameters; b"" where it does not say."""
    return parameters.get("boundary", "").rstrip().encode("utf-8", "replace")


def name_sections(root: Part) -> None:
    """Give each part outside attached mails its IMAP section (RFC 3501, 6.4.5).

    An email that is no multipart has one part, which is called TEXT here.
    """
    root.section = "" if root.parts else "TEXT"
    todo = [root]
    while todo:
        part = todo.pop()
        for number, child in enumerate(part.parts, 1):
            child.section = f"{part.section}.{number}".lstrip(".")
        todo += part.parts


class _Reader:
    """Reads parts and counts them."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.num_parts = 0

    def part(self, start: int, end: int, *, depth: int, default: str) -> Part:
        self.num_parts += 1
        if self.num_parts > MAX_PARTS:
            raise ParseError(f"The email has more than {MAX_PARTS} parts.")
        if depth > MAX_DEPTH:
            raise ParseError(f"The email's parts are nested more than {MAX_DEPTH} deep.")
        headers, body = read_headers(self.raw, start, end)
        part = Part(self.raw, headers, min(body, end), end, default)
        part.type, part.parameters = content_type(headers, default)
        part.disposition()  # refused here when it is beyond the limits
        if part.type.startswith("multipart/"):
            self._open(part, depth)
        return part

    def _open(self, part: Part, depth: int) -> None:
        boundary = declared_boundary(part.parameters)
        if not boundary or self.raw.find(b"--" + boundary, part.start, part.end) < 0:
            found = _UNDECLARED.search(self.raw, part.start, min(part.end, part.start + _UNDECLARED_WITHIN))
            boundary = found[1] if found and not boundary else boundary
        if not boundary:
            return
        inner = "message/rfc822" if part.type == "multipart/digest" else "text/plain"
        part.is_closed = False
        for start, end, closed in self._spans(part.start, part.end, b"--" + boundary):
            part.is_closed = closed
            part.parts.append(self.part(start, end, depth=depth + 1, default=inner))

    def _spans(self, start: int, end: int, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
        """Begin and end of each part, and whether the closing delimiter follows it."""
        raw, at, opened = self.raw, start, -1
        while (found := raw.find(delimiter, at, end)) >= 0:
            at = found + len(delimiter)
            if found != start and raw[found - 1] != 0x0A:
                continue
            line = _DELIMITER_END.match(raw, at, end)
            if line is None:
                continue
            at = line.end()
            if opened >= 0:
                # The line break before a delimiter is the delimiter's.
                stop = found - 1 if found > opened else found
                stop -= stop > opened and raw[stop - 1] == 0x0D
                yield opened, max(stop, opened), bool(line[1])
            if line[1]:
                return
            opened = at
        if opened >= 0:
            yield opened, end, False


@dataclass(frozen=True, slots=True)
class UUFile:
    """A file between "begin 644 name" and "end" in a text: text[start:end]."""

    name: str
    data: bytes
    start: int
    end: int


_UU_BEGIN = re.compile(r"^begin (?:[0-7]{3,4}) (\S[^\r\n]{0,299})\r?$", re.M)
_UU_LINE = re.compile(r"[ -`]+\Z")


def uu_files(text: str) -> Iterator[UUFile]:
    """The uuencoded files in a text; lines that only look like a beginning are left."""
    at = 0
    while begin := _UU_BEGIN.search(text, at):
        at = begin.end()
        if (found := _uu_block(text, at + 1)) is not None:
            data, end = found
            yield UUFile(begin[1].strip(), data, begin.start(), end)
            at = end


def _uu_block(text: str, at: int) -> tuple[bytes, int] | None:
    """The bytes from here and where "end" ends; None when what follows is no uuencoding."""
    data: list[bytes] = []
    while at < len(text):
        stop = text.find("\n", at)
        stop = len(text) if stop < 0 else stop
        line = text[at:stop].rstrip("\r")
        if line.strip() == "end":
            return b"".join(data), stop
        if line.strip() and not _UU_LINE.match(line):
            return None
        if line:
            try:
                data.append(binascii.a2b_uu(line))
            except ValueError:
                # Known encoders count a byte too few; what the length says is what is there.
                length = ((ord(line[0]) - 32) & 63) * 4 + 5
                try:
                    data.append(binascii.a2b_uu(line[: length // 3]))
                except ValueError:
                    return None
        at = stop + 1
    # A cut mail has no end; what is there is a file only if it had lines.
    return (b"".join(data), len(text)) if any(data) else None
