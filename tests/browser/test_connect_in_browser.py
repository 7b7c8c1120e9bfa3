"""An admin connects an inbox in a real browser, from nothing to live: the embedded IMAP server, a poller, a worker with the fake engine."""

import os
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from imapclient import IMAPClient
from sqlmodel import select

from briefbox.db import Database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings
from briefbox.store import login_sessions, processes
from briefbox.tables import Brief, Conversation, Mailbox, MailboxDraft, Trial, User
from desk.app import create_app
from desk.tools import Tools
from ingest.for_desk import DeskMailboxes
from ingest.poller import Poller
from models.engine import make_engine
from tests.conftest import make_email
from tests.flow.conftest import PASSWORD, USER, imap, wait_for  # noqa: F401 - a fixture
from workers.gpu import BriefWorker

pytestmark = pytest.mark.browser

# Where pictures of each step go, for whoever wants to look at them.
PICTURES = os.environ.get("BRIEFBOX_TEST_PICTURES", "")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changes = {
        "private_networks": (ip_network("127.0.0.0/8"),),
        "mailbox_lease_seconds": 5,
        "poll_seconds": 0.5,
        "reconcile_seconds": 2,
    }
    return settings.model_copy(update=changes)


@pytest.fixture
def app(database: Database, settings: Settings) -> FastAPI:
    return create_app(database, settings, Tools(mailboxes=DeskMailboxes(database, settings)))


@pytest.fixture
def running(database: Database, settings: Settings) -> Iterator[None]:
    """A poller, and a worker that looks for work by itself."""
    stop = Event()
    poller = Poller(database, settings, processes.this_process("poll"), lambda _ids: None)
    process = processes.this_process("worker")
    worker = BriefWorker(database, settings, make_engine(settings), process)

    def work() -> None:
        while not stop.wait(0.2):
            worker.sweep()

    threads = [Thread(target=poller.run, args=(stop,)), Thread(target=work)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join(30)


class Browser:
    """Ada's browser."""

    def __init__(self, page: Any, address: str, name: str) -> None:
        self.page, self.address, self.name = page, address, name

    def picture(self, step: str) -> None:
        """Look at a step: nothing stands in the way of anybody, and a picture where one is wanted."""
        if self.name == "js":
            found = Axe().run(self.page)
            assert found.violations_count == 0, found.generate_report()
        if not PICTURES:
            return
        for width in (1280, 390):
            self.page.set_viewport_size({"width": width, "height": 900})
            self.page.screenshot(path=f"{PICTURES}/{step}-{width}.png", full_page=True)
        self.page.set_viewport_size({"width": 1280, "height": 900})

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()


@pytest.fixture(params=[True, False], ids=["with JavaScript", "without"])
def browser(
    request: pytest.FixtureRequest, address: str, chromium: Any, database: Database, ada: User
) -> Iterator[Browser]:
    with database.write() as session:
        token = login_sessions.open_session(session, ada, hours=1)
    context = chromium.new_context(java_script_enabled=request.param)
    context.add_cookies([{"name": "briefbox", "value": token, "url": address}])
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda sent: told.append(sent.url) if not sent.url.startswith((address, "data:")) else None,
    )
    yield Browser(page, address, "js" if request.param else "plain")
    # A refused form is answered with its own status, which Chromium calls an error.
    assert [line for line in told if "400 (Bad Request)" not in line] == []


def fill(server: EmbeddedIMAP, *raws: bytes, folder: str = "INBOX") -> None:
    with IMAPClient("127.0.0.1", port=server.port, ssl=False, timeout=30) as client:
        client.login(USER, PASSWORD)
        if not client.folder_exists(folder):
            client.create_folder(folder)
        for raw in raws:
            client.append(folder, raw)


def rows(database: Database, table: Any) -> list[Any]:
    with database.read() as session:
        return list(session.exec(select(table)))


def sign_in(browser: Browser, server: EmbeddedIMAP, password: str) -> None:
    page = browser.page
    if not page.get_by_label("Host").is_visible():
        page.get_by_text("Change the server").click()
    page.get_by_label("Host").fill("127.0.0.1")
    page.get_by_label("Port").fill(str(server.port))
    page.get_by_label("Encryption").select_option("none")
    page.get_by_label("Password", exact=True).fill(password)
    browser.press("Sign in and test")


def test_from_nothing_to_live(
    browser: Browser,
    imap: EmbeddedIMAP,  # noqa: F811
    database: Database,
    running: None,
    tmp_path: Path,
) -> None:
    page = browser.page
    fill(imap, *(make_email(n) for n in range(1, 13)))
    fill(imap, make_email(99, From=f"Support <{USER}>"), folder="Sent")
    page.goto(f"{browser.address}/admin/mailboxes")
    browser.picture("0-none")
    page.get_by_role("link", name="Connect an inbox").click()
    browser.picture("1-address")
    page.get_by_label("Address of the inbox").fill(USER)
    page.get_by_label("Name").fill("support")
    browser.press("Find its server")
    page.get_by_role("heading", name="Sign in", exact=True).wait_for()
    browser.picture("2-server")

    sign_in(browser, imap, "wrong")
    page.get_by_role("alert").wait_for()
    assert "refused the user name or the password" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Port").input_value() == str(imap.port), "what was typed stays"
    browser.picture("3-refused")
    sign_in(browser, imap, PASSWORD)

    page.get_by_role("heading", name="Connected to").wait_for()
    assert page.get_by_text("We will not delete, move or mark anything.").is_visible()
    assert page.get_by_text("Question number 12").is_visible()
    assert page.get_by_label("Folder of sent mail").input_value() == "Sent"
    page.get_by_label("All that is there").check()
    page.get_by_label("What is there already becomes").select_option("briefed")
    browser.picture("4-choose")
    browser.press("Go on")

    page.get_by_role("heading", name="Try it").wait_for()
    browser.picture("5-try")
    browser.press("Try it on the newest mails")
    page.locator(".tried .card").first.wait_for(timeout=20_000)
    assert page.locator(".tried .card").count() == 10
    browser.picture("6-tried")
    assert rows(database, Trial) == [], "what was shown is kept nowhere"
    assert rows(database, Conversation) == rows(database, Brief) == rows(database, Mailbox) == []

    browser.press("Go live")
    page.get_by_role("heading", name="support", exact=True).wait_for()
    browser.picture("7-live")
    page.get_by_text("server 12 = ledger 12").wait_for(timeout=30_000)
    wait_for(lambda: len(rows(database, Brief)) == 12, "the briefs of older mail", seconds=30)
    page.get_by_text("Stop following").click()
    browser.picture("8-mailbox")
    [row] = rows(database, Mailbox)
    assert (row.sent_folder, row.start_at, row.older, row.vetted) == ("Sent", "all", "briefed", True)
    assert rows(database, MailboxDraft) == []

    # An agent answers from another mail program: it leaves the open list.
    fill(imap, make_email(50))
    wait_for(lambda: states(database).count("open") == 1, "a new mail", seconds=20)
    answer = {"From": "Ana <ana@elsewhere.example>", "Message_ID": "<answer@elsewhere.example>"}
    raw = make_email(
        51, subject="Re: Question number 50", In_Reply_To="<mail-50@example.org>", **answer
    ).replace(b"To: support@larkspur.example", b"To: customer50@example.org")
    fill(imap, raw, folder="Sent")
    wait_for(lambda: states(database).count("answered") == 1, "the answer", seconds=20)
    if PICTURES and browser.name == "js":
        page.goto(f"{browser.address}/admin/mailboxes")
        browser.picture("9-list")
        page.emulate_media(color_scheme="dark")
        page.goto(f"{browser.address}/admin/mailboxes/{row.id}")
        browser.picture("9-dark")


def states(database: Database) -> list[str]:
    return [row.state for row in rows(database, Conversation)]


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, imap: EmbeddedIMAP) -> None:  # noqa: F811
    if browser.name == "plain":
        pytest.skip("measured by a script")
    page = browser.page
    page.set_viewport_size({"width": 320, "height": 640})

    def fits() -> None:
        page.wait_for_load_state("load")  # without its style sheets a page is wider
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, page.url

    page.goto(f"{browser.address}/admin/mailboxes/new")
    fits()
    page.get_by_label("Address of the inbox").fill(USER)
    browser.press("Find its server")
    page.get_by_role("heading", name="Sign in", exact=True).wait_for()
    fits()
    sign_in(browser, imap, PASSWORD)
    page.get_by_role("heading", name="Connected to").wait_for()
    fits()
    browser.press("Go on")
    page.get_by_text("Try it on the newest mails").wait_for()
    fits()
    browser.press("Go live without trying")
    page.get_by_role("heading", name="support", exact=True).wait_for()
    fits()
