"""The scripts of docs/recipes: the plain one as a process beside the running desk, the others against what they call."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import uvicorn
from fastapi import FastAPI

from briefbox.db import Database
from briefbox.settings import Settings, load_settings
from briefbox.store import secrets, webhooks
from briefbox.tables import User, WebhookDelivery
from tests.desk.api.conftest import token_of
from tests.desk.conftest import Inbox
from tests.flow.conftest import wait_for
from tests.servers import free_port

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
BRIEF = {
    "id": 7,
    "conversation_id": 3,
    "headline": "Asks where it is",
    "summary": "Order 1001 is late.",
    "priority": {"label": "high"},
    "category": {"label": "technical problem"},
    "needs_human": ["category"],
}
EMAIL = {
    "message_id": "one@example.org",
    "subject": 'Where "is" it?',
    "sender": {"address": "Cara@example.org"},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """This machine is allowed as a receiver."""
    return load_settings(data_dir=settings.data_dir, engine="fake", threads=1, private_networks="127.0.0.0/8")


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """The desk as it runs, with what it sends."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "the desk to start")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def test_the_plain_script_hears_of_each_brief(
    address: str, inbox: Inbox, database: Database, settings: Settings, ana: User
) -> None:
    port = free_port()
    with database.write() as session:
        _, secret = webhooks.add(
            session,
            secrets.cipher(settings),
            name="plain",
            url=f"http://127.0.0.1:{port}/",
            wanted=("brief.made",),
            actor="test",
        )
    environment = os.environ | {
        "BRIEFBOX_ADDRESS": address,
        "BRIEFBOX_TOKEN": token_of(database, ana, "read"),
        "BRIEFBOX_WEBHOOK_SECRET": secret,
    }
    process = subprocess.Popen(
        [sys.executable, RECIPES / "listen.py", str(port)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        inbox.receive(
            "Where is it?", brief={"headline": "Asks – where", "priority": "urgent"}, message_id="m@x.org"
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {
            "message_id": "m@x.org",
            "from": "customer1@example.org",
            "subject": "Where is it?",
            "headline": "Asks – where",
            "priority": "urgent",
            "category": "order",
        }
        wait_for(
            lambda: [row.state for row in inbox.all(WebhookDelivery)] == ["done"], "the answer", seconds=20
        )
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a recipe."""
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setenv("BRIEFBOX_ADDRESS", "https://desk.example/")
    yield importlib.import_module
    for name in ("listen", "zammad", "chatwoot"):
        sys.modules.pop(name, None)


def test_the_plain_script_trusts_nobody_else(recipe: Any) -> None:
    listen, now = recipe("listen"), 1_700_000_000
    # The example of the scheme's own documents, by whose secret and id it is known.
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    listen.time = type("Clock", (), {"time": staticmethod(lambda: 1_614_265_330)})
    assert listen.is_genuine(secret, headers, body)
    assert not listen.is_genuine(secret, headers, body + b" ")
    assert not listen.is_genuine(secret, headers | {"webhook-signature": "v1,AAAA"}, body)
    assert not listen.is_genuine(secret, {}, body)
    listen.time = type("Clock", (), {"time": staticmethod(lambda: now)})
    assert not listen.is_genuine(secret, headers, body)


class Fake:
    """Another program's API: answers by path, and keeps what it was sent."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.got, self.headers = answers, [], {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.headers = dict(self.headers.items())
                self._say(fake.answers.get(urlsplit(self.path).path))
                fake.got.append(("GET", self.path, None))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.got.append(("POST", self.path, body))
                self._say({})

            def _say(self, value: Any) -> None:
                text = json.dumps(value).encode()
                self.send_response(404 if value is None else 200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def posted(self) -> list[tuple[str, Any]]:
        return [(path, body) for method, path, body in self.got if method == "POST"]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


NOTE = (
    "Asks where it is\n\nOrder 1001 is late.\n\nhigh, technical problem\nNot sure of: category\n"
    "https://desk.example/conversations/3"
)


def test_zammad(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(
        {
            "/api/v1/tickets/search": {"tickets": [4, 5], "tickets_count": 2, "assets": {}},
            "/api/v1/ticket_articles/by_ticket/4": [{"id": 1, "message_id": "<other@example.org>"}],
            "/api/v1/ticket_articles/by_ticket/5": [{"id": 2}, {"id": 3, "message_id": "<one@example.org>"}],
        }
    )
    monkeypatch.setenv("ZAMMAD_ADDRESS", fake.address)
    monkeypatch.setenv("ZAMMAD_TOKEN", "secret")
    zammad = recipe("zammad")
    zammad.push(BRIEF, EMAIL)
    assert fake.headers["Authorization"] == "Token token=secret"
    [query] = parse_qs(urlsplit(fake.got[0][1]).query)["query"]
    assert query == 'title:"Where is it?" AND customer.email:"Cara@example.org"'
    assert fake.posted == [
        ("/api/v1/tags/add", {"item": "priority: high", "object": "Ticket", "o_id": 5}),
        ("/api/v1/tags/add", {"item": "category: technical problem", "object": "Ticket", "o_id": 5}),
        (
            "/api/v1/ticket_articles",
            {
                "ticket_id": 5,
                "subject": "Brief",
                "body": NOTE,
                "content_type": "text/plain",
                "type": "note",
                "internal": True,
            },
        ),
    ]
    # No article has the id: of two tickets neither is taken, of one that one is.
    other = EMAIL | {"message_id": "none@example.org"}
    assert zammad.find_ticket(other) is None
    with pytest.raises(KeyError, match="no ticket"):
        zammad.push(BRIEF, other)
    fake.answers["/api/v1/tickets/search"] = [{"id": 4}]
    assert zammad.find_ticket(other) == 4
    fake.close()


def test_chatwoot(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base = "/api/v1/accounts/1"
    fake = Fake(
        {
            f"{base}/contacts/search": {
                "payload": [
                    {"id": 8, "email": "cara@example.org"},
                    {"id": 9, "email": "cara@example.org.evil"},
                ]
            },
            f"{base}/contacts/8/conversations": {"payload": [{"id": 20}, {"id": 21}]},
            f"{base}/contacts/9/conversations": {"payload": [{"id": 22}]},
            f"{base}/conversations/20/messages": {"payload": [{"id": 1, "source_id": None}]},
            f"{base}/conversations/21/messages": {"payload": [{"id": 2, "source_id": "one@example.org"}]},
            f"{base}/conversations/21/labels": {"payload": ["vip", "priority-low"]},
        }
    )
    monkeypatch.setenv("CHATWOOT_ADDRESS", fake.address)
    monkeypatch.setenv("CHATWOOT_ACCOUNT", "1")
    monkeypatch.setenv("CHATWOOT_TOKEN", "secret")
    chatwoot = recipe("chatwoot")
    chatwoot.push(BRIEF, EMAIL)
    assert {name.lower(): value for name, value in fake.headers.items()}["api_access_token"] == "secret"
    assert fake.posted == [
        (
            f"{base}/conversations/21/labels",
            {"labels": ["vip", "priority-high", "category-technical-problem"]},
        ),
        (
            f"{base}/conversations/21/messages",
            {"content": NOTE, "message_type": "outgoing", "private": True},
        ),
    ]
    with pytest.raises(KeyError, match="no conversation"):
        chatwoot.push(BRIEF, EMAIL | {"message_id": ""})
    fake.close()
