"""The numbers by day, on both databases, against conversations whose story is known."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.store import conversations, numbers
from briefbox.store.numbers import Scope
from briefbox.store.sight import Sight
from briefbox.tables import Brief, Conversation, Correction, Email, Mailbox, Promotion, User
from tests.conftest import make_email

Deliver = Callable[..., list[int]]
TODAY = datetime.now(UTC).date()
TARGETS = {"urgent": 60, "normal": 1440}


def at(days_ago: int, hour: int = 12, minute: int = 0) -> datetime:
    moment = datetime.combine(TODAY, datetime.min.time(), UTC)
    return moment - timedelta(days=days_ago) + timedelta(hours=hour, minutes=minute)


@pytest.fixture
def story(database: Database, deliver: Deliver, ana: User) -> list[int]:
    """Five conversations, opened two days ago; what becomes of each is said below."""
    ids: list[int] = []
    email_ids = deliver(*map(make_email, range(1, 6)))
    for number, email_id in enumerate(email_ids):
        with database.write() as session:
            email = session.get_one(Email, email_id)
            email.received_at = at(2, 9)
            brief = Brief(
                email_id=email_id,
                conversation_id=email.conversation_id or 0,
                headline="A",
                summary="B",
                priority="normal",
                priority_confidence=(0.05, 0.55, 0.58, 0.95, 1.0)[number],
                category="billing" if number else "other",
                category_confidence=None,
                engine="fake",
                base_model="fake",
                prompt_version="1",
                created_at=at(2, 9) + timedelta(seconds=10 * (number + 1)),
            )
            session.add(brief)
            session.flush()
            conversations.show_brief(session, brief)
            ids.append(brief.conversation_id)
    one, two, three, _four, _five = ids
    with database.write() as session:
        # One is corrected, two pressed right, three finished as it was, four and five are open.
        conversations.correct(session, one, "priority", "urgent", user=ana)
        conversations.confirm(session, two, user=ana)
        for id_ in (one, two, three):
            conversations.finish(session, id_, user=ana)
        for row in session.exec(select(Conversation)):
            row.opened_at = at(2, 9)
            if row.state == "done":
                row.done_at = at(1, 8) if row.id == one else at(1, 8) if row.id == two else at(1, 10)
    return ids


def look(database: Database, scope: Scope = Scope(), back: int = 3) -> dict[date, numbers.Day]:
    with database.read() as session:
        return numbers.by_day(session, TODAY - timedelta(days=back), TODAY, scope, TARGETS)


def test_the_story_in_numbers(database: Database, story: list[int]) -> None:
    days = look(database)
    assert list(days) == [TODAY - timedelta(days=n) for n in (3, 2, 1, 0)]
    opened, finished = days[TODAY - timedelta(days=2)], days[TODAY - timedelta(days=1)]
    assert opened.opened == {"billing": 4, "other": 1}
    assert (opened.briefs, opened.brief_median, opened.brief_p95) == (
        5,
        pytest.approx(30, abs=0.01),
        pytest.approx(50, abs=0.01),
    )
    assert (finished.finished, finished.judged) == (3, 3)
    assert finished.corrected == {"priority": 1}
    assert finished.accepted == {name: 1 for name in ("priority", "category", "headline", "summary")}
    assert {k: v[:2] for k, v in finished.sure["priority"].items()} == {0: (1, 0), 5: (2, 2)}
    assert "category" not in finished.sure
    # Urgent after 23 hours is late; normal after 23 is in time, after 25 late; two are due and unanswered.
    assert (opened.within, opened.late, opened.in_time_yet) == (1, 4, 0)


def test_a_mail_of_ours_is_an_answer(database: Database, story: list[int]) -> None:
    with database.write() as session:
        email = session.exec(select(Email).where(Email.conversation_id == story[3])).one()
        email.kind, email.received_at = "own", at(2, 10)
    assert look(database)[TODAY - timedelta(days=2)].within == 2


def test_the_backlog_is_counted_back(database: Database, story: list[int]) -> None:
    days = look(database)
    with database.read() as session:
        at_end = numbers.unfinished_after(session, TODAY, Scope())
        assert numbers.unfinished_after(session, TODAY - timedelta(days=2), Scope()) == 5
        assert numbers.unfinished_after(session, TODAY - timedelta(days=3), Scope()) == 0
    assert list(numbers.backlog(days, at_end).values()) == [0, 5, 2, 2]
    assert numbers.by_category(days) == [("billing", 4), ("other", 1)]


def test_only_the_mailboxes_that_are_seen(database: Database, story: list[int], mailbox: Mailbox) -> None:
    for scope, seen in (
        (Scope(Sight(frozenset())), 0),
        (Scope(Sight(frozenset({mailbox.id}))), 5),
        (Scope(mailbox_id=mailbox.id), 5),
        (Scope(mailbox_id=mailbox.id + 1), 0),
    ):
        days = look(database, scope)
        assert sum(sum(day.opened.values()) for day in days.values()) == seen
        assert sum(day.briefs for day in days.values()) == seen
        assert sum(day.judged for day in days.values()) == (3 if seen else 0)
        with database.read() as session:
            assert numbers.unfinished_after(session, TODAY, scope) == (2 if seen else 0)


def test_undone_corrections_and_older_mail_do_not_count(database: Database, story: list[int]) -> None:
    with database.write() as session:
        session.exec(select(Correction)).one().undone_at = at(0, 0)
        for email in session.exec(select(Email)):
            email.backfill = True
    days = look(database)
    assert all(day.briefs == 0 for day in days.values())
    assert all(day.corrected == {} for day in days.values())


def test_adapter_changes_in_a_range(database: Database) -> None:
    with database.write() as session:
        session.add(Promotion(adapter="a", kind="promote", created_at=at(5)))
        session.add(Promotion(adapter="b", before="a", kind="promote", created_at=at(1)))
    with database.read() as session:
        found = numbers.adapter_changes(session, TODAY - timedelta(days=3), TODAY)
    assert [p.adapter for p in found] == ["b"]


def test_what_has_waited_longer_than_its_target(database: Database, story: list[int]) -> None:
    with database.write() as session:
        for row in session.exec(select(Conversation)):
            row.waiting_since = at(2)
    with database.read() as session:
        assert numbers.num_beyond(session, "normal", 60) == 2
        assert numbers.num_beyond(session, "normal", 60 * 24 * 30) == 0
        assert numbers.num_beyond(session, "normal", 60, sight=Sight(frozenset())) == 0
