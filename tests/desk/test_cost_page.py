"""The page /cost: the table, who may see it, odd input, and a desk without prices."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.settings import Settings, load_settings
from briefbox.tables import Brief, User
from desk.app import create_app
from tests.desk.conftest import Inbox, browser, session_for

JSON = {"accept": "application/json"}
PRICES = {
    "currency": "CHF",
    "price_device_hour": 0.36,
    "device_watts": 400.0,
    "price_kwh": 0.1,
    "hosted_million_in": 1.0,
    "hosted_million_out": 4.0,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """All prices are set."""
    return load_settings(data_dir=settings.data_dir, engine="fake", **PRICES)


def _shadow(database: Database) -> None:
    """The latest brief, once more, by an adapter on trial."""
    with database.write() as session:
        row = session.get_one(Brief, 1)
        session.add(Brief(**{**row.model_dump(exclude={"id"}), "adapter": "lora-9", "shadow": True}))


def test_the_table_has_days_money_and_the_comparison(
    inbox: Inbox, as_ada: TestClient, database: Database
) -> None:
    for _ in range(2):
        inbox.receive(brief={})
    _shadow(database)
    page = " ".join(as_ada.get("/cost").text.split())
    for shown in (f"{datetime.now(UTC):%Y-%m-%d}", "shadow", "1 brief by adapters on trial", "CHF per 1,000"):
        assert shown in page
    assert "A machine that runs all day for this alone costs 9.60 CHF a day" in page
    assert "<meter" in page
    assert "no price is set" not in page


@pytest.mark.parametrize(
    ("by", "shown"),
    [("mailbox", "support"), ("adapter", "none (the base model)"), ("engine", "fake"), ("day", "(UTC)")],
)
def test_each_grouping_has_its_rows(inbox: Inbox, as_ada: TestClient, by: str, shown: str) -> None:
    inbox.receive(brief={})
    page = as_ada.get(f"/cost?by={by}").text
    assert shown in page
    assert f'<option value="{by}" selected>' in page


def test_a_range_without_briefs_says_so(inbox: Inbox, as_ada: TestClient) -> None:
    inbox.receive(brief={})
    page = as_ada.get("/cost?since=2020-01-01&until=2020-01-31").text
    assert "No brief was written in these days." in page
    assert 'value="2020-01-31"' in page


def test_only_admins_see_it_and_the_link_to_it(
    as_ana: TestClient, as_ada: TestClient, nobody: TestClient
) -> None:
    assert as_ada.get("/cost").status_code == 200
    assert as_ana.get("/cost").status_code == 403
    assert nobody.get("/cost", headers=JSON).status_code == 401
    assert as_ada.post("/cost").status_code == 405
    assert 'href="/cost"' in as_ada.get("/cost").text
    assert 'href="/cost"' not in as_ana.get("/status").text


@pytest.mark.parametrize(
    "query",
    ["by=week", "since=yesterday", "until=2026-02-30", "since=2026-02-02&until=2026-02-01", "by=" + "x" * 99],
)
def test_odd_input_is_answered_in_words(as_ada: TestClient, query: str) -> None:
    answer = as_ada.get(f"/cost?{query}")
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


def test_without_prices_it_names_the_settings(
    inbox: Inbox, database: Database, settings: Settings, ada: User
) -> None:
    inbox.receive(brief={})
    bare = load_settings(data_dir=settings.data_dir, engine="fake")
    app: FastAPI = create_app(database, bare)
    page = browser(app, session_for(database, ada)).get("/cost").text
    assert "BRIEFBOX_PRICE_DEVICE_HOUR" in page
    assert "EUR" not in page


def test_yesterday_is_not_today(inbox: Inbox, as_ada: TestClient, database: Database) -> None:
    inbox.receive(brief={})
    with database.write() as session:
        row = session.get_one(Brief, 1)
        row.created_at = row.created_at - timedelta(days=1)
        session.add(row)
    yesterday = f"{row.created_at:%Y-%m-%d}"
    assert f"<bdi>{yesterday}</bdi>" in as_ada.get(f"/cost?since={yesterday}&until={yesterday}").text
