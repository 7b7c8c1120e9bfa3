"""Emails, briefs, judgements, mailboxes, training, adapters, datasets, cost and health over the API."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlmodel import col, update

from briefbox.db import Database
from briefbox.schemas import Attachment, Grounding, Sentence
from briefbox.settings import Settings
from briefbox.store import alerts
from briefbox.tables import Adapter, AuditEntry, Dataset, Mailbox, MailboxAccess, RawEmail, TrainingRun, User
from tests.desk.api.conftest import Program
from tests.desk.conftest import Inbox, person


def everything(program: Program, path: str) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        body = program.get(f"{path}{'&' if '?' in path else '?'}limit=2&after={after}").json()
        assert 0 < len(body["items"]) <= 2
        found += body["items"]
        after = body["next"]
        if after is None:
            return found


# --- emails


def test_emails_with_their_bytes(anas: Program, inbox: Inbox, database: Database) -> None:
    number = inbox.receive(
        "Käse",
        "Hello\nthere",
        attachments=(Attachment(name="a.pdf", type="application/pdf", size=9),),
        message_id="k@example.org",
    )
    [mail] = anas.get(f"/conversations/{number}/emails").json()["items"]
    assert (mail["subject"], mail["text"], mail["message_id"]) == ("Käse", "Hello\nthere", "k@example.org")
    assert mail["attachments"] == [{"name": "a.pdf", "type": "application/pdf", "size": 9}]
    assert mail["sender"]["address"] == "customer1@example.org"
    assert anas.get(f"/emails/{mail['id']}").json() == mail
    raw = anas.get(f"/emails/{mail['id']}/raw")
    assert raw.content == "1 Käse Hello\nthere".encode()
    assert raw.headers["content-type"] == "message/rfc822"
    assert raw.headers["content-disposition"].startswith("attachment")
    assert "x-incomplete" not in raw.headers
    with database.write() as session:
        session.exec(update(RawEmail).values(left={"sizes": {"2": 100}}))
    assert anas.get(f"/emails/{mail['id']}/raw").headers["x-incomplete"] == "true"
    for path in ("/emails/999", "/emails/999/raw", "/conversations/999/emails"):
        assert anas.get(path).status_code == 404, path


# --- briefs


def test_briefs_in_all_versions_with_what_made_them(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive(
        brief={
            "headline": "First",
            "summary": "It is late.",
            "priority": "high",
            "sure": 0.7,
            "grounding": Grounding(sentences=(Sentence(text="It is late.", start=0, end=5),)),
        }
    )
    other = inbox.receive(brief={"headline": "Second", "sure": None})
    first, second = everything(anas, "/briefs")
    assert (first["headline"], first["conversation_id"]) == ("First", number)
    assert first["priority"]["label"] == "high"
    assert first["priority"]["confidence"] == pytest.approx(0.7)
    assert sum(first["priority"]["scores"].values()) == pytest.approx(1)
    assert first["sentences"] == [{"text": "It is late.", "start": 0, "end": 5}]
    assert (first["made_by"]["engine"], first["made_by"]["tokens_in"]) == ("fake", 210)
    assert second["priority"]["confidence"] is None
    assert anas.get(f"/briefs/{first['id']}").json() == first
    assert [b["id"] for b in anas.get(f"/conversations/{other}/briefs").json()["items"]] == [second["id"]]
    assert anas.get(f"/briefs?conversation={number}").json()["items"] == [first]
    assert anas.get("/briefs/999").status_code == 404
    assert anas.get("/briefs?after=x").status_code == 422


# --- judgements


def test_corrections_and_confirmations_for_export(anas: Program, adas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={"priority": "low"})
    for priority in ("high", "urgent", "normal"):
        anas.patch(f"/conversations/{number}", json={"priority": priority})
    anas.post(f"/conversations/{number}/undo")
    adas.post(f"/conversations/{number}/confirm")
    rows = everything(anas, "/corrections")
    assert [(row["before"], row["after"]) for row in rows] == [
        ("low", "high"),
        ("high", "urgent"),
        ("urgent", "normal"),
    ]
    assert [row["undone_at"] is None for row in rows] == [True, True, False]
    assert {row["user_email"] for row in rows} == {"ana@larkspur.example"}
    [said] = everything(anas, f"/confirmations?conversation={number}")
    assert (said["strength"], said["user_email"]) == ("strong", "ada@larkspur.example")
    assert anas.get("/corrections?conversation=999").json()["items"] == []


# --- mailboxes


def test_mailboxes_tell_no_secret(anas: Program, inbox: Inbox) -> None:
    inbox.receive()
    [row] = anas.get("/mailboxes").json()["items"]
    assert (row["name"], row["folders"][0]["ledger"]) == ("support", 1)
    answer = anas.get(f"/mailboxes/{row['id']}")
    assert answer.json()["words"]
    for secret in ("support-login", "mail.larkspur.example", "password"):
        assert secret not in answer.text
    assert anas.get("/mailboxes/999").status_code == 404


def test_a_mailbox_is_paused_read_on_and_compared(adas: Program, inbox: Inbox) -> None:
    path = f"/mailboxes/{inbox.mailbox.id}"
    paused = adas.post(f"{path}/pause", json={"reason": "it moves"}).json()
    assert (paused["paused_reason"], paused["words"]) == ("it moves", "paused: it moves")
    assert adas.post(f"{path}/pause").status_code == 409
    assert adas.post(f"{path}/compare").status_code == 409
    assert adas.post(f"{path}/resume").json()["paused_at"] is None
    assert adas.post(f"{path}/compare").status_code == 200
    assert inbox.all(Mailbox)[0].reconcile_at is not None
    assert adas.post("/mailboxes/999/pause").status_code == 404


# --- training


@pytest.fixture
def dataset(database: Database, settings: Settings) -> Dataset:
    """A version with its file."""
    (settings.data_dir / "datasets").mkdir(parents=True, exist_ok=True)
    (settings.data_dir / "datasets" / "one.jsonl").write_bytes(b'{"id": "1"}\n')
    with database.write() as session:
        row = Dataset(
            name="dataset-0001-abc",
            content_hash="abc",
            path="datasets/one.jsonl",
            num_examples=1,
            counts={"train": 1},
            created_at=datetime.now(UTC),
        )
        session.add(row)
        session.flush()
        return row


def test_runs_start_once_and_are_cancelled(
    adas: Program, inbox: Inbox, database: Database, dataset: Dataset
) -> None:
    once = {"Idempotency-Key": "nightly"}
    started = adas.post("/training-runs", headers=once)
    assert (started.status_code, started.json()["dataset"]) == (201, "dataset-0001-abc")
    assert adas.post("/training-runs", headers=once).json() == started.json()
    assert adas.post("/training-runs").status_code == 409
    assert adas.post("/training-runs", json={"dataset": "none such"}).status_code == 404
    [run] = inbox.all(TrainingRun)
    assert (run.created_by, run.state) == ("ada@larkspur.example", "waiting")
    tag = adas.get(f"/training-runs/{run.id}").headers["etag"]
    assert adas.get(f"/training-runs/{run.id}", headers={"If-None-Match": tag}).status_code == 304
    assert adas.post(f"/training-runs/{run.id}/cancel").json()["state"] == "cancelled"
    assert adas.post(f"/training-runs/{run.id}/cancel").status_code == 409
    again = adas.post("/training-runs", json={"dataset": dataset.name})
    assert again.status_code == 201
    assert [row["id"] for row in everything(adas, "/training-runs")] == [again.json()["id"], run.id]
    assert adas.get("/training-runs/999").status_code == 404


def test_no_dataset_to_train_on(adas: Program, inbox: Inbox) -> None:
    answer = adas.post("/training-runs")
    assert (answer.status_code, "no dataset yet" in answer.json()["detail"]) == (404, True)


def add_adapters(database: Database) -> None:
    with database.write() as session:
        for name, decision in (("good", "promoted"), ("bad", "rejected"), ("new", "")):
            session.add(
                Adapter(
                    name=name,
                    path=name,
                    base_model="m",
                    weights_sha256="0" * 64,
                    card={"verdict": {"decision": decision}},
                    created_at=datetime.now(UTC),
                )
            )


def test_adapters_are_put_in_use_by_the_gates_rules(adas: Program, anas: Program, database: Database) -> None:
    add_adapters(database)
    assert [row["name"] for row in everything(anas, "/adapters")] == ["new", "bad", "good"]
    assert anas.post("/adapters/good/promote").status_code == 403
    assert adas.post("/adapters/bad/promote").status_code == 409
    assert adas.post("/adapters/none/promote").status_code == 404
    promoted = adas.post("/adapters/good/promote").json()
    assert (promoted["state"], promoted["decision"]) == ("champion", "promoted")
    assert anas.get("/adapters/good").json() == promoted
    assert adas.post("/adapters/new/shadow").json()["state"] == "shadow"
    assert adas.post("/adapters/good/shadow").status_code == 409
    assert adas.post("/adapters/new/shadow", json={"on": False}).json()["state"] == "candidate"


def test_a_dataset_is_downloaded_by_who_sees_all_mailboxes(
    adas: Program,
    anas: Program,
    inbox: Inbox,
    database: Database,
    dataset: Dataset,
    settings: Settings,
    program: Callable[..., Program],
) -> None:
    path = f"/datasets/{dataset.name}"
    assert anas.get(path).json()["num_examples"] == 1
    assert [row["name"] for row in everything(anas, "/datasets")] == [dataset.name]
    file = adas.get(f"{path}/file")
    assert (file.content, file.headers["content-type"]) == (b'{"id": "1"}\n', "application/jsonl")
    assert anas.get(f"{path}/file").status_code == 403
    rita = person(database, "rita@larkspur.example", "Rita", "reviewer")
    ritas = program(rita, "read")
    assert ritas.get(f"{path}/file").status_code == 200
    exported = [e.actor for e in inbox.all(AuditEntry) if e.action == "dataset exported"]
    assert exported == ["ada@larkspur.example", "rita@larkspur.example"]
    with database.write() as session:
        session.exec(update(User).where(col(User.id) == rita.id).values(all_mailboxes=False))
        session.add(MailboxAccess(user_id=rita.id, mailbox_id=inbox.mailbox.id))
    narrow = ritas.get(f"{path}/file")
    assert (narrow.status_code, "all mailboxes" in narrow.json()["detail"]) == (403, True)
    (settings.data_dir / dataset.path).unlink()
    assert adas.get(f"{path}/file").status_code == 404
    assert adas.get("/datasets/none").status_code == 404


# --- operation


def test_cost(adas: Program, anas: Program, inbox: Inbox) -> None:
    inbox.receive(brief={})
    said = adas.get("/cost?by=engine").json()
    assert (said["rows"][0]["name"], said["total"]["briefs"], said["total"]["money"]) == ("fake", 1, None)
    assert said["total"]["seconds"] == "0.310000"
    assert anas.get("/cost").status_code == 403
    assert adas.get("/cost?by=odd").status_code == 422
    assert adas.get("/cost?since=2026-13-01").status_code == 422


def test_health(anas: Program, inbox: Inbox, database: Database) -> None:
    inbox.receive()
    said = anas.get("/health").json()
    assert (said["is_well"], said["waiting_briefs"], said["conversations"]["open"]) == (True, 1, 1)
    with database.write() as session:
        alerts.raise_alert(session, "mailbox support: INBOX", "It says no.")
        session.exec(update(Mailbox).values(last_error="It says no."))
    said = anas.get("/health").json()
    assert (said["is_well"], said["failing_mailboxes"]) == (False, ["support"])
    assert [alert["text"] for alert in said["alerts"]] == ["It says no."]


# --- who sees which mailbox


def test_nothing_of_a_mailbox_that_is_not_seen(
    anas: Program, inbox: Inbox, database: Database, program: Callable[..., Program]
) -> None:
    number = inbox.receive("Secret", "Secret", brief={"headline": "Secret"})
    anas.patch(f"/conversations/{number}", json={"headline": "Secret too"})
    anas.post(f"/conversations/{number}/confirm")
    nora = person(database, "nora@larkspur.example", "Nora")
    with database.write() as session:
        session.exec(update(User).where(col(User.id) == nora.id).values(all_mailboxes=False))
        alerts.raise_alert(session, "mailbox support: INBOX", "Secret trouble")
    noras = program(nora, "read", "write")
    for path in (
        f"/conversations/{number}/emails",
        f"/conversations/{number}/briefs",
        "/emails/1",
        "/emails/1/raw",
        "/briefs/1",
        f"/mailboxes/{inbox.mailbox.id}",
    ):
        assert anas.get(path).status_code == 200, path
        answer = noras.get(path)
        assert (answer.status_code, "Secret" in answer.text) == (404, False), path
    for path in ("/briefs", "/corrections", "/confirmations", "/mailboxes", "/conversations"):
        assert anas.get(path).json()["items"] != [], path
        assert noras.get(path).json()["items"] == [], path
    assert "Secret" not in noras.get("/health").text
    assert noras.get("/me").json()["mailbox_ids"] == []
