"""The admins' pages for webhooks."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import update

from briefbox.db import Database
from briefbox.settings import Settings, load_settings
from briefbox.tables import LoginSession, User, Webhook, WebhookDelivery
from desk.app import create_app
from tests.desk.conftest import Inbox, browser, session_for

FORM = {"name": "crm", "url": "https://127.0.0.1:9/hook", "event": ["brief.made", "conversation.changed"]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """This machine is allowed as a receiver."""
    return load_settings(data_dir=settings.data_dir, engine="fake", threads=1, private_networks="127.0.0.0/8")


def add(client: TestClient, **fields: Any) -> Any:
    return client.post("/admin/webhooks", data=FORM | fields)


def test_a_secret_is_shown_once(as_ada: TestClient, inbox: Inbox) -> None:
    page = add(as_ada, full="yes")
    assert page.status_code == 200
    found = re.search(r'value="(whsec_[^"]+)"', page.text)
    assert found is not None
    [row] = inbox.all(Webhook)
    assert (row.name, row.events, row.full) == ("crm", FORM["event"], True)
    assert found[1] not in row.secret_encrypted
    shown = as_ada.get(f"/admin/webhooks/{row.id}").text
    assert "whsec_" not in shown
    assert "crm" in as_ada.get("/admin/webhooks").text
    other = re.search(r'value="(whsec_[^"]+)"', as_ada.post(f"/admin/webhooks/{row.id}/secret").text)
    assert other is not None
    assert other[1] != found[1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "https://10.0.0.1/"}, "no public address"),
        ({"url": "http://1.1.1.1/"}, "expected https"),
        ({"url": "javascript:alert(1)"}, "neither https"),
        ({"event": []}, "Choose what it is told"),
        ({"event": ["odd"]}, "Choose what it is told"),
        ({"mailbox": ["4711"]}, "no mailbox 4711"),
    ],
)
def test_odd_input_is_answered_in_words_and_kept(
    as_ada: TestClient, inbox: Inbox, fields: dict[str, Any], said: str
) -> None:
    page = add(as_ada, name="<i>kept</i>", **fields)
    assert page.status_code == 400
    assert said in page.text
    assert "&lt;i&gt;kept" in page.text
    assert "<i>kept" not in page.text
    assert inbox.all(Webhook) == []


def test_the_log_and_sending_again(as_ada: TestClient, inbox: Inbox, database: Database) -> None:
    add(as_ada)
    inbox.receive(brief={"headline": "<script>alert(1)</script>"})
    kinds = [row.event for row in inbox.all(WebhookDelivery)]
    assert sorted(kinds) == ["brief.made", "conversation.changed"]
    page = as_ada.get("/admin/webhooks/1").text
    assert "waits to be sent" in page
    assert "<script>alert" not in page
    assert as_ada.post("/admin/webhooks/1/deliveries/1/replay").status_code == 409
    with database.write() as session:
        session.exec(
            update(WebhookDelivery).values(
                state="failed", status=502, answer="<b>bad</b>", attempts=11, finished_at=datetime.now(UTC)
            )
        )
    page = as_ada.get("/admin/webhooks/1").text
    assert "failed after 11 tries, answered 502" in page
    assert "&lt;b&gt;bad" in page
    since = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    again = as_ada.post("/admin/webhooks/1/replay", data={"since": since})
    assert again.headers["location"].endswith("?note=again&sent=2")
    assert "2 messages are on their way again." in as_ada.get(again.headers["location"]).text
    nothing = as_ada.post("/admin/webhooks/1/replay", data={"since": since})
    assert "Nothing of that time" in as_ada.get(nothing.headers["location"]).text
    assert as_ada.post("/admin/webhooks/1/replay", data={"since": "yesterday"}).status_code == 400
    assert as_ada.post("/admin/webhooks/1/deliveries/1/replay").status_code == 303


def test_the_log_comes_in_pages(as_ada: TestClient, inbox: Inbox) -> None:
    add(as_ada)
    for _ in range(35):
        assert as_ada.post("/admin/webhooks/1/test").status_code == 303
    page = as_ada.get("/admin/webhooks/1").text
    assert page.count("webhook.test") >= 30
    older = re.search(r'href="([^"]+before=\d+)"', page)
    assert older is not None
    assert as_ada.get(older[1]).text.count('id="delivery-') == 5


def test_off_and_on(as_ada: TestClient, inbox: Inbox) -> None:
    add(as_ada)
    as_ada.post("/admin/webhooks/1/disable")
    assert "ada@larkspur.example switched it off." in as_ada.get("/admin/webhooks/1").text
    assert as_ada.post("/admin/webhooks/1/test").status_code == 409
    as_ada.post("/admin/webhooks/1/enable")
    assert inbox.all(Webhook)[0].disabled_at is None


def test_only_admins(as_ana: TestClient, nobody: TestClient, as_ada: TestClient) -> None:
    add(as_ada)
    for method, path in (
        ("GET", ""), ("POST", ""), ("GET", "/1"), ("POST", "/1/test"), ("POST", "/1/secret"),
        ("POST", "/1/disable"), ("POST", "/1/enable"), ("POST", "/1/replay"), ("POST", "/1/deliveries/1/replay"),
    ):  # fmt: skip
        assert as_ana.request(method, f"/admin/webhooks{path}", data={}).status_code == 403, path
        assert nobody.request(method, f"/admin/webhooks{path}", data={}).status_code == 303, path


def test_who_signed_in_long_ago_proves_it_again(
    app: FastAPI, database: Database, settings: Settings, ada: User, inbox: Inbox
) -> None:
    client = browser(create_app(database, settings), session_for(database, ada))
    with database.write() as session:
        session.exec(update(LoginSession).values(verified_at=datetime.now(UTC) - timedelta(hours=1)))
    assert add(client).headers["location"].startswith("/account/verify")
    assert (
        client.post("/account/tokens", data={"name": "x", "scope": "read", "days": "30"})
        .headers["location"]
        .startswith("/account/verify")
    )
    assert "It is me" in client.get("/account/tokens").text
    assert inbox.all(Webhook) == []
