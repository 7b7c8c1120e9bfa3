from collections.abc import Callable

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import conversations, queue
from briefbox.store.filters import Filter
from briefbox.tables import Confirmation, Correction, User
from tests.briefbox.test_work import a_brief, claim, finish
from tests.conftest import make_email

Deliver = Callable[..., list[int]]


@pytest.fixture
def conversation_id(database: Database, deliver: Deliver) -> int:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    finish(database, claimed)
    return 1


def test_a_correction_keeps_before_after_and_who(database: Database, conversation_id: int, ana: User) -> None:
    with database.write() as session:
        conversations.correct(
            session,
            conversation_id,
            "category",
            "billing",
            user=ana,
            before="shipping",
            reason="it is about money",
        )
    with database.read() as session:
        [(row, who)] = conversations.corrections(session, conversation_id)
        assert conversations.get(session, conversation_id).touched == ["category"]
    assert (row.field, row.before, row.after, row.reason, who.name) == (
        "category",
        "shipping",
        "billing",
        "it is about money",
        "Ana",
    )
    assert row.brief_id == 1


def test_the_second_of_two_agents_gets_the_newer_value_and_nothing_is_lost(
    database: Database, conversation_id: int, ana: User, ben: User
) -> None:
    with database.write() as session:
        conversations.correct(session, conversation_id, "priority", "urgent", user=ana, before="high")
    with pytest.raises(ConflictError, match="“urgent”"), database.write() as session:
        conversations.correct(session, conversation_id, "priority", "low", user=ben, before="high")
    with database.read() as session:
        assert conversations.get(session, conversation_id).priority == "urgent"


def test_a_double_click_is_one_correction(database: Database, conversation_id: int, ana: User) -> None:
    for _ in range(2):
        with database.write() as session:
            conversations.correct(
                session, conversation_id, "priority", "urgent", user=ana, before="high", idempotency_key="k"
            )
    with database.read() as session:
        assert len(session.exec(select(Correction)).all()) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority", "asap"), ("category", "nonsense"), ("headline", "  "), ("summary", "x" * 5000)],
)
def test_a_value_that_is_not_allowed_is_refused(
    database: Database, conversation_id: int, ana: User, field: str, value: str
) -> None:
    with pytest.raises(InvalidValueError, match=field), database.write() as session:
        conversations.correct(session, conversation_id, field, value, user=ana)  # type: ignore[arg-type]


def test_an_unknown_conversation_is_said(database: Database, ana: User) -> None:
    with pytest.raises(NotFoundError), database.write() as session:
        conversations.correct(session, 77, "priority", "low", user=ana)


def test_right_as_it_is_is_a_strong_confirmation(database: Database, conversation_id: int, ana: User) -> None:
    for _ in range(2):
        with database.write() as session:
            conversations.confirm(session, conversation_id, user=ana)
    with database.read() as session:
        assert session.exec(select(Confirmation.strength)).all() == ["strong"]


def test_finishing_unchanged_is_a_weak_confirmation_and_changed_is_none(
    database: Database, conversation_id: int, ana: User
) -> None:
    with database.write() as session:
        conversations.finish(session, conversation_id, user=ana)
    with database.read() as session:
        assert session.exec(select(Confirmation.strength)).all() == ["weak"]
        assert queue.page(session, Filter()).conversations == []
        assert [c.id for c in queue.page(session, Filter(state="done")).conversations] == [conversation_id]


def test_the_queue_is_ordered_by_urgency_then_by_waiting(database: Database, deliver: Deliver) -> None:
    deliver(*(make_email(n) for n in range(1, 5)))
    claimed = claim(database)
    assert claimed is not None
    for index, priority in enumerate(["low", "urgent", "normal", "urgent"]):
        finish(database, claimed, index, a_brief(priority))
    with database.read() as session:
        assert [row.id for row in queue.page(session, Filter()).conversations] == [2, 4, 3, 1]
        first = queue.page(session, Filter(), limit=2)
        assert [row.id for row in first.conversations] == [2, 4]
        rest = queue.page(session, Filter(), after=first.next)
        assert [row.id for row in rest.conversations] == [3, 1]
