"""A folder of sent mail is watched for answers that are written elsewhere: read-only, from now on, never briefed."""

from collections.abc import Callable

from imapclient import IMAPClient
from sqlmodel import select

from briefbox.db import Database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings
from briefbox.store import accounting, mailbox_state, mailboxes
from briefbox.tables import Activity, Conversation, Email, LedgerEntry
from tests.conftest import make_email
from tests.flow.conftest import PASSWORD, USER, wait_for
from tests.ingest.test_poller import append, connect, imap, num_emails, poll  # noqa: F401 - fixtures


def answer_to(number: int, sender: str = "Ana <ana@elsewhere.example>") -> bytes:
    raw = make_email(
        900 + number,
        subject=f"Re: Question number {number}",
        From=sender,
        Message_ID=f"<answer-{number}@x>",
        In_Reply_To=f"<mail-{number}@example.org>",
    )
    return raw.replace(b"To: support@larkspur.example", f"To: customer{number}@example.org".encode())


def send(port: int, raw: bytes, folder: str = "Sent") -> None:
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(USER, PASSWORD)
        client.append(folder, raw)


def state(database: Database, number: int) -> str:
    with database.read() as session:
        query = select(Conversation.state).where(Conversation.subject == f"Question number {number}")
        return session.exec(query).first() or ""


def test_an_answer_from_another_program_takes_it_out_of_the_queue(
    database: Database,
    settings: Settings,
    imap: EmbeddedIMAP,  # noqa: F811
    poll: Callable[..., list[int]],  # noqa: F811
) -> None:
    append(imap.port, 1, 2)
    append(imap.port, 50, 51, folder="Sent")
    row = connect(database, settings, imap.port, sent_folder="Sent", older="open")
    hints = poll()
    wait_for(lambda: num_emails(database) == 2, "the two questions")
    send(imap.port, answer_to(1))
    wait_for(lambda: state(database, 1) == "answered", "the answer")
    assert state(database, 2) == "open"
    with database.read() as session:
        email = session.exec(select(Email).where(Email.message_id == "answer-1@x")).one()
        entry = session.exec(select(LedgerEntry).where(LedgerEntry.email_id == email.id)).one()
        [activity] = session.exec(select(Activity)).all()
    assert (email.kind, email.work_state) == ("own", "none")
    assert (entry.folder, entry.state) == ("Sent", "skipped")
    assert "the folder of what we sent" in entry.reason
    assert (activity.kind, activity.user_id, activity.detail["email"]) == ("answered", None, email.id)
    assert email.id not in hints, "it is never briefed"
    # What was in it before is not read, and the line says so.
    wait_for(lambda: compared(database, row.id) == {"INBOX": (2, 2), "Sent": (1, 1)}, "a comparison")
    with database.read() as session:
        assert num_emails(database) == 3
        assert [f for f in accounting.audit(session) if f.broken and not f.name.startswith("stuck")] == []


def compared(database: Database, mailbox_id: int) -> dict[str, tuple[int | None, int | None]]:
    with database.read() as session:
        found = mailbox_state.folder_states(session, mailbox_id)
    return {f.folder: (f.server_exists, f.ledger_exists) for f in found}


def test_a_folder_that_is_added_later_begins_then(
    database: Database,
    settings: Settings,
    imap: EmbeddedIMAP,  # noqa: F811
    poll: Callable[..., list[int]],  # noqa: F811
) -> None:
    append(imap.port, 1)
    append(imap.port, 50, folder="Sent")
    row = connect(database, settings, imap.port, older="open")
    poll()
    wait_for(lambda: num_emails(database) == 1, "the question")
    with database.write() as session:
        changed = mailboxes.change(
            session, row.id, {"sent_folder": "Sent", "folders": ["INBOX"]}, actor="test"
        )
    assert changed == ["sent_folder"]
    wait_for(lambda: "Sent" in compared(database, row.id), "the folder")
    send(imap.port, answer_to(1, sender=f"Support <{USER}>"))
    wait_for(lambda: state(database, 1) == "answered", "the answer")
    assert num_emails(database) == 2
