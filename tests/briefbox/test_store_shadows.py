"""briefbox/store/shadows.py: what the adapter on trial says differently, and what a person picks."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import select

from briefbox.db import Database, now
from briefbox.errors import ConflictError, NotFoundError
from briefbox.store import adapters, conversations, shadows
from briefbox.tables import Adapter, Brief, Confirmation, Conversation, Correction, Email, User
from tests.conftest import make_email

SAID: dict[str, Any] = {
    "priority": "normal",
    "category": "Billing",
    "headline": "An order",
    "summary": "It is late.",
}
Brief2 = Callable[..., tuple[int, int]]


@pytest.fixture
def both(database: Database, deliver: Callable[..., list[int]]) -> Brief2:
    """`both(priority="high")`: a new email, its shown brief, and one by the adapter on trial with these differences.

    Returns the ids of its conversation and of the shadow brief.
    """
    with database.write() as session:
        session.add(
            Adapter(
                name="trial",
                path="adapters/trial",
                base_model="fake",
                weights_sha256="0",
                state="shadow",
                created_at=now(session),
            )
        )
    numbers = iter(range(1, 100))

    def make(raw: bytes | None = None, **differences: str) -> tuple[int, int]:
        (email_id,) = deliver(raw or make_email(next(numbers)))
        with database.write() as session:
            conversation_id = session.get_one(Email, email_id).conversation_id
            assert conversation_id is not None
            made = [
                Brief(
                    email_id=email_id,
                    conversation_id=conversation_id,
                    priority_confidence=0.5,
                    category_confidence=0.5,
                    engine="fake",
                    base_model="fake",
                    adapter=adapter,
                    prompt_version="1",
                    shadow=bool(adapter),
                    created_at=now(session),
                    **SAID | said,
                )
                for adapter, said in (("", {}), ("trial", differences))
            ]
            session.add_all(made)
            session.flush()
            for brief in made:
                conversations.show_brief(session, brief)
            return conversation_id, made[1].id

    return make


def open_ones(database: Database) -> list[tuple[int, tuple[str, ...]]]:
    with database.read() as session:
        return [(row.shadow.id, row.fields) for row in shadows.disagreements(session)]


def test_only_differences_are_listed_and_labels_come_first(database: Database, both: Brief2) -> None:
    _, label = both(priority="high", headline="A late order")
    both()
    _, text = both(summary="It is very late.")
    assert open_ones(database) == [(label, ("priority", "headline")), (text, ("summary",))]
    with database.read() as session:
        assert len(shadows.disagreements(session, limit=1)) == 1
    with database.write() as session:
        adapters.shadow(session, None, actor="x")
    assert open_ones(database) == []


def test_picking_the_shadow_is_an_ordinary_correction_once(
    database: Database, both: Brief2, ana: User
) -> None:
    conversation_id, shadow_id = both(priority="high", headline="A late order")
    for _ in range(2):  # delivered twice
        with database.write() as session:
            shadows.pick(session, shadow_id, "shadow", user=ana)
    with database.read() as session:
        made = [(c.field, c.before, c.after) for c in session.exec(select(Correction))]
        conversation = session.get_one(Conversation, conversation_id)
        assert made == [("priority", "normal", "high"), ("headline", "An order", "A late order")]
        assert (conversation.priority, conversation.headline) == ("high", "A late order")
        assert conversation.touched == ["headline", "priority"]
        assert conversation.brief_id != shadow_id
    assert open_ones(database) == []


def test_picking_the_shown_one_is_a_strong_confirmation_of_it(
    database: Database, both: Brief2, ana: User
) -> None:
    conversation_id, shadow_id = both(category="Delivery")
    for _ in range(2):
        with database.write() as session:
            assert shadows.pick(session, shadow_id, "shown", user=ana) == []
    with database.read() as session:
        confirmation = session.exec(select(Confirmation)).one()
        conversation = session.get_one(Conversation, conversation_id)
        assert (confirmation.strength, confirmation.brief_id) == ("strong", conversation.brief_id)
        assert conversation.category == "Billing"
    assert open_ones(database) == []


def test_what_an_agent_has_decided_is_not_asked_again(database: Database, both: Brief2, ana: User) -> None:
    conversation_id, shadow_id = both(priority="high", headline="A late order")
    with database.write() as session:
        conversations.correct(session, conversation_id, "priority", "low", user=ana)
    assert open_ones(database) == [(shadow_id, ("headline",))]
    with database.write() as session:
        shadows.pick(session, shadow_id, "shadow", user=ana)
    with database.read() as session:
        assert session.get_one(Conversation, conversation_id).priority == "low"


def test_a_disagreement_that_a_later_email_settled_cannot_be_picked(
    database: Database, both: Brief2, ana: User
) -> None:
    _, shadow_id = both(make_email(1), priority="high")
    both(make_email(2, In_Reply_To="<mail-1@example.org>", subject="Re: Question number 1"))
    assert open_ones(database) == []
    with database.write() as session, pytest.raises(ConflictError, match="later email"):
        shadows.pick(session, shadow_id, "shadow", user=ana)
    with database.write() as session, pytest.raises(NotFoundError):
        shadows.pick(session, 1, "shadow", user=ana)
