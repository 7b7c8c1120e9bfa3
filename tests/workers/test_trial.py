"""Briefs for a look: before all other mail, whatever goes wrong, and nothing of it is stored."""

from collections.abc import Sequence

import pytest

from briefbox.db import Database
from briefbox.errors import ServerAwayError
from briefbox.schemas import Brief, BriefRequest
from briefbox.settings import Settings
from briefbox.store import secrets, trials
from models.engine import FakeEngine
from tests.conftest import make_email
from tests.workers.conftest import Deliver, MakeAdapter, MakeWorker, briefs


def offer(database: Database, settings: Settings, number: int = 3) -> str:
    wanted = [
        BriefRequest(subject=f"Order {n}", sender="Bo", text=f"Where is order {n}?", categories=())
        for n in range(number)
    ]
    with database.write() as session:
        return trials.create(session, secrets.cipher(settings), wanted)


def taken(database: Database, settings: Settings, key: str) -> trials.Outcome:
    with database.write() as session:
        return trials.take(session, secrets.cipher(settings), key)


def test_it_comes_before_other_mail_and_leaves_nothing(
    database: Database, settings: Settings, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1))
    key, engine = offer(database, settings), FakeEngine()
    assert make_worker(engine).drain() == 1
    assert [len(batch) for batch in engine.history] == [3, 1]
    assert len(briefs(database)) == 1, "of the mail that is stored"
    found = taken(database, settings, key)
    assert [b.headline for b in found.briefs] == ["Order 0", "Order 1", "Order 2"]


def test_it_is_read_with_the_adapter_in_use(
    database: Database, settings: Settings, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("a1", "champion")
    key = offer(database, settings)
    make_worker().drain()
    assert {b.provenance.adapter for b in taken(database, settings, key).briefs} == {"a1"}


def test_too_many_for_the_memory_are_read_in_parts(
    database: Database, settings: Settings, make_worker: MakeWorker
) -> None:
    key = offer(database, settings, 10)
    make_worker(FakeEngine(most_at_once=3)).drain()
    assert len(taken(database, settings, key).briefs) == 10


def test_an_error_is_told_and_other_mail_goes_on(
    database: Database, settings: Settings, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1))
    key = offer(database, settings)
    assert make_worker(FakeEngine(fail_on="order 2")).drain() == 1
    found = taken(database, settings, key)
    assert found.state == "failed"
    assert "order 2" in found.error


class Away(FakeEngine):
    """A model server that does not answer."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[Brief]:
        raise ServerAwayError("It does not answer.")


def test_while_the_model_server_is_away_it_waits(
    database: Database, settings: Settings, make_worker: MakeWorker
) -> None:
    key = offer(database, settings)
    worker = make_worker(Away())
    worker.drain()
    assert worker.server.paused
    assert taken(database, settings, key).state == "waiting"


@pytest.mark.parametrize("number", [0, 1])
def test_few_are_no_trouble(
    database: Database, settings: Settings, make_worker: MakeWorker, number: int
) -> None:
    key = offer(database, settings, number)
    make_worker().drain()
    assert len(taken(database, settings, key).briefs) == number
