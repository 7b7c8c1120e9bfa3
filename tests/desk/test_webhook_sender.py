"""Messages to a real HTTP server: signed, pinned to the address that was looked at, within ten seconds."""

import base64
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep, time
from typing import Any

import pytest
from sqlmodel import update

from briefbox import net
from briefbox.db import Database
from briefbox.settings import Settings, load_settings
from briefbox.store import events, secrets, webhooks
from briefbox.tables import Webhook, WebhookDelivery
from desk.admin import webhook_sender
from tests.desk.conftest import Inbox
from tests.servers import make_certificate


@dataclass
class Receiver:
    """A web server that keeps what it is sent and answers as a test wants."""

    port: int = 0
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    body: bytes = b"thanks"
    location: str = ""
    wait: float = 0.0
    drip: float = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=1"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            sleep(state.wait)
            self.send_response(state.status)
            if state.location:
                self.send_header("Location", state.location)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            try:
                for byte in state.body:
                    self.wfile.write(bytes([byte]))
                    if state.drip:
                        self.wfile.flush()
                        sleep(state.drip)
            except OSError:
                pass  # the other side has had enough

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def open_settings(settings: Settings) -> Settings:
    """An installation that allows this machine as a receiver."""
    return load_settings(data_dir=settings.data_dir, engine="fake", threads=1, private_networks="127.0.0.0/8")


@pytest.fixture
def hook(database: Database, settings: Settings) -> Callable[..., tuple[int, str]]:
    """Adds a webhook with a message that waits for it. Its id and its secret."""

    def add(url: str, name: str = "hook") -> tuple[int, str]:
        with database.write() as session:
            row, secret = webhooks.add(
                session,
                secrets.cipher(settings),
                name=name,
                url=url,
                wanted=tuple(events.EVENTS),
                actor="test",
            )
            webhooks.test(session, row.id, actor="test")
        return row.id, secret

    return add


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As a receiver would: nothing here is briefbox's own."""
    key = base64.b64decode(secret[len("whsec_") :])
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


def test_a_message_arrives_signed(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    _, secret = hook(receiver.address)
    assert webhook_sender.send_due(database, open_settings) is True
    assert webhook_sender.send_due(database, open_settings) is False
    [(path, headers, body)] = receiver.got
    assert path == "/hook?key=1"
    assert verify(secret, headers, body)
    assert not verify(secret, headers, body + b" ")
    assert not verify(secret, headers | {"webhook-timestamp": "1"}, body)
    assert abs(int(headers["webhook-timestamp"]) - time()) < 60
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    [row] = inbox.all(WebhookDelivery)
    assert (row.state, row.status, row.answer, row.attempts) == ("done", 200, "thanks", 1)
    assert headers["webhook-id"] == row.event_id
    assert json.loads(body)["type"] == "webhook.test"


def test_both_secrets_sign_for_a_day(
    receiver: Receiver, hook: Any, database: Database, open_settings: Settings
) -> None:
    number, old = hook(receiver.address)
    with database.write() as session:
        new = webhooks.new_secret(session, secrets.cipher(open_settings), number, actor="test")
    webhook_sender.send_due(database, open_settings)
    [(_, headers, body)] = receiver.got
    assert verify(old, headers, body)
    assert verify(new, headers, body)


def test_a_failure_is_tried_again_under_the_same_id_with_a_new_signature(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    _, secret = hook(receiver.address)
    receiver.status, receiver.body = 500, b"<b>broken</b>"
    webhook_sender.send_due(database, open_settings)
    [row] = inbox.all(WebhookDelivery)
    assert (row.state, row.status, row.answer) == ("waiting", 500, "<b>broken</b>")
    assert webhook_sender.send_due(database, open_settings) is False  # not before its time
    with database.write() as session:
        session.exec(update(WebhookDelivery).values(not_before=datetime.now(UTC) - timedelta(seconds=1)))
    receiver.status = 200
    webhook_sender.send_due(database, open_settings)
    assert [headers["webhook-id"] for _, headers, _ in receiver.got] == [row.event_id] * 2
    assert all(verify(secret, headers, body) for _, headers, body in receiver.got)
    assert [(row.state, row.attempts) for row in inbox.all(WebhookDelivery)] == [("done", 2)]


def test_a_redirect_is_not_followed(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    hook(receiver.address)
    receiver.status, receiver.location = 307, f"http://127.0.0.1:{receiver.port}/elsewhere"
    webhook_sender.send_due(database, open_settings)
    assert len(receiver.got) == 1
    [row] = inbox.all(WebhookDelivery)
    assert (row.state, row.status) == ("waiting", 307)
    assert "/elsewhere" in row.answer


def test_gone_ends_it(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    hook(receiver.address)
    receiver.status = 410
    webhook_sender.send_due(database, open_settings)
    assert [row.state for row in inbox.all(WebhookDelivery)] == ["failed"]
    assert inbox.all(Webhook)[0].disabled_at is not None


@pytest.mark.parametrize("slow", [{"wait": 1.5}, {"drip": 0.2}])
def test_a_slow_server_is_left(
    receiver: Receiver,
    hook: Any,
    inbox: Inbox,
    database: Database,
    open_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    slow: dict[str, float],
) -> None:
    hook(receiver.address)
    receiver.body = b"x" * 20
    for name, value in slow.items():
        setattr(receiver, name, value)
    monkeypatch.setattr(webhook_sender, "SECONDS", 0.5)
    began = monotonic()
    webhook_sender.send_due(database, open_settings)
    assert monotonic() - began < 1.4
    [row] = inbox.all(WebhookDelivery)
    assert (row.state, row.status) == ("waiting", None)
    assert "no answer within" in row.answer


def test_much_of_an_answer_is_not_read(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    hook(receiver.address)
    receiver.body = b"y" * 200_000
    webhook_sender.send_due(database, open_settings)
    [row] = inbox.all(WebhookDelivery)
    assert (row.state, len(row.answer)) == ("done", 2000)


def test_a_server_that_is_not_there(
    hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        hook(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        webhook_sender.send_due(database, open_settings)
    [row] = inbox.all(WebhookDelivery)
    assert row.answer.startswith("It could not be sent")


def test_one_that_fails_holds_up_no_other(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, open_settings: Settings
) -> None:
    hook("http://no-such-host.invalid/", "bad")
    hook(receiver.address, "good")
    webhook_sender.send_due(database, open_settings)
    assert len(receiver.got) == 1
    assert sorted(row.state for row in inbox.all(WebhookDelivery)) == ["done", "waiting"]


# --- where nothing is sent to


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://127.0.0.1/", "no public address"),
        ("https://[::1]/", "no public address"),
        ("https://[::ffff:10.0.0.1]/", "no public address"),
        ("https://169.254.169.254/latest/meta-data", "no public address"),
        ("https://10.1.2.3/", "no public address"),
        ("https://localhost/", "no public address"),
        ("http://1.1.1.1/", "expected https"),
        ("ftp://example.org/", "neither https"),
        ("file:///etc/passwd", "neither https"),
        ("https://user:secret@1.1.1.1/", "password"),
        ("https://1.1.1.1/#there", "password or a #"),
        ("https://", "neither https"),
        ("nonsense", "neither https"),
        ("https://1.1.1.1:99999/", "no port"),
    ],
)
def test_where_nothing_is_sent_to(url: str, said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        webhook_sender.target(url, ())
    assert type(caught.value).__name__ == "InvalidValueError"


def test_a_private_address_is_refused_when_it_is_sent(
    receiver: Receiver, hook: Any, inbox: Inbox, database: Database, settings: Settings
) -> None:
    hook(f"https://127.0.0.1:{receiver.port}/")
    webhook_sender.send_due(database, settings)
    assert receiver.got == []
    [row] = inbox.all(WebhookDelivery)
    assert (row.state, row.status) == ("waiting", None)
    assert "no public address" in row.answer


def test_a_name_that_leads_elsewhere_a_moment_later_is_asked_once(
    receiver: Receiver,
    hook: Any,
    database: Database,
    open_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        # First an address that is allowed; whoever asks again is led into the network.
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    monkeypatch.setattr(net, "addresses_of", resolve)
    hook(f"http://rebind.example:{receiver.port}/")
    webhook_sender.send_due(database, open_settings)
    [(_, headers, _)] = receiver.got
    assert asked == ["rebind.example"]
    assert headers["host"] == f"rebind.example:{receiver.port}"


@pytest.mark.parametrize(("name", "arrives"), [("hook.example", True), ("other.example", False)])
def test_the_certificate_is_the_names(
    tmp_path: Path,
    hook: Any,
    inbox: Inbox,
    database: Database,
    open_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    arrives: bool,
) -> None:
    certificate = make_certificate(tmp_path, "hook.example")
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            heard.append(self.headers["host"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # who does not trust it hangs up

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(net, "addresses_of", lambda _host, _port: ["127.0.0.1"])
    trusting = ssl.create_default_context(cafile=str(certificate.ca_file))
    monkeypatch.setattr(webhook_sender, "_tls", lambda: trusting)
    hook(f"https://{name}:{server.server_address[1]}/")
    webhook_sender.send_due(database, open_settings)
    server.shutdown()
    server.server_close()
    thread.join()
    [row] = inbox.all(WebhookDelivery)
    assert (row.state == "done", bool(heard)) == (arrives, arrives)
    assert arrives or "certificate" in row.answer.lower()
