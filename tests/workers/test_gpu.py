import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Thread

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import AdapterError
from briefbox.schemas import AdapterCard
from briefbox.settings import Settings
from briefbox.store import dead_letters, processes, training
from briefbox.tables import Adapter, Brief, Email
from models.engine import FakeEngine
from models.registry import write_card
from tests.conftest import make_email
from workers.gpu import BriefWorker

Deliver = Callable[..., list[int]]


@pytest.fixture
def make_worker(database: Database, settings: Settings) -> Callable[..., BriefWorker]:
    def make(engine: FakeEngine | None = None, **changes: object) -> BriefWorker:
        process = processes.this_process("worker")
        return BriefWorker(database, settings.model_copy(update=changes), engine or FakeEngine(), process)

    return make


MakeWorker = Callable[..., BriefWorker]


def briefs(database: Database) -> list[Brief]:
    with database.read() as session:
        return list(session.exec(select(Brief).order_by(Brief.id)))


def test_a_drain_briefs_all_that_waits(database: Database, deliver: Deliver, make_worker: MakeWorker) -> None:
    deliver(*(make_email(n) for n in range(1, 21)))
    worker = make_worker()
    assert worker.drain() == 20
    assert worker.drain() == 0
    assert len(briefs(database)) == 20


def test_the_model_sees_one_customers_mail_and_the_admins_categories(
    deliver: Deliver, make_worker: MakeWorker
) -> None:
    engine = FakeEngine()
    deliver(make_email(1), make_email(2))
    make_worker(engine).drain()
    first, second = (
        (request for call in engine.history for request in call)
        if isinstance(engine.history[0], list | tuple)
        else engine.history
    )
    assert "1001" in first.text
    assert "1001" not in second.text
    assert "billing" in {category.name for category in first.categories}


def test_a_poisonous_email_is_parked_and_its_neighbours_are_briefed(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1), make_email(2, body="POISON"), make_email(3))
    worker = make_worker(FakeEngine(fail_on="POISON"))
    for _ in range(8):
        worker.drain()
        with database.write() as session:  # do not wait for the back-off
            for email in session.exec(select(Email)):
                email.not_before = email.created_at
    assert len(briefs(database)) == 2
    with database.read() as session:
        [letter] = dead_letters.unresolved(session)
    assert letter.attempts == 3


def test_a_batch_that_does_not_fit_is_halved(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(*(make_email(n) for n in range(1, 8)))
    worker = make_worker(FakeEngine(most_at_once=2))
    assert worker.drain() == 7
    assert len(briefs(database)) == 7


def test_a_long_batch_keeps_its_lease(database: Database, deliver: Deliver, make_worker: MakeWorker) -> None:
    deliver(make_email(1))
    slow = make_worker(FakeEngine(seconds_per_email=2.5), lease_seconds=0.6)
    thread = Thread(target=slow.drain)
    thread.start()
    time.sleep(1.5)
    assert make_worker().drain() == 0, "another worker took an email whose lease is renewed"
    thread.join()
    assert len(briefs(database)) == 1


class RefusingEngine(FakeEngine):
    """Refuses every adapter, as a tampered file would be refused."""

    def load_adapter(self, path: object, name: str = "", expected_sha256: str | None = None) -> None:
        raise AdapterError(f"{name}: the weights were changed")


def an_adapter(database: Database, name: str, state: str = "candidate") -> None:
    with database.write() as session:
        card = {"num_examples": 1}
        session.add(
            Adapter(
                name=name,
                path=f"adapters/{name}",
                base_model="fake",
                weights_sha256="0",
                card=card,
                state=state,
                created_at=training.now(session),
            )
        )


def a_card(name: str) -> AdapterCard:
    facts = {
        "base_sha256": "0",
        "weights_sha256": "0",
        "prompt_version": "1",
        "dataset": "d",
        "dataset_hash": "0",
        "num_examples": 1,
    }
    return AdapterCard(name=name, base_model="fake", created_at=datetime.now(UTC), **facts)  # type: ignore[arg-type]


def test_the_worker_follows_the_champion_between_batches(
    database: Database, settings: Settings, deliver: Deliver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    an_adapter(database, "first")
    (settings.data_dir / "adapters" / "first").mkdir(parents=True)
    write_card(settings.data_dir / "adapters" / "first", a_card("first"))
    deliver(make_email(1))
    worker.drain()
    with database.write() as session:
        training.promote(session, "first", actor="test")
    deliver(make_email(2))
    worker.drain()
    assert [b.adapter for b in briefs(database)] == ["", "first"]


def test_a_broken_champion_is_refused_and_the_line_goes_on(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    an_adapter(database, "broken", state="champion")
    deliver(make_email(1))
    worker = make_worker(RefusingEngine())
    assert worker.drain() == 1
    worker.sweep()
    with database.read() as session:
        [(beat, alive)] = processes.all_of(session)
    assert alive
    assert "the weights were changed" in beat.detail


def test_promotion_retires_the_one_before(database: Database) -> None:
    for name in ("one", "two"):
        an_adapter(database, name)
        with database.write() as session:
            training.promote(session, name, actor="test")
    with database.read() as session:
        assert {a.name: a.state for a in training.adapters(session)} == {"one": "retired", "two": "champion"}
