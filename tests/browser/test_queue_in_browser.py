"""The queue in a real browser: each key, bulk, live with two people, search, views, a phone, and no JavaScript."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from briefbox.db import Database
from briefbox.store import actions, conversations, search
from briefbox.tables import Confirmation, Correction, User, View
from tests.browser.test_desk_in_browser import address as address
from tests.browser.test_desk_in_browser import page as page
from tests.browser.test_desk_in_browser import pytestmark as pytestmark
from tests.desk.conftest import *  # noqa: F403 - its fixtures
from tests.desk.conftest import Inbox, session_for
from tests.flow.conftest import wait_for


@pytest.fixture
def three(page: Any, inbox: Inbox, address: str) -> list[int]:
    """Three conversations in the order in which they stand in the list that is open."""
    numbers = [
        inbox.receive(
            f"mail {'abc'[n] * 5}",
            age=timedelta(hours=9 - n),
            brief={"headline": f"Story {n}", "priority": "normal"},
        )
        for n in range(3)
    ]
    page.goto(address)
    ready(page)
    assert page.locator(".row").count() == 3
    return numbers


@pytest.fixture
def second(page: Any, address: str, database: Database, ada: User) -> Iterator[Any]:
    """Ada's browser beside Ana's."""
    context = page.context.browser.new_context()
    context.add_cookies([{"name": "briefbox", "value": session_for(database, ada), "url": address}])
    other = context.new_page()
    yield other
    context.close()


def ready(page: Any) -> None:
    """Waits until keys do something."""
    page.locator("#rows[data-ready]").wait_for(state="attached")


def told(page: Any, text: str) -> None:
    """Waits until the page says so."""
    page.locator("#told", has_text=text).wait_for(timeout=5000)


def focused(page: Any) -> str:
    """The headline of the row that has the focus."""
    return str(
        page.evaluate("document.activeElement.closest('.row')?.querySelector('h2').textContent.trim() ?? ''")
    )


def order(page: Any) -> list[str]:
    """The headlines as they stand."""
    return [text.strip() for text in page.locator(".row h2").all_inner_texts()]


# --- keys


def test_moving_and_opening(page: Any, three: list[int], address: str) -> None:
    page.keyboard.press("j")
    assert focused(page) == "Story 0"
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert focused(page) == "Story 1"
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/conversations/{three[1]}")


def test_a_key_without_a_row_says_what_to_do(page: Any, three: list[int], inbox: Inbox) -> None:
    page.keyboard.press("d")
    told(page, "Press j")
    assert inbox.get(three[0]).state == "open"


def test_assign_and_undo(page: Any, three: list[int], inbox: Inbox, ana: User) -> None:
    page.keyboard.press("j")
    page.keyboard.press("a")
    told(page, "“Story 0” assigned to you.")
    assert inbox.get(three[0]).assigned_to == ana.id
    page.locator(f"#row-{three[0]} .owner").wait_for()
    assert focused(page) == "Story 0"
    page.keyboard.press("z")
    told(page, "Undone.")
    assert inbox.get(three[0]).assigned_to is None
    assert page.locator(".owner").count() == 0


def test_a_priority_keeps_the_row_where_it_is_until_the_focus_leaves(
    page: Any, three: list[int], inbox: Inbox
) -> None:
    for key in "jjj1":
        page.keyboard.press(key)
    told(page, "“Story 2”: priority urgent.")
    assert inbox.get(three[2]).priority == "urgent"
    assert page.locator(f"#row-{three[2]} .chip.urgent").count() == 1
    assert (order(page), focused(page)) == (["Story 0", "Story 1", "Story 2"], "Story 2")
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(5, 5)
    wait_for(lambda: order(page) == ["Story 2", "Story 0", "Story 1"], "the row to find its place", seconds=5)


def test_a_category_is_chosen_in_a_menu(page: Any, three: list[int], inbox: Inbox) -> None:
    page.keyboard.press("j")
    page.keyboard.press("c")
    menu = page.get_by_role("menu", name="Category")
    menu.wait_for()
    page.keyboard.press("Escape")
    assert menu.count() == 0
    assert focused(page) == "Story 0"
    page.keyboard.press("c")
    page.keyboard.press("r")
    page.keyboard.press("r")
    wanted = page.evaluate("document.activeElement.value")
    page.keyboard.press("Enter")
    told(page, f"category {wanted}")
    assert inbox.get(three[0]).category == wanted


def test_right_as_it_is(page: Any, three: list[int], inbox: Inbox) -> None:
    page.keyboard.press("j")
    page.keyboard.press("y")
    told(page, "noted as right")
    assert [row.strength for row in inbox.all(Confirmation)] == ["strong"]


def test_done_goes_on_with_the_next_row_and_can_be_undone(page: Any, three: list[int], inbox: Inbox) -> None:
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("d")
    told(page, "Done: “Story 1”.")
    assert inbox.get(three[1]).state == "done"
    assert (order(page), focused(page)) == (["Story 0", "Story 2"], "Story 2")
    page.keyboard.press("z")
    told(page, "Undone.")
    assert (order(page), focused(page)) == (["Story 0", "Story 1", "Story 2"], "Story 1")
    page.get_by_text("3", exact=True).first.wait_for()


def test_snooze_by_menu_and_by_date(page: Any, three: list[int], inbox: Inbox, address: str) -> None:
    page.keyboard.press("j")
    page.keyboard.press("s")
    page.keyboard.press("2")
    told(page, "put off until tomorrow 09:00")
    assert focused(page) == "Story 1"
    page.keyboard.press("s")
    page.get_by_label("Date and time").last.fill("2027-01-04T08:30")
    page.get_by_role("menu").get_by_role("button", name="Until then").click()
    told(page, "put off until Mon 4 Jan 2027, 08:30")
    assert order(page) == ["Story 2"]
    page.goto(f"{address}/?state=snoozed")
    assert "back Mon 4 Jan, 08:30" in page.locator(f"#row-{three[1]}").inner_text()


def test_the_summary_editor_is_one_key_away(page: Any, three: list[int], address: str) -> None:
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.wait_for_url(f"{address}/conversations/{three[0]}#edit-summary")


def test_search_and_help(page: Any, three: list[int], database: Database, address: str) -> None:
    while search.index_pending(database):
        pass
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("mail bbbbb")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/?q=mail+bbbbb")
    assert order(page) == ["Story 1"]


def test_a_failure_says_so_and_leaves_the_row(three: list[int], second: Any, address: str) -> None:
    second.route(
        "**/conversations/*/done", lambda route: route.fulfill(status=503, json={"error": "Not now."})
    )
    second.goto(address)
    ready(second)
    second.keyboard.press("j")
    second.keyboard.press("d")
    told(second, "Not now.")
    assert "failed" in str(second.locator("#told").get_attribute("class"))
    assert (order(second)[0], focused(second)) == ("Story 0", "Story 0")
    second.unroute_all()
    second.keyboard.press("d")
    told(second, "Done: “Story 0”.")


def test_keys_are_off_while_somebody_types(page: Any, three: list[int], inbox: Inbox) -> None:
    page.keyboard.press("/")
    page.keyboard.type("add")
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert {inbox.get(number).state for number in three} == {"open"}


# --- by mouse and touch


def test_the_menu_of_a_row(page: Any, three: list[int], inbox: Inbox, ana: User, ada: User) -> None:
    page.goto(page.url)
    ready(page)
    page.locator(f"#row-{three[1]} .row-menu").click()
    page.get_by_role("menuitem", name="Assign to …").click()
    page.get_by_role("menu", name="Assign").get_by_role("menuitem", name="Ada").click()
    told(page, "“Story 1” assigned to Ada.")
    assert inbox.get(three[1]).assigned_to == ada.id
    page.locator(f"#row-{three[1]} .row-menu").click()
    page.get_by_role("menuitemradio", name="high").click()
    told(page, "priority high")
    assert [row.after for row in inbox.all(Correction)] == ["high"]


# --- in bulk


def test_selected_rows_are_finished_together_and_come_back(page: Any, three: list[int], inbox: Inbox) -> None:
    for key in "jxjx":
        page.keyboard.press(key)
    page.get_by_text("2 selected").first.wait_for()
    page.locator("#bulk").get_by_role("button", name="Done").click()
    told(page, "2 done.")
    assert order(page) == ["Story 2"]
    assert not page.locator("#bulk").is_visible()
    page.get_by_role("button", name="Undo").click()
    told(page, "Undone: 2 are as they were.")
    wait_for(lambda: order(page) == ["Story 0", "Story 1", "Story 2"], "the rows to come back", seconds=5)


def test_all_that_match(page: Any, inbox: Inbox, address: str) -> None:
    for n in range(55):
        inbox.receive(f"mail {n}", brief={"category": "refund"})
    other = inbox.receive("another", brief={"category": "order"})
    page.goto(f"{address}/?category=refund")
    ready(page)
    page.locator(".row-pick input").first.check()
    page.get_by_label("all 55 in this list").check()
    page.locator("#bulk").get_by_text("Snooze").click()
    page.locator("#bulk").get_by_role("button", name="Tomorrow, 09:00").click()
    told(page, "55 put off until tomorrow 09:00.")
    page.get_by_text("Nothing here is refund.").wait_for()
    assert inbox.get(other).state == "open"


def test_a_click_with_shift_selects_a_range(page: Any, three: list[int]) -> None:
    page.locator(".row-pick input").nth(0).click()
    page.locator(".row-pick input").nth(2).click(modifiers=["Shift"])
    page.get_by_text("3 selected").first.wait_for()
    page.keyboard.press("Escape")
    assert page.locator(".row-pick input:checked").count() == 0


# --- live


def test_what_one_does_the_other_sees(
    page: Any, three: list[int], second: Any, address: str, inbox: Inbox
) -> None:
    second.goto(address)
    ready(second)
    second.wait_for_timeout(500)
    page.keyboard.press("j")
    page.keyboard.press("a")
    second.locator(f"#row-{three[0]} .owner[title='Ana has it']").wait_for(timeout=3000)
    page.keyboard.press("d")
    second.locator(f"#row-{three[0]}").wait_for(state="detached", timeout=3000)
    second.locator("[data-count=done]", has_text="1").wait_for(timeout=3000)


def test_a_row_under_the_focus_stays_until_it_leaves(
    page: Any, three: list[int], database: Database, ada: User, inbox: Inbox
) -> None:
    page.keyboard.press("j")
    page.keyboard.press("j")
    inbox.receive("new", brief={"headline": "A burning one", "priority": "urgent"})
    with database.write() as session:
        conversations.finish(session, three[1], user=ada)
    page.get_by_role("button", name="2 changed").wait_for(timeout=5000)
    # The new one came without its brief at first, and stands where those without a priority do.
    assert (order(page)[:3], focused(page)) == (["Story 0", "Story 1", "Story 2"], "Story 1")
    page.get_by_role("button", name="2 changed").click()
    wait_for(lambda: order(page) == ["A burning one", "Story 0", "Story 2"], "the new row", seconds=5)
    assert focused(page) == "A burning one"


def test_a_filtered_list_takes_only_what_belongs_to_it(
    page: Any, inbox: Inbox, address: str, database: Database, ana: User
) -> None:
    page.goto(f"{address}/?assigned=me")
    ready(page)
    page.get_by_text("Nothing here is mine.").wait_for()
    number = inbox.receive(brief={"headline": "For me"})
    page.wait_for_timeout(600)
    assert order(page) == []
    with database.write() as session:
        actions.assign(session, number, ana.id, user=ana)
    page.get_by_role("link", name="For me").wait_for(timeout=5000)
    page.locator("#count", has_text="1").wait_for(state="attached", timeout=5000)


def test_it_connects_again_by_itself(page: Any, three: list[int], inbox: Inbox, app: FastAPI) -> None:
    page.wait_for_timeout(500)
    for queue in list(app.state.desk.live._listeners):
        queue.put_nowait(None)
    wait_for(lambda: app.state.desk.live.num_listeners == 0, "the stream to end", seconds=5)
    inbox.receive("while away", brief={"headline": "It came meanwhile"})
    page.get_by_role("link", name="It came meanwhile").wait_for(timeout=15_000)


# --- filters and views


def test_a_filter_applies_at_once_and_keeps_the_focus(page: Any, three: list[int], address: str) -> None:
    page.get_by_label("urgent").check()
    page.wait_for_url(f"{address}/?priority=urgent")
    ready(page)
    page.get_by_text("Nothing here is urgent.").wait_for()
    assert page.evaluate("document.activeElement.value") == "urgent"
    page.get_by_label("Who has it").select_option("Unassigned")
    page.wait_for_url(f"{address}/?priority=urgent&assigned=none")
    page.get_by_role("link", name="urgent : take this off").click()
    page.wait_for_url(f"{address}/?assigned=none")
    assert len(order(page)) == 3


def test_a_view_is_saved(page: Any, three: list[int], inbox: Inbox, address: str) -> None:
    page.goto(f"{address}/?priority=normal")
    page.get_by_text("Save this view").click()
    page.get_by_label("Name").fill("Calm ones")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("link", name="Calm ones 3").wait_for()
    assert page.get_by_role("link", name="Calm ones").get_attribute("aria-current") == "page"
    assert [row.query for row in inbox.all(View)] == ["priority=normal"]


# --- small screens, and without JavaScript


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling_in_any_list(
    page: Any, inbox: Inbox, address: str, width: int, database: Database, ana: User
) -> None:
    number = inbox.receive(
        "x" * 90,
        age=timedelta(days=3),
        brief={"headline": "W" * 80, "priority": "urgent", "sure": 0.3, "instructions_found": True},
    )
    with database.write() as session:
        actions.assign(session, number, ana.id, user=ana)
    page.set_viewport_size({"width": width, "height": 700})
    for address_ in (
        "/",
        "/?priority=urgent&human=1&assigned=me&overdue=1",
        "/?q=nothing",
        "/?state=snoozed",
    ):
        page.goto(address + address_)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(address)
    ready(page)
    page.locator(".row-pick input").check()
    page.locator(".row-menu").click()
    page.get_by_role("menu").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_works_without_javascript(
    page: Any, three: list[int], inbox: Inbox, address: str, database: Database
) -> None:
    context = page.context.browser.new_context(
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    plain = context.new_page()
    plain.goto(address)
    plain.locator(f"#row-{three[0]} .row-pick input").check()
    plain.locator(f"#row-{three[1]} .row-pick input").check()
    plain.locator("#bulk").get_by_role("button", name="Done").click()
    plain.get_by_text("2 done.").wait_for()
    assert [inbox.get(number).state for number in three] == ["done", "done", "open"]
    plain.get_by_role("button", name="Undo").click()
    assert {inbox.get(number).state for number in three} == {"open"}
    plain.get_by_label("low").check()
    plain.get_by_role("button", name="Show these").click()
    plain.get_by_text("Nothing here is low.").wait_for()
    plain.get_by_text("Save this view").click()
    plain.get_by_label("Name").fill("Low ones")
    plain.get_by_role("button", name="Save", exact=True).click()
    plain.get_by_role("link", name="Low ones").wait_for()
    context.close()


def test_a_first_load_is_light(page: Any, inbox: Inbox, address: str) -> None:
    for n in range(50):
        inbox.receive(
            f"mail {n}", brief={"headline": f"Story {n} of somebody who wants something", "priority": "high"}
        )
    sizes: list[int] = []
    page.on(
        "response",
        lambda response: (
            sizes.append(int(response.request.sizes()["responseBodySize"]))
            if "events" not in response.url
            else None
        ),
    )
    page.goto(address)
    page.wait_for_timeout(800)
    assert page.locator(".row").count() == 50
    assert sum(sizes) < 150_000
