"""The page of numbers: what it says, whose mail it counts, odd ranges, and charts that keep to the CSP."""

from datetime import UTC, date, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.store.numbers import Day
from briefbox.tables import Conversation, Promotion, User
from desk.insight import number_charts
from desk.insight.charts import bars, line, nice_top, y_axis
from desk.insight.training_views import wilson
from tests.desk.conftest import Inbox

JSON = {"accept": "application/json"}


def text(client: TestClient, address: str = "/numbers") -> str:
    response = client.get(address)
    assert response.status_code == 200, response.text
    return " ".join(response.text.split())


def test_an_empty_desk_has_a_page_without_drawings(inbox: Inbox, as_ana: TestClient) -> None:
    page = text(as_ana)
    assert "Nothing was finished." in page
    assert "chart-drawing" not in page


def test_what_happened_is_said_drawn_and_tabled(database: Database, inbox: Inbox, as_ana: TestClient) -> None:
    one = inbox.receive(brief={"priority": "normal", "category": "order"})
    two = inbox.receive(brief={"category": "delivery"})
    inbox.receive(brief={"category": "delivery"})
    as_ana.post(f"/conversations/{one}/correct", data={"field": "priority", "value": "urgent"})
    as_ana.post(f"/conversations/{one}/done")
    as_ana.post(f"/conversations/{two}/done")
    with database.write() as session:
        session.add(
            Promotion(adapter="<i>lora</i>", kind="promote", actor="ada", created_at=datetime.now(UTC))
        )
    page = text(as_ana)
    assert "3 in all; most on" in page
    assert "Of 2 finished: 0 % accepted, 50 % left as it was, 50 % corrected." in page
    assert "put in use: &lt;i&gt;lora&lt;/i&gt;." in page
    assert '<text class="mark-text"' in page
    assert "2 (few)" in page
    assert "answered within target" in page
    assert page.count('<svg class="chart-drawing"') == page.count("As a table")
    assert "style=" not in page


def test_only_the_mailboxes_that_one_sees(
    app: FastAPI, database: Database, inbox: Inbox, ana: User, as_ana: TestClient, as_ada: TestClient
) -> None:
    inbox.receive(brief={})
    assert "1 in all" in text(as_ana)
    assert "1 in all" in text(as_ana, f"/numbers?mailbox={inbox.mailbox.id}")
    with database.write() as session:
        session.get_one(User, ana.id).all_mailboxes = False
    page = text(as_ana)
    assert "1 in all" not in page
    assert ">support</option>" not in page
    assert as_ana.get(f"/numbers?mailbox={inbox.mailbox.id}", headers=JSON).status_code == 404
    # What one person's page has counted is not shown to another who sees less, or more.
    assert "1 in all" in text(as_ada)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("since=2026-02-30", "since"),
        ("since=2020-01-01&until=2026-01-01", "at most 366"),
        ("since=2126-01-01&until=2126-01-02", "is not here yet"),
        ("since=2026-02-02&until=2026-02-01", "after until"),
        ("mailbox=x", "is no mailbox"),
    ],
)
def test_odd_ranges_are_refused_in_words(inbox: Inbox, as_ana: TestClient, query: str, says: str) -> None:
    answer = as_ana.get(f"/numbers?{query}", headers=JSON)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_a_day_that_is_over_is_counted_once(
    database: Database, inbox: Inbox, as_ana: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = inbox.receive(brief={})
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with database.write() as session:
        session.get_one(Conversation, number).opened_at = yesterday
    assert "1 in all" in text(as_ana)
    counted: list[tuple[date, date]] = []
    monkeypatch.setattr("desk.insight.numbers.KEEP_TODAY_SECONDS", -1)
    monkeypatch.setattr("desk.insight.numbers.numbers.by_day", lambda *asked: counted.append(asked[1:3]))
    assert "1 in all" in text(as_ana, f"/numbers?since={yesterday.date()}&until={yesterday.date()}")
    assert counted == []


def test_nobody_sees_nothing(nobody: TestClient) -> None:
    assert nobody.get("/numbers", headers=JSON).status_code == 401


# --- charts


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (3, 5), (7, 10), (11, 20), (21, 25), (130, 200), (0.3, 0.5)]
)
def test_an_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert nice_top(value) == pytest.approx(top)
    assert y_axis(top)[-1].at < y_axis(top)[0].at


def test_whole_things_have_no_halves_on_their_axis() -> None:
    for top in (1, 2, 5, 10, 25, 50):
        assert all(tick.text.replace(",", "").isdecimal() for tick in y_axis(top, whole=True))


def test_a_missing_value_is_a_gap_and_a_lonely_one_a_dot() -> None:
    drawn = line("x", "a", [1.0, 2.0, None, 1.0, None], 2)
    assert len(drawn.pieces) == 1
    assert len(drawn.dots) == 3


def test_stacked_bars_stand_on_each_other() -> None:
    low, high = bars([("a", [1.0]), ("c", [3.0])], 4)
    assert high.y + high.height == pytest.approx(low.y, abs=0.11)


def test_long_ranges_are_drawn_by_week() -> None:
    first = date(2026, 1, 1)
    days = {first + timedelta(days=n): Day(opened={"x": 1}) for n in range(200)}
    spans = number_charts.by_span(days)
    assert sum(len(span.days) for span in spans) == 200
    chart = number_charts.volume(spans)
    assert chart.title == "New conversations by week"
    assert len(chart.rows) == len(spans) < 32
    backlog = number_charts.backlog(spans, dict.fromkeys(days, 3))
    assert backlog.sentence == "3 at the beginning, 3 at the end."


def test_few_of_a_tenth_are_in_the_table_only() -> None:
    days = {date(2026, 1, 1): Day(sure={"priority": {9: (40, 38, 38.0), 3: (4, 1, 1.4)}})}
    chart = number_charts.calibration(days, "priority")
    assert [row[3] for row in chart.rows] == ["4 (few)", "40"]
    assert sum(len(drawn.dots) for drawn in chart.lines) == 1


def test_the_interval_of_a_share() -> None:
    assert wilson(0.9, 40) == (pytest.approx(0.769, abs=0.002), pytest.approx(0.960, abs=0.002))
    assert wilson(1.0, 5)[0] > 0.5
