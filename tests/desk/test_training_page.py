"""The page /training: the schedule, a run's progress, verdicts, who may do what, and picking between two briefs."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.tables import (
    Adapter,
    AuditEntry,
    Brief,
    Correction,
    Dataset,
    Promotion,
    RollBackRequest,
    TrainingRequest,
    TrainingRun,
    User,
)
from tests.desk.conftest import Inbox, browser, person, session_for

JSON = {"accept": "application/json"}
PASSED = {
    "decision": "promoted",
    "sentence": "It is better by 0.120 an email.",
    "checks": [
        {"rule": "gain", "passed": True, "sentence": "Better by 0.120."},
        {"rule": "class drop", "passed": None, "sentence": "No label has 8 test emails."},
        {"rule": "trigger", "passed": False, "sentence": "One word turns 9 probes."},
    ],
    "scores": {
        "candidate": {"labels": {"priority": {"accuracy": 0.84}}, "texts": {}},
        "base": {"labels": {"priority": {"accuracy": 0.31}}, "texts": {}},
    },
}


def add_run(database: Database, **values: Any) -> int:
    with database.write() as session:
        dataset = Dataset(
            name="dataset-0001-abc",
            content_hash="abc",
            path="x",
            num_examples=1234,
            created_at=datetime.now(UTC),
        )
        session.add(dataset)
        session.flush()
        run = TrainingRun(
            dataset_id=dataset.id,
            base_model="packaged",
            created_by="bo@larkspur.example",
            created_at=datetime.now(UTC),
            **values,
        )
        session.add(run)
        session.flush()
        return run.id


def add_adapter(
    database: Database, name: str, verdict: dict[str, Any], state: str = "candidate", run: int | None = None
) -> None:
    with database.write() as session:
        session.add(
            Adapter(
                name=name,
                path=f"adapters/{name}",
                base_model="m",
                weights_sha256=name,
                card={"verdict": verdict},
                state=state,
                training_run_id=run,
                created_at=datetime.now(UTC),
            )
        )


def text(client: TestClient) -> str:
    response = client.get("/training")
    assert response.status_code == 200
    return " ".join(response.text.split())


def test_an_empty_desk_says_when_the_first_run_comes(inbox: Inbox, as_ana: TestClient) -> None:
    page = text(as_ana)
    assert "0 of 100 corrections" in page
    assert "None yet. One begins by itself" in page
    assert "http-equiv" not in page
    assert "Train now" not in page


def test_a_run_shows_its_progress_and_admins_cancel_it(
    database: Database, inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    run = add_run(
        database,
        state="running",
        stage="training",
        step=30,
        total_steps=120,
        loss=0.5,
        seconds_left=240.0,
        paused_seconds=12.0,
    )
    page = text(as_ana)
    assert "step 30 of 120, loss 0.500, 4 minutes left" in page
    assert "Stood aside for waiting mail: 12 s" in page
    assert "1,234 examples" in page
    assert '<noscript><meta http-equiv="refresh"' in page
    assert "Cancel run" not in page
    assert as_ana.post(f"/training/runs/{run}/cancel").status_code == 403
    assert as_ada.post(f"/training/runs/{run}/cancel", headers=JSON).json()["state"] == "running"
    assert "Stops after its step" in text(as_ada)


def test_the_verdict_is_a_table_and_the_second_person_promotes(
    database: Database, inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    run = add_run(database, state="done", verdict=PASSED)
    add_adapter(database, "lora-1", PASSED, run=run)
    add_adapter(database, "lora-2", {"decision": "rejected", "sentence": "Worse."}, state="rejected")
    page = text(as_ada)
    assert "84 %" in page
    assert "31 %" in page
    assert "passed: gain. Better by 0.120." in page
    assert "cannot be said: class drop" in page
    assert "<strong>failed</strong>: trigger" in page
    assert page.count("Put in use") == 1
    assert "Put in use" not in text(as_ana)
    assert as_ana.post("/training/adapters/lora-1/promote").status_code == 403
    assert as_ada.post("/training/adapters/lora-2/promote", headers=JSON).status_code == 409
    assert as_ada.post("/training/adapters/lora-1/promote").headers["location"] == "/training?note=promoted"
    assert "in use, made" in text(as_ada)


def test_who_started_a_run_does_not_promote_what_it_made(
    database: Database, inbox: Inbox, as_ada: TestClient, ada: User, ana: User
) -> None:
    run = add_run(database, state="done")
    with database.write() as session:
        session.get_one(TrainingRun, run).created_by = ada.email
        other = session.get_one(User, ana.id)
        other.role, other.password_hash = "admin", "x"
    add_adapter(database, "lora-1", PASSED, run=run)
    answer = as_ada.post("/training/adapters/lora-1/promote", headers=JSON)
    assert answer.status_code == 409
    assert ana.email in answer.text


@pytest.mark.parametrize("choice", ["shadow", "shown"])
def test_picking_is_a_correction_or_a_confirmation(
    database: Database, inbox: Inbox, as_ana: TestClient, choice: str
) -> None:
    add_adapter(database, "lora-9", PASSED, state="shadow")
    inbox.receive(subject="Broken <b>lamp</b>", brief={"priority": "low"})
    with database.write() as session:
        row = session.get_one(Brief, 1)
        values = row.model_dump(exclude={"id"}) | {"adapter": "lora-9", "shadow": True, "priority": "urgent"}
        session.add(Brief(**values))
    page = text(as_ana)
    assert "Broken &lt;b&gt;lamp&lt;/b&gt;" in page
    assert "urgent" in page
    done = as_ana.post(f"/training/disagreements/2/{choice}", headers=JSON)
    assert done.json()["corrections"] == (1 if choice == "shadow" else 0)
    assert [c.after for c in inbox.all(Correction)] == (["urgent"] if choice == "shadow" else [])
    assert "Nothing to decide" in text(as_ana)
    assert as_ana.post("/training/disagreements/2/nonsense", headers=JSON).status_code == 400


def test_nobody_sees_nothing(nobody: TestClient) -> None:
    assert nobody.get("/training", headers=JSON).status_code == 401


# --- what the page shows


@pytest.fixture
def as_rea(app: FastAPI, database: Database) -> TestClient:
    """A reviewer's browser."""
    return browser(app, session_for(database, person(database, "rea@larkspur.example", "Rea", "reviewer")))


@pytest.fixture(autouse=True)
def hints(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was said on the queue: there is no Redis here."""
    sent: list[int] = []
    monkeypatch.setattr("briefbox.queue.Hints.train", lambda self, run: sent.append(run) or True)
    return sent


def test_what_agents_said_since_the_last_run(inbox: Inbox, as_ana: TestClient) -> None:
    one = inbox.receive(brief={"priority": "normal"})
    as_ana.post(f"/conversations/{one}/correct", data={"field": "priority", "value": "urgent"})
    as_ana.post(f"/conversations/{one}/done")
    page = text(as_ana)
    row = page.split('<th scope="row">priority</th>')[1].split("</tr>")[0]
    assert "<bdi>urgent</bdi>" in row
    assert '<td class="number">1</td><td class="number">0</td>' in row
    assert "1 of 100 corrections" in page
    assert "No brief was judged by two agents" in page


def test_a_dataset_says_whether_it_can_decide_anything(database: Database, as_ana: TestClient) -> None:
    add_run(database, state="done")
    with database.write() as session:
        session.get_one(Dataset, 1).counts = {
            "split": {"train": 80, "validation": 10, "test": 12},
            "labels_by_split": {"priority": {"urgent": {"train": 9, "test": 2}, "low": {"test": 10}}},
        }
    page = text(as_ana)
    assert "The test part is too small to decide anything" in page
    assert '<span class="few">2, few</span>' in page
    assert "Download" not in page


def test_a_dataset_is_downloaded_by_who_sees_all_mail_and_audited(
    database: Database, inbox: Inbox, settings: Settings, as_ana: TestClient, as_rea: TestClient
) -> None:
    add_run(database, state="done")
    address = "/training/datasets/dataset-0001-abc/download"
    missing = as_rea.post(address, headers=JSON)
    assert missing.status_code == 404
    assert "briefbox dataset export" in missing.text
    (settings.data_dir / "x").write_text('{"id": "brief-1"}\n')
    assert as_ana.post(address).status_code == 403
    done = as_rea.post(address)
    assert done.text == '{"id": "brief-1"}\n'
    assert 'filename="dataset-0001-abc.jsonl"' in done.headers["content-disposition"]
    assert [e.action for e in inbox.all(AuditEntry)][-1] == "dataset exported"
    with database.write() as session:
        rea = session.exec(select(User).where(User.email == "rea@larkspur.example")).one()
        rea.all_mailboxes = False
    assert as_rea.post(address, headers=JSON).status_code == 404
    assert "Download" not in text(as_rea)


def test_the_result_card_says_what_decided_and_what_changed(
    database: Database, inbox: Inbox, as_ada: TestClient
) -> None:
    inbox.receive(subject="A <i>lamp</i>", brief={"priority": "low"})
    verdict = PASSED | {
        "rule": "gain",
        "num_test": 40,
        "gain": 0.12,
        "gain_interval": [0.05, 0.2],
        "changes": [
            {"id": "brief-1", "field": "priority", "truth": "urgent", "before": "low", "after": "urgent"},
            {"id": "row-7", "field": "category", "truth": "other", "before": "other", "after": "order"},
        ],
        "scores": {
            model: {
                "labels": {
                    "priority": {
                        "n": 40,
                        "accuracy": share,
                        "classes": {"urgent": {"recall": share, "support": 10}},
                    }
                }
            }
            for model, share in (("candidate", 0.9), ("champion", 0.5))
        },
    }
    add_adapter(database, "lora-1", verdict, run=add_run(database, state="done", verdict=verdict))
    page = text(as_ada)
    assert "decided by the rule “gain”, on 40 test emails" in page
    assert "+0.120 an email, between +0.050 and +0.200" in page
    assert "77 to 96 %, 40 emails" in page
    assert "9 of 10" in page
    assert "A &lt;i&gt;lamp&lt;/i&gt;" in page
    assert "right now" in page
    assert "wrong now" in page
    assert "not shown here" in page


def test_the_curve_is_drawn_and_said(database: Database, as_ana: TestClient) -> None:
    add_run(
        database, state="running", step=30, total_steps=100, loss=0.5, losses=[[1, 2.0], [10, 0.4], [30, 0.5]]
    )
    for address in ("/training", "/training/live"):
        page = " ".join(as_ana.get(address).text.split())
        assert '<polyline class="line a"' in page
        assert "began at 2.000, is 0.500 at step 30, and was lowest at step 10 (0.400)" in page
        assert "style=" not in page


# --- what is asked of the worker


def test_train_now_and_dry_run_are_asked_of_the_worker(
    database: Database, inbox: Inbox, as_ana: TestClient, as_rea: TestClient, hints: list[int]
) -> None:
    for address in ("/training/start", "/training/look", "/training/rollback"):
        assert as_ana.post(address).status_code == 403
    assert as_rea.post("/training/start").headers["location"] == "/training?note=asked"
    assert as_rea.post("/training/look").headers["location"] == "/training?note=looking"
    as_rea.post("/training/start")  # twice is once
    assert [(r.kind, r.actor, r.state) for r in inbox.all(TrainingRequest)] == [
        ("train", "rea@larkspur.example", "waiting"),
        ("look", "rea@larkspur.example", "waiting"),
    ]
    assert hints == [0, 0, 0]
    page = text(as_rea)
    assert "Waits for the training worker" in page
    assert "data-moving" in page
    with database.write() as session:
        for row in session.exec(select(TrainingRequest)):
            row.state, row.error = "done", ""
            row.report = {
                "examples": 7,
                "unfinished": 1,
                "counts": {"split": {"train": 5, "test": 2}},
                "report": {
                    "left_out": {"contradicts another": 2},
                    "contradictions": [{}],
                    "redacted": {"phone": 3},
                },
            }
    page = text(as_ana)
    assert "7 examples: 5 to learn from, 0 to stop and calibrate by, 2 to be tested on." in page
    assert "2: contradicts another" in page
    assert "3 phone" in page
    assert "Nothing was written." in page


def test_roll_back_is_asked_for_and_shown_with_its_proof(
    database: Database, inbox: Inbox, as_rea: TestClient, hints: list[int]
) -> None:
    assert as_rea.post("/training/rollback", headers=JSON).status_code == 409
    add_adapter(database, "lora-1", PASSED, state="champion")
    assert "Roll back to the base model" in text(as_rea)
    assert as_rea.post("/training/rollback").headers["location"] == "/training?note=rolling-back"
    assert hints == [0]
    assert "it waits for the training worker" in text(as_rea)
    with database.write() as session:
        row = session.exec(select(RollBackRequest)).one()
        row.state, row.error = "failed", "it does not prove itself: 23 of 24"
        session.add(
            Promotion(
                adapter="",
                before="lora-1",
                kind="rollback",
                actor="rea@larkspur.example",
                proof={"proven": True, "equal": 24, "of": 24},
                created_at=datetime.now(UTC),
            )
        )
    page = text(as_rea)
    assert "changed nothing: it does not prove itself: 23 of 24" in page
    assert "24 of 24 probe answers equal the recorded ones" in page


def test_a_reviewer_puts_in_use_what_somebody_else_started(
    database: Database, inbox: Inbox, as_rea: TestClient
) -> None:
    add_adapter(database, "lora-1", PASSED, run=add_run(database, state="done"))
    assert as_rea.post("/training/adapters/lora-1/promote").status_code == 303
    assert "in use, made" in text(as_rea)


def test_mail_of_mailboxes_that_one_does_not_see_is_not_shown(
    app: FastAPI, database: Database, inbox: Inbox, ana: User, as_ana: TestClient
) -> None:
    inbox.receive(subject="Secret lamp", brief={"priority": "low"})
    add_adapter(database, "lora-9", PASSED, state="shadow")
    with database.write() as session:
        row = session.get_one(Brief, 1)
        values = row.model_dump(exclude={"id"}) | {"adapter": "lora-9", "shadow": True, "priority": "urgent"}
        session.add(Brief(**values))
    assert "Secret lamp" in text(as_ana)
    with database.write() as session:
        session.get_one(User, ana.id).all_mailboxes = False
    assert "Secret lamp" not in text(as_ana)
    assert as_ana.post("/training/disagreements/2/shown", headers=JSON).status_code == 404
