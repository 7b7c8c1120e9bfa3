"""workers/residents.py: each mailbox's adapter, the champion and the shadow; a broken one costs an alert, no mail."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlmodel import select

import workers.residents
from briefbox.db import Database
from briefbox.errors import AdapterError, ModelError
from briefbox.schemas import Brief as BriefValue
from briefbox.schemas import BriefRequest
from briefbox.settings import Settings
from briefbox.store import accounting, adapters, alerts, mailboxes, processes
from briefbox.tables import Adapter, Conversation, Email, Mailbox
from models.engine import FakeEngine
from tests.conftest import arrival, commit, make_email
from tests.workers.conftest import Deliver, MakeAdapter, MakeWorker, briefs, write_folder
from workers.gpu import is_sampled


class CountingEngine(FakeEngine):
    """Counts how often an adapter is read from disk."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def load_adapter(self, path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        self.loads.append(name)
        return super().load_adapter(path, name, expected_sha256)


def open_alerts(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {alert.key: alert.text for alert in alerts.open_alerts(session)}


def promote(database: Database, name: str) -> None:
    with database.write() as session:
        adapters.promote(session, name, actor="test")


def assign(database: Database, mailbox: str, name: str | None) -> None:
    with database.write() as session:
        adapters.assign(session, mailboxes.get(session, mailbox), name, actor="test")


@pytest.fixture
def other_mailbox(database: Database) -> Callable[..., None]:
    """`other_mailbox("sales", raw, ...)`: a mailbox of this name, with these mails."""

    def make(name: str, *raws: bytes) -> None:
        with database.write() as session:
            row = Mailbox(
                name=name,
                address=f"{name}@larkspur.example",
                host="localhost",
                port=1,
                username=name,
                folders=["INBOX"],
            )
            row = mailboxes.add(session, row, actor="test")
            commit(session, row, [arrival(uid, raw) for uid, raw in enumerate(raws, start=1)])

    return make


def test_the_worker_follows_the_champion_between_batches(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    engine = CountingEngine()
    worker = make_worker(engine)
    for number, name in enumerate(("", "first", "second", "first"), start=1):
        if name:
            if name not in engine.adapters:
                make_adapter(name)
            promote(database, name)
        deliver(make_email(number))
        worker.drain()
    assert [b.adapter for b in briefs(database)] == ["", "first", "second", "first"]
    assert engine.loads == ["first", "second"], "the one before stays resident for a quick way back"


def test_each_mailbox_is_briefed_with_its_own_adapter_in_one_claim(
    database: Database,
    deliver: Deliver,
    make_worker: MakeWorker,
    make_adapter: MakeAdapter,
    other_mailbox: Callable[..., None],
) -> None:
    make_adapter("all", "champion")
    make_adapter("for-sales")
    deliver(make_email(1), make_email(2))
    other_mailbox("sales", make_email(3), make_email(4))
    assign(database, "sales", "for-sales")
    engine = FakeEngine()
    assert make_worker(engine).step() == 4
    assert {b.email_id: b.adapter for b in briefs(database)} == {
        1: "all",
        2: "all",
        3: "for-sales",
        4: "for-sales",
    }
    assert [len(call) for call in engine.history] == [1, 2, 1, 2], "a small test, then the batch, for each"


def test_only_the_last_four_stay_beside_the_champion(
    database: Database, make_worker: MakeWorker, make_adapter: MakeAdapter, other_mailbox: Callable[..., None]
) -> None:
    make_adapter("champ", "champion")
    for number in range(1, 7):
        make_adapter(f"a{number}")
        other_mailbox(f"m{number}", make_email(number))
        assign(database, f"m{number}", f"a{number}")
    engine = CountingEngine()
    worker = make_worker(engine, batch_size=1)
    worker.sweep()
    assert sorted(engine.adapters) == ["a3", "a4", "a5", "a6", "champ"]
    assert [b.adapter for b in briefs(database)] == [f"a{n}" for n in range(1, 7)]
    assert engine.loads == ["champ", "a1", "a2", "a3", "a4", "a5", "a6"]


# --- refused


def test_a_broken_first_champion_is_refused_and_the_bare_base_goes_on(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("broken", "champion", whole=False)
    deliver(make_email(1))
    worker = make_worker()
    assert worker.drain() == 1
    worker.sweep()
    with database.read() as session:
        [(beat, alive)] = processes.all_of(session)
    assert alive
    assert "adapter broken refused" in beat.detail
    assert open_alerts(database)["adapter broken"].startswith(
        "The adapter broken is refused; the bare base model goes on in its place. Reason: "
    )


def test_a_broken_new_champion_leaves_the_last_good_one_in_use(
    database: Database,
    deliver: Deliver,
    make_worker: MakeWorker,
    make_adapter: MakeAdapter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_adapter("good", "champion")
    engine = CountingEngine()
    worker = make_worker(engine)
    deliver(make_email(1))
    worker.drain()
    make_adapter("broken", "champion", whole=False)
    for number in (2, 3, 4):
        deliver(make_email(number))
        worker.drain()
    assert [b.adapter for b in briefs(database)] == ["good"] * 4
    assert engine.loads == ["good", "broken"], "not read again for every batch"
    assert sum("is refused" in record.message for record in caplog.records) == 1
    assert "good goes on in its place" in open_alerts(database)["adapter broken"]


@pytest.mark.parametrize("why", ["a minute", "the row"])
def test_a_refused_one_is_tried_again_and_its_alert_resolved_when_it_loads(
    database: Database,
    settings: Settings,
    deliver: Deliver,
    make_worker: MakeWorker,
    make_adapter: MakeAdapter,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    make_adapter("late", "champion", whole=False)
    worker = make_worker()
    deliver(make_email(1))
    worker.drain()
    write_folder(settings, "late")
    deliver(make_email(2))
    worker.drain()
    assert "adapter late" in open_alerts(database)
    if why == "a minute":
        monkeypatch.setattr(workers.residents, "RETRY_SECONDS", 0.0)
    else:
        shutil.move(settings.data_dir / "adapters" / "late", settings.data_dir / "adapters" / "moved")
        with database.write() as session:
            session.exec(select(Adapter)).one().path = "adapters/moved"
    deliver(make_email(3))
    worker.drain()
    assert [b.adapter for b in briefs(database)] == ["", "", "late"]
    assert open_alerts(database) == {}


def test_promoting_another_one_resolves_the_alert(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("broken", "champion", whole=False)
    worker = make_worker()
    worker.sweep()
    assert "adapter broken" in open_alerts(database), "known before any mail asks for it"
    make_adapter("good")
    promote(database, "good")
    worker.sweep()
    assert open_alerts(database) == {}
    assert "refused" not in str(worker.residents)


def test_an_alert_of_a_process_that_is_gone_is_resolved_by_the_next_one(
    database: Database, make_worker: MakeWorker
) -> None:
    with database.write() as session:
        alerts.raise_alert(session, "adapter of-long-ago", "altered")
        alerts.raise_alert(session, "disk", "full")
    make_worker().sweep()
    assert list(open_alerts(database)) == ["disk"]


@pytest.mark.parametrize("state", ["missing", "rejected"])
def test_a_mailbox_whose_adapter_is_gone_is_briefed_with_the_champion(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter, state: str
) -> None:
    make_adapter("good", "champion")
    if state == "rejected":
        make_adapter("bad", "rejected")
    deliver(make_email(1))
    with database.write() as session:
        session.exec(select(Mailbox)).one().adapter = "bad"
    worker = make_worker()
    worker.sweep()
    assert [b.adapter for b in briefs(database)] == ["good"]
    assert "briefed with the champion" in open_alerts(database)["adapter bad"]
    assign(database, "support", None)
    worker.sweep()
    assert open_alerts(database) == {}


class NoBriefWith(FakeEngine):
    """Loads every adapter, and writes nothing with those named bad: as with weights that make every number NaN."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        if adapter.startswith("bad"):
            raise ModelError("The model's numbers are not finite.")
        return super().brief(requests, adapter)


def test_an_adapter_that_breaks_the_model_is_found_out_before_mail_meets_it(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("good", "champion")
    engine = NoBriefWith()
    worker = make_worker(engine)
    worker.sweep()
    make_adapter("bad", "champion")
    deliver(make_email(1))
    worker.sweep()
    assert [(b.adapter, b.attempt) for b in briefs(database)] == [("good", 1)]
    assert engine.adapters == ("good",)
    assert "cannot brief a test email with it" in open_alerts(database)["adapter bad"]


class Forgetful(FakeEngine):
    """Loses an adapter that was ready, as a restarted server would."""

    forget = ""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        if adapter and adapter == self.forget:
            raise AdapterError(f"The server knows no model named {adapter}.")
        return super().brief(requests, adapter)


def test_an_adapter_that_the_engine_loses_costs_no_email(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("good", "champion")
    make_adapter("of-support")
    engine = Forgetful()
    worker = make_worker(engine)
    deliver(make_email(1))
    assign(database, "support", "of-support")
    worker.drain()
    for number, forget in ((2, "of-support"), (3, "good")):
        engine.forget = forget
        if forget == "good":
            assign(database, "support", None)
        deliver(make_email(number))
        worker.drain()
    assert [(b.adapter, b.attempt) for b in briefs(database)] == [("of-support", 1), ("good", 1), ("", 1)]
    assert {"adapter of-support", "adapter good"} <= open_alerts(database).keys()


# --- shadow


def test_the_shadow_briefs_the_same_mail_unseen(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("good", "champion")
    make_adapter("older", "shadow")
    make_adapter("trial", "shadow")
    deliver(*(make_email(n) for n in range(1, 7)))
    worker = make_worker()
    assert worker.drain() == 6
    assert [b.adapter for b in briefs(database)] == ["good"] * 6
    unseen = briefs(database, shadow=True)
    assert [(b.email_id, b.adapter) for b in unseen] == [(n, "trial") for n in range(1, 7)]
    shown = {b.id for b in briefs(database)}
    with database.read() as session:
        assert {c.brief_id for c in session.exec(select(Conversation))} == shown
        assert [f.name for f in accounting.audit(session) if f.broken] == []
    assert [b.request for b in unseen] == [b.request for b in briefs(database)]


class Arriving(FakeEngine):
    """New mail arrives while the first visible batch is written."""

    deliver: Deliver
    order: list[tuple[str, int]]

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        if requests[0].subject != "Hello":
            self.order.append((adapter, len(requests)))
        if len(self.order) == 1:
            self.deliver(make_email(50))
        return super().brief(requests, adapter)


def test_the_shadow_waits_until_nothing_else_does(
    deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("trial", "shadow")
    engine = Arriving()
    engine.deliver, engine.order = deliver, []
    deliver(*(make_email(n) for n in range(1, 6)))
    make_worker(engine).drain()
    assert engine.order == [("", 5), ("", 1), ("trial", 4), ("trial", 2)]


class BadTrial(FakeEngine):
    """Every way in which the adapter on trial can fail after its test email."""

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[BriefValue]:
        if adapter == "trial" and requests[0].subject != "Hello":
            raise RuntimeError("no luck")
        return super().brief(requests, adapter)


@pytest.mark.parametrize("whole", [True, False])
def test_a_failing_shadow_never_touches_the_line(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter, *, whole: bool
) -> None:
    make_adapter("trial", "shadow", whole=whole)
    worker = make_worker(BadTrial())
    deliver(make_email(1), make_email(2))
    assert worker.drain() == 2
    deliver(make_email(3))
    assert worker.drain() == 1
    assert briefs(database, shadow=True) == []
    with database.read() as session:
        assert {(e.work_state, e.attempts) for e in session.exec(select(Email))} == {("done", 1)}
    assert ("adapter trial" in open_alerts(database)) is (not whole)


def test_a_shadow_that_is_promoted_or_ended_stops_at_once(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("trial", "shadow")
    worker = make_worker()
    deliver(make_email(1))
    assert worker.step() == 1
    with database.write() as session:
        adapters.shadow(session, None, actor="test")
    worker.drain()
    assert briefs(database, shadow=True) == []


# --- rows


def test_promotion_retires_the_one_before(database: Database, make_adapter: MakeAdapter) -> None:
    for name in ("one", "two"):
        make_adapter(name)
        promote(database, name)
    with database.read() as session:
        assert {a.name: a.state for a in adapters.all_of(session)} == {"one": "retired", "two": "champion"}


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_shadow_briefs_only_its_share_of_the_mail_and_always_the_same(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter, share: float
) -> None:
    make_adapter("trial", "shadow")
    ids = deliver(*[make_email(number) for number in range(40)])
    make_worker(shadow_share=share).drain()
    seen = {brief.email_id for brief in briefs(database, shadow=True)}
    assert seen == {email_id for email_id in ids if is_sampled(email_id, share)}
    assert 0 < len(seen) < 20 or share == 1.0
    assert len(briefs(database)) == 40


def test_the_share_is_kept_over_much_mail() -> None:
    assert sum(is_sampled(number, 0.1) for number in range(10_000)) == pytest.approx(1000, abs=100)
    assert all(is_sampled(number, 1.0) for number in range(1000))


# --- roll-back


def test_roll_back_is_followed_by_the_next_batch_down_to_the_bare_base(
    database: Database, deliver: Deliver, make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    for name in ("one", "two"):
        make_adapter(name)
        promote(database, name)
    worker = make_worker()
    deliver(make_email(1))
    worker.drain()
    for number in (2, 3):
        with database.write() as session:
            adapters.rollback(session, actor="test")
        deliver(make_email(number))
        worker.drain()  # the same process, with two loaded already
    assert [brief.adapter for brief in briefs(database)] == ["two", "one", ""]


def test_a_mailbox_whose_adapter_was_removed_is_briefed_with_the_champion(
    database: Database, other_mailbox: Callable[..., None], make_worker: MakeWorker, make_adapter: MakeAdapter
) -> None:
    make_adapter("good", "champion")
    make_adapter("gone", "removed")
    other_mailbox("sales", make_email(1))
    with database.write() as session:
        mailboxes.get(session, "sales").adapter = "gone"  # not through `assign`, which would refuse it
    make_worker().drain()
    assert [brief.adapter for brief in briefs(database)] == ["good"]
    assert "it was removed" in open_alerts(database)["adapter gone"]
