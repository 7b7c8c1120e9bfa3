"""Who has a conversation open, what they write, and the time they spend."""

from datetime import timedelta

import pytest
from sqlmodel import select

from briefbox.db import Database, now
from briefbox.store import presence
from briefbox.tables import Conversation, Mailbox, Presence, User


@pytest.fixture
def number(database: Database, mailbox: Mailbox) -> int:
    """A conversation."""
    with database.write() as session:
        moment = now(session)
        row = Conversation(mailbox_id=mailbox.id, waiting_since=moment, opened_at=moment, updated_at=moment)
        session.add(row)
        session.flush()
        return row.id


def later(database: Database, seconds: float) -> None:
    """As if so much time had passed."""
    with database.write() as session:
        for row in session.exec(select(Presence)):
            row.seen_at -= timedelta(seconds=seconds)


def here(database: Database, number: int, user: User, editing: str = "", seconds: float = 0) -> None:
    with database.write() as session:
        presence.here(session, number, user, editing, seconds)


def test_others_are_seen_with_what_they_write_until_they_are_silent(
    database: Database, number: int, ana: User, ben: User
) -> None:
    here(database, number, ana)
    here(database, number, ben, "summary")
    with database.read() as session:
        assert [(u.name, e) for u, e in presence.others(session, number, ana)] == [("Ben", "summary")]
        assert [(u.name, e) for u, e in presence.others(session, number, ben)] == [("Ana", "")]
        assert presence.all_now(session) == {number: ["Ana", "Ben"]}
    later(database, presence.SEEN_SECONDS)
    here(database, number, ana, "nonsense")
    with database.read() as session:
        assert presence.others(session, number, ana) == []
        assert presence.all_now(session) == {number: ["Ana"]}
        assert presence.others(session, number, ben)[0][1] == ""


def test_time_is_added_up_and_never_more_than_has_passed(
    database: Database, number: int, ana: User, ben: User
) -> None:
    with database.read() as session:
        assert presence.time_spent(session, number) == 0
    here(database, number, ana, seconds=3)
    later(database, 10)
    here(database, number, ana, seconds=10)
    here(database, number, ana, seconds=10)  # another page of hers, at the same time
    here(database, number, ben, seconds=5)
    with database.read() as session:
        assert presence.time_spent(session, number) == pytest.approx(18, abs=1.5)


@pytest.mark.parametrize("seconds", [-5.0, float("nan"), float("-inf")])
def test_odd_times_count_nothing(database: Database, number: int, ana: User, seconds: float) -> None:
    here(database, number, ana, seconds=seconds)
    with database.read() as session:
        assert presence.time_spent(session, number) == 0


def test_a_long_silence_is_not_time_spent(database: Database, number: int, ana: User) -> None:
    here(database, number, ana)
    later(database, 3600)
    here(database, number, ana, seconds=3600)
    with database.read() as session:
        assert presence.time_spent(session, number) == presence.SEEN_SECONDS
