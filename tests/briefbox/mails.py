"""Parsed mails as the conversation tests want them, and the conversations that they end in."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from briefbox.db import Database
from briefbox.schemas import Address, EmailKind, ParsedEmail
from briefbox.tables import Conversation

START = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SUBJECT = "The lamp that I bought is broken"
LONG = "CAF+4fGZq17sbR2dK0LxYwNn"  # nobody has such a local part by chance

Receive = Callable[..., list[int | None]]


def mail(
    id_: str = "",
    sender: str = "ana@example.org",
    *,
    subject: str = SUBJECT,
    answers: str | tuple[str, ...] = (),
    references: tuple[str, ...] = (),
    to: tuple[str, ...] = ("support@larkspur.example",),
    cc: tuple[str, ...] = (),
    hours: float = 0,
    text: str = "Hello, I write about the lamp.",
    kind: EmailKind = EmailKind.CUSTOMER,
    **changes: Any,
) -> ParsedEmail:
    """A parsed mail that was received `hours` after START."""
    answers = (answers,) if isinstance(answers, str) else answers
    return ParsedEmail(
        subject=subject,
        sender=Address(name=changes.pop("name", ""), address=sender),
        to=tuple(Address(address=a) for a in to),
        cc=tuple(Address(address=a) for a in cc),
        sent_at=changes.pop("sent_at", START + timedelta(hours=hours)),
        message_id=id_,
        in_reply_to=tuple(a for a in answers if a),
        references=references,
        text=text,
        reply=text,
        kind=kind,
        kind_reason="a header said so" if kind != EmailKind.CUSTOMER else "",
        warnings=(str(hours),),
        **changes,
    )


def own(id_: str, hours: float, **changes: Any) -> ParsedEmail:
    """A mail that an agent wrote with another program."""
    values = {"to": ("ana@example.org",), "subject": f"Re: {SUBJECT}", "answers": "a@x", **changes}
    return mail(id_, "support@larkspur.example", kind=EmailKind.OWN, hours=hours, **values)


def row(database: Database, id_: int | None) -> Conversation:
    with database.read() as session:
        return session.get_one(Conversation, id_)
