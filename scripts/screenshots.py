"""Takes the pictures of docs/images from a real demo: every page, at the width of a desktop and of a phone.

    .venv/bin/python scripts/screenshots.py            all of them (about four minutes)
    .venv/bin/python scripts/screenshots.py queue      only those whose name begins so

Needs Chromium. What agents do before the pictures are taken is done in the browser, as a person would.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.conftest import CHROMIUM, QUIET
from tests.servers import free_port

IMAGES = Path(os.environ.get("IMAGES", Path(__file__).resolve().parent.parent / "docs" / "images"))
NUM_EMAILS = 36
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
# Pages are taken as high as they are, up to this: a reader scrolls, a picture does not.
MAX_HEIGHT = 1700
COLOURS = 96
# The real model; "fake" is quicker, to look at a change.
ENGINE = os.environ.get("ENGINE", "transformers")


@contextmanager
def demo() -> Iterator[str]:
    """A demo with all its emails briefed. Gives the link of its admin."""
    with tempfile.TemporaryDirectory(prefix="bb-shots-") as folder:
        command = [sys.executable, "-m", "briefbox", "demo", "--port", str(free_port()), "--interval", "0.1"]
        command += ["--emails", str(NUM_EMAILS), "--data-dir", folder, "--engine", ENGINE]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert process.stdout is not None
        link = ""
        try:
            for line in process.stdout:
                link = link or (found[0] if (found := re.search(r"http://\S+/link/\S+", line)) else "")
                if "All sample emails" in line:
                    break
            else:
                raise SystemExit("The demo ended before all emails were briefed.")
            yield link
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def sign_in(context: BrowserContext, link: str) -> Page:
    """The admin's queue."""
    page = context.new_page()
    page.goto(link)
    page.get_by_role("button", name=re.compile("Sign in")).first.click()
    page.locator("#rows").wait_for()
    return page


def work(page: Page, address: str) -> str:
    """What an agent does in her first minutes. Returns the address of a conversation that shows it."""
    page.goto(address + "/")
    page.locator("#rows[data-ready]").wait_for()
    first = page.locator(".row .row-link").first.get_attribute("href") or "/"
    for key in ("j", "a", "j", "a", "j", "y", "j", "3"):
        page.keyboard.press(key)
        page.wait_for_timeout(400)
    page.goto(address + first)
    page.wait_for_timeout(800)
    page.locator("[data-key=e]").first.click()
    text = page.locator("#text-summary")
    text.fill(text.input_value() + " They are at home after five.")
    page.get_by_role("button", name="Save summary").click()
    page.get_by_text("Undo").first.wait_for()
    note = page.locator("textarea[name=text]").first
    if not note.is_visible():
        page.locator("[data-key=n]").first.click()
    note.fill("Called them: the parcel is with the neighbour, they will look.")
    note.press("Control+Enter")
    page.locator(".agent-note").first.wait_for()
    page.wait_for_timeout(800)
    return first


def shoot(context: BrowserContext, url: str, name: str, *, width: dict[str, int]) -> None:
    """One picture."""
    page = context.new_page()
    page.set_viewport_size(width)  # type: ignore[arg-type]
    page.goto(url, wait_until="load")
    page.wait_for_timeout(500)
    height = min(MAX_HEIGHT, max(width["height"], page.evaluate("document.documentElement.scrollHeight")))
    page.set_viewport_size({"width": width["width"], "height": height})
    page.wait_for_timeout(300)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    page.close()
    image: Any = Image.open(path).convert("RGB")
    image.quantize(COLOURS).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")  # noqa: T201


def pages(conversation: str) -> dict[str, str]:
    """Name of the picture, and address."""
    return {
        "queue": "/",
        "search": "/?q=refund",
        "conversation": conversation,
        "mailboxes": "/admin/mailboxes",
        "mailbox": "/admin/mailboxes/1",
        "connect": "/admin/mailboxes/new",
        "people": "/admin/people",
        "categories": "/admin/categories",
        "answer-times": "/admin/sla",
        "webhooks": "/admin/webhooks",
        "audit": "/admin/audit",
        "cost": "/cost",
        "training": "/training",
        "numbers": "/numbers",
        "status": "/status",
        "skipped": "/skipped",
        "account": "/account",
        "tokens": "/account/tokens",
    }


def take(browser: Browser, link: str, wanted: tuple[str, ...]) -> None:
    """All pictures, light; the queue and a conversation dark too."""
    address = link.partition("/link/")[0]
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    conversation = work(sign_in(context, link), address)
    state = context.storage_state()
    phone = browser.new_context(is_mobile=True, has_touch=True, storage_state=state)
    for name, path in pages(conversation).items():
        if wanted and not name.startswith(wanted):
            continue
        shoot(context, address + path, name, width=DESKTOP)
        shoot(phone, address + path, f"{name}-phone", width=PHONE)
        if name in ("queue", "conversation"):
            dark = browser.new_context(color_scheme="dark", storage_state=state)
            shoot(dark, address + path, f"{name}-dark", width=DESKTOP)
            dark.close()


def main() -> None:
    """Take them."""
    started = time.monotonic()
    with demo() as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        take(browser, link, tuple(sys.argv[1:]))
        browser.close()
    print(f"{time.monotonic() - started:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
