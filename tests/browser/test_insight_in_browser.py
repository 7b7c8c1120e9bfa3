"""Training, categories and numbers in a real browser, by somebody who may: the flows from the first click to the last."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.store import conversations
from briefbox.tables import Adapter, Category, Dataset, TrainingRun, User
from tests.browser.conftest import signed_in
from tests.desk.conftest import Inbox
from training import requests

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is the training worker; nobody has to be woken."""
    monkeypatch.setattr("briefbox.queue.Hints.train", lambda self, run: True)


@pytest.fixture
def page(address: str, chromium: Any, database: Database, ada: User) -> Iterator[Any]:
    """Ada's browser."""
    with signed_in(chromium, address, database, ada) as page:
        yield page


def test_train_now_is_asked_for_and_its_progress_comes_by_itself(
    page: Any, address: str, database: Database, settings: Settings, inbox: Inbox, ada: User
) -> None:
    number = inbox.receive(brief={"priority": "low"})
    with database.write() as session:
        conversations.correct(session, number, "priority", "urgent", user=ada)
        conversations.finish(session, number, user=ada)
    page.goto(f"{address}/training")
    page.get_by_role("button", name="Train now").click()
    page.get_by_text("Waits for the training worker").wait_for(timeout=5000)
    page.evaluate("window.notReloaded = true")
    # What the worker does with it.
    requests.serve(database, settings)
    page.get_by_role("heading", name="Run 1").wait_for(timeout=10_000)
    with database.write() as session:
        run = session.get_one(TrainingRun, 1)
        run.state, run.step, run.total_steps, run.loss = "running", 30, 120, 0.5
        run.losses = [[1.0, 2.0], [10.0, 0.9], [30.0, 0.5]]
    page.get_by_text("step 30 of 120, loss 0.500").wait_for(timeout=10_000)
    assert page.locator("svg.chart-drawing polyline").count() == 1
    assert page.evaluate("window.notReloaded") is True
    page.get_by_role("button", name="Cancel run 1").click()
    page.get_by_text("The run is asked to stop").wait_for(timeout=5000)


def test_what_another_person_trained_is_put_in_use(page: Any, address: str, database: Database) -> None:
    with database.write() as session:
        dataset = Dataset(name="d", content_hash="h", path="p", num_examples=40, created_at=datetime.now(UTC))
        session.add(dataset)
        session.flush()
        run = TrainingRun(
            dataset_id=dataset.id,
            base_model="m",
            state="done",
            created_by="bo@larkspur.example",
            created_at=datetime.now(UTC),
        )
        session.add(run)
        session.flush()
        session.add(
            Adapter(
                name="lora-1",
                path="adapters/lora-1",
                base_model="m",
                weights_sha256="0",
                card={"verdict": {"decision": "promoted", "rule": "gain", "sentence": "Passed."}},
                training_run_id=run.id,
                created_at=datetime.now(UTC),
            )
        )
    page.goto(f"{address}/training")
    page.get_by_role("button", name="Put lora-1 in use").focus()
    page.keyboard.press("Enter")
    page.get_by_text("In use from the next batch on.").wait_for(timeout=5000)
    page.get_by_role("button", name="Roll back to the base model").wait_for(timeout=5000)
    assert page.get_by_role("region", name="History of promotions").get_by_text("put in use").count() == 1


def test_two_categories_become_one_in_two_steps(
    page: Any, address: str, database: Database, inbox: Inbox
) -> None:
    number = inbox.receive(brief={"category": "refund"})
    page.goto(f"{address}/admin/categories")
    page.get_by_role("link", name="refund", exact=True).click()
    page.get_by_label("The one that takes its conversations").select_option(label="returns")
    page.locator("#into ~ button").click()
    page.get_by_text("Nothing has changed yet").wait_for(timeout=5000)
    assert inbox.get(number).category == "refund"
    page.get_by_role("button", name="Merge").click()
    page.get_by_text("Merged.").wait_for(timeout=5000)
    assert inbox.get(number).category == "returns"
    with database.read() as session:
        row = session.exec(select(Category).where(Category.name == "refund")).one()
        assert row.merged_into == "returns"


def test_numbers_fit_a_phone_and_their_tables_open_by_keyboard(page: Any, address: str, inbox: Inbox) -> None:
    inbox.receive(brief={})
    page.set_viewport_size({"width": 320, "height": 700})
    page.goto(f"{address}/numbers")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".chart summary").first.focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("region", name="New conversations by day, as a table").is_visible()
