"""Raw bytes to a ParsedEmail: headers, text, the new part of it, attachments, and what sort of mail it is.

Only the standard library's structure parser is used, in its compat32 policy: the modern policy raises on
headers that real mail has (IndexError, LookupError), and takes minutes or gigabytes on hostile ones. Headers,
encoded words, addresses and charsets are read by the code below. Limits are checked before anything is
parsed. This module knows no database and no mailbox; storing the bytes comes before calling it.
"""

import binascii
import mimetypes
import quopri
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import parsedate_to_datetime
from hashlib import sha256

from briefbox.errors import ParseError
from briefbox.schemas import Address, Attachment, LeftOnServer, ParsedEmail
from ingest.charset import decode
from ingest.html import MAX_HTML, visible_text
from ingest.kind import classify
from ingest.reply import new_text

# Python's parser is quadratic in these (CPython #136063, #87075, #75630), so they are bounded first.
MAX_HEADER_BLOCK = 256_000
MAX_HEADER = 64_000
MAX_PARAMETERS = 8_000
MAX_PARTS = 1_000
MAX_DEPTH = 50
# What is kept: longer text is cut with a warning. The bytes stay whole in the store.
MAX_TEXT = 200_000
MAX_SUBJECT = 1_000
MAX_NAME = 300
MAX_ADDRESSES = 200
MAX_IDS = 200
# A longer id stands for itself by its hash: it still matches itself, and fits a database index.
MAX_ID = 500
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)

_HEADER_LINE = re.compile(rb"[\x21-\x39\x3b-\x7e]+[ \t]*:|[ \t]|>?From ")
_PART_HEADER = re.compile(rb"^content-(?:type|disposition):[^\n]*(?:\n[ \t][^\n]*)*", re.I | re.M)
_BOUNDARY = re.compile(rb"""boundary\*?\d?\*?\s*=\s*(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))""", re.I)
_DASHES = re.compile(rb"^--([^\r\n]{1,210})\r?$", re.M)
_WORD = re.compile(r"=\?([^?\s]{1,80})\?([BbQq])\?([^?]*)\?=")
_ADDRESS_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+|"')
_ID = re.compile(r"<([^<>]+)>")
_FORWARD = re.compile(r"^\s*(fwd?|wg|tr|rv|i|vs|doorst|enc|pd|пересл|转发|轉寄|転送)\s*[:：]", re.IGNORECASE)
_SEE_HTML = re.compile(
    r"html|(view|read|open) (this|it|the) .{0,40}browser|im browser|navigateur|navegador", re.IGNORECASE
)
# Parts that carry the machinery of mail and are no files that anyone attached.
_MACHINERY = {
    "message/delivery-status",
    "message/global-delivery-status",
    "message/disposition-notification",
    "message/feedback-report",
    "text/rfc822-headers",
    "application/pgp-signature",
    "application/pgp-encrypted",
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
}
# Control characters, byte order mark, soft hyphen, zero-width space, joiners without effect, overrides, tags, marks.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\ue000\ue001\U000e0000-\U000e007f]"
)
# Joiners mean something inside words (Persian, Hindi) and emoji; elsewhere they are filler.
_LOOSE_JOINERS = re.compile(r"(?<![^\s])[\u200c\u200d]+|[\u200c\u200d]+(?![^\s\u200c\u200d])")
_TAGS = re.compile("[\U000e0020-\U000e007f]")


def parse_email(raw: bytes, left: LeftOnServer | None = None) -> ParsedEmail:
    """Read an email. Raises ParseError with the reason; nothing else.

    `left` tells which parts of it stayed on the server: it comes from whoever fetched it, never from the bytes.
    """
    if not raw.strip():
        raise ParseError(f"The email is empty ({len(raw)} bytes).")
    try:
        _check_limits(raw)
        message = BytesParser(policy=compat32).parsebytes(raw)
        return _read(message, _Body(left=left, places=sections(message) if left else {}))
    except ParseError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        # Whatever it is, it is this email's: it becomes a dead letter and the line goes on.
        raise ParseError(f"The email cannot be parsed: {type(error).__name__}: {str(error)[:200]}") from error


def attachment_bytes(
    raw: bytes, attachments: Sequence[Attachment], number: int, left: LeftOnServer | None = None
) -> bytes:
    """The decoded bytes of `attachments[number]`, of those that parse_email lists of `raw`. Raises ParseError."""
    message = BytesParser(policy=compat32).parsebytes(raw)
    body = _Body(left=left, places=sections(message) if left else {})
    _walk(message, body, depth=0)
    wanted = attachments[number]
    parts = [part for attachment, part in body.files if attachment == wanted]
    nth = attachments[:number].count(wanted)
    if nth >= len(parts):
        raise ParseError(
            f"{wanted.name!r} is no part of its own in the email, so it cannot be taken out of it."
        )
    part = parts[nth]
    inner = part.get_payload()
    if part.is_multipart() and isinstance(inner, list):
        return b"".join(one.as_bytes() for one in inner if isinstance(one, Message))
    return _payload(part)


# --- limits


def _check_limits(raw: bytes) -> None:
    block = header = 0
    at = 0
    while at < len(raw):
        end = raw.find(b"\n", at) + 1 or len(raw)
        # Lines of a header block only: text without a blank line before it is no header.
        if raw[at:end].strip(b"\r\n") == b"" or not _HEADER_LINE.match(raw, at):
            break
        block += end - at
        header = header + end - at if raw[at : at + 1] in {b" ", b"\t"} else end - at
        if block > MAX_HEADER_BLOCK:
            raise ParseError(f"The headers are longer than {MAX_HEADER_BLOCK} bytes.")
        if header > MAX_HEADER:
            raise ParseError(f"One header is longer than {MAX_HEADER} bytes.")
        at = end
    declared: set[bytes] = set()
    for found in _PART_HEADER.finditer(raw):
        if found.end() - found.start() > MAX_PARAMETERS:
            raise ParseError(
                f"A Content-Type or Content-Disposition header is longer than {MAX_PARAMETERS} bytes."
            )
        declared.update(quoted or bare for quoted, bare in _BOUNDARY.findall(found[0]))
    _check_parts(raw, {boundary.rstrip() for boundary in declared})


def _check_parts(raw: bytes, declared: set[bytes]) -> None:
    """Count the parts, and how deep they are nested, as a parser would see them."""
    if not declared:
        return
    if len(declared) > MAX_PARTS:
        raise ParseError(f"The email declares more than {MAX_PARTS} multiparts.")
    num_parts = 0
    nested: list[bytes] = []
    for found in _DASHES.finditer(raw):
        line = found[1].rstrip()
        closes = line not in declared and line.endswith(b"--") and line[:-2] in declared
        name = line[:-2] if closes else line
        if name not in declared:
            continue
        if name in nested:
            del nested[nested.index(name) + (0 if closes else 1) :]
        elif not closes:
            nested.append(name)
        num_parts += not closes
        if num_parts > MAX_PARTS:
            raise ParseError(f"The email has more than {MAX_PARTS} parts.")
        if len(nested) > MAX_DEPTH:
            raise ParseError(f"The email's parts are nested more than {MAX_DEPTH} deep.")


# --- the whole


@dataclass(slots=True)
class _Body:
    """What is gathered while walking over the parts."""

    texts: list[str] = field(default_factory=list)
    calendars: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    dsn_actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    hidden: bool = False
    num_parts: int = 0
    files: list[tuple[Attachment, "Message[str, str]"]] = field(default_factory=list)  # and their parts
    left: LeftOnServer | None = None
    places: Mapping[int, str] = field(default_factory=dict)  # IMAP section of each part, by its id()

    def size_left(self, part: "Message[str, str]") -> int | None:
        """How large a part is that stayed on the server; None when it did not."""
        return self.left.sizes.get(self.places.get(id(part), "")) if self.left else None

    def is_cut(self, part: "Message[str, str]") -> bool:
        """Whether only the beginning of this text was fetched."""
        return self.left is not None and self.places.get(id(part)) in self.left.cut

    def warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


def _read(message: "Message[str, str]", body: _Body) -> ParsedEmail:
    headers = _headers(message, body)
    _walk(message, body, depth=0)
    text = _clean_text("\n\n".join(text for text in body.texts if text.strip()), body)
    if not text and body.calendars:
        text = _clean_text("\n".join(body.calendars), body)
    if not text:
        body.warn("no text")
    subject = headers.get("subject", "")
    if len(subject) > MAX_SUBJECT:
        subject = subject[:MAX_SUBJECT].rstrip()
        body.warn("subject cut")
    kind, reason = classify(headers, dsn_actions=body.dsn_actions)
    senders = _addresses(message, "from") or _addresses(message, "sender")
    if not senders or "@" not in senders[0].address:
        body.warn("no sender address")
    if body.left is not None:
        _say_what_stayed(body.left, body)
    return ParsedEmail(
        subject=subject,
        sender=senders[0] if senders else Address(),
        to=tuple(_addresses(message, "to")),
        sent_at=_sent_at(headers.get("date", "")),
        message_id=next(iter(_ids(message, "message-id")), ""),
        in_reply_to=_ids(message, "in-reply-to"),
        references=_ids(message, "references"),
        kind=kind,
        kind_reason=reason,
        text=text,
        reply=new_text(text, forwarded=bool(_FORWARD.match(subject))),
        attachments=tuple(body.attachments),
        hidden_text=body.hidden,
        warnings=tuple(body.warnings),
    )


def _say_what_stayed(left: LeftOnServer, body: _Body) -> None:
    if set(left.sizes) - set(left.cut) or any(attachment.section for attachment in body.attachments):
        body.warn("attachments stayed on the mail server")
    if left.first_bytes:
        body.warn(
            f"only the first {left.first_bytes:,} bytes were fetched; the rest, with any attachments in it, stayed on the mail server"
        )


def sections(message: "Message[str, str]") -> dict[int, str]:
    """The IMAP section (RFC 3501, 6.4.5) of each part outside attached mails, by id(part).

    An email that is no multipart has one part, which is called TEXT here.
    """
    found = {id(message): "TEXT"}
    todo = [(message, "")]
    while todo:
        part, within = todo.pop()
        if part.get_content_maintype() != "multipart" or not part.is_multipart():
            continue
        for number, child in enumerate(part.get_payload(), 1):
            if isinstance(child, Message):
                found[id(child)] = section = f"{within}.{number}".lstrip(".")
                todo.append((child, section))
    return found


# --- headers


def _headers(message: "Message[str, str]", body: _Body) -> dict[str, str]:
    """The first header of each name, decoded, on one line."""
    headers: dict[str, str] = {}
    for name, value in message.raw_items():
        key = str(name).lower()
        if key not in headers:
            text, guessed = _decode_header(_bytes(value))
            headers[key] = _one_line(text)
            if guessed and key in {"subject", "from"}:
                body.warn("charset guessed")
    return headers


def _bytes(value: object) -> bytes:
    """The header's own bytes: the parser keeps them as surrogates."""
    return str(value).encode("utf-8", "surrogateescape")


def _all(message: "Message[str, str]", name: str) -> list[bytes]:
    return [_bytes(value) for key, value in message.raw_items() if str(key).lower() == name]


def _decode_header(value: bytes) -> tuple[str, bool]:
    """Unfold and decode RFC 2047 words, and raw bytes where senders put them."""
    text, guessed = decode(re.sub(rb"\r?\n[ \t]?|\r", b" ", value), None)
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


def _word_bytes(encoding: str, payload: str) -> bytes:
    data = payload.encode("utf-8", "replace")
    return _base64(data) if encoding in "Bb" else quopri.decodestring(data.replace(b" ", b"_"), header=True)


def _one_line(text: str) -> str:
    return " ".join(_INVISIBLE.sub("", text.replace("\r", " ").replace("\n", " ")).split())


def _ids(message: "Message[str, str]", name: str) -> tuple[str, ...]:
    """Message ids without brackets, from the header's own bytes; white space inside is a folding's."""
    found: list[str] = []
    for value in _all(message, name):
        text = _INVISIBLE.sub("", decode(value, None)[0])
        words = _ID.findall(text) or [word for word in text.split() if "@" in word]
        if not words and name == "message-id":
            words = [text]
        for word in words:
            bare = "".join(word.split()).strip("<>")
            if len(bare) > MAX_ID:
                bare = f"sha256-{sha256(bare.encode()).hexdigest()}"
            if bare and bare not in found:
                found.append(bare)
        if len(found) > MAX_IDS:
            # The beginning names the thread, the end its newest mail.
            found = found[:1] + found[-(MAX_IDS - 1) :]
    return tuple(found)


def _addresses(message: "Message[str, str]", name: str) -> list[Address]:
    found: list[Address] = []
    for value in _all(message, name):
        text = decode(re.sub(rb"\r?\n[ \t]?|\r", b" ", value), None)[0]
        for address in _split_addresses(text):
            if address not in found:
                found.append(address)
            if len(found) >= MAX_ADDRESSES:
                return found
    return found


def _split_addresses(text: str) -> Iterator[Address]:
    """One Address for each member of an address list; what has no @ keeps its words as the name."""
    for member in _members(text):
        address = _address(member)
        if "@" not in address.address and _WORD.search(member):
            # Some senders encode the whole, brackets and all.
            address = _address(_decode_header(member.encode())[0])
        if address.name or address.address:
            yield address


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
    address = _one_line(address)
    if not address.startswith('"'):
        address = "".join(address.split()).strip("'<>")
    name = re.sub(r"\\(.)", r"\1", name.strip().removeprefix('"').removesuffix('"'))
    shown = _one_line(_decode_header(name.encode("utf-8", "replace"))[0]).strip("\"' ")
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


def _sent_at(value: str) -> datetime | None:
    """The Date header in UTC; None when it is missing, unreadable or absurd."""
    try:
        moment = parsedate_to_datetime(value)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None
    return moment if OLDEST <= moment <= datetime.now(UTC) + timedelta(days=2) else None


# --- parts


def _walk(part: "Message[str, str]", body: _Body, *, depth: int) -> None:
    """Gather texts and attachments of a part and, in order, of those in it."""
    body.num_parts += 1
    if depth > MAX_DEPTH:
        raise ParseError(f"The email's parts are nested more than {MAX_DEPTH} deep.")
    if body.num_parts > MAX_PARTS:
        raise ParseError(f"The email has more than {MAX_PARTS} parts.")
    kind = part.get_content_type()
    if kind == "multipart/encrypted":
        body.warn("encrypted")
    elif kind.startswith("multipart/") and part.is_multipart():
        children = [child for child in part.get_payload() if isinstance(child, Message)]
        if kind == "multipart/alternative":
            _alternative(children, body, depth=depth)
        else:
            for child in children:
                _walk(child, body, depth=depth + 1)
    else:
        _leaf(part, kind, body, is_root=depth == 0)


def _alternative(children: list["Message[str, str]"], body: _Body, *, depth: int) -> None:
    """The same in several forms: plain text unless it says nothing, else HTML, else what there is."""
    tried: list[tuple[str, _Body]] = []
    for child in children:
        one = _Body(num_parts=body.num_parts, left=body.left, places=body.places)
        _walk(child, one, depth=depth + 1)
        body.num_parts = one.num_parts
        tried.append((child.get_content_type(), one))
        body.attachments += one.attachments
        body.files += one.files
        body.calendars += one.calendars
        body.dsn_actions += one.dsn_actions
        body.hidden = body.hidden or one.hidden
    spoken = [(kind, one) for kind, one in tried if any(text.strip() for text in one.texts)]
    plain = [one for kind, one in spoken if kind == "text/plain" and not _says_nothing(one.texts)]
    chosen = plain[-1] if plain else spoken[-1][1] if spoken else None
    if chosen is not None:
        body.texts += chosen.texts
        for warning in chosen.warnings:
            body.warn(warning)
    elif any("encrypted" in one.warnings for _, one in tried):
        body.warn("encrypted")


def _says_nothing(texts: list[str]) -> bool:
    text = _INVISIBLE.sub("", " ".join(texts)).strip()
    return not text or (len(text) < 300 and bool(_SEE_HTML.search(text)) and text.count("\n") < 5)


def _leaf(part: "Message[str, str]", kind: str, body: _Body, *, is_root: bool) -> None:
    disposition = str(part.get("content-disposition", "")).split(";")[0].strip().lower()
    if kind in _MACHINERY:
        if kind.endswith("delivery-status"):
            body.dsn_actions += _dsn_actions(part)
        return
    name = _file_name(part)
    # A named text is a file as well, unless it is all the text there is.
    is_file = disposition == "attachment" or (
        bool(name) and (not kind.startswith("text/") or bool(body.texts))
    )
    if is_root and kind in {"text/plain", "text/html"}:
        is_file = False
    if kind.startswith("message/"):
        _attach(part, kind, name or _nested_name(part), body)
    elif kind == "text/calendar" and not is_file:
        body.calendars.append(_calendar(_text(part, body)))
    elif kind.startswith(("text/", "multipart/")) and not is_file:
        _inline_text(part, kind, body)
    elif kind in {"application/pkcs7-mime", "application/x-pkcs7-mime"} and "signed" not in _parameter(
        part, "smime-type"
    ):
        body.warn("encrypted")
    elif disposition != "attachment" and part.get("content-id") and kind.startswith("image/"):
        return
    else:
        _attach(part, kind, name, body)


def _inline_text(part: "Message[str, str]", kind: str, body: _Body) -> None:
    text = _text(part, body)
    if kind == "text/html" or (kind == "text/plain" and re.match(r"\s*<(!doctype html|html)\b", text, re.I)):
        seen = visible_text(text)
        body.hidden = body.hidden or seen.hidden
        if seen.simplified:
            body.warn("html simplified")
        text = seen.text
    elif str(_parameter(part, "format")).lower() == "flowed":
        text = _unflow(text, del_sp=_parameter(part, "delsp").lower() == "yes")
    body.texts.append(text)


def _attach(part: "Message[str, str]", kind: str, name: str, body: _Body) -> None:
    try:
        size = len(part.as_bytes()) if part.is_multipart() else len(_payload(part))
    except (ValueError, LookupError, TypeError, AttributeError):
        size = 0  # A part that cannot be written out again is still listed.
    if not name:
        name = f"attachment-{len(body.attachments) + 1}{mimetypes.guess_extension(kind) or ''}"
    stayed = body.size_left(part)
    section = "" if stayed is None else body.places[id(part)]
    body.attachments.append(
        Attachment(
            name=name, type=_one_line(kind)[:100], size=size if stayed is None else stayed, section=section
        )
    )
    body.files.append((body.attachments[-1], part))


def _payload(part: "Message[str, str]") -> bytes:
    """The part's bytes without their transfer encoding, as far as they can be made out."""
    encoding = str(part.get("content-transfer-encoding", "")).strip().lower()
    if encoding == "base64":
        payload = part.get_payload()
        return _base64(payload.encode("ascii", "ignore")) if isinstance(payload, str) else b""
    decoded = part.get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""


def _base64(data: bytes) -> bytes:
    """Base64 with what senders do to it: stray bytes, no padding, several ends, a list's footer behind it."""
    taken: list[bytes] = []
    for line in data.split(b"\n"):
        stripped = line.strip()
        if taken and (b" " in stripped or stripped.startswith((b"__", b"--"))):
            break
        taken.append(re.sub(rb"[^A-Za-z0-9+/=]", b"", stripped))
    decoded = []
    for run in b"".join(taken).split(b"="):
        whole = run[:-1] if len(run) % 4 == 1 else run
        decoded.append(binascii.a2b_base64(whole + b"=" * (-len(whole) % 4)))
    return b"".join(decoded)


def _text(part: "Message[str, str]", body: _Body) -> str:
    data = _payload(part)
    if body.is_cut(part):
        # Not in the middle of a character, which would make all of it look like another charset.
        data = data[: max(data.rfind(b"\n"), data.rfind(b" "), data.rfind(b">")) + 1] or data
        body.warn("text cut")
    charset = _parameter(part, "charset")
    if not charset and part.get_content_type() == "text/html":
        found = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{1,40})""", data[:2048], re.I)
        charset = found[1].decode("ascii", "replace") if found else ""
    most = MAX_HTML if part.get_content_type() == "text/html" else 4 * MAX_TEXT
    if len(data) > most:
        data = data[: data.rfind(b"\n", 0, most) + 1 or most]
        body.warn("text cut")
    text, guessed = decode(data, charset)
    if guessed:
        body.warn("charset guessed")
    if _TAGS.search(text) and "\U0001f3f4" not in text:
        body.hidden = True
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parameter(part: "Message[str, str]", name: str, header: str = "content-type") -> str:
    """A parameter of a header, RFC 2231 or not; "" when there is none or it cannot be read."""
    values = _all(part, header)
    if not values:
        return ""
    # The part's own header would come with raw UTF-8 replaced by U+FFFD.
    clean: Message[str, str] = Message()
    clean[header] = decode(re.sub(rb"\r?\n[ \t]?|\r", b" ", values[0]), None)[0]
    try:
        value = clean.get_param(name, "", header)
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    if isinstance(value, tuple):
        charset, _, escaped = value
        # The standard library has unquoted the bytes as Latin-1.
        return decode(escaped.encode("latin-1", "replace"), charset)[0]
    return str(value or "").strip()


def _file_name(part: "Message[str, str]") -> str:
    """A name to show: no path, no invisible characters, one line. It is never used to make a path."""
    name = _parameter(part, "filename", "content-disposition") or _parameter(part, "name")
    name = _one_line(_decode_header(name.encode("utf-8", "surrogateescape"))[0])
    name = re.split(r"[\\/]", name)[-1].strip()
    if len(name) > MAX_NAME:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[: MAX_NAME - 20]}{dot}{suffix[:19]}" if dot else name[:MAX_NAME]
    return name


def _nested_name(part: "Message[str, str]") -> str:
    payload = part.get_payload()
    inner = payload[0] if isinstance(payload, list) and payload else None
    subjects = _all(inner, "subject") if isinstance(inner, Message) else []
    subject = _one_line(_decode_header(subjects[0])[0]) if subjects else ""
    return (re.sub(r"[\\/]", "-", subject)[:100] or "email") + ".eml"


def _dsn_actions(part: "Message[str, str]") -> list[str]:
    payload = part.get_payload()
    blocks = payload if isinstance(payload, list) else []
    return [str(block["action"]) for block in blocks if isinstance(block, Message) and block["action"]]


def _unflow(text: str, *, del_sp: bool) -> str:
    """Join the soft line breaks of format=flowed (RFC 3676)."""
    joined: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        bare = line.lstrip(">")
        depth = len(line) - len(bare)
        bare = bare.removeprefix(" ")
        soft = bare.endswith(" ") and bare != "-- "
        if soft and del_sp:
            bare = bare[:-1]
        if depth == open_depth and bare != "-- ":
            joined[-1] += bare
        else:
            joined.append(f"{'>' * depth} {bare}" if depth else bare)
        open_depth = depth if soft else -1
    return "\n".join(joined)


def _calendar(source: str) -> str:
    """One line about an invitation that came without words."""
    lines = re.sub(r"\n[ \t]", "", source).split("\n")
    event = lines[next((at for at, line in enumerate(lines) if line.strip().upper() == "BEGIN:VEVENT"), 0) :]
    found: dict[str, str] = {}
    for line in event:
        head, _, value = line.partition(":")
        name = head.split(";")[0].upper()
        if value.strip() and name not in found:
            found[name] = re.sub(r"\\([,;\\])", r"\1", re.sub(r"\\[nN]", " ", value.strip()))
    parts = [found.get("SUMMARY", "without a title")]
    if start := re.match(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d))?(\d\d)?(Z?)", found.get("DTSTART", "")):
        clock = f" {start[4]}:{start[5]}{' UTC' if start[7] else ''}" if start[4] else ""
        parts.append(f"on {start[1]}-{start[2]}-{start[3]}{clock}")
    if "LOCATION" in found:
        parts.append(f"at {found['LOCATION']}")
    return f"Calendar invitation: {', '.join(parts)}"


def _clean_text(text: str, body: _Body) -> str:
    """Text as it is stored: no control or invisible characters, no wide blanks, bounded."""
    text = _LOOSE_JOINERS.sub("", _INVISIBLE.sub("", text)).replace("\u00a0", " ")
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip("\n")
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT]
        body.warn("text cut")
    return text.strip() and text
