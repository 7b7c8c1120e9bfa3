"""Many rows at once."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from briefbox.db import Database
from briefbox.schemas import LedgerState
from briefbox.store import rows
from briefbox.tables import Conversation, LedgerEntry, Mailbox, RawEmail

MOMENT = datetime(2026, 11, 23, 10, 30, 15, 123456, tzinfo=UTC)


def entry(mailbox: Mailbox, uid: int) -> dict[str, object]:
    return {
        "mailbox_id": mailbox.id,
        "folder": "INBOX\t\\N ü",
        "uidvalidity": 2**32 - 1,
        "uid": uid,
        "state": LedgerState.SKIPPED,
        "seen_at": MOMENT,
        "reason": f"line\none \\. {uid}",
    }


@pytest.mark.parametrize("number", [1, 3, 300])
def test_rows_come_back_as_they_went_in_with_their_ids_in_order(
    database: Database, mailbox: Mailbox, number: int
) -> None:
    with database.write() as session:
        ids = rows.insert(session, LedgerEntry, [entry(mailbox, uid) for uid in range(1, number + 1)])
    with database.read() as session:
        stored = session.exec(select(LedgerEntry).order_by(col(LedgerEntry.uid))).all()
    assert [e.id for e in stored] == ids
    assert [(e.folder, e.state, e.seen_at, e.email_id) for e in stored] == [
        ("INBOX\t\\N ü", "skipped", MOMENT, None)
    ] * number
    assert [e.reason for e in stored] == [f"line\none \\. {uid}" for uid in range(1, number + 1)]


@pytest.mark.parametrize("number", [1, 20])
def test_bytes_and_json_are_stored_whole(database: Database, mailbox: Mailbox, number: int) -> None:
    data = bytes(range(256)) * 3
    conversation = {
        "mailbox_id": mailbox.id,
        "subject": "Größe",
        "participants": ["a@b.c", "ü"],
        **dict.fromkeys(("waiting_since", "opened_at", "updated_at"), MOMENT),
    }
    with database.write() as session:
        rows.insert(session, RawEmail, [{"sha256": "x", "size": 768, "data": data}] * number)
        rows.insert(session, Conversation, [conversation] * number)
    with database.read() as session:
        assert [bytes(raw.data) for raw in session.exec(select(RawEmail))] == [data] * number
        found = session.exec(select(Conversation)).all()
    assert [(c.subject, c.participants, c.state, c.version) for c in found] == [
        ("Größe", ["a@b.c", "ü"], "open", 1)
    ] * number


@pytest.mark.parametrize("number", [2, 20])
def test_a_row_that_is_there_already_is_refused_with_all_others(
    database: Database, mailbox: Mailbox, number: int
) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        rows.insert(
            session, LedgerEntry, [entry(mailbox, uid) for uid in range(number - 1)] + [entry(mailbox, 0)]
        )
    with database.write() as session:
        assert session.exec(select(LedgerEntry)).all() == []
        session.add(LedgerEntry(**entry(mailbox, 5)))  # ids that objects get afterwards are free
        rows.insert(session, LedgerEntry, [entry(mailbox, uid) for uid in range(10, 30)])
        session.add(LedgerEntry(**entry(mailbox, 6)))
