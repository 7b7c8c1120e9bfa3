"""What mail does to a conversation: our answer takes it out of the queue, the customer's brings it back, and both are kept."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import EmailKind
from briefbox.store import actions, conversations, regroup, skips
from briefbox.tables import Activity, Conversation, Email, User
from tests.briefbox.mails import Receive, mail, own, row

pytestmark = pytest.mark.usefixtures("audited")


def turns(database: Database, conversation_id: int | None) -> list[tuple[str, str, str]]:
    """What mail did to it: how, by which mail, and what it was before."""
    with database.read() as session:
        found = session.exec(
            select(Activity)
            .where(Activity.conversation_id == conversation_id, Activity.kind.in_(("answered", "reopened")))  # type: ignore[attr-defined]
            .order_by(Activity.id)
        )
        return [
            (a.kind, session.get_one(Email, a.detail["email"]).message_id, a.detail["was"])
            for a in found
            if a.user_id is None
        ]


def do(database: Database, change: object) -> None:
    with database.write() as session:
        change(session)  # type: ignore[operator]


def test_an_answer_and_the_next_question(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(own("b@x", 1))
    assert row(database, first).state == "answered"
    receive(own("c@x", 2))
    receive(mail("d@x", answers="b@x", hours=3))
    assert row(database, first).state == "open"
    assert turns(database, first) == [("answered", "b@x", "open"), ("reopened", "d@x", "answered")]


def test_all_in_one_batch(receive: Receive, database: Database) -> None:
    [first, _, _] = receive(mail("a@x"), own("b@x", 1), mail("c@x", answers="b@x", hours=2))
    assert row(database, first).state == "open"
    assert turns(database, first) == [("answered", "b@x", "open"), ("reopened", "c@x", "answered")]


def test_what_was_done_is_reopened_and_says_so(receive: Receive, database: Database, ana: User) -> None:
    [first] = receive(mail("a@x"))
    assert first is not None
    do(database, lambda session: conversations.finish(session, first, user=ana))
    receive(own("b@x", 1))
    assert row(database, first).state == "done", "our own mail opens nothing"
    receive(mail("c@x", answers="a@x", hours=2))
    assert row(database, first).state == "open"
    assert turns(database, first) == [("reopened", "c@x", "done")]


def test_what_was_put_off_is_reopened_by_a_customer_and_not_by_us(
    receive: Receive, database: Database, ana: User
) -> None:
    [first] = receive(mail("a@x"))
    assert first is not None
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    do(database, lambda session: actions.snooze(session, first, tomorrow, user=ana))
    receive(own("b@x", 1))
    found = row(database, first)
    assert (found.state, found.answered_at is not None) == ("snoozed", True), "it comes back at its time"
    receive(mail("c@x", answers="b@x", hours=2))
    found = row(database, first)
    assert (found.state, found.snoozed_until) == ("open", None)
    assert turns(database, first) == [("answered", "b@x", "snoozed"), ("reopened", "c@x", "snoozed")]


def test_a_question_of_the_same_second_waits(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(own("b@x", 1))
    receive(mail("c@x", answers="b@x", hours=1))
    assert row(database, first).state == "open"


def test_a_question_that_is_read_late_reopens_nothing(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(own("b@x", 5))
    receive(mail("c@x", answers="a@x", hours=3))
    assert row(database, first).state == "answered"
    assert turns(database, first) == [("answered", "b@x", "open")]


def test_an_answer_that_is_read_late_closes_nothing_newer(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(mail("c@x", answers="a@x", hours=3))
    receive(own("b@x", 1))
    assert row(database, first).state == "open"
    assert turns(database, first) == []


def test_the_folder_of_sent_mail_may_be_read_first(receive: Receive, database: Database) -> None:
    assert receive(own("b@x", 1)) == [None]
    [first] = receive(mail("a@x"))
    receive(mail("c@x", answers=("b@x", "a@x"), hours=0.5))
    assert row(database, first).state == "answered"
    assert [turn[:2] for turn in turns(database, first)] == [("answered", "b@x")]


def test_a_copy_to_ourselves_answers_once(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(own("b@x", 1), own("b@x", 1.01, cc=("support@larkspur.example",)))
    assert row(database, first).state == "answered"
    assert turns(database, first) == [("answered", "b@x", "open")]


def test_another_mail_program_and_another_address(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(
        mail(
            "b@x",
            "ana.private@elsewhere.example",
            answers="a@x",
            to=("ana@example.org",),
            kind=EmailKind.OWN,
            hours=1,
        )
    )
    assert row(database, first).state == "answered"


def test_mail_that_a_person_lets_in_reopens_too(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(own("b@x", 1))
    receive(mail("c@x", answers="b@x", hours=2, kind=EmailKind.AUTO_REPLY))
    assert row(database, first).state == "answered"
    with database.write() as session:
        email = session.exec(select(Email).where(Email.message_id == "c@x")).one()
        skips.overrule(session, email.id, actor="test")
    assert row(database, first).state == "open"
    assert turns(database, first)[-1] == ("reopened", "c@x", "answered")


def test_apart_and_together_again(receive: Receive, database: Database) -> None:
    [first] = receive(mail("a@x"))
    receive(own("b@x", 1))
    receive(mail("c@x", answers="b@x", hours=2))
    with database.write() as session:
        email = session.exec(select(Email).where(Email.message_id == "c@x")).one()
        apart = regroup.split(session, email.id, actor="test").id
    assert (row(database, first).state, row(database, apart).state) == ("answered", "open")
    with database.write() as session:
        regroup.merge(session, apart, first or 0, actor="test")
    assert row(database, first).state == "open"


def test_mail_that_changes_nothing_writes_no_activity(receive: Receive, database: Database) -> None:
    receive(mail("a@x"))
    receive(mail("b@x", answers="a@x", hours=1))
    receive(mail("n@x", "news@shop.example", subject="Our news", kind=EmailKind.NEWSLETTER))
    with database.read() as session:
        assert session.exec(select(Activity)).all() == []
        assert len(session.exec(select(Conversation)).all()) == 1
