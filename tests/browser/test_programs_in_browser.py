"""A token and a webhook are made in a real browser, with keyboard and mouse, and what they open works."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from briefbox.db import Database
from briefbox.settings import Settings, load_settings
from briefbox.tables import User
from tests.browser.conftest import signed_in
from tests.flow.conftest import wait_for

pytestmark = pytest.mark.browser


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """This machine is allowed as a receiver."""
    return load_settings(data_dir=settings.data_dir, engine="fake", threads=1, private_networks="127.0.0.0/8")


@pytest.fixture
def page(address: str, chromium: Any, database: Database, ada: User) -> Iterator[Any]:
    """Ada's browser."""
    with signed_in(chromium, address, database, ada) as page:
        yield page


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """A web server, and what it was sent."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_token_is_made_used_and_revoked(page: Any, address: str) -> None:
    page.goto(f"{address}/account")
    page.get_by_role("link", name="Keys for programs of yours").click()
    page.get_by_label("Name").fill("nightly export")
    page.get_by_label("write").check()
    page.get_by_role("button", name="Make the token").press("Enter")
    token = page.get_by_label("Copy it now").input_value()
    headers = {"Authorization": f"Bearer {token}"}
    said = httpx.get(f"{address}/api/v1/me", headers=headers).json()
    assert (said["token_name"], said["scopes"]) == ("nightly export", ["read", "write"])
    page.goto(f"{address}/account/tokens")
    page.get_by_role("button", name="Revoke nightly export").click()
    page.get_by_text("The token is revoked.").wait_for()
    assert httpx.get(f"{address}/api/v1/me", headers=headers).status_code == 401


def test_a_webhook_is_added_and_tried(page: Any, address: str, receiver: tuple[str, list[bytes]]) -> None:
    url, got = receiver
    page.goto(f"{address}/admin/webhooks")
    page.get_by_label("Name").fill("crm")
    page.get_by_label("Address").fill(url)
    page.get_by_label("A brief was written").check()
    page.get_by_role("button", name="Add the webhook").click()
    assert page.get_by_label("Copy it now").input_value().startswith("whsec_")
    page.get_by_role("button", name="Send a test").click()
    page.get_by_text("The test is on its way").wait_for()
    wait_for(lambda: len(got) == 1, "the test message", seconds=15)
    wait_for(lambda: _log_says(page, "delivered, answered 204"), "the log", seconds=15)


def _log_says(page: Any, text: str) -> bool:
    page.reload()
    return bool(page.get_by_text(text).count())


@pytest.mark.parametrize(
    "path", ["/account/tokens", "/admin/tokens", "/admin/webhooks", "/admin/webhooks/1", "/api/v1/docs"]
)
def test_a_phone_needs_no_sideways_scrolling_and_axe_finds_nothing(
    page: Any, address: str, path: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.goto(f"{address}/account/tokens")
    page.get_by_label("Name").fill("a program with a rather long name that has to wrap somewhere")
    page.get_by_role("button", name="Make the token").click()
    page.goto(f"{address}/admin/webhooks")
    page.get_by_label("Name").fill("a hook")
    page.get_by_label("Address").fill("https://127.0.0.1:9/a/rather/long/path/that/has/to/wrap/somewhere/too")
    page.get_by_label("A brief was written").check()
    page.get_by_role("button", name="Add the webhook").click()
    page.get_by_role("button", name="Send a test").click()
    page.goto(address + path)
    assert page.locator("h1").count() == 1
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
