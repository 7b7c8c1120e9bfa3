"""The conversation page in a real browser: keys, two agents at once, undo, what is typed and not lost."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from briefbox.db import Database
from briefbox.store import conversations, users
from briefbox.tables import Correction, Email, Note, User
from tests.browser.test_desk_in_browser import SUPPORTED, TEXT
from tests.desk.conftest import Inbox
from tests.flow.conftest import wait_for

pytestmark = pytest.mark.browser


@pytest.fixture
def bens(page: Any, address: str, database: Database, ada: User) -> Iterator[Any]:
    """A second browser, Ada's."""
    with database.write() as session:
        link = f"{address}/link/{users.new_link(session, ada)}"
    context = page.context.browser.new_context()
    other = context.new_page()
    other.goto(link)
    other.get_by_role("button", name="Sign in now").click()
    other.wait_for_url(f"{address}/")
    yield other
    context.close()


def test_two_agents_see_each_other_and_neither_loses_a_word(
    page: Any, bens: Any, inbox: Inbox, address: str
) -> None:
    number = inbox.receive(brief={"summary": "The model's summary."})
    for browser in (page, bens):
        browser.goto(f"{address}/conversations/{number}")
    page.locator("#present", has_text="Ada is here").wait_for(timeout=15_000)
    bens.keyboard.press("e")
    bens.get_by_role("textbox", name="Summary").fill("Ada's summary.")
    page.keyboard.press("e")
    page.get_by_role("textbox", name="Summary").fill("Ana's summary.")
    bens.locator("#present", has_text="Ana is editing the summary").wait_for(timeout=15_000)
    # Ada saves first; Ana is told, and goes on writing.
    bens.keyboard.press("Control+Enter")
    bens.locator("#note", has_text="Saved.").wait_for()
    page.get_by_role("button", name="This conversation has changed: show").wait_for(timeout=10_000)
    page.get_by_role("textbox", name="Summary").press("Control+Enter")
    clash = page.get_by_role("region", name="Summary: two versions")
    clash.wait_for()
    assert "Ada changed it while you were writing" in clash.inner_text()
    assert "Ada's summary." in clash.inner_text()
    assert clash.get_by_role("textbox").input_value() == "Ana's summary."
    assert inbox.get(number).summary == "Ada's summary."
    clash.get_by_role("button", name="Put mine over it").click()
    page.locator("#note", has_text="Saved.").wait_for()
    assert inbox.get(number).summary == "Ana's summary."
    bens.get_by_text("Ana's summary.").first.wait_for(timeout=10_000)


def test_what_is_typed_stays_when_the_newer_version_is_shown(
    page: Any, inbox: Inbox, address: str, database: Database, ada: User
) -> None:
    number = inbox.receive(brief={"headline": "The model's"})
    page.goto(f"{address}/conversations/{number}")
    page.keyboard.press("h")
    page.get_by_role("textbox", name="Headline").fill("Mine")
    with database.write() as session:
        conversations.correct(session, number, "headline", "Ada's", user=ada)
    page.get_by_role("button", name="This conversation has changed: show").click(timeout=10_000)
    page.locator("#news[hidden]").wait_for(state="attached")
    assert page.get_by_role("textbox", name="Headline").input_value() == "Mine"
    page.get_by_role("button", name="Save headline").click()
    page.get_by_role("region", name="Headline: two versions").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("link", name="Keep this, drop mine").click()
    page.get_by_role("heading", name="Ada's", exact=True, level=1).wait_for()
    assert [row.after for row in inbox.all(Correction)] == ["Ada's"]


def test_both_versions_side_by_side_without_javascript(
    page: Any, inbox: Inbox, address: str, database: Database, ada: User
) -> None:
    number = inbox.receive(brief={"headline": "The model's"})
    context = page.context.browser.new_context(
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    plain = context.new_page()
    plain.goto(f"{address}/conversations/{number}")
    with database.write() as session:
        conversations.correct(session, number, "headline", "Ada's", user=ada)
    plain.locator("#edit-headline > summary").click()
    plain.get_by_role("textbox", name="Headline").fill("Mine")
    plain.get_by_role("button", name="Save headline").click()
    clash = plain.get_by_role("region", name="Headline: two versions")
    assert "Ada's" in clash.inner_text()
    clash.get_by_role("textbox").fill("Mine after all")
    clash.get_by_role("button", name="Put mine over it").click()
    plain.get_by_role("heading", name="Mine after all", level=1).wait_for()
    plain.get_by_role("button", name="Undo").first.click()
    plain.get_by_role("heading", name="Ada's", exact=True, level=1).wait_for()
    assert inbox.get(number).headline == "Ada's"


def test_a_day_by_keys(page: Any, inbox: Inbox, address: str, ana: User) -> None:
    numbers = [
        inbox.receive(f"Mail {n}", age=timedelta(hours=5 - n), brief={"headline": f"Headline {n}"})
        for n in range(3)
    ]
    keys = page.keyboard
    page.goto(f"{address}/")
    with page.expect_response("**/here"):  # from then on the page answers in place
        page.get_by_role("link", name="Headline 0").click()
    keys.press("a")
    page.get_by_text("You have it.").wait_for()
    keys.press("1")
    wait_for(lambda: inbox.get(numbers[0]).priority == "urgent", "the priority", seconds=10)
    page.locator("#note", has_text="Saved.").wait_for()
    keys.press("z")
    wait_for(lambda: inbox.get(numbers[0]).priority == "normal", "undo", seconds=10)
    page.locator('[aria-pressed="true"]', has_text="normal").wait_for()
    keys.press("y")
    page.locator(".confirmed", has_text="Ana said it is right.").wait_for()
    keys.press("n")
    page.get_by_role("textbox", name="Note").fill("Ask the warehouse.")
    keys.press("Control+Enter")
    page.locator(".agent-note", has_text="Ask the warehouse.").wait_for()
    assert [note.user_id for note in inbox.all(Note)] == [ana.id]
    with page.expect_response("**/conversations/2/here"):
        keys.press("d")
    page.get_by_role("heading", name="Headline 1", level=1).wait_for()
    assert "Done: “Headline 0”." in page.locator("#note").inner_text()
    with page.expect_response("**/conversations/3/here"):  # keys come with the scripts, after the page
        keys.press("j")
    page.get_by_role("heading", name="Headline 2", level=1).wait_for()
    with page.expect_response("**/conversations/2/here"):
        keys.press("k")
    page.get_by_role("heading", name="Headline 1", level=1).wait_for()
    keys.press("s")
    page.get_by_role("button", name="Tomorrow, 09:00").click()
    page.get_by_text("put off until tomorrow 09:00").first.wait_for()
    assert inbox.get(numbers[1]).state == "snoozed"
    keys.press("u")
    page.wait_for_url(f"{address}/")


def test_what_supports_a_sentence_comes_back_when_a_correction_is_undone(
    page: Any, inbox: Inbox, address: str
) -> None:
    number = inbox.receive(text=TEXT, brief=SUPPORTED)
    page.goto(f"{address}/conversations/{number}")
    page.keyboard.press("e")
    page.get_by_role("textbox", name="Summary").fill("Late.")
    page.get_by_role("button", name="Save summary").click()
    page.locator("p.summary", has_text="Late.").wait_for()
    assert page.locator(".sentence, .support").count() == 0
    page.locator("#note").get_by_role("button", name="Undo").click()
    page.get_by_role("link", name="The parcel is late.").click()
    assert page.locator(".support.lit").all_inner_texts() == ["my parcel is late."]


def test_an_attachment_of_the_mail_comes_down(page: Any, inbox: Inbox, address: str) -> None:
    raw = (
        b"From: vera@example.org\nSubject: It\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        b"--b\nContent-Type: text/plain\n\nSee.\n--b\nContent-Type: text/html; name=bill.html\n"
        b"Content-Disposition: attachment; filename=bill.html\n\n<script>1</script>\n--b--\n"
    )
    email: Email = inbox.arrive(raw)
    page.goto(f"{address}/conversations/{email.conversation_id}")
    with page.expect_download() as download:
        page.get_by_role("link", name="bill.html").click()
    assert download.value.suggested_filename == "bill.html"
