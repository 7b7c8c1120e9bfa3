"""What people ask for on the desk is done by the training worker: a look, a run, a roll-back with its proof."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.store import training_requests
from briefbox.tables import Adapter, Dataset, Promotion, RollBackRequest, TrainingRequest, TrainingRun
from tests.conftest import make_email
from tests.training.conftest import Support
from training import requests, rollback
from training.lease import MAX_POINTS, with_point


def ask(database: Database, kind: training_requests.Kind) -> int:
    with database.write() as session:
        return training_requests.ask(session, kind, actor="rea@x.example").id


def request(database: Database, number: int) -> TrainingRequest:
    with database.read() as session:
        return session.get_one(TrainingRequest, number)


def champion(database: Database, name: str) -> None:
    with database.write() as session:
        session.add(
            Adapter(
                name=name,
                path=name,
                base_model="m",
                weights_sha256="0",
                state="champion",
                created_at=datetime.now(UTC),
            )
        )


def test_a_look_writes_nothing(database: Database, settings: Settings, support: Support) -> None:
    brief = support.brief(make_email(1))
    support.correct(brief, "priority", "urgent")
    support.correct(support.brief(make_email(2), done=False), "priority", "low")
    number = ask(database, "look")
    assert requests.serve(database, settings) == 1
    found = request(database, number)
    assert found.state == "done"
    assert found.report["examples"] == 1
    assert found.report["unfinished"] == 1
    assert found.report["counts"]["changed"] == {"priority": 1}
    with database.read() as session:
        assert session.exec(select(Dataset)).all() == []
    assert list((settings.data_dir / "datasets").glob("*.jsonl")) == []
    assert requests.serve(database, settings) == 0


def test_train_now_harvests_and_asks_for_a_run(
    database: Database, settings: Settings, support: Support
) -> None:
    support.correct(support.brief(make_email(1)), "priority", "urgent")
    number = ask(database, "train")
    requests.serve(database, settings)
    found = request(database, number)
    assert found.state == "done"
    with database.write() as session:
        run = session.get_one(TrainingRun, found.training_run_id)
        # Whoever asked started it: somebody else promotes.
        assert (run.created_by, run.cause, run.state) == ("rea@x.example", "person", "waiting")
        run.state = "done"
    again = ask(database, "train")
    requests.serve(database, settings)
    assert "There is nothing new: the same 1 examples" in request(database, again).error


def test_nothing_to_learn_from_is_said(database: Database, settings: Settings) -> None:
    number = ask(database, "train")
    requests.serve(database, settings)
    assert request(database, number).error == requests.NOTHING


def test_an_unexpected_error_ends_the_request_and_not_the_worker(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr(requests, "gather", broken)
    number = ask(database, "look")
    assert requests.serve(database, settings) == 1
    assert "unexpected error (ValueError: odd)" in request(database, number).error


def test_roll_back_to_the_bare_base_stores_its_proof(database: Database, settings: Settings) -> None:
    champion(database, "a")
    with database.write() as session:
        number = training_requests.ask_roll_back(session, actor="ada@x.example").id
    assert requests.serve(database, settings) == 1
    with database.read() as session:
        row = session.get_one(RollBackRequest, number)
        assert row.state == "done", row.error
        promotion = session.get_one(Promotion, row.promotion_id)
        assert (promotion.kind, promotion.adapter, promotion.actor) == ("rollback", "", "ada@x.example")
        assert promotion.proof["of"] == 24


def test_a_worker_that_lost_its_lease_rolls_nothing_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion(database, "a")
    with database.write() as session:
        number = training_requests.ask_roll_back(session, actor="ada@x.example").id

    def taken_over(*_: object, **__: object) -> tuple[dict[str, object], str]:
        with database.write() as session:
            row = session.get_one(RollBackRequest, number)
            row.lease_until = datetime.now(UTC) + timedelta(minutes=20)
            session.add(row)
        return {}, "proven"

    monkeypatch.setattr(rollback, "_proof", taken_over)
    requests.serve(database, settings)
    with database.read() as session:
        assert session.get_one(RollBackRequest, number).state == "running", "it is another worker's now"
        assert session.exec(select(Adapter.state)).one() == "champion"
        assert session.exec(select(Promotion)).all() == []


def test_roll_back_that_cannot_be_proven_says_why_and_changes_nothing(
    database: Database, settings: Settings
) -> None:
    with database.write() as session:
        for name, state in (("a", "retired"), ("b", "champion")):
            session.add(
                Adapter(
                    name=name,
                    path=f"adapters/{name}",
                    base_model="m",
                    weights_sha256="0",
                    state=state,
                    created_at=datetime.now(UTC),
                )
            )
        session.add(Promotion(adapter="a", kind="promote", created_at=datetime.now(UTC)))
        session.add(Promotion(adapter="b", before="a", kind="promote", created_at=datetime.now(UTC)))
        number = training_requests.ask_roll_back(session, actor="ada").id
    requests.serve(database, settings)
    with database.read() as session:
        row = session.get_one(RollBackRequest, number)
        assert row.state == "failed"
        assert row.error
        assert session.exec(select(Adapter.state).where(Adapter.name == "b")).one() == "champion"


def test_the_curve_is_thinned_and_keeps_its_ends() -> None:
    curve: list[list[float]] = []
    for step in range(1, 1501):
        curve = with_point(curve, step, 10 / step)
        assert len(curve) <= MAX_POINTS
    assert (curve[0], curve[-1][0]) == ([1.0, 10.0], 1500.0)
    # A later attempt goes on from a checkpoint.
    assert [p[0] for p in with_point(curve, 700, 1.0)][-1] == 700.0
