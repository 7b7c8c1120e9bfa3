"""workers/away.py: while the model server is away nobody's mail is blamed; an email that breaks the server is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import ModelError, ServerAwayError
from briefbox.schemas import Brief as BriefValue
from briefbox.schemas import BriefRequest
from briefbox.store import alerts, dead_letters, processes
from briefbox.tables import Email
from models.engine import FakeEngine
from tests.conftest import make_email
from tests.workers.conftest import Deliver, MakeAdapter, MakeWorker, briefs
from workers.away import AWAY_ALERT


class Server(FakeEngine):
    """An engine whose server goes away and comes back."""

    away = False  # neither lists models nor briefs
    loading = False  # lists models, but briefs nothing
    breaks_on = ""  # this text makes it answer as if it were away
    away_after: int | None = None  # so many more briefs, then it is away
    num_calls = 0

    def warm_up(self) -> None:
        if self.away:
            raise ServerAwayError("Nothing answers at 127.0.0.1:8000.")

    def load_adapter(self, path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        self.warm_up()
        return super().load_adapter(path, name, expected_sha256)

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        self.num_calls += 1
        if self.away_after is not None and self.num_calls > self.away_after:
            self.away = True
        if self.away or self.loading or (self.breaks_on and any(self.breaks_on in r.text for r in requests)):
            raise ServerAwayError("Nothing answers at 127.0.0.1:8000.")
        return super().brief(requests, adapter)


def states(database: Database) -> list[tuple[str, int]]:
    with database.read() as session:
        return [(e.work_state, e.attempts) for e in session.exec(select(Email).order_by(Email.id))]


def open_keys(database: Database) -> list[str]:
    with database.read() as session:
        return [alert.key for alert in alerts.open_alerts(session)]


@pytest.mark.parametrize("how", ["away", "loading"])
def test_mail_waits_uncounted_and_is_briefed_when_the_server_is_back(
    database: Database,
    deliver: Deliver,
    make_worker: MakeWorker,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    deliver(make_email(1), make_email(2))
    engine = Server()
    setattr(engine, how, True)
    worker = make_worker(engine)
    for _ in range(10):
        assert worker.sweep() == 0
    assert states(database) == [("waiting", 0), ("waiting", 0)]
    assert open_keys(database) == [AWAY_ALERT]
    assert [r.levelname for r in caplog.records if "until the model server" in r.message] == ["WARNING"]
    with database.read() as session:
        [(beat, _)] = processes.all_of(session)
    assert "model server is away" in beat.detail
    setattr(engine, how, False)
    assert worker.sweep() == 2
    assert states(database) == [("done", 1), ("done", 1)]
    assert open_keys(database) == []


def test_hints_wait_for_the_next_sweep(database: Database, deliver: Deliver, make_worker: MakeWorker) -> None:
    deliver(make_email(1))
    engine = Server()
    engine.away = True
    worker = make_worker(engine)
    worker.sweep()
    before = engine.num_calls
    for _ in range(5):
        assert worker.drain() == 0
    assert engine.num_calls == before
    worker.sweep()
    assert engine.num_calls == before, "a server that lists no models is asked for no brief"


def test_what_was_briefed_before_it_went_away_is_kept(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1), make_email(2), make_email(3))
    engine = Server(most_at_once=1)
    engine.away_after = 3  # all three, one and two, one
    assert make_worker(engine).drain() == 1
    assert states(database) == [("done", 1), ("waiting", 0), ("waiting", 0)]


def test_an_email_that_breaks_the_server_each_time_is_parked_and_the_others_are_briefed(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1), make_email(2, body="POISON"), make_email(3))
    engine = Server()
    engine.breaks_on = "POISON"
    worker = make_worker(engine)
    for _ in range(4):
        worker.sweep()
        with database.write() as session:  # do not wait for the back-off
            for email in session.exec(select(Email)):
                email.not_before = email.created_at
    assert states(database) == [("done", 1), ("dead", 3), ("done", 1)]
    with database.read() as session:
        [letter] = dead_letters.unresolved(session)
    assert "Nothing answers" in letter.reason
    assert open_keys(database) == []


def test_no_adapter_is_refused_for_a_server_that_is_away(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("mine", "champion")
    deliver(make_email(1))
    engine = Server()
    engine.away = True
    worker = make_worker(engine)
    assert worker.drain() == 0  # the adapter is loaded for the claim
    assert worker.sweep() == 0
    assert (states(database), open_keys(database)) == ([("waiting", 0)], [AWAY_ALERT])
    engine.away = False
    assert worker.sweep() == 1
    assert [brief.adapter for brief in briefs(database)] == ["mine"]
    assert open_keys(database) == []


def test_a_server_that_comes_back_with_another_key_is_still_away(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    class Refusing(Server):
        def warm_up(self) -> None:
            raise ModelError("The model server at 127.0.0.1:8000 answered 401.")

    deliver(make_email(1))
    engine = Refusing()
    engine.away = True
    worker = make_worker(engine)
    for _ in range(3):
        worker.sweep()
    assert states(database) == [("waiting", 0)]
    with database.read() as session:
        [alert] = alerts.open_alerts(session)
    assert "401" in alert.text
