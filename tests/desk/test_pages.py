"""Each page: works, refuses who has no session, answers odd input in words, escapes what strangers wrote."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.store import users
from briefbox.tables import Confirmation, Correction, User
from tests.desk.conftest import Inbox, browser

HOSTILE = "<script>window.__xss=1</script><img src=x onerror=alert(1)>"
PUBLIC = {"/sign-in", "/link/{token}", "/healthz", "/favicon.ico", "/static"}
JSON = {"accept": "application/json"}


def test_the_queue_shows_what_an_agent_needs_in_its_order(inbox: Inbox, as_ana: TestClient) -> None:
    inbox.receive("calm", brief={"headline": "A calm one", "priority": "low"})
    inbox.receive(
        "new", age=timedelta(hours=3), brief={"headline": "A burning one", "priority": "urgent", "sure": 0.3}
    )
    inbox.receive("waits for its brief")
    page = as_ana.get("/").text
    assert page.index("A burning one") < page.index("A calm one") < page.index("waits for its brief")
    for shown in ("Most urgent first", "needs a human", "Customer 1", "3 h"):
        assert shown in page


def test_a_long_queue_has_pages_by_key(inbox: Inbox, as_ana: TestClient) -> None:
    for number in range(60):
        inbox.receive(f"mail {number:02}", age=timedelta(minutes=60 - number))
    first = as_ana.get("/").text
    found = re.search(r'href="(/?\?[^"]*after=[^"]+)"', first)
    assert found is not None
    second = as_ana.get("/" + found[1].lstrip("/").replace("&amp;", "&")).text
    assert "mail 00" in first
    assert "mail 59" not in first
    assert "mail 59" in second


@pytest.mark.parametrize(
    "address",
    ["/?state=nonsense", "/?after=nonsense", "/conversations/999", "/conversations/abc", "/nowhere"],
)
def test_odd_input_is_answered_in_words(as_ana: TestClient, address: str) -> None:
    answer = as_ana.get(address)
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


def test_the_conversation_shows_brief_and_mail(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(
        text="Hello, where is order 1001?\n\n> quoted history",
        reply="Hello, where is order 1001?",
        brief={"cut": True},
    )
    page = as_ana.get(f"/conversations/{number}").text
    for shown in ("Customer asks where an order is", "where is order 1001", "fake-model", "Right as it is"):
        assert shown in page


def test_a_correction_is_stored_and_the_models_value_stays_visible(
    inbox: Inbox, as_ana: TestClient, ana: User
) -> None:
    number = inbox.receive(brief={"priority": "normal"})
    form = {
        "field": "priority",
        "value": "urgent",
        "before": "normal",
        "idempotency_key": "k1",
        "reason": "an outage",
    }
    answer = as_ana.post(f"/conversations/{number}/correct", data=form)
    assert answer.status_code == 303
    [row] = inbox.all(Correction)
    assert (row.before, row.after, row.user_id, row.reason) == ("normal", "urgent", ana.id, "an outage")
    assert inbox.get(number).touched == ["priority"]
    assert re.search(r"<(s|del)\b[^>]*>\s*[^<]*normal", as_ana.get(f"/conversations/{number}").text)


def test_the_second_of_two_agents_sees_the_newer_version(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    number = inbox.receive(brief={"headline": "Old"})
    first = {"field": "headline", "value": "Ada's", "before": "Old"}
    assert as_ada.post(f"/conversations/{number}/correct", data=first).status_code == 303
    answer = as_ana.post(f"/conversations/{number}/correct", data={**first, "value": "Ana's"})
    assert answer.status_code == 409
    assert "Ada&#39;s" in answer.text
    assert "Ana&#39;s" in answer.text
    assert inbox.get(number).headline == "Ada's"


def test_wrong_values_are_refused_in_words(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    for form in ({"field": "priority", "value": "asap"}, {"field": "state", "value": "done"}, {}):
        answer = as_ana.post(f"/conversations/{number}/correct", data=form, headers=JSON)
        assert answer.status_code in (400, 409, 422)
        assert "error" in answer.json()
    assert inbox.all(Correction) == []


def test_right_done_and_reopen(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    assert as_ana.post(f"/conversations/{number}/confirm", headers=JSON).json()["ok"] is True
    assert as_ana.post(f"/conversations/{number}/done").status_code == 303
    assert {c.strength for c in inbox.all(Confirmation)} == {"strong", "weak"}
    assert inbox.get(number).state == "done"
    assert "Customer asks" in as_ana.get("/?state=done").text
    as_ana.post(f"/conversations/{number}/reopen")
    assert inbox.get(number).state == "open"


def test_what_strangers_wrote_is_text_everywhere(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(HOSTILE, HOSTILE, brief={"headline": HOSTILE, "summary": HOSTILE})
    for address in ("/", f"/conversations/{number}"):
        page = as_ana.get(address).text
        assert "<script>window" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;" in page


def test_no_page_without_a_session(app: FastAPI, nobody: TestClient) -> None:
    checked = 0
    for route in app.routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or {"GET"}
        if path in PUBLIC:
            continue
        for method in methods - {"HEAD"}:
            address = re.sub(r"\{[^}]+\}", "1", path)
            answer = nobody.request(method, address, headers=JSON)
            assert answer.status_code == 401, (method, path, answer.status_code)
            checked += 1
    routes = {getattr(r, "path", "") for r in app.routes}
    assert checked >= 8 or any(type(r).__name__ == "_IncludedRouter" for r in app.routes), routes
    for address in ("/", "/status", "/events", "/conversations/1", "/account"):
        assert nobody.get(address, headers=JSON).status_code == 401
    for address in ("correct", "confirm", "done", "reopen"):
        assert nobody.post(f"/conversations/1/{address}", headers=JSON).status_code == 401
    assert nobody.get("/").headers["location"].startswith("/sign-in")


def test_nothing_is_changed_by_get(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    for action in ("correct", "confirm", "done", "reopen"):
        assert as_ana.get(f"/conversations/{number}/{action}").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_request_from_another_site_is_refused(
    inbox: Inbox, as_ana: TestClient, headers: dict[str, str]
) -> None:
    number = inbox.receive(brief={})
    assert as_ana.post(f"/conversations/{number}/done", headers=headers).status_code == 403
    assert inbox.get(number).state == "open"


def test_every_answer_carries_the_protecting_headers(as_ana: TestClient, nobody: TestClient) -> None:
    for answer in (as_ana.get("/"), nobody.get("/sign-in"), nobody.get("/nowhere")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin")


def test_health_needs_no_session_and_says_when_the_database_is_away(
    app: FastAPI, nobody: TestClient, database: Database
) -> None:
    assert nobody.get("/healthz").status_code == 200
    database.close()
    path = Path(database.address.removeprefix("sqlite:///"))
    path.unlink()
    path.mkdir()
    answer = browser(app).get("/healthz")
    assert answer.status_code == 503
    assert "Traceback" not in answer.text


def test_the_status_page_tells_mailboxes_and_dead_letters(inbox: Inbox, as_ada: TestClient) -> None:
    inbox.give_up(inbox.receive())
    page = as_ada.get("/status").text
    assert "support" in page
    assert "the model ran out of memory" in page


def test_a_link_signs_in_once_and_looking_does_not_use_it_up(
    nobody: TestClient, database: Database, ana: User
) -> None:
    with database.write() as session:
        token = users.new_link(session, ana)
    for _ in range(2):  # mail scanners look at links
        assert "Ana" in nobody.get(f"/link/{token}").text
    answer = nobody.post(f"/link/{token}")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert nobody.get("/").status_code == 200
    assert nobody.post(f"/link/{token}").status_code == 404


def test_signing_in_and_out(nobody: TestClient, database: Database, ana: User) -> None:
    with database.write() as session:
        token = users.new_link(session, ana)
    assert nobody.post(f"/link/{token}", data={"password": "short"}).status_code == 400
    assert nobody.post(f"/link/{token}", data={"password": "correct horse battery"}).status_code == 303
    assert nobody.post("/sign-out").status_code == 303
    assert nobody.get("/").status_code == 303
    wrong = {"email": ana.email, "password": "wrong wrong wrong"}
    assert nobody.post("/sign-in", data=wrong).status_code == 401
    assert nobody.post("/sign-in", data={**wrong, "password": "correct horse battery"}).status_code == 303
    assert nobody.get("/").status_code == 200


def test_guessing_is_throttled(nobody: TestClient, ana: User) -> None:
    codes = {
        nobody.post("/sign-in", data={"email": ana.email, "password": f"guess number {n}"}).status_code
        for n in range(30)
    }
    assert codes == {401, 429}


def test_a_sign_in_never_leads_to_another_site(nobody: TestClient, database: Database, ana: User) -> None:
    with database.write() as session:
        users.set_password(session, users.get(session, ana.email), "correct horse battery")
    for target in ("https://evil.example", "//evil.example", "/\\evil.example"):
        answer = nobody.post(
            "/sign-in", data={"email": ana.email, "password": "correct horse battery", "next": target}
        )
        assert answer.headers["location"] == "/"
