"""What agents said since the last run, by class, and how far two of them agree."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from briefbox.db import Database
from briefbox.errors import ConflictError
from briefbox.store import conversations, judgements, training_requests
from briefbox.store.judgements import Agreement, Judged
from briefbox.tables import (
    Adapter,
    Brief,
    Dataset,
    Email,
    RollBackRequest,
    TrainingRequest,
    TrainingRun,
    User,
)
from tests.conftest import make_email

Deliver = Callable[..., list[int]]
MOMENT = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def briefed(database: Database, deliver: Deliver) -> list[int]:
    """Ids of four conversations with a brief each: normal, billing."""
    ids: list[int] = []
    for email_id in deliver(*map(make_email, range(1, 5))):
        with database.write() as session:
            email = session.get_one(Email, email_id)
            brief = Brief(
                email_id=email_id,
                conversation_id=email.conversation_id or 0,
                headline="A",
                summary="B",
                priority="normal",
                priority_confidence=0.6,
                category="billing",
                category_confidence=0.7,
                engine="fake",
                base_model="fake",
                prompt_version="1",
                created_at=MOMENT,
            )
            session.add(brief)
            session.flush()
            conversations.show_brief(session, brief)
            ids.append(brief.conversation_id)
    return ids


def test_by_field_and_class(database: Database, briefed: list[int], ana: User, ben: User) -> None:
    one, two, three, four = briefed
    with database.write() as session:
        conversations.correct(session, one, "priority", "urgent", user=ana)
        conversations.correct(session, one, "summary", "C", user=ana)
        conversations.finish(session, one, user=ana)
        conversations.confirm(session, two, user=ana)
        conversations.finish(session, two, user=ana)
        conversations.finish(session, three, user=ben)
        conversations.correct(session, four, "priority", "low", user=ana)  # not finished: not learned yet
    with database.read() as session:
        found = judgements.since_last_run(session)
    assert found == [
        Judged("priority", "urgent", 1, 0, 0),
        Judged("priority", "normal", 0, 1, 2),
        Judged("category", "billing", 0, 1, 2),
        Judged("headline", "", 0, 1, 2),
        Judged("summary", "", 1, 1, 2),
    ]


def test_only_what_the_last_run_has_not_seen(database: Database, briefed: list[int], ana: User) -> None:
    with database.write() as session:
        conversations.correct(session, briefed[0], "priority", "urgent", user=ana)
        conversations.finish(session, briefed[0], user=ana)
        later = datetime.now(UTC) + timedelta(hours=1)
        dataset = Dataset(name="d", content_hash="h", path="p", num_examples=1, created_at=later)
        session.add(dataset)
        session.flush()
        session.add(TrainingRun(dataset_id=dataset.id, base_model="m", state="done", created_at=later))
    with database.read() as session:
        assert judgements.since_last_run(session) == []


def test_agreement_is_of_briefs_that_two_judged(
    database: Database, briefed: list[int], ana: User, ben: User
) -> None:
    one, two, three, _ = briefed
    with database.write() as session:
        conversations.confirm(session, one, user=ana)
        conversations.confirm(session, one, user=ben)
        conversations.confirm(session, two, user=ana)
    with database.write() as session:
        conversations.correct(session, two, "priority", "high", user=ben)
        conversations.confirm(session, three, user=ana)
    with database.read() as session:
        assert judgements.agreement(session) == [Agreement("priority", 2, 1), Agreement("category", 1, 1)]


# --- what is asked of the training worker


def test_a_request_is_asked_once_taken_once_and_ends(database: Database) -> None:
    with database.write() as session:
        first = training_requests.ask(session, "train", actor="rea@x.example")
        assert training_requests.ask(session, "train", actor="ada@x.example").id == first.id
    with database.write() as session:
        assert training_requests.any_waiting(session)
        taken = training_requests.claim(session, TrainingRequest)
        assert taken is not None
        assert taken.actor == "rea@x.example"
    with database.write() as session:
        assert training_requests.claim(session, TrainingRequest) is None
        assert not training_requests.any_waiting(session)
        training_requests.fail(session, taken, "no")
    with database.read() as session:
        row = session.get_one(TrainingRequest, first.id)
        assert (row.state, row.error, row.lease_until) == ("failed", "no", None)
        assert training_requests.open_requests(session) == []


def test_what_a_dead_worker_left_is_taken_over(database: Database) -> None:
    with database.write() as session:
        training_requests.ask(session, "look", actor="rea")
        taken = training_requests.claim(session, TrainingRequest)
        assert taken is not None
        taken.lease_until = datetime.now(UTC) - timedelta(seconds=1)
    with database.write() as session:
        again = training_requests.claim(session, TrainingRequest)
        assert again is not None
        assert again.id == taken.id


def test_roll_back_is_asked_for_where_there_is_something_to_roll_back(database: Database) -> None:
    with pytest.raises(ConflictError, match="nothing to roll back"), database.write() as session:
        training_requests.ask_roll_back(session, actor="ada")
    with database.write() as session:
        session.add(
            Adapter(
                name="a", path="a", base_model="m", weights_sha256="0", state="champion", created_at=MOMENT
            )
        )
        session.flush()
        first = training_requests.ask_roll_back(session, actor="ada")
        assert training_requests.ask_roll_back(session, actor="ada").id == first.id
        assert training_requests.claim(session, RollBackRequest) is not None


def test_no_second_run_beside_one_that_is_under_way(database: Database) -> None:
    with database.write() as session:
        dataset = Dataset(name="d", content_hash="h", path="p", num_examples=1, created_at=MOMENT)
        session.add(dataset)
        session.flush()
        session.add(TrainingRun(dataset_id=dataset.id, base_model="m", created_at=MOMENT))
    with pytest.raises(ConflictError, match="is under way"), database.write() as session:
        training_requests.ask(session, "train", actor="rea")
    with database.write() as session:
        assert training_requests.ask(session, "look", actor="rea").state == "waiting"
