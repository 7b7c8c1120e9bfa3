"""The audit log on the desk: pages, filters, the state of the chain, CSV; nothing secret and nothing unescaped in it."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select, update

from briefbox.db import Database
from briefbox.store import alerts, audit_check, audit_log
from briefbox.tables import AuditEntry
from desk.admin import audit
from desk.admin.audit import check_chain

HOSTILE = "<script>window.__xss=1</script>"


def write(database: Database, count: int, action: str = "tested", object: str = "thing") -> None:
    with database.write() as session:
        for number in range(count):
            audit_log.record(session, "cli:test", action, f"{object} {number}", number=number)


def checked(database: Database) -> audit_check.Chain:
    while check_chain(database):
        pass
    with database.read() as session:
        return audit_check.state(session)


def test_it_is_read_newest_first_in_pages_by_key(as_ada: TestClient, database: Database) -> None:
    write(database, audit.PAGE_SIZE + 20)
    first = as_ada.get("/admin/audit").text
    assert first.index("thing 69") < first.index("thing 30")
    assert "thing 5<" not in first
    older = first.split('href="/admin/audit?before=')[1].split('"')[0]
    second = as_ada.get(f"/admin/audit?before={older}").text
    assert "thing 5<" in second
    assert "thing 69" not in second
    assert "Newest" in second


def test_it_is_filtered_by_who_what_whom_and_day(as_ada: TestClient, database: Database) -> None:
    write(database, 3)
    write(database, 2, "tried", "other")
    today = datetime.now(UTC).date()
    for query, shown, hidden in (
        ("action=tried", "other 1", "thing 1"),
        ("object=thing 2", "thing 2", "thing 1"),
        ("actor=nobody", "No entry like that", "thing 1"),
        (f"since={today}&until={today}&action=tested", "thing 1", "other 1"),
        (f"until={today - timedelta(days=1)}", "No entry like that", "thing 1"),
        (f"since={today + timedelta(days=1)}", "No entry like that", "thing 1"),
    ):
        page = as_ada.get(f"/admin/audit?{query}").text.split("</form>", 3)[-1]
        assert shown in page, query
        assert f">{hidden}<" not in page, query


@pytest.mark.parametrize(
    "query", ["since=yesterday", "until=2026-13-40", "since=%00", "before=0", "before=x"]
)
def test_odd_input_is_answered_in_words(as_ada: TestClient, query: str) -> None:
    answer = as_ada.get(f"/admin/audit?{query}")
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


def test_what_strangers_wrote_is_escaped(as_ada: TestClient, nobody: TestClient) -> None:
    nobody.post("/sign-in", data={"email": HOSTILE, "password": "x"})
    page = as_ada.get("/admin/audit").text
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_signing_in_failing_and_being_denied_are_in_it_without_a_secret(
    as_ada: TestClient, as_ana: TestClient, nobody: TestClient
) -> None:
    nobody.post("/sign-in", data={"email": "ana@larkspur.example", "password": "a guess that is secret"})
    as_ana.get("/admin/audit")
    as_ana.post("/sign-out")
    page = as_ada.get("/admin/audit").text
    for shown in ("sign-in refused", "denied", "GET /admin/audit", "signed out", "user added"):
        assert shown in page
    assert "a guess that is secret" not in page


def test_the_chain_is_checked_step_by_step_and_the_page_says_how_far(
    as_ada: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Not checked yet" in as_ada.get("/admin/audit").text
    monkeypatch.setattr(audit_check.step, "__kwdefaults__", {"limit": 7})
    write(database, 20)
    chain = checked(database)
    assert chain.verified_up_to == chain.last > 20
    assert f"Verified up to entry {chain.last} of {chain.last}" in as_ada.get("/admin/audit").text
    write(database, 1)
    assert f"Verified up to entry {chain.last} of {chain.last + 1}" in as_ada.get("/admin/audit").text
    assert checked(database).verified_up_to == chain.last + 1


def test_a_changed_entry_is_found_and_told(as_ada: TestClient, database: Database) -> None:
    write(database, 5)
    with database.write() as session:
        third = session.exec(select(AuditEntry).where(AuditEntry.object == "thing 2")).one()
        session.exec(update(AuditEntry).where(AuditEntry.id == third.id).values(actor="somebody else"))  # type: ignore[arg-type]
    assert checked(database).broken == (third.id,)
    page = as_ada.get("/admin/audit").text
    assert f"Entry {third.id} was changed" in page
    with database.read() as session:
        assert [alert.key for alert in alerts.open_alerts(session)] == [audit_check.ALERT]


def test_all_of_it_is_checked_again_on_demand(as_ada: TestClient, database: Database) -> None:
    write(database, 5)
    assert not checked(database).broken
    with database.write() as session:  # after it was checked
        third = session.exec(select(AuditEntry).where(AuditEntry.object == "thing 2")).one()
        session.exec(update(AuditEntry).where(AuditEntry.id == third.id).values(detail={"number": 9}))  # type: ignore[arg-type]
    assert as_ada.post("/admin/audit/check").status_code == 303
    assert checked(database).broken == (third.id,)


def test_it_is_downloaded_as_csv_and_that_is_an_entry_itself(as_ada: TestClient, database: Database) -> None:
    write(database, 3)
    with database.write() as session:
        audit_log.record(session, "cli:test", "tested", "=HYPERLINK(1)", note='a "quote",\nand a line')
    answer = as_ada.post("/admin/audit/csv", data={"action": "tested"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["object"] for row in rows] == ["'=HYPERLINK(1)", "thing 2", "thing 1", "thing 0"]
    assert rows[1]["previous_hash"] == rows[2]["hash"]
    exported = as_ada.get("/admin/audit?action=audit log exported").text
    assert "ada@larkspur.example" in exported
    assert as_ada.post("/admin/audit/csv", data={"since": "x"}).status_code == 400
