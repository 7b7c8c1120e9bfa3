"""Addresses, ids and the date out of header fields, however they are written."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from hashlib import sha256

from briefbox.schemas import Address
from ingest.charset import decode
from ingest.headers import INVISIBLE, Headers, decode_header, holds_word, one_line, unfold

MAX_NAME = 300
MAX_ADDRESSES = 200
MAX_IDS = 200
# A longer id stands for itself by its hash: it still matches itself, and fits a database index.
MAX_ID = 500
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
# No date is longer.
_MAX_DATE = 200

# The shape of nearly all addresses, with nothing in it that could mean something else.
_ORDINARY = re.compile(
    r'\s*(?:"([^"\\=]*)"|([^"\\=<>(),;:@\']*))\s*<([^\s<>"\\(),;:@\']+@[^\s<>"\\(),;:@\']+)>\s*'
)
_BARE = re.compile(r'\s*([^\s<>"\\(),;:@\'=]+@[^\s<>"\\(),;:@\'=]+)\s*')
_ADDRESS_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+|"')
_ID = re.compile(r"<([^<>]+)>")
_DATE = re.compile(
    r"\s*(?:[A-Za-z]{3},?\s+)?(\d{1,2})\s+([A-Za-z]{3})\s+(\d{4})\s+(\d\d):(\d\d)(?::(\d\d))?\s+(?:([+-])(\d\d)(\d\d)|GMT|UTC?|Z)(?:\s*\([^()]*\))?\s*"
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], start=1
    )
}


def ids(headers: Headers, name: str) -> tuple[str, ...]:
    """Message ids without brackets, from the header's own bytes; white space inside is a folding's."""
    found: dict[str, None] = {}
    for value in headers.all(name):
        text = INVISIBLE.sub("", decode(value, None)[0])
        words = _ID.findall(text) or [word for word in text.split() if "@" in word]
        if not words and name == "message-id":
            words = [text]
        for word in words:
            bare = "".join(word.split()).strip("<>")
            if len(bare) > MAX_ID:
                bare = f"sha256-{sha256(bare.encode()).hexdigest()}"
            if bare:
                found.setdefault(bare)
    every = tuple(found)
    # The beginning names the thread, the end its newest mail.
    return every if len(every) <= MAX_IDS else every[:1] + every[-(MAX_IDS - 1) :]


def addresses(headers: Headers, name: str) -> list[Address]:
    """The members of every field of that name, each once, at most MAX_ADDRESSES."""
    found: dict[Address, None] = {}
    for value in headers.all(name):
        for address in split_addresses(decode(unfold(value), None)[0]):
            found.setdefault(address)
            if len(found) >= MAX_ADDRESSES:
                return list(found)
    return list(found)


def split_addresses(text: str) -> Iterator[Address]:
    """One Address for each member of an address list; what has no @ keeps its words as the name."""
    if ordinary := _ordinary(text):
        yield ordinary
        return
    for member in _members(text):
        address = _ordinary(member) or _address(member)
        if "@" not in address.address and holds_word(member):
            # Some senders encode the whole, brackets and all.
            address = _address(decode_header(member.encode("utf-8", "replace"))[0])
        if address.name or address.address:
            yield address


def _ordinary(text: str) -> Address | None:
    if not text.isascii() or len(text) > MAX_NAME:
        return None
    if found := _ORDINARY.fullmatch(text):
        name, address = one_line(found[1] or found[2] or ""), found[3]
        return Address(name="" if name.lower() == address.lower() else name, address=one_line(address))
    if found := _BARE.fullmatch(text):
        return Address(address=one_line(found[1]))
    return None


def _members(text: str) -> Iterator[str]:
    """Split at commas (and the ; and : of groups) that stand outside quotes, comments and brackets."""
    start = 0
    quoted = escaped = bracketed = False
    comment = 0
    for at, ch in enumerate(text):
        if escaped:
            escaped = False
        elif ch == "\\":
            escaped = True
        elif ch == '"' and not comment:
            quoted = not quoted
        elif quoted:
            continue
        elif ch in "()":
            comment = max(0, comment + (1 if ch == "(" else -1))
        elif not comment and ch in "<>":
            bracketed = ch == "<"
        elif not comment and not bracketed and ch in ",;:":
            if ch != ":" and text[start:at].strip():
                yield text[start:at]
            start = at + 1
    if text[start:].strip():
        yield text[start:]


def _address(member: str) -> Address:
    outside, comment, bracketed = _anatomy(member)
    if bracketed:
        name, address = outside, bracketed
    else:
        words = _ADDRESS_WORD.findall(outside)
        address = next((word for word in words if "@" in word), "")
        name = comment or " ".join(word for word in words if word != address)
    address = one_line(address)
    if not address.startswith('"'):
        address = "".join(address.split()).strip("'<>")
    name = re.sub(r"\\(.)", r"\1", name.strip().removeprefix('"').removesuffix('"'))
    shown = one_line(decode_header(name.encode("utf-8", "replace"))[0]).strip("\"' ")
    if address.lower() == shown.lower():
        shown = ""
    return Address(name=shown[:MAX_NAME], address=address[:MAX_NAME])


def _anatomy(member: str) -> tuple[str, str, str]:
    """The words outside comments and brackets, the last comment, and what the last brackets hold."""
    outside: list[str] = []
    comment: list[str] = []
    bracketed: list[str] = []
    into = outside
    depth = 0
    quoted = escaped = False
    for ch in member:
        if escaped or quoted:
            escaped, quoted = not escaped and ch == "\\", quoted and (escaped or ch != '"')
            into.append(ch)
        elif ch == "(" or (ch == ")" and depth):
            if ch == "(" and depth == 0:
                comment = []
            if (ch == "(" and depth) or (ch == ")" and depth > 1):
                comment.append(ch)
            depth += 1 if ch == "(" else -1
            into = comment if depth else outside
        elif ch == "<" and not depth:
            into = bracketed = []
        elif ch == ">" and not depth:
            into = outside
        else:
            escaped, quoted = ch == "\\", ch == '"' and not depth
            into.append(ch)
    return "".join(outside), "".join(comment), "".join(bracketed)


def sent_at(headers: Headers) -> datetime | None:
    """The Date header in UTC; None when it is missing, unreadable or absurd."""
    if "date" not in headers:
        return None
    moment = _moment(headers["date"][:_MAX_DATE])
    return moment if moment and OLDEST <= moment <= datetime.now(UTC) + timedelta(days=2) else None


def _moment(value: str) -> datetime | None:
    try:
        if found := _DATE.fullmatch(value):
            offset = timedelta(hours=int(found[8] or 0), minutes=int(found[9] or 0))
            zone = timezone(-offset if found[7] == "-" else offset)
            month = _MONTHS[found[2].lower()]
            # A leap second is the second before it.
            second = min(int(found[6] or 0), 59)
            day = int(found[1])
            moment = datetime(int(found[3]), month, day, int(found[4]), int(found[5]), second, tzinfo=zone)
        else:
            moment = parsedate_to_datetime(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
        return None
