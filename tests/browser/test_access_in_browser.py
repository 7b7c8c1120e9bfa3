"""From the set-up link to the queue, the second factor, one's own browsers: in a real browser, also without JavaScript."""

from typing import Any

import pyotp
import pytest

from briefbox.db import Database
from briefbox.store import login_sessions, users
from briefbox.tables import User
from tests.desk.conftest import Inbox, person

pytestmark = pytest.mark.browser
GOOD = "brass bell in the snow"


def sign_in(page: Any, address: str, user: User, password: str = GOOD) -> None:
    page.goto(f"{address}/sign-in")
    page.get_by_label("Email address").fill(user.email)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("script", [True, False])
def test_from_the_set_up_link_to_the_queue(
    chromium: Any,
    address: str,
    database: Database,
    inbox: Inbox,
    script: bool,
) -> None:
    inbox.receive(brief={"headline": "The first mail"})
    with database.write() as session:
        link = users.first_link(session)
    page = chromium.new_context(java_script_enabled=script).new_page()
    page.goto(f"{address}/link/{link}")
    page.keyboard.type("Ada Marsh")  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type("ada@larkspur.example")
    page.keyboard.press("Tab")
    page.keyboard.type(GOOD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/admin/mailboxes")
    page.goto(f"{address}/")
    page.get_by_text("The first mail").first.wait_for()


def test_an_agent_is_invited_and_lands_in_the_queue(
    chromium: Any,
    address: str,
    database: Database,
    inbox: Inbox,
    ada: User,
) -> None:
    with database.write() as session:
        link = users.new_link(session, ada)
    page = chromium.new_context().new_page()
    page.goto(f"{address}/link/{link}")
    page.get_by_role("button", name="Sign in now").click()
    page.goto(f"{address}/admin/people")
    page.get_by_role("link", name="Invite somebody").click()
    page.get_by_label("Email address").fill("ben@larkspur.example")
    page.get_by_label("Name", exact=True).fill("Ben")
    page.get_by_label("Only these").check()
    page.get_by_label("support").check()
    page.get_by_role("button", name="Make the link").click()
    invitation = page.get_by_label("Pass it on").input_value()
    guest = chromium.new_context().new_page()
    guest.goto(address + invitation[invitation.index("/link/") :])
    guest.get_by_label("Choose a password").fill(GOOD)
    guest.get_by_role("button", name="Save and sign in").click()
    guest.wait_for_url(f"{address}/")
    page.goto(f"{address}/admin/people")
    page.get_by_text("sees support").wait_for()


def test_a_second_factor_is_set_up_and_asked_for(
    chromium: Any,
    address: str,
    database: Database,
    ana: User,
) -> None:
    with database.write() as session:
        link = users.new_link(session, ana)
    page = chromium.new_context().new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.goto(f"{address}/link/{link}")
    page.get_by_label("Choose a password").fill(GOOD)
    page.get_by_role("button", name="Save and sign in").click()
    page.goto(f"{address}/account")
    page.get_by_role("link", name="Set up a second factor").click()
    square = page.get_by_role("img", name="QR code")
    assert square.evaluate(
        "image => image.complete && image.naturalWidth > 100"
    )  # the policy lets it be shown
    page.get_by_text("Or type the secret in").click()
    totp = pyotp.TOTP(page.locator(".secret").inner_text().replace(" ", ""))
    page.get_by_label("Code").fill(totp.now())
    page.get_by_role("button", name="Turn it on").click()
    page.get_by_role("heading", name="Recovery codes").wait_for()
    recovery = page.locator(".codes code").first.inner_text()
    assert told == []
    other = chromium.new_context().new_page()
    sign_in(other, address, ana)
    other.wait_for_url(f"{address}/sign-in/code**")
    other.goto(f"{address}/")
    assert other.url.startswith(f"{address}/sign-in")
    other.goto(f"{address}/sign-in/code")
    other.keyboard.type(recovery)
    other.keyboard.press("Enter")
    other.wait_for_url(f"{address}/")


def test_another_browser_is_signed_out_from_here(
    chromium: Any,
    address: str,
    database: Database,
    ana: User,
) -> None:
    pages = []
    for _ in range(2):
        with database.write() as session:
            link = users.new_link(session, ana)
        page = chromium.new_context().new_page()
        page.goto(f"{address}/link/{link}")
        page.get_by_role("button", name="Sign in now").click()
        page.wait_for_url(f"{address}/")
        pages.append(page)
    here, there = pages
    here.goto(f"{address}/account")
    here.get_by_role("region", name="Where you are signed in").get_by_role(
        "button", name="Sign out Chrome on Linux"
    ).click()
    here.get_by_text("That browser is signed out.").wait_for()
    there.goto(f"{address}/account")
    assert there.url.startswith(f"{address}/sign-in")


def test_no_page_of_these_breaks_a_rule_of_accessibility_or_a_narrow_phone(
    chromium: Any,
    address: str,
    database: Database,
    inbox: Inbox,
    ada: User,
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    person(database, "ben@larkspur.example", "Ben with a long name that goes on")
    with database.write() as session:
        token = login_sessions.open_session(session, ada, hours=1)
        link = users.new_link(session, ada)
    page = chromium.new_context(viewport={"width": 320, "height": 700}).new_page()
    found: dict[str, Any] = {}
    for path in ("/sign-in", f"/link/{link}"):
        found[path] = look(page, Axe(), f"{address}{path}")
    page.context.add_cookies([{"name": "briefbox", "value": token, "url": address}])
    for path in (
        "/account", "/account/second-factor", "/account/verify", "/admin/people", "/admin/people/new",
        "/admin/people/2", "/admin/audit", "/admin/audit?actor=nobody&since=x",
    ):  # fmt: skip
        found[path] = look(page, Axe(), f"{address}{path}")
    assert {path: what for path, what in found.items() if what} == {}


def look(page: Any, axe: Any, url: str) -> list[str]:
    page.goto(url)
    problems = [f"{v['id']}: {v['nodes'][0]['html']}" for v in axe.run(page).response["violations"]]
    if page.evaluate("document.documentElement.scrollWidth") > 320:
        problems.append("wider than 320 px")
    return problems
