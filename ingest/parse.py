"""Raw bytes to a ParsedEmail: headers, text, the new part of it, attachments, and what sort of mail it is.

Nothing of a mail is trusted: limits come before work, every field is read by itself, and what cannot be read is
left out with a warning. This module knows no database and no mailbox; storing the bytes comes before calling it.
"""

import re
from collections.abc import Sequence, Set

from briefbox import language
from briefbox.errors import ParseError
from briefbox.schemas import Address, Attachment, EmailKind, LeftOnServer, ParsedEmail
from ingest.addresses import addresses, ids, sent_at
from ingest.content import Content, decoded_text, plain_text, read_content
from ingest.headers import read_headers
from ingest.html import visible_text
from ingest.kind import Signs, classify
from ingest.mime import Part, read_part
from ingest.reply import split_reply
from ingest.report import report_text
from ingest.text import clean_text

MAX_SUBJECT = 1_000
# How many mails are opened one inside the other to find words in a mail that has none of its own.
MAX_FORWARDS = 3
_FORWARD = re.compile(
    r"^\s*(fwd?|wg|tr|rv|i|vs|vb|vl|doorst|enc|pd|пересл|转发|转寄|轉寄|転送)\s*[:：]", re.IGNORECASE
)


def parse_email(
    raw: bytes, left: LeftOnServer | None = None, *, own_addresses: Set[str] = frozenset()
) -> ParsedEmail:
    """Read an email. Raises ParseError with the reason; nothing else.

    `left` tells which parts of it stayed on the server: it comes from whoever fetched it, never from the bytes.
    `own_addresses` are the addresses that mail of ours is sent from; with them, our own mail is told from a customer's.
    """
    if not raw.strip():
        raise ParseError(f"The email is empty ({len(raw)} bytes).")
    try:
        return _read(read_part(with_line_ends(raw)), left, own_addresses)
    except ParseError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        # Whatever it is, it is this email's: it becomes a dead letter and the line goes on.
        raise ParseError(f"The email cannot be parsed: {type(error).__name__}: {str(error)[:200]}") from error


def attachment_bytes(
    raw: bytes, attachments: Sequence[Attachment], number: int, left: LeftOnServer | None = None
) -> bytes:
    """The decoded bytes of `attachments[number]`, of those that parse_email lists of `raw`. Raises ParseError."""
    wanted = attachments[number]
    content = read_content(read_part(with_line_ends(raw)), left)
    parts = [part for attachment, part in content.files if attachment == wanted]
    nth = attachments[:number].count(wanted)
    if nth >= len(parts):
        raise ParseError(
            f"{wanted.name!r} is no part of its own in the email, so it cannot be taken out of it."
        )
    return parts[nth].payload()


def message_id_of(header: bytes) -> str:
    """The Message-ID in a header block, as parse_email gives it; "" where there is none."""
    try:
        return next(iter(ids(read_headers(header, 0, len(header))[0], "message-id")), "")
    except (Exception, RecursionError):
        return ""


def parse_body(data: bytes, *, html: bool = False) -> ParsedEmail:
    """A body without headers, as plain text or HTML in any charset. Raises ParseError as parse_email does."""
    try:
        content = Content()
        text = decoded_text(data, "", content)
        if html:
            seen = visible_text(text)
            content.hidden = content.hidden or seen.hidden
            content.texts.append(seen.text)
            if seen.simplified:
                content.warn("html simplified")
        else:
            content.texts.append(plain_text(text, content))
        text = _all_text(content)
        return _with_words(text, "", content, ParsedEmail(hidden_text=content.hidden))
    except (Exception, RecursionError, MemoryError) as error:
        raise ParseError(f"The text cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def with_line_ends(raw: bytes) -> bytes:
    """Files of old systems end their lines with a carriage return alone."""
    return raw.replace(b"\r", b"\n") if b"\r" in raw and b"\n" not in raw else raw


def _read(root: Part, left: LeftOnServer | None, own_addresses: Set[str]) -> ParsedEmail:
    headers = root.headers
    content = read_content(root, left)
    text = _all_text(content) or _forwarded_text(content)
    subject = headers.get("subject", "")
    if len(subject) > MAX_SUBJECT:
        subject = subject[:MAX_SUBJECT].rstrip()
        content.warn("subject cut")
    if headers.guessed:
        content.warn("charset guessed")
    sender = next(iter(addresses(headers, "from") or addresses(headers, "sender")), Address())
    if "@" not in sender.address:
        content.warn("no sender address")
    reply_to = next((one for one in addresses(headers, "reply-to") if "@" in one.address), Address())
    signs = Signs(
        actions=tuple(one.action for one in content.recipients),
        sender=sender.address,
        reply_to=reply_to.address,
        invitation=_bare_invitation(content),
        own_addresses=own_addresses,
    )
    kind, reason = classify(headers, signs)
    if kind == EmailKind.CUSTOMER and signs.is_form:
        sender = reply_to
        content.warn("sender is the Reply-To: a form of ours sent it")
    if left is not None:
        _say_what_stayed(left, content)
    parsed = ParsedEmail(
        subject=subject,
        sender=sender,
        to=tuple(addresses(headers, "to")),
        cc=tuple(addresses(headers, "cc")),
        sent_at=sent_at(headers),
        message_id=next(iter(ids(headers, "message-id")), ""),
        in_reply_to=ids(headers, "in-reply-to"),
        references=ids(headers, "references"),
        kind=kind,
        kind_reason=reason,
        attachments=tuple(content.attachments),
        hidden_text=content.hidden,
        bounced_id=content.returned_id if kind == EmailKind.BOUNCE else "",
    )
    return _with_words(text, subject, content, parsed)


def _say_what_stayed(left: LeftOnServer, content: Content) -> None:
    if set(left.sizes) - set(left.cut) or any(attachment.section for attachment in content.attachments):
        content.warn("attachments stayed on the mail server")
    if left.first_bytes:
        content.warn(
            f"only the first {left.first_bytes:,} bytes were fetched; the rest, with any attachments in it, stayed on the mail server"
        )


def _with_words(text: str, subject: str, content: Content, parsed: ParsedEmail) -> ParsedEmail:
    """The rest of what is said of an email: its text, the parts of it, and the language of the new one."""
    if not text:
        content.warn("no text")
    parts = split_reply(text, forwarded=bool(_FORWARD.match(subject)))
    return parsed.model_copy(
        update={
            "text": text,
            "reply": parts.reply,
            "signature": parts.signature,
            "quoted": parts.quoted,
            "language": language.detect(parts.reply or text),
            "warnings": tuple(content.warnings),
        }
    )


def _all_text(content: Content) -> str:
    """The words, with an invitation above them and a delivery report below them, in the form in which they are kept."""
    texts = [invitation.text for invitation in content.invitations[:10]]
    spoken = [text for text in content.texts if text.strip()]
    if content.invitations and _bare_invitation(content):
        spoken = []
    report = [report_text(content.recipients)] if content.recipients else []
    return clean_text(
        "\n\n".join(["\n".join(texts), *spoken, *report] if texts else [*spoken, *report]), content.warn
    )


def _bare_invitation(content: Content) -> str:
    """An invitation's line when no person has written anything beside it, or only what its description repeats; or ""."""
    if not content.invitations:
        return ""
    written = "".join("".join(content.texts).split())
    repeated = "".join("".join(invitation.description for invitation in content.invitations).split())
    return content.invitations[0].text if not written or written == repeated else ""


def _forwarded_text(content: Content) -> str:
    """The words of the first attached mail, for a mail that has none of its own."""
    inner, blocks = content, []
    for _ in range(MAX_FORWARDS):
        if not inner.mails:
            break
        try:
            part = read_part(inner.mails[0].payload())
            inner = read_content(part)
        except ParseError:
            break
        names = ("From", "Date", "To", "Subject")
        head = [f"{name}: {part.headers[name.lower()]}" for name in names if name.lower() in part.headers]
        blocks += [
            "---------- Forwarded message ----------",
            *head,
            "",
            *[t for t in inner.texts if t.strip()],
        ]
        content.hidden = content.hidden or inner.hidden
        if any(text.strip() for text in inner.texts):
            content.warn("text is an attached mail's")
            return clean_text("\n".join(blocks), content.warn)
    return ""
