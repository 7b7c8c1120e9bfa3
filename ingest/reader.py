"""Stored emails read again for the desk: an attachment's bytes, the HTML as the sender wrote it, the pictures in it.

All of it comes out of the stored bytes; an attachment that stayed on the mail server is fetched from there.
"""

from base64 import b64encode
from collections.abc import Iterator

from sqlmodel import Session

from briefbox.db import Database
from briefbox.errors import NotFoundError, ParseError
from briefbox.schemas import LeftOnServer, ParsedEmail
from briefbox.settings import Settings
from briefbox.store import ledger
from briefbox.tables import Email
from ingest.attachment import from_server
from ingest.content import Content, part_text
from ingest.mime import MAX_DEPTH, Part, name_sections, read_part
from ingest.parse import attachment_bytes, with_line_ends

# Pictures that every browser shows and that can hold no script.
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MAX_PICTURE = 500_000
MAX_PICTURES = 3_000_000


class StoredEmails:
    """The desk's `EmailReader`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def attachment(self, email_id: int, number: int) -> tuple[str, Iterator[bytes]]:
        """Name and bytes of an attachment, counted from 0.

        Raises NotFoundError; MailboxError, at the first piece of one that stayed on the server.
        """
        with self._database.read() as session:
            email = _email(session, email_id)
            attachments = ParsedEmail.model_validate(email.parsed).attachments
            if not 0 <= number < len(attachments):
                raise NotFoundError(
                    f"Email {email_id} has no attachment {number}; it has {len(attachments)}."
                )
            attachment = attachments[number]
            if attachment.section:
                return attachment.name, from_server(self._database, self._settings, email_id, attachment)
            raw, left = _stored(session, email)
        try:
            return attachment.name, iter([attachment_bytes(raw, attachments, number, left)])
        except ParseError as error:
            raise NotFoundError(str(error)) from error

    def original_html(self, email_id: int) -> str | None:
        """The HTML as the sender wrote it, decoded and not cleaned; None where there is none. Raises NotFoundError."""
        root, content = self._read(email_id)
        found = [
            part_text(part, content)
            for part in _leaves(root)
            if part.type == "text/html" and part.disposition()[0] != "attachment" and content.has(part)
        ]
        html = "\n".join(text for text in found if text.strip())
        return html or None

    def inline_images(self, email_id: int) -> dict[str, str]:
        """Pictures that the mail brings along, as data: addresses by their Content-ID; large ones are left out."""
        root, content = self._read(email_id)
        pictures: dict[str, str] = {}
        left = MAX_PICTURES
        for part in _leaves(root):
            id_ = part.headers.get("content-id", "").strip().strip("<>")
            if not id_ or id_ in pictures or part.type not in PICTURES or not content.has(part):
                continue
            if part.size() > min(MAX_PICTURE, left):
                continue
            data = part.payload()
            left -= len(data)
            pictures[id_] = f"data:{part.type};base64,{b64encode(data).decode()}"
        return pictures

    def _read(self, email_id: int) -> tuple[Part, Content]:
        with self._database.read() as session:
            raw, left = _stored(session, _email(session, email_id))
        try:
            root = read_part(with_line_ends(raw))
        except ParseError as error:
            raise NotFoundError(f"Email {email_id} cannot be read again: {error}") from error
        if left is not None:
            name_sections(root)
        return root, Content(left=left or LeftOnServer())


def _email(session: Session, email_id: int) -> Email:
    email = session.get(Email, email_id)
    if email is None:
        raise NotFoundError(f"There is no email {email_id}.")
    return email


def _stored(session: Session, email: Email) -> tuple[bytes, LeftOnServer | None]:
    return ledger.raw_bytes(session, email.raw_id), ledger.left_on_server(session, email.raw_id)


def _leaves(part: Part, depth: int = 0) -> Iterator[Part]:
    """The parts that hold no others, in their order."""
    if not part.parts:
        yield part
    elif depth <= MAX_DEPTH:
        for child in part.parts:
            yield from _leaves(child, depth + 1)
