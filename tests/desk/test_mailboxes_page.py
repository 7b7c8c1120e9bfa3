"""The pages of mailboxes: all at a glance, each with its ledger, trouble, dead letters and settings."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import EmailKind, FetchedEmail, FolderStatus
from briefbox.settings import Settings
from briefbox.store import alerts, folders, ledger, mailbox_watch, mailboxes
from briefbox.store.ledger import Arrival
from briefbox.tables import Alert, AuditEntry, DeadLetter, FolderCursor, Mailbox, MailboxEvent
from desk.app import create_app
from desk.chores import forget_drafts, watch_mailboxes
from desk.tools import Tools
from tests.desk.conftest import Inbox
from tests.desk.test_connect import NASTY, FakeServers

BYTES = b"From: x\r\n\r\n<script>alert(1)</script>"


@pytest.fixture
def servers() -> FakeServers:
    return FakeServers()


@pytest.fixture
def app(database: Database, settings: Settings, servers: FakeServers) -> FastAPI:
    return create_app(database, settings, Tools(mailboxes=servers))


@pytest.fixture
def at(inbox: Inbox) -> str:
    return f"/admin/mailboxes/{inbox.mailbox.id}"


def change(database: Database, mailbox_id: int, **values: object) -> None:
    with database.write() as session:
        row = session.get_one(Mailbox, mailbox_id)
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)


def dead_letter(inbox: Inbox) -> int:
    """One whose bytes cannot be parsed."""
    with inbox.database.write() as session:
        lease = mailboxes.claim(session, inbox.mailbox.id, owner="test", seconds=60)
        assert lease is not None
        cursor = ledger.open_folder(session, inbox.mailbox.id, "INBOX", 1)
        arrival = Arrival(FetchedEmail(900, BYTES, len(BYTES)), None, f"It cannot be read: {NASTY}")
        ledger.commit_batch(session, lease, cursor, [arrival], up_to=900, lease_seconds=60)
        mailboxes.release(session, lease)
        return session.exec(select(DeadLetter.id)).one()


def test_all_mailboxes_at_a_glance(as_ada: TestClient, inbox: Inbox, database: Database) -> None:
    inbox.receive()
    inbox.receive(kind=EmailKind.NEWSLETTER)
    change(database, inbox.mailbox.id, last_error=f"The server said {NASTY}", last_error_at=datetime.now(UTC))
    text = as_ada.get("/admin/mailboxes").text
    assert "support@larkspur.example" in text
    assert "Error since" in text
    assert "The server said" in text
    assert NASTY not in text
    assert "<dt>queued</dt><dd>1</dd>" in text
    assert "<dt>skipped</dt><dd>1</dd>" in text


def test_no_mailbox_leads_to_connecting_one(as_ada: TestClient) -> None:
    assert "No inbox is connected yet." in as_ada.get("/admin/mailboxes").text
    assert 'href="/admin/mailboxes/new"' in as_ada.get("/status").text


def test_the_page_of_one_says_how_server_and_ledger_compare(
    as_ada: TestClient, inbox: Inbox, database: Database, at: str
) -> None:
    inbox.receive()
    assert "Not compared yet." in as_ada.get(at).text
    with database.write() as session:
        cursor = session.exec(select(FolderCursor)).one()
        folders.note_reconciled(
            session, cursor, FolderStatus(1, exists=1300), server_exists=1204, ledger_exists=1204
        )
    text = as_ada.get(at).text
    assert "server 1,204 = ledger 1,204" in text
    assert "from before, not ours to read</dt><dd>96</dd>" in text
    inbox.receive()
    assert "server 1,205 = ledger 1,205" in as_ada.get(at).text, "it counts on from there"
    with database.write() as session:
        cursor = session.exec(select(FolderCursor)).one()
        folders.note_reconciled(session, cursor, FolderStatus(1, exists=9), server_exists=9, ledger_exists=7)
    assert "server 9, ledger 7: 2 without a row" in as_ada.get(at).text


def test_progress_from_waiting_to_briefed(as_ada: TestClient, inbox: Inbox, at: str) -> None:
    inbox.receive()
    assert "<dt>waiting for a brief</dt><dd>1</dd>" in as_ada.get(at).text
    inbox.receive(brief={})
    assert "<dt>briefed</dt><dd>1</dd>" in as_ada.get(at).text


def test_compare_pause_and_resume(as_ada: TestClient, inbox: Inbox, at: str) -> None:
    assert as_ada.post(f"{at}/compare").headers["location"] == f"{at}?note=asked"
    assert inbox.all(Mailbox)[0].reconcile_at is not None
    as_ada.post(f"{at}/pause", data={"reason": f"it moves {NASTY}"})
    text = as_ada.get(f"{at}?note=paused").text
    assert "Paused: it moves" in text
    assert NASTY not in text
    assert as_ada.post(f"{at}/compare").status_code == 409
    assert as_ada.post(f"{at}/pause", data={"reason": ""}).status_code == 409
    assert as_ada.post(f"{at}/resume").headers["location"] == f"{at}?note=resumed"
    assert [e.kind for e in inbox.all(MailboxEvent)] == ["paused", "resumed"]
    assert "it moves" in as_ada.get(at).text, "events stay"


SETTINGS = {
    "folders": "INBOX\r\nTeam\r\n",
    "sent_folder": "Sent",
    "addresses": "hi@larkspur.example",
    "attachments": "reference",
}


def test_settings_are_changed_and_audited(as_ada: TestClient, inbox: Inbox, at: str) -> None:
    assert as_ada.post(f"{at}/settings", data=SETTINGS).headers["location"] == f"{at}?note=changed"
    [row] = inbox.all(Mailbox)
    assert (row.folders, row.sent_folder, row.attachments) == (["INBOX", "Team"], "Sent", "reference")
    assert inbox.all(AuditEntry)[-1].detail["sent_folder"] == "Sent"
    assert as_ada.post(f"{at}/settings", data=SETTINGS).headers["location"] == f"{at}?note=same"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"folders": ""}, "No folder is named"),
        ({"sent_folder": "Team"}, "cannot be watched for answers"),
        ({"addresses": "nobody"}, "no e-mail address"),
        ({"adapter": "lora-99"}, "There is no adapter lora-99"),
        ({"attachments": "burn"}, "none of keep, reference"),
    ],
)
def test_odd_settings_are_answered_in_words_and_stay_typed(
    as_ada: TestClient, inbox: Inbox, at: str, typed: dict[str, str], said: str
) -> None:
    answer = as_ada.post(f"{at}/settings", data={**SETTINGS, **typed})
    assert answer.status_code == 400
    assert said in answer.text
    assert typed.get("addresses", "hi@larkspur.example") in answer.text
    assert inbox.all(Mailbox)[0].folders == ["INBOX"]


def test_removing_takes_two_steps(as_ada: TestClient, inbox: Inbox, at: str) -> None:
    assert "Its emails, conversations and ledger stay." in as_ada.get(f"{at}/remove").text
    assert inbox.all(Mailbox)[0].removed_at is None
    assert as_ada.post(f"{at}/remove").headers["location"] == "/admin/mailboxes?note=removed"
    assert inbox.all(Mailbox)[0].removed_at is not None
    assert "1 removed" in as_ada.get("/admin/mailboxes").text
    assert "Removed on" in as_ada.get(at).text
    assert as_ada.post(f"{at}/pause", data={"reason": ""}).status_code == 404


def test_a_dead_letter_with_its_bytes_and_retry(
    as_ada: TestClient, inbox: Inbox, at: str, servers: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = dead_letter(inbox)
    text = as_ada.get(at).text
    assert "It cannot be read:" in text
    assert NASTY not in text
    saved = as_ada.get(f"{at}/letters/{letter}/raw")
    assert saved.content == BYTES
    assert saved.headers["content-type"] == "application/octet-stream"
    assert saved.headers["content-disposition"] == f'attachment; filename="dead-letter-{letter}.eml"'
    assert saved.headers["x-content-type-options"] == "nosniff"
    answer = as_ada.post(f"{at}/letters/{letter}/retry")
    assert answer.status_code == 409
    assert "It did not work this time: The server says no." in answer.text
    monkeypatch.setattr(servers, "retry", lambda _id, actor: f"ok, {actor}")
    assert as_ada.post(f"{at}/letters/{letter}/retry").headers["location"] == f"{at}?note=retried"


def test_a_letter_is_found_under_its_own_mailbox_only(
    as_ada: TestClient, inbox: Inbox, database: Database
) -> None:
    letter = dead_letter(inbox)
    with database.write() as session:
        other = mailboxes.add(
            session, Mailbox(name="b", address="b@x.example", host="h", port=1, username="b"), actor="test"
        )
    for path in (
        f"/admin/mailboxes/{other.id}/letters/{letter}/raw",
        f"/admin/mailboxes/{inbox.mailbox.id}/letters/99/raw",
    ):
        assert as_ada.get(path).status_code == 404
    assert as_ada.post(f"/admin/mailboxes/{other.id}/letters/{letter}/retry").status_code == 404


@pytest.mark.parametrize("what", ["", "/remove", "/letters/1/raw"])
def test_agents_see_none_of_it(as_ana: TestClient, nobody: TestClient, at: str, what: str) -> None:
    assert as_ana.get(at + what).status_code == 403
    assert nobody.get(at + what).status_code == 303
    for action in ("compare", "pause", "resume", "settings", "remove", "letters/1/retry"):
        assert as_ana.post(f"{at}/{action}").status_code == 403


@pytest.mark.parametrize(
    "path", ["/admin/mailboxes/9999", "/admin/mailboxes/x", "/admin/mailboxes/99999999999"]
)
def test_what_is_not_there_is_not_found(as_ada: TestClient, inbox: Inbox, path: str) -> None:
    assert as_ada.get(path).status_code == 404


# --- the desk's chores


def test_a_mailbox_that_nobody_reads_is_told_and_so_is_its_recovery(
    as_ada: TestClient, inbox: Inbox, database: Database, settings: Settings, at: str
) -> None:
    watch_mailboxes(database, settings)
    assert inbox.all(Alert) == [], "it was connected a moment ago"
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    change(database, inbox.mailbox.id, created_at=long_ago, last_success_at=long_ago)
    for _ in range(2):
        watch_mailboxes(database, settings)
    [alert] = inbox.all(Alert)
    assert "was not read to its end for over 10 minutes" in alert.text
    assert "not read to its end" in as_ada.get("/").text, "above the queue"
    assert "not read to its end" in as_ada.get(at).text
    change(database, inbox.mailbox.id, last_success_at=datetime.now(UTC))
    watch_mailboxes(database, settings)
    assert inbox.all(Alert)[0].resolved_at is not None
    assert [e.kind for e in inbox.all(MailboxEvent)] == ["stopped", "recovered"]


def test_what_is_paused_or_known_to_be_wrong_is_not_told_again(
    inbox: Inbox, database: Database, settings: Settings
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    change(database, inbox.mailbox.id, created_at=long_ago)
    with database.write() as session:
        alerts.raise_alert(session, mailboxes.alert_key("support", "INBOX"), "The password is wrong.")
    watch_mailboxes(database, settings)
    assert [a.text for a in inbox.all(Alert)] == ["The password is wrong."]
    with database.write() as session:
        mailboxes.pause(session, "support", reason="", actor="test")
    watch_mailboxes(database, settings)
    assert [a.key for a in inbox.all(Alert) if a.resolved_at is None] == []
    with database.write() as session:
        mailboxes.resume(session, "support", actor="test")
    watch_mailboxes(database, settings)
    assert [a.key for a in inbox.all(Alert) if a.resolved_at is None] == [], "it has some minutes from now"


def test_an_idle_poller_is_not_taken_for_a_dead_one(settings: Settings) -> None:
    slow = settings.model_copy(update={"idle_seconds": 1500, "reconcile_seconds": 3600})
    assert mailbox_watch.limit(slow) == timedelta(seconds=3000)
    assert mailbox_watch.limit(settings) == timedelta(minutes=10)


def test_nothing_lapsed_is_nothing_to_do(database: Database) -> None:
    assert forget_drafts(database) is False


def test_a_desk_without_tools_says_so(
    database: Database, settings: Settings, inbox: Inbox, ada: object
) -> None:
    from tests.desk.conftest import browser, session_for

    plain = browser(create_app(database, settings), session_for(database, ada))  # type: ignore[arg-type]
    answer = plain.post("/admin/mailboxes/new", data={"address": "a@larkspur.example", "name": "a"})
    assert answer.status_code == 404
    assert "briefbox mailbox add" in answer.text
    assert plain.get(f"/admin/mailboxes/{inbox.mailbox.id}").status_code == 200
