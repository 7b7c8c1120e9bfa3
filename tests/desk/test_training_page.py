"""The page /training: the schedule, a run's progress, verdicts, who may do what, and picking between two briefs."""

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.tables import Adapter, Brief, Correction, Dataset, TrainingRun, User
from tests.desk.conftest import Inbox

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
    assert "Refresh" not in as_ana.get("/training").headers


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
    assert as_ana.get("/training").headers["Refresh"] == "5; url=/training"
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
