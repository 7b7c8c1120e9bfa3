"""Chromium over the real pages, served by uvicorn. Ana is signed in; an error on her console fails the test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from briefbox.db import Database
from briefbox.store import users
from briefbox.tables import User
from tests.desk.conftest import *  # noqa: F403 - its fixtures
from tests.flow.conftest import wait_for
from tests.servers import free_port

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the browser its tests are skipped, with the reason."""
    if CHROMIUM.exists():
        return
    skip = pytest.mark.skip(reason=f"{CHROMIUM} is not there: apt-get install chromium")
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(skip)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The desk on a port of this machine. Gives its address."""
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the desk to start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """Where the desk is."""
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def the_chromium() -> Iterator[Any]:
    """One browser for a file's tests: its start takes longer than most of them.

    Not for the whole run: Playwright keeps an event loop in this thread while it is open.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def chromium(the_chromium: Any) -> Iterator[Any]:
    """The same with nothing open: each test has its own windows, cookies and storage."""
    yield the_chromium
    for context in the_chromium.contexts:
        context.close()


def _is_error(message: Any) -> bool:
    # A conflict is an answer like any other, though browsers log it.
    return message.type == "error" and "409 (Conflict)" not in message.text


@contextmanager
def signed_in(chromium: Any, address: str, database: Database, user: User) -> Iterator[Any]:
    """Somebody's browser on the queue. An error on its console, or a request to another host, fails the test."""
    with database.write() as session:
        link = f"{address}/link/{users.new_link(session, user)}"
    page = chromium.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if _is_error(message) else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((address, "data:", "blob:")) else told.append(request.url)
        ),
    )
    page.goto(link)
    page.get_by_role("button", name="Sign in now").click()
    page.wait_for_url(f"{address}/")
    yield page
    assert told == []


@pytest.fixture
def page(address: str, chromium: Any, database: Database, ana: User) -> Iterator[Any]:
    """Ana's browser."""
    with signed_in(chromium, address, database, ana) as page:
        yield page
