"""Mailboxes in the store, on both databases: paused, removed, and how they stand."""

from datetime import timedelta

import pytest

from briefbox.db import Database, now
from briefbox.errors import ConflictError, LeaseLostError, NotFoundError
from briefbox.store import ledger, mailbox_state, mailboxes
from briefbox.tables import Mailbox
from tests.conftest import arrival, commit, make_email


def test_a_paused_or_removed_mailbox_is_claimed_by_nobody(database: Database, mailbox: Mailbox) -> None:
    with database.write() as session:
        mailboxes.pause(session, "support", reason="moving", actor="ana")
        assert mailboxes.claim(session, mailbox.id, owner="a", seconds=9) is None
        with pytest.raises(ConflictError, match="moving"):
            mailboxes.pause(session, "support", reason="again", actor="ana")
        mailboxes.resume(session, "support", actor="ana")
        assert mailboxes.claim(session, mailbox.id, owner="a", seconds=9) is not None


def test_removing_takes_the_lease_from_the_poller_and_frees_the_name(
    database: Database, mailbox: Mailbox
) -> None:
    with database.write() as session:
        lease = mailboxes.claim(session, mailbox.id, owner="a", seconds=60)
        assert lease is not None
        removed = mailboxes.remove(session, "support", actor="ana")
        assert mailboxes.claim(session, mailbox.id, owner="b", seconds=9) is None
        with pytest.raises(LeaseLostError):
            mailboxes.renew(session, lease, seconds=60)
        with pytest.raises(NotFoundError, match="no longer read"):
            mailboxes.remove(session, removed.name, actor="ana")
        assert mailboxes.active(session) == []
    for _ in range(2):
        with database.write() as session:
            again = Mailbox(name="support", address="x", host="x", port=1, username="x", folders=["INBOX"])
            mailboxes.add(session, again, actor="ana")
            mailboxes.remove(session, "support", actor="ana")
    with database.read() as session:
        names = [row.name for row in mailboxes.all_of(session)]
    assert len(set(names)) == 3
    assert [name.rpartition(")")[2] for name in names] == ["", " 2", " 3"]


def test_secrets_are_swapped_only_where_nobody_was_faster(database: Database, mailbox: Mailbox) -> None:
    with database.write() as session:
        assert mailboxes.swap_oauth(session, mailbox.id, old="", new="a")
        assert not mailboxes.swap_oauth(session, mailbox.id, old="", new="b")
        assert mailboxes.swap_oauth(session, mailbox.id, old="a", new="c")


def test_how_a_mailbox_stands(database: Database, mailbox: Mailbox) -> None:
    with database.write() as session:
        commit(
            session,
            mailbox,
            [
                arrival(1, make_email(1)),
                arrival(2, make_email(1)),
                arrival(3, make_email(3, Auto_Submitted="auto-replied")),
            ],
        )
    with database.write() as session:
        row = mailboxes.get_by_id(session, mailbox.id)
        state = mailbox_state.state_of(session, row)
        assert state.words == "no poller reads it"
        assert state.states == {"queued": 1, "sighting": 1, "skipped": 1, "dead": 0, "gone": 0}
        assert state.lag is not None
        assert state.lag > timedelta(0)
        [(folder, reason, number)] = mailbox_state.reasons(session, mailbox.id, "skipped")
        assert (folder, number) == ("INBOX", 1)
        assert reason
        assert [line.uid for line in mailbox_state.lines(session, mailbox.id)] == [3, 2, 1]
        [skipped] = mailbox_state.lines(session, mailbox.id, state="skipped", folder="INBOX")
        assert (skipped.uid, skipped.subject, skipped.reason) == (3, "Question number 3", reason)
        assert mailbox_state.lines(session, mailbox.id, folder="Spam") == []
        cursor = mailbox_state.newest_cursor(session, mailbox.id, "INBOX")
        assert cursor is not None
        assert mailbox_state.uids(session, cursor) == {1, 2, 3}
        # The rows of a folder that was renumbered are history.
        ledger.open_folder(session, mailbox.id, "INBOX", 99)
        assert mailbox_state.lines(session, mailbox.id) == []
        assert mailbox_state.newest_cursor(session, mailbox.id, "INBOX", 1) == cursor


def test_the_words_for_a_state(database: Database, mailbox: Mailbox) -> None:
    def words() -> str:
        with database.read() as session:
            return mailbox_state.state_of(session, mailboxes.get_by_id(session, mailbox.id)).words

    with database.write() as session:
        mailboxes.claim(session, mailbox.id, owner="a", seconds=60)
    assert words() == "connecting"
    with database.write() as session:
        mailboxes.note_success(session, [mailbox.id])
    assert words() == "reading"
    with database.write() as session:
        cursor = ledger.open_folder(session, mailbox.id, "INBOX", 1)
        cursor.backfill_uid, cursor.older_uid = 1, 3
        session.add(cursor)
    assert words() == "reading, older mail 1 of 3 (33%)"
    with database.write() as session:
        cursor = ledger.open_folder(session, mailbox.id, "INBOX", 1)
        cursor.missing_since = now(session)
        session.add(cursor)
    assert words() == "folder missing on the server: INBOX"
    with database.write() as session:
        mailboxes.note_error(session, mailbox.id, "It said no.")
    assert words().startswith("error since 20")
