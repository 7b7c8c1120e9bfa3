"""The desk in a real browser: live rows, a correction by key, no console error, no request to another host."""

from typing import Any

import pytest

from briefbox.db import Database
from briefbox.schemas import Grounding, Sentence
from briefbox.store import regroup
from briefbox.tables import Correction, Email
from tests.desk.conftest import *  # noqa: F403 - its fixtures
from tests.desk.conftest import Inbox
from tests.flow.conftest import wait_for

pytestmark = pytest.mark.browser


def test_a_new_row_slides_in_without_a_reload(page: Any, inbox: Inbox) -> None:
    page.evaluate("window.notReloaded = true")
    inbox.receive(
        "A mail that comes later", brief={"headline": "It came while the page was open", "priority": "urgent"}
    )
    page.get_by_role("link", name="It came while the page was open").wait_for(timeout=5000)
    assert page.evaluate("window.notReloaded") is True


def test_a_row_that_moves_past_no_other_row_is_still_renewed(page: Any, inbox: Inbox) -> None:
    # The page shows it without a brief; its brief then changes its place in the order, but there is no other row.
    number = inbox.receive("A mail on its own")
    page.get_by_role("link", name="A mail on its own").wait_for(timeout=5000)
    [email] = inbox.all(Email)
    inbox.brief(email.id, headline="It is urgent now", priority="urgent")
    page.get_by_role("link", name="It is urgent now").wait_for(timeout=5000)
    assert page.locator(".row").count() == 1
    assert page.locator(f"#row-{number}").count() == 1


def test_a_priority_is_corrected_by_one_key(page: Any, inbox: Inbox) -> None:
    number = inbox.receive(brief={"priority": "low", "headline": "Fix me"})
    page.goto(page.url)
    page.get_by_text("Fix me").first.click()
    page.wait_for_url(f"**/conversations/{number}*")
    page.keyboard.press("1")
    wait_for(lambda: inbox.get(number).priority == "urgent", "the correction", seconds=10)
    [row] = inbox.all(Correction)
    assert (row.before, row.after) == ("low", "urgent")


TEXT = "Hello, my parcel is late. Please send it by Friday."
SUPPORTED = {
    "summary": "The parcel is late. It is needed by Friday.",
    "grounding": Grounding(
        sentences=(
            Sentence(text="The parcel is late.", start=7, end=25),
            Sentence(text="It is needed by Friday.", start=26, end=len(TEXT)),
        )
    ),
}


def test_a_sentence_lights_up_what_supports_it(page: Any, inbox: Inbox, address: str) -> None:
    number = inbox.receive(text=TEXT, brief=SUPPORTED)
    with page.expect_response("**/here"):  # its script is there
        page.goto(f"{address}/conversations/{number}")
    lit = page.locator(".support.lit")
    page.get_by_role("link", name="The parcel is late.").focus()
    assert lit.all_inner_texts() == ["my parcel is late."]
    page.keyboard.press("Tab")
    assert lit.all_inner_texts() == ["Please send it by Friday."]
    page.keyboard.press("Tab")
    assert lit.count() == 0
    page.get_by_role("link", name="The parcel is late.").click()
    assert lit.all_inner_texts() == ["my parcel is late."]
    assert page.url.endswith(f"/conversations/{number}")


def test_a_sentence_leads_to_what_supports_it_without_javascript(
    page: Any, inbox: Inbox, address: str
) -> None:
    number = inbox.receive(text=TEXT, brief=SUPPORTED)
    context = page.context.browser.new_context(
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    plain = context.new_page()
    plain.goto(f"{address}/conversations/{number}")
    link = plain.get_by_role("link", name="It is needed by Friday.")
    assert link.get_attribute("title") == "The mail says: “Please send it by Friday.”"
    link.click()
    assert plain.locator(".support:has(> :target)").all_inner_texts() == ["Please send it by Friday."]


def test_hostile_mail_runs_nothing(page: Any, inbox: Inbox) -> None:
    hostile = "<script>window.__xss=1</script><img src='http://evil.example/x' onerror='window.__xss=1'>"
    number = inbox.receive(hostile, hostile, brief={"headline": hostile, "summary": hostile})
    for path in ("", f"conversations/{number}"):
        page.goto(page.url.split("/conversations")[0].rstrip("/") + "/" + path)
        page.wait_for_timeout(300)
        assert page.evaluate("window.__xss") is None


def test_reading_and_correcting_work_without_javascript(page: Any, inbox: Inbox, address: str) -> None:
    number = inbox.receive(brief={"priority": "low"})
    context = page.context.browser.new_context(
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    plain = context.new_page()
    plain.goto(f"{address}/conversations/{number}")
    plain.get_by_role("button", name="urgent").click()
    wait_for(lambda: inbox.get(number).priority == "urgent", "the correction", seconds=10)


def test_a_phone_needs_no_sideways_scrolling(page: Any, inbox: Inbox) -> None:
    number = inbox.receive(
        "a subject " * 12, brief={"headline": "A rather long headline that has to wrap on a narrow phone"}
    )
    page.set_viewport_size({"width": 320, "height": 640})
    for path in ("/", f"/conversations/{number}", "/status"):
        page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/")[2] + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_conversation_that_somebody_merges_leads_to_where_its_mail_is(
    page: Any, inbox: Inbox, database: Database
) -> None:
    one, other = inbox.receive("The one"), inbox.receive("The other", brief={"headline": "It stands here"})
    page.goto(f"{page.url}conversations/{one}")
    with database.write() as session:
        regroup.merge(session, one, other, actor="test")
    page.wait_for_url(f"**/conversations/{other}?note=merged", timeout=10_000)
    page.get_by_role("heading", name="It stands here").wait_for()


def test_what_is_typed_to_merge_or_skip_outlives_a_change(page: Any, inbox: Inbox) -> None:
    number = inbox.receive("The one")
    page.goto(f"{page.url}conversations/{number}")
    page.get_by_text("Not customer mail").click()
    page.get_by_role("textbox", name="Why").fill("a sales pitch")
    [email] = inbox.all(Email)
    inbox.brief(email.id, headline="The brief came")
    page.get_by_role("button", name="This conversation has changed: show").wait_for(timeout=10_000)
    assert page.get_by_role("textbox", name="Why").input_value() == "a sales pitch"
    page.get_by_role("button", name="Take it out of the queue").click()
    page.wait_for_url(f"**/conversations/{number}?note=skipped")
    page.get_by_text("a sales pitch").wait_for()
