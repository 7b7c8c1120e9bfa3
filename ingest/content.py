"""The walk over a mail's parts: which text is shown, what is attached, and what stands beside them."""

import mimetypes
import re
from dataclasses import dataclass, field

from briefbox.errors import ParseError
from briefbox.schemas import Attachment, LeftOnServer
from ingest.addresses import ids
from ingest.charset import decode
from ingest.headers import Headers, decode_header, one_line, read_headers
from ingest.html import MAX_HTML, visible_text
from ingest.invitation import Invitation, read_invitation
from ingest.mime import MAX_DEPTH, Part, name_sections, read_part, uu_files
from ingest.report import Recipient, read_report
from ingest.smime import signed_content
from ingest.text import MAX_TEXT, has_tags, unflow, without_armour, without_invisible
from ingest.tnef import open_tnef

MAX_NAME = 300
# Mail that was signed as a whole is one mail deeper; nobody signs more often.
MAX_WRAPPINGS = 3
_SEE_HTML = re.compile(
    r"html|(view|read|open) (this|it|the) .{0,40}browser|im browser|navigateur|navegador", re.IGNORECASE
)
_MARKUP = re.compile(r"\s*<(!doctype html|html)\b", re.IGNORECASE)
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{1,40})""", re.IGNORECASE)
# Parts that carry the machinery of mail and are no files that anyone attached.
_MACHINERY = {
    "message/delivery-status",
    "message/global-delivery-status",
    "message/disposition-notification",
    "message/feedback-report",
    "text/rfc822-headers",
    "message/global-headers",
    "application/pgp-signature",
    "application/pgp-encrypted",
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
}
_RETURNED = {"message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"}
_PKCS7 = {"application/pkcs7-mime", "application/x-pkcs7-mime"}
_TNEF = {"application/ms-tnef", "application/vnd.ms-tnef"}


@dataclass(slots=True)
class Content:
    """What is gathered while walking over the parts."""

    texts: list[str] = field(default_factory=list)
    invitations: list[Invitation] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    mails: list[Part] = field(default_factory=list)  # attached
    recipients: list[Recipient] = field(default_factory=list)  # of a delivery report
    returned_id: str = ""  # Message-ID of the mail that a report returns
    warnings: list[str] = field(default_factory=list)
    hidden: bool = False
    files: list[tuple[Attachment, Part]] = field(default_factory=list)  # those attachments that are parts
    left: LeftOnServer = field(default_factory=LeftOnServer)  # what of the mail was not fetched

    def has(self, part: Part) -> bool:
        """Whether the part was fetched."""
        return part.section not in self.left.sizes or part.section in self.left.cut

    def warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


def read_content(root: Part, left: LeftOnServer | None = None) -> Content:
    """Texts and attachments of a mail, in order. Raises ParseError beyond the limits.

    `left` tells which parts of it were not fetched.
    """
    content = Content(left=left or LeftOnServer())
    if left is not None:
        name_sections(root)
    _walk(root, content, depth=0, wrappings=0)
    return content


def _walk(part: Part, content: Content, *, depth: int, wrappings: int) -> None:
    if depth > MAX_DEPTH:
        content.warn("nested too deep")
    elif part.type == "multipart/encrypted":
        content.warn("encrypted")
    elif not part.parts:
        _leaf(part, content, is_root=depth == 0, wrappings=wrappings)
    elif part.type == "multipart/alternative":
        _alternative(part.parts, content, depth=depth, wrappings=wrappings)
    else:
        if not part.is_closed:
            content.warn("multipart not closed")
        for child in part.parts:
            _walk(child, content, depth=depth + 1, wrappings=wrappings)


def _alternative(children: list[Part], content: Content, *, depth: int, wrappings: int) -> None:
    """The same in several forms: plain text unless it says nothing, else HTML, else what there is."""
    tried: list[tuple[str, Content]] = []
    for child in children:
        one = Content(left=content.left)
        _walk(child, one, depth=depth + 1, wrappings=wrappings)
        tried.append((child.type, one))
        content.attachments += one.attachments
        content.files += one.files
        content.invitations += one.invitations
        content.mails += one.mails
        content.recipients += one.recipients
        content.hidden = content.hidden or one.hidden
    spoken = [(kind, one) for kind, one in tried if any(text.strip() for text in one.texts)]
    plain = [one for kind, one in spoken if kind == "text/plain" and not _says_nothing(one.texts)]
    chosen = plain[-1] if plain else spoken[-1][1] if spoken else None
    if chosen is not None:
        content.texts += chosen.texts
        for warning in chosen.warnings:
            content.warn(warning)
    elif any("encrypted" in one.warnings for _, one in tried):
        content.warn("encrypted")


def _says_nothing(texts: list[str]) -> bool:
    if sum(map(len, texts)) > 10_000:
        return False
    text = without_invisible(" ".join(texts)).strip()
    return not text or (len(text) < 300 and text.count("\n") < 5 and bool(_SEE_HTML.search(text)))


def _leaf(part: Part, content: Content, *, is_root: bool, wrappings: int) -> None:
    kind = part.type
    disposition, parameters = part.disposition()
    if kind in _RETURNED and not content.returned_id:
        content.returned_id = _returned_id(part)
    if kind in _MACHINERY:
        if kind.endswith("delivery-status"):
            content.recipients += read_report(part.payload())
        return
    name = _file_name(part, parameters)
    # A named text is a file as well, unless it is all the text there is.
    is_file = disposition == "attachment" or (
        bool(name) and (not kind.startswith("text/") or bool(content.texts))
    )
    if is_root and kind in {"text/plain", "text/html"}:
        is_file = False
    if kind.startswith("message/"):
        content.mails += [part] if kind in _RETURNED else []
        _attach(part, name or _nested_name(part), content)
    elif kind == "text/calendar" and not is_file:
        content.invitations.append(
            read_invitation(part_text(part, content), part.parameters.get("method", ""))
        )
    elif kind.startswith(("text/", "multipart/")) and not is_file:
        _inline_text(part, content)
    elif kind in _PKCS7 and content.has(part):
        _open_signed(part, content, wrappings=wrappings)
    elif (kind in _TNEF or name.lower() == "winmail.dat") and content.has(part):
        _open_tnef(part, name, content)
    elif disposition != "attachment" and kind.startswith("image/") and "content-id" in part.headers:
        return  # a picture in the text
    else:
        _attach(part, name, content)


def _inline_text(part: Part, content: Content) -> None:
    text = part_text(part, content)
    if part.type == "text/html" or (part.type == "text/plain" and _MARKUP.match(text)):
        text = _seen(text, content)
    else:
        if part.parameters.get("format", "").lower() == "flowed":
            text = unflow(text, del_sp=part.parameters.get("delsp", "").lower() == "yes")
        text = plain_text(text, content)
    content.texts.append(text)


def plain_text(text: str, content: Content) -> str:
    """A plain text without the files that are written into it and without PGP's armour, both of which are noted."""
    if "begin " in text:
        kept, at = [], 0
        for file in uu_files(text):
            kept.append(text[at : file.start])
            at = file.end
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            content.attachments.append(
                Attachment(name=_shown_name(file.name), type=kind, size=len(file.data))
            )
        text = "".join(kept) + text[at:]
    text, said = without_armour(text)
    for warning in sorted(said):
        content.warn(warning)
    return text


def _seen(source: str, content: Content) -> str:
    seen = visible_text(source)
    content.hidden = content.hidden or seen.hidden
    if seen.simplified:
        content.warn("html simplified")
    return seen.text


def part_text(part: Part, content: Content) -> str:
    """The words of a text part, in any charset, bounded; what had to be guessed or cut is noted."""
    data = part.payload()
    if part.section in content.left.cut:
        # Not in the middle of a character, which would make all of it look like another charset.
        data = data[: max(data.rfind(b"\n"), data.rfind(b" "), data.rfind(b">")) + 1] or data
        content.warn("text cut")
    charset = part.parameters.get("charset", "")
    if not charset and part.type == "text/html" and (found := _META_CHARSET.search(data[:2048])):
        charset = found[1].decode("ascii", "replace")
    most = MAX_HTML if part.type == "text/html" else 4 * MAX_TEXT
    if len(data) > most:
        data = data[: data.rfind(b"\n", 0, most) + 1 or most]
        content.warn("text cut")
    return decoded_text(data, charset, content)


def decoded_text(data: bytes, charset: str, content: Content) -> str:
    """Text in any charset with plain line ends; what had to be guessed or is hidden in it is noted."""
    text, guessed = decode(data, charset)
    if guessed:
        content.warn("charset guessed")
    if has_tags(text):
        content.hidden = True
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


# --- envelopes


def _open_signed(part: Part, content: Content, *, wrappings: int) -> None:
    """S/MIME: signed mail is readable inside its wrapping, encrypted mail is only said to be."""
    inner = signed_content(part.payload()) if wrappings < MAX_WRAPPINGS else None
    if inner is not None:
        content.warn("signature not checked")
        _walk(read_part(inner), content, depth=1, wrappings=wrappings + 1)
    elif "signed" in part.parameters.get("smime-type", ""):
        content.warn("signed, cannot be opened")
    elif part.parameters.get("smime-type", "") != "certs-only":
        content.warn("encrypted")


def _open_tnef(part: Part, name: str, content: Content) -> None:
    """winmail.dat: what Outlook has wrapped in it takes its place."""
    opened = open_tnef(part.payload())
    if opened is None or opened.broken:
        content.warn("winmail.dat is broken")
    if opened is None or (opened.broken and not (opened.attachments or opened.text or opened.html)):
        _attach(part, name, content)
        return
    for file in opened.attachments[:1000]:
        shown = _shown_name(file.name) or f"attachment-{len(content.attachments) + 1}"
        content.attachments.append(Attachment(name=shown, type=one_line(file.type)[:100], size=file.size))
    # Outlook sends the words beside it as well, mostly; then they are not said twice.
    if not any(text.strip() for text in content.texts):
        text = opened.text or (_seen(opened.html, content) if opened.html else "")
        if text.strip():
            content.texts.append(text)


# --- attachments


def _attach(part: Part, name: str, content: Content) -> None:
    if not name:
        name = f"attachment-{len(content.attachments) + 1}{mimetypes.guess_extension(part.type) or ''}"
    section = part.section if part.section in content.left.sizes else ""
    size = content.left.sizes[section] if section else part.size()
    content.attachments.append(
        Attachment(name=name, type=one_line(part.type)[:100], size=size, section=section)
    )
    content.files.append((content.attachments[-1], part))


def _file_name(part: Part, parameters: dict[str, str]) -> str:
    name = parameters.get("filename") or part.parameters.get("name") or ""
    return _shown_name(name) if name else ""


def _shown_name(name: str) -> str:
    """A name to show: no path, no invisible characters, one line. It is never used to make a path."""
    name = one_line(decode_header(name.encode("utf-8", "replace"))[0])
    name = re.split(r"[\\/]", name)[-1].strip()
    if len(name) > MAX_NAME:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[: MAX_NAME - 20]}{dot}{suffix[:19]}" if dot else name[:MAX_NAME]
    return name


def _nested_name(part: Part) -> str:
    subject = inner_headers(part).get("subject", "")
    return (re.sub(r"[\\/]", "-", subject)[:100].strip() or "email") + ".eml"


def inner_headers(part: Part) -> Headers:
    """The headers of an attached mail; none where they are beyond the limits."""
    inner = part.payload()
    try:
        return read_headers(inner, 0, len(inner))[0]
    except ParseError:
        return Headers()


def _returned_id(part: Part) -> str:
    return next(iter(ids(inner_headers(part), "message-id")), "")
