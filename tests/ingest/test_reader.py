"""Stored emails read again: attachments, the HTML that was written, the pictures in it."""

from email.message import EmailMessage

import pytest

from briefbox.db import Database
from briefbox.errors import MailboxError, NotFoundError
from briefbox.schemas import Attachment, FetchedEmail, LeftOnServer, ParsedEmail
from briefbox.settings import Settings
from briefbox.store import secrets
from briefbox.store.ledger import Arrival
from briefbox.tables import Email, Mailbox
from ingest.parse import parse_email
from ingest.reader import MAX_PICTURE, StoredEmails
from tests.conftest import arrival, commit


@pytest.fixture
def reader(database: Database, settings: Settings) -> StoredEmails:
    """A reader of the database's emails."""
    return StoredEmails(database, settings)


def store(database: Database, mailbox: Mailbox, raw: bytes) -> int:
    """The stored email's id."""
    with database.write() as session:
        commit(session, mailbox, [arrival(1, raw)])
    return 1


def mail() -> EmailMessage:
    """A mail with HTML, a picture in it and two files."""
    message = EmailMessage()
    message["From"], message["Subject"] = "vera@example.org", "It"
    message.set_content("Hello")
    message.add_alternative("<p>Grüße <img src='cid:p@x'></p>", subtype="html", charset="iso-8859-1")
    html = message.get_payload()[1]  # type: ignore[index]
    assert isinstance(html, EmailMessage)
    html.add_related(b"\x89PNG", "image", "png", cid="<p@x>")
    html.add_related(bytes(MAX_PICTURE + 1), "image", "png", cid="<large@x>")
    html.add_related(b"<svg/>", "image", "svg+xml", cid="<svg@x>")
    message.add_attachment("<p>no part of the text</p>", subtype="html", filename="page.html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bill.pdf")
    return message


def test_attachments_html_and_pictures(database: Database, mailbox: Mailbox, reader: StoredEmails) -> None:
    id_ = store(database, mailbox, mail().as_bytes())
    names = []
    for number in range(2):
        name, pieces = reader.attachment(id_, number)
        names.append((name, b"".join(pieces).strip()))
    assert names == [("page.html", b"<p>no part of the text</p>"), ("bill.pdf", b"%PDF")]
    assert reader.original_html(id_) == "<p>Grüße <img src='cid:p@x'></p>\n"
    assert reader.inline_images(id_) == {"p@x": "data:image/png;base64,iVBORw=="}


def test_what_is_not_there_is_said(database: Database, mailbox: Mailbox, reader: StoredEmails) -> None:
    id_ = store(database, mailbox, b"From: a@example.org\nSubject: x\n\nwords\n")
    assert reader.original_html(id_) is None
    assert reader.inline_images(id_) == {}
    for email_id, number in ((id_, 0), (id_, -1), (99, 0)):
        with pytest.raises(NotFoundError, match="no attachment|no email"):
            reader.attachment(email_id, number)
    for read in (reader.original_html, reader.inline_images):
        with pytest.raises(NotFoundError, match="There is no email 99"):
            read(99)


def test_what_stayed_on_the_server_is_asked_for_there(
    database: Database, mailbox: Mailbox, reader: StoredEmails, settings: Settings
) -> None:
    raw = b"From: a@example.org\nSubject: x\n\nwords\n"
    parsed: ParsedEmail = parse_email(raw).model_copy(
        update={"attachments": (Attachment(name="film.mp4", type="video/mp4", size=9, section="2"),)}
    )
    fetched = FetchedEmail(1, raw, 100, left=LeftOnServer(sizes={"2": 9}))
    with database.write() as session:
        commit(session, mailbox, [Arrival(fetched, parsed)])
        assert session.get(Email, 1) is not None
        row = session.get_one(Mailbox, mailbox.id)
        row.password_encrypted = secrets.cipher(settings).encrypt(row.name, "a password")
        session.add(row)
    name, pieces = reader.attachment(1, 0)
    assert name == "film.mp4"
    # Nobody listens there: it is said at the first piece.
    with pytest.raises(MailboxError):
        next(pieces)
