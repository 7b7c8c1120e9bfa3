"""A part of an email instead of all of it: headers and texts come, attachments stay on the server.

1. BODYSTRUCTURE tells the tree of parts (RFC 3501, 7.4.2);
2. the headers of the email and of every part are fetched; they, not the structure, say what a part is,
   because it is they that ingest/parse.py reads;
3. the texts are fetched, long ones only to MAX_TEXT_OCTETS;
4. an email is put together from them: the same headers, the same boundaries, and nothing in the places of the
   parts that stayed. What stayed is told beside the bytes (LeftOnServer), so that no sender can claim it.

The same email gives the same bytes each time. Servers lie and differ: whatever does not fit together ends in
`_first_bytes`, the beginning of the email as it is, and never in another attempt.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from briefbox.errors import ParseError
from briefbox.schemas import LeftOnServer
from briefbox.settings import Settings
from ingest.headers import Headers, parameters, read_headers
from ingest.html import MAX_HTML
from ingest.mime import MAX_DEPTH, MAX_PARTS, content_type, declared_boundary

# FETCH of these items of one email; {} when the server gives nothing that can be used.
Ask = Callable[[list[str]], dict[bytes, Any]]

# Where attachments stay on the server, mail up to this size is fetched whole all the same: its attachments are
# smaller than what asking for its structure costs.
SMALL_EMAIL = 100_000
# As much of a text as the parser keeps: base64 makes 78 octets of 57 bytes.
MAX_TEXT_OCTETS = MAX_HTML * 78 // 57 + 100_000
# Of all texts of one email together.
MAX_OCTETS = 3 * MAX_TEXT_OCTETS
# How much is taken of an email whose structure cannot be used.
FIRST_BYTES = 1_000_000
# Attached texts and signatures up to here come along; asking for them costs more than they do.
SMALL_OCTETS = 100_000
# Headers of an attached mail: its subject is the attachment's name.
MAX_INNER_HEADER = 64_000
# Servers limit a command line (8,000 bytes is what RFC 7162 asks for).
MAX_COMMAND = 4_000
# Written into the headers of a part that stayed, for people who look at the bytes. The parser does not read it. It has
# not our name: by X-Briefbox-... mail is known that we sent (ingest/kind.py).
MARK = b"X-Left-On-Server"

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# White space, also as quoted-printable and HTML write it, and tags.
_BLANK = re.compile(rb"\s|=(?:\r?\n|20|A0)|&nbsp;|<[^>]{0,10000}>", re.IGNORECASE)
_MAIL = {"message/rfc822", "message/global"}
# What the parser lists as attached although it begins with message/.
_ATTACHED_MESSAGES = {*_MAIL, "message/partial", "message/external-body", "message/news"}
# Text and attachments may be inside: Outlook's winmail.dat, and what S/MIME signed or encrypted as a whole.
_WRAPPED = {
    "application/ms-tnef",
    "application/vnd.ms-tnef",
    "application/pkcs7-mime",
    "application/x-pkcs7-mime",
}
_SIGNATURES = {
    "application/pgp-signature",
    "application/pgp-encrypted",
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
}


# What structures and headers that nobody should send make the code here raise.
_STUMBLES = (ParseError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class _OddError(Exception):
    """The server's answers do not fit together."""


@dataclass(slots=True, kw_only=True)
class _Part:
    """A part by its section ("" is the email itself); `octets` as the server states them, 0 where it does not."""

    section: str
    type: str
    octets: int = 0
    children: list["_Part"] | None = None  # of a multipart
    described: bytes = b""  # its headers as the structure tells them
    header: bytes = b""  # its headers as they are, without the blank line
    fields: Headers = field(default_factory=Headers)  # as the parser reads them
    body: bytes = b""
    stays: bool = False
    is_cut: bool = False

    @property
    def place(self) -> str:
        """The section of its body. A mail that is no multipart has the one part TEXT."""
        return self.section or "TEXT"

    def all(self) -> Iterator["_Part"]:
        """This part and those in it, in order."""
        yield self
        for child in self.children or ():
            yield from child.all()


def most_whole(settings: Settings, attachments: str) -> int:
    """Up to which size an email is fetched whole. `attachments` is the mailbox's choice, keep or reference."""
    return (
        min(settings.max_email_bytes, SMALL_EMAIL) if attachments == "reference" else settings.max_email_bytes
    )


def fetch_in_part(ask: Ask) -> tuple[bytes, LeftOnServer | None] | None:
    """The email without its attachments, and what stayed: None where it came whole.

    None instead of both when the server gives nothing of it.
    """
    try:
        root = _tree(ask(["BODYSTRUCTURE"]).get(b"BODYSTRUCTURE"), "", 0)
        _fetch_headers(ask, root)
        _choose(root)
        if not any(part.stays or part.is_cut for part in root.all()) and (raw := _whole(ask)):
            return raw, None
        _fetch_bodies(ask, root)
        raw = b"".join(_assembled(root, ()))
    except (_OddError, *_STUMBLES):
        return _first_bytes(ask)
    sizes = {part.place: _decoded_size(part) for part in root.all() if part.stays or part.is_cut}
    return raw, LeftOnServer(sizes=sizes, cut=tuple(part.place for part in root.all() if part.is_cut))


def _whole(ask: Ask) -> bytes | None:
    """There is nothing to leave, so the bytes are taken as they are, unless there are far more than the parts have."""
    raw = value(ask([f"BODY.PEEK[]<0.{MAX_OCTETS}>"]), "")
    return raw if raw and len(raw) < MAX_OCTETS else None


def _first_bytes(ask: Ask) -> tuple[bytes, LeftOnServer | None] | None:
    for _ in range(2):
        # A server that does not know partial answers gives more.
        raw = (value(ask([f"BODY.PEEK[]<0.{FIRST_BYTES}>"]), "") or b"")[:FIRST_BYTES]
        if len(raw) == FIRST_BYTES:
            raw = raw[: raw.rfind(b"\n") + 1] or raw
            return raw, LeftOnServer(first_bytes=len(raw))
        if raw:
            return raw, None
    return None


# --- 1. the tree


def _tree(structure: Any, section: str, depth: int) -> _Part:
    """The parts outside attached mails, whose own parts are nobody's business here."""
    if not isinstance(structure, tuple) or len(structure) < 2 or depth > MAX_DEPTH:
        raise _OddError
    if isinstance(structure[0], list):
        dot = f"{section}." if section else ""
        children = [_tree(one, f"{dot}{n}", depth + 1) for n, one in enumerate(structure[0], 1)]
        part = _Part(section=section, type=f"multipart/{_word(structure[1])}", children=children)
        part.described = _described(part.type, structure[2] if len(structure) > 2 else None)
    else:
        if len(structure) < 7 or not all(isinstance(word, bytes) for word in structure[:2]):
            raise _OddError
        part = _Part(section=section, type=f"{_word(structure[0])}/{_word(structure[1])}")
        part.octets = structure[6] if isinstance(structure[6], int) else 0
        part.described = _described(part.type, structure[2], structure[5], _disposition(part.type, structure))
    if sum(1 for _ in part.all()) > MAX_PARTS:
        raise _OddError
    return part


def _disposition(kind: str, structure: Sequence[Any]) -> Any:
    """It is extension data, whose place depends on the type."""
    at = 9 if kind.startswith("text/") else 11 if kind in _MAIL else 8
    return structure[at] if len(structure) > at else None


def _word(value: Any) -> str:
    return value.decode("ascii", "replace").lower() if isinstance(value, bytes) else "x-unknown"


def _described(kind: str, parameters: Any, encoding: Any = None, disposition: Any = None) -> bytes:
    """Headers made of what the structure says, for a server that does not give those of the part."""
    lines = [f"Content-Type: {kind}".encode() + _parameters(parameters)]
    if isinstance(encoding, bytes):
        lines.append(b"Content-Transfer-Encoding: " + encoding)
    if isinstance(disposition, tuple) and disposition and isinstance(disposition[0], bytes):
        lines.append(b"Content-Disposition: " + disposition[0] + _parameters(*disposition[1:2]))
    return b"\r\n".join(line.replace(b"\r", b" ").replace(b"\n", b" ") for line in lines)


def _parameters(pairs: Any = None) -> bytes:
    if not isinstance(pairs, tuple):
        return b""
    texts = [str(value).encode() if isinstance(value, int) else value for value in pairs]
    if len(texts) % 2 or not all(isinstance(text, bytes) for text in texts):
        return b""
    quoted = [text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for text in texts]
    return b"".join(b'; %s="%s"' % pair for pair in zip(quoted[::2], quoted[1::2], strict=True))


# --- 2. the headers


def _fetch_headers(ask: Ask, root: _Part) -> None:
    parts = list(root.all())
    answer = _in_lines(ask, ["BODY.PEEK[HEADER]", *(f"BODY.PEEK[{part.section}.MIME]" for part in parts[1:])])
    for part in parts:
        header = value(answer, f"{part.section}.MIME" if part.section else "HEADER")
        if header is None and not part.section:
            raise _OddError
        part.header = part.described if header is None else header.strip(b"\r\n")
        part.fields = fields_of(part.header)
        part.type, _ = content_type(part.fields, part.type)
        if (part.children is not None) != part.type.startswith("multipart/"):
            raise _OddError


def fields_of(header: bytes) -> Headers:
    """The headers of a part. Raises ParseError beyond the parser's limits."""
    return read_headers(header, 0, len(header))[0]


def _in_lines(ask: Ask, items: Sequence[str]) -> dict[bytes, Any]:
    """All items, in as many commands as servers want."""
    answer: dict[bytes, Any] = {}
    line: list[str] = []
    for item in items:
        if line and sum(map(len, line)) + len(line) + len(item) > MAX_COMMAND:
            answer |= ask(line)
            line = []
        line.append(item)
    return answer | ask(line) if line else answer


def value(answer: dict[bytes, Any], section: str) -> bytes | None:
    """A body or header; its key ends in <0> when a part of it was asked for, or in whatever the server likes."""
    for key, value in answer.items():
        if key.upper().startswith(f"BODY[{section}]".upper().encode()):
            # A short one may come as an atom: IMAPClient makes a number of 12.
            return (
                str(value).encode() if isinstance(value, int) else value if isinstance(value, bytes) else None
            )
    return None


# --- 3. what is fetched of them


def _choose(root: _Part) -> None:
    """Say of each part whether it stays, and of each long text that it is cut."""
    left, any_text = MAX_OCTETS, False
    for part in root.all():
        if part.children is not None:
            continue
        is_text = part.type.startswith("text/")
        part.stays = not _is_wanted(part, is_root=part is root, any_text=any_text)
        if part.stays:
            continue
        any_text = any_text or is_text
        limit = min(MAX_TEXT_OCTETS, left)
        if part.octets > limit:
            part.stays, part.is_cut = not is_text or not limit, is_text and limit > 0
        left -= min(part.octets, limit) if not part.stays else 0


def _is_wanted(part: _Part, *, is_root: bool, any_text: bool) -> bool:
    """Whether it is text, or what mail is made of, and no file that somebody attached."""
    disposition, named = _disposition_of(part)
    is_attached = disposition == "attachment"
    if part.type.startswith("text/"):
        # A second text with a name is a file (ingest/parse.py).
        is_file = not is_root and any_text and bool(named) and part.octets > SMALL_OCTETS
        return is_root or not (is_attached or is_file)
    if part.type.startswith("message/"):
        return part.type not in _ATTACHED_MESSAGES
    if named.lower() == "winmail.dat":
        return True
    return part.type in _WRAPPED or (part.type in _SIGNATURES and part.octets <= SMALL_OCTETS)


def _disposition_of(part: _Part) -> tuple[str, str]:
    """Whether it is attached or shown, and its file's name; "" where it does not say."""
    values = part.fields.all("content-disposition")
    word, found = parameters(values[0]) if values else ("", {})
    _, typed = content_type(part.fields, part.type)
    return word, found.get("filename") or typed.get("name") or ""


def _fetch_bodies(ask: Ask, root: _Part) -> None:
    leaves = [part for part in root.all() if part.children is None]
    wanted = [part for part in leaves if not part.stays]
    mails = [part for part in leaves if part.stays and part.type in _MAIL]
    items = [f"BODY.PEEK[{part.place}]<0.{MAX_TEXT_OCTETS}>" for part in wanted]
    answer = _in_lines(ask, [*items, *(_inner_header(part) for part in mails)])
    for part in wanted:
        body = value(answer, part.place)
        if not body and part.octets:
            # Some servers know no partial answers, or omit something once.
            up_to = f"<0.{MAX_TEXT_OCTETS}>" if part.is_cut else ""
            body = value(ask([f"BODY.PEEK[{part.place}]{up_to}"]), part.place)
            # Some count the part's headers too, so an empty text is not always stated as one.
            if body is None or (not body and abs(part.octets - len(part.header) - 4) > 4):
                raise _OddError
        part.body = (body or b"")[:MAX_TEXT_OCTETS]
        # The size is a hint: a longer text is cut as well.
        part.is_cut = part.is_cut or len(part.body) == MAX_TEXT_OCTETS
    for part in mails:
        inner = value(answer, "TEXT" if not part.section else f"{part.section}.HEADER") or b""
        part.body = _BLANK_LINE.split(inner[:MAX_INNER_HEADER], maxsplit=1)[0].strip(b"\r\n") + b"\r\n\r\n"
    if mails and not any(_has_words(part) for part in wanted):
        # The parser takes the words of the first attached mail then; they stand at its beginning.
        first = mails[0]
        inner = value(ask([f"BODY.PEEK[{first.place}]<0.{FIRST_BYTES}>"]), first.place) or first.body
        first.body = inner if len(inner) < FIRST_BYTES else inner[: inner.rfind(b"\n", 0, FIRST_BYTES) + 1]


def _has_words(part: _Part) -> bool:
    """Whether anything is in it but blanks and markup."""
    return part.type not in _SIGNATURES and bool(_BLANK.sub(b"", part.body))


def _inner_header(part: _Part) -> str:
    """The headers of an attached mail. Of an email that is nothing but one, servers number them differently."""
    section = f"{part.section}.HEADER" if part.section else "TEXT"
    return f"BODY.PEEK[{section}]<0.{MAX_INNER_HEADER}>"


# --- 4. the email


def _assembled(part: _Part, boundaries: tuple[bytes, ...]) -> Iterator[bytes]:
    mark = b""
    if part.stays or part.is_cut:
        mark = b"%s: section=%s; octets=%d\r\n" % (MARK, part.place.encode(), part.octets)
    yield part.header + b"\r\n" + mark if part.header else mark
    yield b"\r\n"
    if part.children is None:
        if any(b"\n--" + boundary in b"\n" + part.body for boundary in boundaries):
            raise _OddError  # The server sees other parts in it than a parser will.
        yield part.body
        return
    boundary = _boundary(part)
    if boundary in boundaries:
        raise _OddError
    for child in part.children:
        yield b"\r\n--" + boundary + b"\r\n"
        yield from _assembled(child, (*boundaries, boundary))
    yield b"\r\n--" + boundary + b"--\r\n"


def _boundary(part: _Part) -> bytes:
    """As the parser will see it."""
    boundary = declared_boundary(content_type(part.fields, part.type)[1])
    if not boundary or not part.children:
        raise _OddError
    return boundary


def _decoded_size(part: _Part) -> int:
    """An estimate: base64 writes 57 bytes as a line of 78 octets."""
    encoding = part.fields.get("content-transfer-encoding", "").strip().lower()
    return part.octets * 57 // 78 if encoding == "base64" else part.octets
