"""What holds for every page: no accessibility violation in light and dark, 320 px are enough, little to load, no other host.

The list of pages is checked against the router: a new page that is not looked at here fails.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from briefbox.db import Database
from briefbox.schemas import Attachment
from briefbox.settings import load_settings
from briefbox.store import actions, alerts, secrets, users, webhooks
from briefbox.store.secrets import Cipher
from briefbox.tables import User
from desk.app import create_app
from tests.browser.conftest import serving
from tests.desk.conftest import Inbox, person

MAX_BYTES = 150_000

# By the path of its route; the values in braces are filled in by `world`.
PAGES = {
    "/": "/",
    "/account": "/account",
    "/account/second-factor": "/account/second-factor",
    "/account/tokens": "/account/tokens",
    "/account/verify": "/account/verify",
    "/admin/audit": "/admin/audit",
    "/admin/categories": "/admin/categories",
    "/admin/categories/{category_id}": "/admin/categories/1",
    "/admin/categories/{category_id}/merge": "/admin/categories/1/merge?into=2",
    "/admin/mailboxes": "/admin/mailboxes",
    "/admin/mailboxes/new": "/admin/mailboxes/new",
    "/admin/mailboxes/{mailbox_id}": "/admin/mailboxes/1",
    "/admin/mailboxes/{mailbox_id}/remove": "/admin/mailboxes/1/remove",
    "/admin/people": "/admin/people",
    "/admin/people/new": "/admin/people/new",
    "/admin/people/{user_id}": "/admin/people/{person}",
    "/admin/sla": "/admin/sla",
    "/admin/tokens": "/admin/tokens",
    "/admin/webhooks": "/admin/webhooks",
    "/admin/webhooks/{webhook_id}": "/admin/webhooks/{webhook}",
    "/conversations/{conversation_id}": "/conversations/{conversation}",
    "/conversations/{conversation_id}/merge": "/conversations/{conversation}/merge?into={other}",
    "/cost": "/cost",
    "/link/{token}": "/link/{link}",
    "/numbers": "/numbers",
    "/sign-in": "/sign-in",
    "/skipped": "/skipped",
    "/status": "/status",
    "/training": "/training",
}
# The steps of connecting an inbox need a server: tests/browser/test_connect_in_browser.py looks at them in the same way,
# test_access_in_browser.py at the second step of signing in.
LOOKED_AT_ELSEWHERE = {
    "/admin/mailboxes/new/{key}/server",
    "/admin/mailboxes/new/{key}/choose",
    "/admin/mailboxes/new/{key}/try",
    "/admin/mailboxes/new/{key}/sign-in",
    "/sign-in/code",
}
# No pages for people: streams, files, parts of pages, ways to elsewhere, and what strangers wrote.
NO_PAGES = {
    "/account/identities/start",
    "/account/verify/oidc",
    "/admin/mailboxes/{mailbox_id}/letters/{letter_id}/raw",
    "/conversations/{conversation_id}/row",
    "/emails/{email_id}/attachments/{number}",
    "/emails/{email_id}/original",
    "/events",
    "/healthz",
    "/sign-in/oidc",
    "/sign-in/oidc/back",
    "/training/live",
}


@dataclass(slots=True)
class World:
    """A desk with something on every page, and an admin's browser."""

    address: str
    browser: Any
    state: Any
    values: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def open(
        self, page: str, *, before: Callable[[Any], None] = lambda _tab: None, **options: Any
    ) -> Iterator[Any]:
        """One page in a fresh tab with these options of a browser context; `before` is called with it still empty."""
        with self.browser.new_context(storage_state=self.state, **options) as context:
            tab = context.new_page()
            before(tab)
            tab.goto(self.address + page.format(**self.values), wait_until="load")
            yield tab


@pytest.fixture(scope="module")
def world(
    the_chromium: Any, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One desk for all pages: they are looked at, not changed."""
    settings = load_settings(data_dir=tmp_path_factory.mktemp("world") / "data", engine="fake", threads=1)
    shutil.copy(migrated_sqlite, settings.ensure_data_dir() / "briefbox.db")
    database = Database(settings.database_address)
    ada, ana = (
        person(database, "ada@larkspur.example", "Ada", "admin"),
        person(database, "ana@x.example", "Ana"),
    )
    values = fill(Inbox(database), database, secrets.cipher(settings), ada, ana)
    with serving(create_app(database, settings)) as address:
        tab = the_chromium.new_page()
        with database.write() as session:
            link = users.new_link(session, ada)
        tab.goto(f"{address}/link/{link}")
        tab.get_by_role("button", name="Sign in now").click()
        tab.wait_for_url(f"{address}/")
        yield World(address, the_chromium, tab.context.storage_state(), values)
    database.close()


def fill(inbox: Inbox, database: Database, cipher: Cipher, ada: User, ana: User) -> dict[str, str]:
    """Something on every page. Returns what addresses need."""
    numbers = [
        inbox.receive(
            f"Question {n} about a rather long subject that has to be cut somewhere",
            age=timedelta(hours=5 * n),
            attachments=(Attachment(name="invoice.pdf", type="application/pdf", size=48_000),),
            brief={
                "headline": f"Customer asks question number {n} about an order that is late",
                "priority": ("urgent", "high", "normal", "low")[n % 4],
                "sure": 0.3 if n % 3 == 0 else 0.9,
            },
        )
        for n in range(8)
    ]
    inbox.give_up(inbox.receive("This one could not be briefed"))
    with database.write() as session:
        actions.assign(session, numbers[1], ada.id, user=ada)
        actions.note(session, numbers[0], "Called them back; they are at home after five.", user=ada)
        alerts.raise_alert(session, "worker slow", "The worker is far slower than usual.")
        other_link = users.new_link(session, ana)
        webhook, _ = webhooks.add(
            session,
            cipher,
            name="wall display",
            url="https://display.larkspur.example/hook",
            wanted=["brief.made"],
            actor="test",
        )
    return {
        "conversation": str(numbers[0]),
        "other": str(numbers[1]),
        "link": other_link,
        "person": str(ana.id),
        "webhook": str(webhook.id),
    }


def test_every_page_is_in_the_list(app: FastAPI) -> None:
    found = {path for path, methods in app.openapi()["paths"].items() if "get" in methods}
    routes = {path for path in found if not path.startswith("/api/")}
    assert routes - NO_PAGES - LOOKED_AT_ELSEWHERE == set(PAGES)


@pytest.mark.browser
@pytest.mark.parametrize("route", PAGES)
def test_a_page_is_accessible_narrow_and_light(world: World, route: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        with world.open(PAGES[route], color_scheme=scheme, reduced_motion="reduce") as tab:
            found = Axe().run(tab)
            assert found.violations_count == 0, f"{route}, {scheme}: {found.generate_report()}"
    with world.open(PAGES[route], viewport={"width": 320, "height": 640}) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 320, route


@pytest.mark.browser
@pytest.mark.parametrize("route", PAGES)
def test_a_page_loads_little_and_asks_nobody_else(world: World, route: str) -> None:
    sizes: dict[str, int] = {}
    foreign: list[str] = []

    def watch(tab: Any) -> None:
        tab.on(
            "request",
            lambda r: None if r.url.startswith((world.address, "data:")) else foreign.append(r.url),
        )
        # The event stream never ends and is no part of the first load.
        tab.on("requestfinished", lambda r: sizes.update({r.url: r.sizes()["responseBodySize"]}))

    with world.open(PAGES[route], before=watch) as tab:
        tab.wait_for_timeout(200)
    assert foreign == []
    assert 0 < sum(sizes.values()) < MAX_BYTES, sizes
