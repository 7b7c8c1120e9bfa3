"""The embedded IMAP server: several users, TLS, and a clean end."""

import ssl
import threading
from pathlib import Path

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import LoginError

from briefbox.embedded.imap import EmbeddedIMAP
from tests.servers import make_certificate


def connect(server: EmbeddedIMAP, user: str, password: str) -> IMAPClient:
    client = IMAPClient("127.0.0.1", port=server.port, ssl=False, timeout=10)
    try:
        client.login(user, password)
    except LoginError:
        client.shutdown()
        raise
    return client


def test_each_user_has_a_mailbox_of_their_own() -> None:
    with EmbeddedIMAP({"ana": "one", "ben": "two"}) as server:
        with connect(server, "ana", "one") as client:
            client.append("INBOX", b"Subject: for Ana\r\n\r\n")
            assert client.select_folder("INBOX")[b"EXISTS"] == 1
        with connect(server, "ben", "two") as client:
            assert client.select_folder("INBOX")[b"EXISTS"] == 0
        with pytest.raises(LoginError):
            connect(server, "ana", "two")


def test_tls_and_starttls_use_the_certificate(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate.ca_file)
    with EmbeddedIMAP(
        {"ana": "one"}, tls_port=0, cert_file=certificate.cert_file, key_file=certificate.key_file
    ) as server:
        with IMAPClient("localhost", port=server.tls_port, ssl_context=trusting, timeout=10) as client:
            client.login("ana", "one")
        with IMAPClient("localhost", port=server.port, ssl=False, timeout=10) as client:
            client.starttls(trusting)
            client.login("ana", "one")


def test_it_stops_with_clients_still_connected_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    server = EmbeddedIMAP({"ana": "one"}).start()
    client = connect(server, "ana", "one")
    client.select_folder("INBOX")
    client.idle()
    server.stop()
    server.stop()
    client.shutdown()
    # By name: other tests' libraries keep threads of their own, which come and go meanwhile.
    ours = [thread.name for thread in set(threading.enumerate()) - before if "imap" in thread.name]
    assert ours == []


def test_it_starts_again_on_the_same_port() -> None:
    server = EmbeddedIMAP({"ana": "one"})
    for _ in range(2):
        with server, connect(server, "ana", "one") as client:
            client.append("INBOX", b"Subject: x\r\n\r\n")


def test_a_taken_port_is_told_at_the_start() -> None:
    with (
        EmbeddedIMAP({"ana": "one"}) as server,
        pytest.raises(RuntimeError, match=f"did not start on 127.0.0.1:{server.port}"),
    ):
        EmbeddedIMAP({"ben": "two"}, port=server.port).start()


def test_a_tls_port_without_a_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="cert_file"):
        EmbeddedIMAP({"ana": "one"}, tls_port=0)
