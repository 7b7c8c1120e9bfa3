"""Emails of a conversation: their text, what is attached, and their bytes."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from briefbox.schemas import ParsedEmail
from briefbox.store import conversations, exports, ledger
from briefbox.tables import Email
from desk.api import answers
from desk.api.access import Reading
from desk.api.models import After, Id, Limit, Model, Moment, Page
from desk.context import TheDesk

router = APIRouter(tags=["emails"])


class AddressOut(Model):
    """A mail address with its display name."""

    name: str
    address: str


class AttachmentOut(Model):
    """An attached file as listed."""

    name: str
    type: str
    size: int = Field(description="In decoded bytes; 0 where it is not known.")


class EmailOut(Model):
    """One stored mail."""

    id: int
    conversation_id: int | None
    mailbox_id: int
    message_id: str = Field(description="Without angle brackets. Anybody can write any: a hint, no identity.")
    sha256: str = Field(description="Of its bytes: its identity within the mailbox.")
    subject: str
    sender: AddressOut
    to: list[AddressOut]
    cc: list[AddressOut]
    sent_at: Moment | None = Field(description="The Date header.")
    received_at: Moment = Field(description="When the mail server had it.")
    kind: str = Field(description="customer, own, auto-reply, bounce, newsletter, list, calendar or spam.")
    kind_reason: str
    language: str
    text: str = Field(description="All visible text.")
    reply: str = Field(description="The new part, without quoted history and signature.")
    attachments: list[AttachmentOut]
    instructions_found: bool = Field(description="It holds text addressed to an assistant.")
    brief_state: str = Field(description="none, waiting, running, done or dead: where its briefing stands.")


@router.get(
    "/conversations/{conversation_id}/emails",
    response_model=Page[EmailOut],
    summary="List the emails of a conversation",
)
def list_emails(
    request: Request,
    desk: TheDesk,
    caller: Reading,
    conversation_id: Id,
    limit: Limit = 50,
    after: After = "",
) -> Response:
    """In the order in which they were stored."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        conversations.get(session, conversation_id)
        found = exports.emails(session, conversation_id, place)
        return answers.part(request, found, email_out)


@router.get("/emails/{email_id}", response_model=EmailOut, summary="Get an email")
def get_email(request: Request, desk: TheDesk, caller: Reading, email_id: Id) -> Response:
    """Its text and what is attached."""
    with desk.database.read() as session:
        return answers.one(request, email_out(exports.email(session, email_id)))


@router.get(
    "/emails/{email_id}/raw",
    response_class=Response,
    responses={
        200: {
            "description": "The bytes.",
            "content": {"message/rfc822": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    summary="Download an email's bytes",
)
def get_raw(desk: TheDesk, caller: Reading, email_id: Id) -> Response:
    """As the mail server gave them. `X-Incomplete: true` where parts stayed on the server."""
    with desk.database.read() as session:
        row = exports.email(session, email_id)
        raw, is_whole = ledger.raw_bytes(session, row.raw_id), exports.is_whole(session, row)
    headers = {"Content-Disposition": f'attachment; filename="email-{email_id}.eml"'}
    if not is_whole:
        headers["X-Incomplete"] = "true"
    return Response(raw, media_type="message/rfc822", headers=headers)


def email_out(row: Email) -> EmailOut:
    """One row as it goes out."""
    parsed = ParsedEmail.model_validate(row.parsed)
    return EmailOut(
        id=row.id,
        conversation_id=row.conversation_id,
        mailbox_id=row.mailbox_id,
        message_id=row.message_id,
        sha256=row.sha256,
        subject=row.subject,
        sender=AddressOut(name=row.from_name, address=row.from_address),
        to=[AddressOut(name=one.name, address=one.address) for one in parsed.to],
        cc=[AddressOut(name=one.name, address=one.address) for one in parsed.cc],
        sent_at=parsed.sent_at,
        received_at=row.received_at,
        kind=row.kind,
        kind_reason=row.kind_reason,
        language=row.language,
        text=parsed.text,
        reply=parsed.reply,
        attachments=[
            AttachmentOut(name=one.name, type=one.type, size=one.size) for one in parsed.attachments
        ],
        instructions_found=row.instructions_found,
        brief_state=row.work_state,
    )
