from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlmodel import func, select

from briefbox.db import Database
from briefbox.errors import LeaseLostError
from briefbox.schemas import FetchedEmail, ParsedEmail
from briefbox.store import accounting, dead_letters, ledger, mailboxes
from briefbox.store.ledger import Arrival
from briefbox.tables import Conversation, DeadLetter, Email, FolderCursor, LedgerEntry, Mailbox
from ingest.parse import parse_email
from tests.conftest import arrival, commit, make_email

Deliver = Callable[..., list[int]]


def states(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.exec(select(LedgerEntry.state).order_by(LedgerEntry.id)))


def test_a_new_mail_gets_a_row_its_bytes_and_a_place_in_the_queue(
    database: Database, deliver: Deliver
) -> None:
    raw = make_email(1)
    [email_id] = deliver(raw)
    with database.read() as session:
        email = session.get_one(Email, email_id)
        assert ledger.raw_bytes(session, email.raw_id) == raw
        assert (
            session.get_one(Conversation, email.conversation_id).customer_address == "customer1@example.org"
        )
        assert session.exec(select(FolderCursor.last_uid)).one() == 1
    assert states(database) == ["queued"]


def test_the_same_batch_twice_changes_nothing(database: Database, mailbox: Mailbox) -> None:
    batch = [arrival(1, make_email(1)), arrival(2, make_email(2))]
    with database.write() as session:
        assert len(commit(session, mailbox, batch)) == 2
    with database.write() as session:
        assert commit(session, mailbox, batch) == []
    assert states(database) == ["queued", "queued"]


def test_the_same_bytes_under_another_uid_are_a_sighting(database: Database, mailbox: Mailbox) -> None:
    raw = make_email(1)
    with database.write() as session:
        commit(session, mailbox, [arrival(1, raw), arrival(2, raw)])
    with database.write() as session:
        commit(session, mailbox, [arrival(1, raw)], folder="Archive")
    with database.read() as session:
        linked = set(session.exec(select(LedgerEntry.email_id)))
    assert states(database) == ["queued", "sighting", "sighting"]
    assert len(linked) == 1
    assert None not in linked


def test_a_changed_uidvalidity_reads_again_without_duplicates(database: Database, mailbox: Mailbox) -> None:
    raws = [make_email(1), make_email(2)]
    with database.write() as session:
        commit(session, mailbox, [arrival(uid, raw) for uid, raw in enumerate(raws, 1)])
    with database.write() as session:
        assert (
            commit(
                session,
                mailbox,
                [arrival(uid, raw) for uid, raw in enumerate(reversed(raws), 1)],
                uidvalidity=2,
            )
            == []
        )
    with database.read() as session:
        assert session.exec(select(func.count()).select_from(Email)).one() == 2
        cursors = session.exec(
            select(FolderCursor.uidvalidity, FolderCursor.current).order_by(FolderCursor.uidvalidity)
        ).all()
    assert [tuple(c) for c in cursors] == [(1, False), (2, True)]


def test_the_same_message_id_with_other_bytes_is_another_mail(database: Database, deliver: Deliver) -> None:
    first, second = (make_email(n, Message_ID="<same@example.org>") for n in (1, 2))
    assert len(deliver(first, second)) == 2
    assert states(database) == ["queued", "queued"]


def test_what_cannot_be_parsed_is_a_dead_letter_with_its_bytes(database: Database, mailbox: Mailbox) -> None:
    raw = b"\x00\x01 not an email"
    bad = Arrival(FetchedEmail(1, raw, len(raw)), problem="broken on purpose")
    with database.write() as session:
        assert len(commit(session, mailbox, [bad, arrival(2, make_email(2))])) == 1
    with database.read() as session:
        letter = session.exec(select(DeadLetter)).one()
        assert ledger.raw_bytes(session, letter.raw_id or 0) == raw
    assert letter.reason == "broken on purpose"
    assert states(database) == ["dead", "queued"]


def test_a_dead_letter_can_be_revived(database: Database, mailbox: Mailbox) -> None:
    raw = make_email(7)
    with database.write() as session:
        commit(session, mailbox, [Arrival(FetchedEmail(1, raw, len(raw)), problem="a bug of ours")])
    with database.write() as session:
        [letter] = dead_letters.unresolved(session)
        assert len(ledger.revive(session, letter, raw, parse_email(raw), actor="test")) == 1
    assert states(database) == ["queued"]
    with database.read() as session:
        assert dead_letters.unresolved(session) == []


def test_withdrawn_and_withheld_messages_have_their_row(database: Database, mailbox: Mailbox) -> None:
    gone, withheld = (
        FetchedEmail(1, None, problem="gone"),
        FetchedEmail(2, None, 99, problem="the server said NO"),
    )
    with database.write() as session:
        commit(session, mailbox, [Arrival(gone), Arrival(withheld)])
    assert states(database) == ["gone", "dead"]


def test_an_auto_reply_is_skipped_with_its_reason(database: Database, deliver: Deliver) -> None:
    assert deliver(make_email(1, Auto_Submitted="auto-replied")) == []
    with database.read() as session:
        entry = session.exec(select(LedgerEntry)).one()
    assert entry.state == "skipped"
    assert "auto-reply" in entry.reason


def test_an_answer_joins_its_conversation_and_reopens_it(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    with database.write() as session:
        session.exec(select(Conversation)).one().state = "done"
    deliver(make_email(2, In_Reply_To="<mail-1@example.org>", From="Customer 1 <customer1@example.org>"))
    with database.read() as session:
        conversation = session.exec(select(Conversation)).one()
    assert (conversation.num_emails, conversation.state) == (2, "open")


def test_mails_without_message_id_never_share_a_conversation(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1, Message_ID=""), make_email(2, Message_ID="", In_Reply_To=""))
    with database.read() as session:
        assert len(session.exec(select(Conversation)).all()) == 2


def test_a_poller_that_lost_its_lease_writes_nothing(database: Database, mailbox: Mailbox) -> None:
    with database.write() as session:
        old = mailboxes.claim(session, mailbox.id, owner="one", seconds=-1)
        new = mailboxes.claim(session, mailbox.id, owner="two", seconds=60)
        cursor = ledger.open_folder(session, mailbox.id, "INBOX", 1)
    assert old is not None
    assert new is not None
    with pytest.raises(LeaseLostError), database.write() as session:
        ledger.commit_batch(session, old, cursor, [arrival(1, make_email(1))], up_to=1, lease_seconds=60)
    assert states(database) == []


def test_the_audit_is_clean_and_notices_what_is_put_wrong(
    database: Database, mailbox: Mailbox, deliver: Deliver
) -> None:
    deliver(make_email(1), make_email(2))
    with database.read() as session:
        assert [f for f in accounting.audit(session) if f.broken] == []
    with database.write() as session:
        entry = session.exec(select(LedgerEntry).order_by(LedgerEntry.id)).first()
        assert entry is not None
        entry.email_id = None
        email = session.get_one(Email, 2)
        email.not_before = datetime(2020, 1, 1, tzinfo=UTC)
    with database.read() as session:
        broken = {f.name.partition(":")[0] for f in accounting.audit(session) if f.broken}
    assert broken == {"unaccounted", "stuck"}


def test_a_text_that_is_new_as_a_whole_is_stored_once(database: Database, mailbox: Mailbox) -> None:
    whole = make_email(1)
    answer = "Any news?\n\nOn Mon, 23 Nov 2026 at 09:00, Ana <a@example.org> wrote:\n> The question\n"
    quoting = make_email(2, body=answer)
    with database.write() as session:
        commit(session, mailbox, [arrival(1, whole), arrival(2, quoting)])
    with database.read() as session:
        first, second = (email.parsed for email in session.exec(select(Email).order_by(Email.id)))
    assert "reply" not in first
    assert ParsedEmail.model_validate(first) == parse_email(whole)
    assert ParsedEmail.model_validate(first).reply == first["text"] != ""
    assert second["reply"] == "Any news?"
    assert ParsedEmail.model_validate(second) == parse_email(quoting)
