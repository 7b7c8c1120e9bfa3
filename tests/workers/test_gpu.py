"""workers/gpu.py: mail is briefed whatever the model does; only the email that cannot be is parked."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Thread

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import OutOfMemoryError, ServerAwayError
from briefbox.schemas import Brief as BriefValue
from briefbox.schemas import BriefRequest
from briefbox.settings import Settings
from briefbox.store import accounting, alerts, dead_letters, processes
from briefbox.tables import Email
from models.engine import FakeEngine
from tests.conftest import make_email
from tests.workers.conftest import Deliver, MakeWorker, briefs
from workers.away import AWAY_ALERT
from workers.gpu import SLOW_ALERT, BriefWorker
from workers.pace import Pace
from workers.watch import EXIT_CODE


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
    [[first, second]] = engine.history
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


def waits(database: Database) -> None:
    """Do not wait for the back-off after a failure."""
    with database.write() as session:
        for email in session.exec(select(Email)):
            email.not_before = email.created_at


def states(database: Database) -> list[tuple[str, int]]:
    """Each email's work state and counted attempts."""
    with database.read() as session:
        return [(e.work_state, e.attempts) for e in session.exec(select(Email).order_by(Email.id))]


# --- a misbehaving model


@pytest.mark.parametrize("how", ["nan_on", "break_on"])
def test_when_a_batch_fails_each_email_is_tried_alone_at_once(
    database: Database, deliver: Deliver, make_worker: MakeWorker, how: str
) -> None:
    deliver(make_email(1), make_email(2, body="POISON"), make_email(3))
    engine = FakeEngine(**{how: "POISON"})
    assert make_worker(engine).step() == 2
    assert [len(call) for call in engine.history] == [3, 1, 1, 1]
    assert states(database) == [("done", 1), ("waiting", 1), ("done", 1)]


def test_an_email_too_large_for_the_memory_is_briefed_by_half_of_its_text_and_says_so(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1), make_email(2, body="start " + "word " * 100), make_email(3))
    worker = make_worker(FakeEngine(most_chars=400), max_email_tokens=200)
    assert worker.step() == 3
    [cut] = [b for b in briefs(database) if b.cut]
    assert cut.omitted == [{"part": "newest", "emails": 1, "tokens": 64}]
    assert cut.request["text"].startswith("start word")
    assert len(cut.request["text"]) < 260
    with database.read() as session:
        assert dead_letters.unresolved(session) == []


def test_one_that_does_not_fit_even_by_half_is_parked_at_once_with_the_reason(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1, body="x" * 2000), make_email(2))
    assert make_worker(FakeEngine(most_chars=200)).drain() == 1
    with database.read() as session:
        [letter] = dead_letters.unresolved(session)
    assert "not even half of its text" in letter.reason
    assert states(database) == [("dead", 1), ("done", 1)]


class Short(FakeEngine):
    """Loses a brief of every larger batch."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        made = super().brief(requests, adapter)
        return made[1:] if len(made) > 1 else made


def test_an_engine_that_loses_a_brief_mixes_up_none(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1), make_email(2))
    assert make_worker(Short()).step() == 2
    assert [b.request["subject"] for b in briefs(database)] == ["Question number 1", "Question number 2"]


class Unstorable(FakeEngine):
    """Writes what no database takes about some emails."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        return [
            brief.model_copy(update={"summary": "half a \ud800 character"}) if "POISON" in r.text else brief
            for r, brief in zip(requests, super().brief(requests, adapter), strict=True)
        ]


def test_what_the_database_refuses_fails_alone(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1), make_email(2, body="POISON"), make_email(3))
    assert make_worker(Unstorable()).step() == 2
    assert states(database) == [("done", 1), ("waiting", 1), ("done", 1)]


class Broken(FakeEngine):
    """A device that is gone: every call fails in a way nobody foresaw."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        raise RuntimeError("device-side assert")


def test_a_broken_device_ends_the_process_before_it_fails_the_whole_queue(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(*(make_email(n) for n in range(1, 6)))
    ends: list[str] = []
    worker = make_worker(Broken())
    worker._end = ends.append
    assert worker.step() == 0
    [reason] = ends
    assert "errors that no email explains" in reason
    assert [attempts for _, attempts in states(database)] == [1, 1, 1, 0, 0]


HANGS = """
import sys
from briefbox.db import Database
from briefbox.settings import load_settings
from briefbox.store import processes
from models.engine import FakeEngine
from workers.gpu import BriefWorker
settings = load_settings(engine="fake", batch_timeout_seconds=1, lease_seconds=1)
worker = BriefWorker(Database(sys.argv[1]), settings, FakeEngine(hang_on="POISON"), processes.this_process("worker"))
print("done", worker.drain(), flush=True)
"""


def hang(database: Database, settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HANGS, database.engine.url.render_as_string(hide_password=False)],
        env=os.environ | {"BRIEFBOX_DATA_DIR": str(settings.data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_hanging_model_ends_the_process_and_the_email_is_parked_at_the_third_time(
    database: Database, settings: Settings, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1, body="POISON"))
    for attempt in (1, 2, 3):
        started = time.monotonic()
        done = hang(database, settings)
        assert done.returncode == EXIT_CODE, done.stderr
        assert time.monotonic() - started < 20
        assert "time.sleep" in done.stderr or "_misbehave" in done.stderr, "the stacks of all threads"
        assert states(database) == [("running", attempt)]
        time.sleep(1.1)  # its lease lapses
    make_worker().sweep()
    with database.read() as session:
        [letter] = dead_letters.unresolved(session)
    assert "died 3 times" in letter.reason
    deliver(make_email(2))
    assert make_worker().drain() == 1, "the line goes on"


class SlowOnce(FakeEngine):
    """Takes its time for one email."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        time.sleep(0.3 if any("SLOW" in r.text for r in requests) else 0.01)
        return super().brief(requests, adapter)


def test_a_worker_far_slower_than_itself_raises_an_alert_until_it_is_back(
    database: Database, deliver: Deliver, make_worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(SlowOnce(), batch_size=1)
    worker.pace = Pace(floor=0.05)
    deliver(*(make_email(n) for n in range(1, 11)))
    worker.drain()
    deliver(make_email(11, body="SLOW"))
    worker.drain()
    with database.read() as session:
        [alert] = alerts.open_alerts(session)
    assert alert.key == SLOW_ALERT
    assert "times its usual time" in caplog.text
    deliver(make_email(12))
    worker.drain()
    with database.read() as session:
        assert alerts.open_alerts(session) == []


def test_the_sign_of_life_tells_what_was_done(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(*(make_email(n) for n in range(1, 4)))
    make_worker().drain()
    with database.read() as session:
        [(beat, _)] = processes.all_of(session)
    assert re.search(r"3 emails done, the last batch of 3 took \d+\.\d s; bare base model", beat.detail)


def test_a_long_batch_is_alive_all_the_time(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(make_email(1))
    slow = make_worker(FakeEngine(seconds_per_email=2), lease_seconds=0.6)
    thread = Thread(target=slow.drain)
    thread.start()
    time.sleep(1.5)
    with database.read() as session:
        [(beat, alive)] = processes.all_of(session)
    thread.join()
    assert alive
    assert "1 s into a batch" in beat.detail


class Stopped(FakeEngine):
    """Is told to stop during its first batch."""

    worker: BriefWorker

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        if len(requests) > 1:
            raise OutOfMemoryError("one at a time")
        self.worker.stop.set()
        return super().brief(requests, adapter)


def test_a_stop_finishes_the_batch_that_runs_and_gives_the_rest_back_uncounted(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    deliver(*(make_email(n) for n in range(1, 5)))
    engine = Stopped()
    engine.worker = make_worker(engine)
    assert engine.worker.drain() == 1
    assert states(database) == [("done", 1), ("waiting", 0), ("waiting", 0), ("waiting", 0)]
    with database.read() as session:
        assert [f.name for f in accounting.audit(session) if f.broken] == []


def test_the_language_of_briefs_reaches_the_model(deliver: Deliver, make_worker: MakeWorker) -> None:
    engine = FakeEngine()
    deliver(make_email(1))
    make_worker(engine, brief_language="de").drain()
    deliver(make_email(2))
    make_worker(engine).drain()
    assert [request.written_in for call in engine.history for request in call] == ["de", ""]


def test_while_the_model_server_is_away_mail_waits_and_nobody_is_blamed(
    database: Database, deliver: Deliver, make_worker: MakeWorker
) -> None:
    class Away(FakeEngine):
        is_away = True

        def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
            if self.is_away:
                raise ServerAwayError("Nothing answers at http://127.0.0.1:8000/v1.")
            return super().brief(requests, adapter)

    deliver(make_email(1), make_email(2))
    engine = Away()
    worker = make_worker(engine)
    for _ in range(10):
        assert worker.sweep() == 0
    with database.read() as session:
        assert [(e.work_state, e.attempts) for e in session.exec(select(Email))] == [("waiting", 0)] * 2
        [alert] = alerts.open_alerts(session)
        assert alert.key == AWAY_ALERT
        assert "8000" in alert.text
    engine.is_away = False
    assert worker.sweep() == 2
    with database.read() as session:
        assert alerts.open_alerts(session) == []
