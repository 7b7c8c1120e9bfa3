"""Hostile mail in a real browser: no script runs, no request leaves, and nothing breaks the page on a small phone.

Each mail carries one attack in its subject, sender, words, HTML and file name at once, and its brief repeats it.
"""

from email.message import EmailMessage
from typing import Any

import pytest

from briefbox.db import Database
from briefbox.store import actions, conversations, users
from briefbox.tables import Email, User
from tests.desk.conftest import Inbox
from tests.desk.test_original import HOSTILE

pytestmark = pytest.mark.browser

TEXTS = [
    *HOSTILE,
    "{{ 7 * 7 }}{% for x in (1,) %}${7*7}<%= 7*7 %>",
    "javascript:window.__xss=1//",
    '"><script>window.__xss=1</script><p class="',
    "' autofocus onfocus='window.__xss=1' x='",
    "</textarea></title></style></script><img src=x onerror=window.__xss=1>",
    "</main></body><script>window.__xss=1</script>",
    "\u202e\u2067moc.live//:ptth\u202d \u200f\u061c",
    "\u200b" * 300 + "\ufeff\u00ad\u2060",
    "a\u0301" * 400 + "Z" + "\u0336\u0489" * 300,
    "\U000e0041\U000e0042 hidden tags",
    "𝕯𝖗𝖔𝖕 ﷽﷽﷽ 👩‍👩‍👧‍👦" * 30,
    "\r\nSet-Cookie: a=b\r\n\r\n<script>window.__xss=1</script>",
    "%3Cscript%3Ewindow.__xss=1%3C/script%3E&lt;script&gt;",
    "LongWordWithoutAnySpace" * 200,
    "\x00\x01\x07\x1b[31m\x7f",
    "=?utf-8?q?=3Cscript=3Ewindow.__xss=3D1=3C/script=3E?=",
    "?from=javascript:window.__xss=1&note=<script>",
]


def attack(number: int, text: str) -> bytes:
    """A mail that carries this everywhere."""
    bare = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    message = EmailMessage()
    message["Subject"] = bare[:600] or "x"
    message["From"] = f"attacker{number}@example.org"
    message["To"] = "support@larkspur.example"
    message["Message-ID"] = f"<attack-{number}@example.org>"
    message.set_content(text.replace("\x00", "") or "x", cte="base64")
    message.add_alternative(f"<html><body>{text}</body></html>", subtype="html", cte="base64")
    message.add_attachment(
        b"<script>parent.__xss=1</script>", maintype="text", subtype="html", filename=bare[:200]
    )
    return message.as_bytes()


@pytest.fixture
def attacks(inbox: Inbox, database: Database, ana: User) -> list[Email]:
    """All of them, briefed by a model that repeats what it reads, and noted by an agent who pastes it."""
    found = []
    for number, text in enumerate(TEXTS):
        said = text.replace("\x00", "")
        email = inbox.arrive(attack(number, text), brief={"headline": said[:300], "summary": said[:2000]})
        found.append(email)
        with database.write() as session:
            row = conversations.get(session, email.conversation_id or 0)
            row.customer_name, row.customer_address = said[:200], f"{said[:80]}@example.org"
            session.add(row)
            if number % 3 == 0:
                actions.note(session, row.id, said[:2000] or "x", user=ana)
                conversations.correct(
                    session, row.id, "headline", f"{said[:200]} x", user=ana, reason=said[:200]
                )
    return found


@pytest.fixture
def phone(address: str, chromium: Any, database: Database, ana: User) -> tuple[Any, list[str]]:
    """A small phone, signed in, and what it asked of other hosts or said as an error."""
    with database.write() as session:
        link = f"{address}/link/{users.new_link(session, ana)}"
    context = chromium.new_context(viewport={"width": 320, "height": 640}, accept_downloads=True)
    page = context.new_page()
    told: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "data:", "about:")):
            told.append(request.url)

    context.on("request", asked)
    context.on("weberror", lambda error: told.append(str(error.error)))
    context.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.goto(link)
    page.get_by_role("button", name="Sign in now").click()
    page.wait_for_url(f"{address}/")
    return page, told


def calm(page: Any, told: list[str]) -> None:
    """Nothing ran, nothing was asked of anybody, and the page is as wide as the phone."""
    assert told == []
    for frame in page.frames:
        assert frame.evaluate("window.__xss") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_there_are_enough_attacks() -> None:
    assert len(set(TEXTS)) >= 70


def test_lists_conversations_and_originals_are_calm(
    attacks: list[Email], phone: tuple[Any, list[str]], address: str
) -> None:
    page, told = phone
    for path in ("/", "/?state=all"):
        page.goto(address + path)
        page.wait_for_timeout(300)
        calm(page, told)
    for email in attacks:
        page.goto(f"{address}/conversations/{email.conversation_id}")
        assert page.get_by_role("heading", level=1).count() == 1
        assert page.locator("#news").count() == 1  # nothing took a name of ours
        with page.expect_response("**/original"):
            page.locator("details.original > summary").click()
        page.frame_locator("iframe").locator("body").wait_for(state="attached")
        assert page.locator("iframe").get_attribute("sandbox") == ""
        assert page.evaluate("document.querySelector('iframe').contentDocument") is None
        calm(page, told)


def test_originals_are_calm_on_a_page_of_their_own(
    attacks: list[Email], phone: tuple[Any, list[str]], address: str
) -> None:
    page, told = phone
    for email in attacks:
        page.goto(f"{address}/emails/{email.id}/original")
        page.mouse.click(30, 30)
        assert page.locator("script, style ~ style, link, form, iframe, a, svg, math").count() == 0
        assert page.url == f"{address}/emails/{email.id}/original"
        assert told == []


def test_attachments_are_only_downloaded(
    attacks: list[Email], phone: tuple[Any, list[str]], address: str
) -> None:
    page, told = phone
    for email in attacks[::9] + attacks[-12:]:
        page.goto(f"{address}/conversations/{email.conversation_id}")
        with page.expect_download() as download:
            page.locator(".attachments a").first.click()
        name = download.value.suggested_filename
        assert not set(name) & set('/\\:*?"<>|\r\n\0\u202e\u2067\u200b'), name
        assert page.url == f"{address}/conversations/{email.conversation_id}"
        calm(page, told)


def test_without_our_cleaning_the_walls_behind_it_still_hold(
    inbox: Inbox, phone: tuple[Any, list[str]], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox and the policy alone, with the HTML as it was written."""
    monkeypatch.setattr("desk.agents.original.clean", lambda html, _images: html)
    page, _told = phone
    blocked: list[tuple[str, str]] = []
    page.context.on("requestfailed", lambda request: blocked.append((request.url, request.failure or "")))
    answered: list[str] = []
    page.context.on("response", lambda response: answered.append(response.url))
    for number, text in enumerate(HOSTILE):
        email = inbox.arrive(attack(number, text))
        page.goto(f"{address}/conversations/{email.conversation_id}")
        with page.expect_response("**/original"):
            page.locator("details.original > summary").click()
        page.wait_for_timeout(100)
        assert page.evaluate("window.__xss") is None
    assert all(url.startswith((address, "data:")) for url in answered)
    # What was tried was stopped by the policy before it left: not by a name that nobody knows.
    outside = [(url, why) for url, why in blocked if "evil.example" in url]
    assert outside
    assert [found for found in outside if "csp" not in found[1].lower()] == []
