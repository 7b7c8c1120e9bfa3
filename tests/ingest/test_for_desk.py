"""What the desk asks of mail servers: real ones, scripted ones, and those that it must not reach."""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient

from briefbox.connecting import SignInCode
from briefbox.db import Database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.errors import BriefboxError, InvalidValueError, MailboxError
from briefbox.settings import Settings
from briefbox.store import secrets
from briefbox.tables import Mailbox
from ingest import aadsts
from ingest.browser_words import in_browser
from ingest.for_desk import DeskMailboxes
from ingest.guess import get_document
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import Account
from tests.conftest import make_email
from tests.flow.conftest import PASSWORD, USER, imap  # noqa: F401 - a fixture
from tests.oauth_server import CLIENT_ID, CLIENT_SECRET, OAuthServer
from tests.servers import ScriptedIMAP, free_port, make_certificate

HERE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"private_networks": HERE, "imap_timeout_seconds": 3})


@pytest.fixture
def desk(database: Database, settings: Settings) -> DeskMailboxes:
    return DeskMailboxes(database, settings)


def row(settings: Settings, port: int, **values: Any) -> Mailbox:
    password = values.pop("password", PASSWORD)
    return Mailbox(
        **{
            "name": "support",
            "address": USER,
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "username": USER,
            "password_encrypted": secrets.cipher(settings).encrypt("support", password),
            "folders": ["INBOX"],
            "vetted": True,
            **values,
        }
    )


@pytest.fixture
def provider() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def fill(port: int, *raws: bytes, folder: str = "INBOX") -> None:
    with IMAPClient("127.0.0.1", port=port, ssl=False, timeout=30) as client:
        client.login(USER, PASSWORD)
        if not client.folder_exists(folder):
            client.create_folder(folder)
        for raw in raws:
            client.append(folder, raw)


def test_a_look_finds_folders_counts_and_the_newest_mail(
    desk: DeskMailboxes,
    settings: Settings,
    imap: EmbeddedIMAP,  # noqa: F811
) -> None:
    fill(imap.port, *(make_email(n) for n in range(1, 8)))
    fill(imap.port, make_email(9), folder="Gesendete Objekte")
    found = desk.look(row(settings, imap.port))
    assert [(f.name, f.messages, f.is_sent) for f in found.folders] == [
        ("INBOX", 7, False),
        ("Gesendete Objekte", 1, True),
    ]
    assert [mail.subject for mail in found.newest] == [f"Question number {n}" for n in (7, 6, 5, 4, 3)]
    assert found.newest[0].sender == "Customer 7"
    assert found.idle


def test_a_trial_asks_about_customers_mail_only(
    desk: DeskMailboxes,
    settings: Settings,
    imap: EmbeddedIMAP,  # noqa: F811
) -> None:
    news = {"List_Unsubscribe": "<https://x.example>", "List_Unsubscribe_Post": "List-Unsubscribe=One-Click"}
    fill(imap.port, *(make_email(n) for n in range(1, 5)), make_email(5, **news))
    fill(imap.port, make_email(6, From=f"Support <{USER}>"))
    wanted = desk.newest_requests(row(settings, imap.port), (), limit=3)
    assert [request.subject for request in wanted] == [f"Question number {n}" for n in (4, 3, 2)]
    assert "Where is my order 1004?" in wanted[0].text


def test_the_folder_of_sent_mail_is_told_by_its_attribute(desk: DeskMailboxes, settings: Settings) -> None:
    listed = b"".join(
        b'* LIST (%b) "/" "%b"\r\n' % one
        for one in ((b"", b"INBOX"), (b"", b"Sent Items"), (b"\\HasNoChildren \\Sent", b"Ausgang"))
    )
    with ScriptedIMAP({"LIST": listed + b"TAG OK done\r\n", "UID": b"TAG OK done\r\n"}) as server:
        found = desk.look(row(settings, server.port))
    assert [f.name for f in found.folders if f.is_sent] == ["Ausgang"]


# --- where it must not go


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "169.254.169.254", "10.0.0.1"])
def test_no_private_address_is_reached_from_the_browser(
    database: Database, settings: Settings, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("it connected")

    monkeypatch.setattr(socket, "create_connection", never)
    desk = DeskMailboxes(database, settings.model_copy(update={"private_networks": ()}))
    with pytest.raises(InvalidValueError, match="no public address.*BRIEFBOX_PRIVATE_NETWORKS"):
        desk.look(row(settings, 993, host=host, security="tls"))


def test_the_command_line_is_not_limited(settings: Settings, imap: EmbeddedIMAP) -> None:  # noqa: F811
    with IMAPMailbox(
        Account(host="127.0.0.1", port=imap.port, username=USER, password=PASSWORD, security="none")
    ) as mailbox:
        assert "INBOX" in mailbox.folders()


def test_a_name_that_changes_its_mind_is_asked_once_and_the_certificate_is_checked_by_name(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path / "tls", "mail.larkspur.example")
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name.endswith(".example"):
            asked.append(name)
            return real("127.0.0.1" if len(asked) == 1 else "192.0.2.1", *rest, **named)
        return real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    users = {USER: PASSWORD}
    files = {"cert_file": certificate.cert_file, "key_file": certificate.key_file}
    with EmbeddedIMAP(users, tls_port=0, **files) as server:
        assert server.tls_port is not None
        account = Account(
            host="mail.larkspur.example",
            port=server.tls_port,
            username=USER,
            password=PASSWORD,
            ca_file=certificate.ca_file,
            networks=HERE,
        )
        with IMAPMailbox(account) as mailbox:
            assert "INBOX" in mailbox.folders()
        assert asked == ["mail.larkspur.example"]
        asked.clear()
        with pytest.raises(MailboxError, match="does not verify"):
            IMAPMailbox(replace(account, host="other.larkspur.example")).open()


def test_neither_autoconfig_nor_a_provider_is_asked_at_a_private_address(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    assert get_document("https://127.0.0.1:1/x", networks=()) is None
    desk = DeskMailboxes(database, settings.model_copy(update={"private_networks": ()}))
    config = desk.oauth_config(choices(provider))
    with pytest.raises(InvalidValueError, match="no public address"):
        desk.ask_for_code(config, "")
    assert provider.requests == []


# --- OAuth2


def choices(server: OAuthServer, **changes: str) -> dict[str, str]:
    return {
        "provider": "custom",
        "flow": "device",
        "client_id": CLIENT_ID,
        "token_url": f"{server.url}/token",
        "device_url": f"{server.url}/device",
        **changes,
    }


def test_a_code_and_then_the_tokens(desk: DeskMailboxes, provider: OAuthServer) -> None:
    provider.pending = 1
    config = desk.oauth_config(choices(provider))
    code = desk.ask_for_code(config, CLIENT_SECRET)
    assert isinstance(code, SignInCode)
    assert code.device_code not in repr(code)
    assert desk.signed_in(config, CLIENT_SECRET, code) is None
    tokens = json.loads(desk.signed_in(config, CLIENT_SECRET, code) or "{}")
    assert tokens["access_token"] in provider.access_tokens
    assert tokens["client_secret"] == CLIENT_SECRET


def test_an_application_by_itself(desk: DeskMailboxes, provider: OAuthServer) -> None:
    config = desk.oauth_config(choices(provider, flow="client-credentials"))
    assert json.loads(desk.app_signed_in(config, CLIENT_SECRET))["access_token"] in provider.access_tokens
    provider.says = [(401, {"error": "invalid_client"})]
    with pytest.raises(MailboxError, match="The provider refused the application"):
        desk.app_signed_in(config, "wrong")


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("AADSTS7000218: The request body must contain client_assertion", "Allow public client flows"),
        ("AADSTS700016: Application not found in the directory", "knows no application with this id"),
        ("AADSTS65001: The user has not consented", "grant admin consent"),
        ("AADSTS7000222: The provided client secret keys are expired", "make a new one"),
        ("AADSTS50057: The user account is disabled", "a shared mailbox has no sign-in of its own"),
    ],
)
def test_what_microsoft_means_by_its_numbers(
    desk: DeskMailboxes, provider: OAuthServer, said: str, means: str
) -> None:
    provider.says = [(400, {"error": "invalid_grant", "error_description": said})]
    with pytest.raises(MailboxError) as caught:
        desk.app_signed_in(desk.oauth_config(choices(provider, flow="client-credentials")), CLIENT_SECRET)
    assert said.split(":")[0] in str(caught.value)
    assert means in str(caught.value)
    assert "briefbox" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_number_that_nobody_knows_says_nothing() -> None:
    assert aadsts.meaning("AADSTS999999: new") == aadsts.meaning("nothing") == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client_id": ""}, "The client id is missing"),
        ({"token_url": "http://x.example"}, "The token address is"),
        ({"provider": "google"}, "Google gives no access"),
        ({"device_url": ""}, "The device address is missing"),
    ],
)
def test_what_is_missing_is_called_as_on_the_page(
    desk: DeskMailboxes, provider: OAuthServer, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidValueError, match=said):
        desk.oauth_config(choices(provider, **changes))


# --- the usual failures, in words for a page


def failure(desk: DeskMailboxes, mailbox: Mailbox) -> str:
    with pytest.raises(BriefboxError) as caught:
        desk.look(mailbox)
    said = str(caught.value)
    assert "`" not in said
    assert "--host" not in said
    return said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"NO [AUTHENTICATIONFAILED] Invalid credentials", "Type the password again"),
        (b"NO [ALERT] Application-specific password required", "wants an app password"),
        (b"NO Your account is not enabled for IMAP use", "Switch it on in the mailbox's settings"),
        (b"NO [ALERT] Please log in via your web browser", "once in a web browser"),
        (b"NO AUTHENTICATE failed. BasicAuthBlocked.", "Choose OAuth2"),
        (b"NO [LIMIT] Maximum number of connections exceeded", "wait a minute"),
        (b"NO [UNAVAILABLE] Temporary failure", "That passes"),
        (b"NO [PRIVACYREQUIRED] Plaintext authentication disallowed", "Choose TLS or STARTTLS"),
    ],
)
def test_a_refused_sign_in_says_what_to_do(
    desk: DeskMailboxes, settings: Settings, answer: bytes, said: str
) -> None:
    with ScriptedIMAP({"LOGIN": b"TAG " + answer + b"\r\n"}) as server:
        told = failure(desk, row(settings, server.port))
    assert said in told
    assert answer.split(b" ", 1)[1].decode().rstrip(".") in told, "in the server's own words, too"
    assert PASSWORD not in told


def test_microsoft_let_us_in_and_opens_nothing(desk: DeskMailboxes, settings: Settings) -> None:
    with ScriptedIMAP({"LIST": b"TAG BAD User is authenticated but not connected.\r\n"}) as server:
        assert "full access to it" in failure(desk, row(settings, server.port))


def test_servers_that_are_none(desk: DeskMailboxes, settings: Settings, tmp_path: Path) -> None:
    assert "There is no host nowhere.invalid" in failure(
        desk, row(settings, 993, host="nowhere.invalid", security="tls")
    )
    assert "cannot be reached" in failure(desk, row(settings, free_port()))
    with ScriptedIMAP({}, greeting=b"220 smtp.example ESMTP\r\n") as server:
        assert "no IMAP server" in failure(desk, row(settings, server.port))
    with ScriptedIMAP({}) as server:
        assert "does not offer STARTTLS" in failure(desk, row(settings, server.port, security="starttls"))
        assert "does not speak TLS" in failure(desk, row(settings, server.port, security="tls"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "does not answer" in failure(desk, row(settings, port))
    certificate = make_certificate(tmp_path / "tls")
    files = {"cert_file": certificate.cert_file, "key_file": certificate.key_file}
    with EmbeddedIMAP({USER: PASSWORD}, tls_port=0, **files) as server_:
        told = failure(desk, row(settings, server_.tls_port or 0, security="tls"))
    assert "cannot be trusted" in told


def test_a_command_in_an_unknown_error_is_left_out() -> None:
    told = in_browser(MailboxError("It broke: said no; use `briefbox mailbox add x --replace`."))
    assert told == "It broke: said no."
    assert in_browser(MailboxError("It broke.")) == "It broke."
