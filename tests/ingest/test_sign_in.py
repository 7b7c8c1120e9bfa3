"""What servers say to a sign-in, and what we say to the admin: scripted servers with real servers' words."""

import base64
from pathlib import Path
from typing import Any

import pytest

from briefbox.errors import MailboxError, MailboxLoginError, MailboxTLSError
from ingest import sign_in
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import Account
from ingest.sign_in import complaint_of, login_error
from ingest.tls import tls_context
from tests.servers import ScriptedIMAP, make_certificate

TOKEN_WAYS = b"* CAPABILITY IMAP4rev1 AUTH=XOAUTH2 AUTH=OAUTHBEARER\r\nTAG OK done\r\n"
BEARER_ONLY = b"* CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER\r\nTAG OK done\r\n"
# The first letters of what a client sends, in base64 and capitals: "user=" and "n,a=".
XOAUTH2, OAUTHBEARER = "SASL DXNLCJ", "SASL BIXHP"


def account(server: ScriptedIMAP, **values: Any) -> Account:
    return Account(
        **{
            "host": "127.0.0.1",
            "port": server.port,
            "username": "desk",
            "password": "hunter2",
            "security": "none",
            "timeout": 5,
            "name": "support",
            **values,
        }
    )


def with_token(server: ScriptedIMAP, **values: Any) -> Account:
    return account(server, password="", auth="oauth2", **{"token": lambda refused: "tok-1", **values})


def refused(account: Account) -> MailboxError:
    """What opening this account fails with."""
    with pytest.raises(MailboxError) as caught:
        IMAPMailbox(account).open()
    return caught.value


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        ("NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)", MailboxLoginError, "refused the user name or password"),
        ("NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)", MailboxLoginError, "app password"),
        ("NO [ALERT] Your account is not enabled for IMAP use. Please visit your Gmail settings page and enable your account for IMAP access. (Failure)", MailboxLoginError, "IMAP is switched off"),
        ("NO [ALERT] Please log in via your web browser: https://support.google.com/mail/accounts/answer/78754 (Failure)", MailboxLoginError, "once in a web browser"),
        ("NO AUTHENTICATE failed. BasicAuthBlocked.", MailboxLoginError, "--auth oauth2 --provider microsoft"),
        ("NO Login fail. Account is abnormal, service is not open, password is incorrect, login frequency limited, or system is busy.", MailboxLoginError, "IMAP is switched off"),
        ("NO [PRIVACYREQUIRED] Plaintext authentication disallowed", MailboxTLSError, "--security starttls"),
        ("NO [LIMIT] Maximum number of connections from user+IP exceeded", MailboxError, "no more connections"),
        ("NO [ALERT] Too many simultaneous connections. (Failure)", MailboxError, "no more connections"),
        ("NO [UNAVAILABLE] Temporary authentication failure.", MailboxError, "tried again later"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do_in_the_servers_own_words(
    said: str, error: type[MailboxError], says: str
) -> None:
    with ScriptedIMAP({"LOGIN": f"TAG {said}\r\n".encode()}) as server:
        refusal = refused(account(server))
    assert type(refusal) is error
    assert refusal.permanent is (error is not MailboxError)
    assert says in str(refusal)
    assert said.split(" ", 1)[1].rstrip(".")[:60] in str(refusal)
    assert "hunter2" not in str(refusal)


def test_microsoft_takes_no_passwords() -> None:
    at_microsoft = Account(
        host="outlook.office365.com", port=993, username="desk", password="x", name="support"
    )
    error = login_error(at_microsoft, "LOGIN failed", passing=False)
    assert "briefbox mailbox add support --replace --auth oauth2 --provider microsoft" in str(error)


@pytest.mark.parametrize(
    ("offers", "auth", "error", "says"),
    [
        (b"LOGINDISABLED STARTTLS", "password", MailboxTLSError, "--security starttls"),
        (b"AUTH=PLAIN", "oauth2", MailboxLoginError, "--auth password"),
    ],
)
def test_a_server_without_the_way_in_that_was_chosen(
    offers: bytes, auth: str, error: type[MailboxError], says: str
) -> None:
    with ScriptedIMAP({"CAPABILITY": b"* CAPABILITY IMAP4rev1 " + offers + b"\r\nTAG OK done\r\n"}) as server:
        refusal = refused(with_token(server) if auth == "oauth2" else account(server))
    assert type(refusal) is error
    assert says in str(refusal)
    assert not any(command.startswith(("LOGIN", "AUTH")) for command in server.commands)


# --- OAuth2


def sasl(server: ScriptedIMAP) -> list[bytes]:
    """What the client sent after AUTHENTICATE, decoded."""
    return [base64.b64decode(c.removeprefix("SASL").strip()) for c in server.commands if c.startswith("SASL")]


def test_xoauth2_names_mailbox_and_token() -> None:
    script = {"CAPABILITY": TOKEN_WAYS, "AUTHENTICATE": b"+ \r\n", "SASL": b"TAG OK in\r\n"}
    with ScriptedIMAP(script) as server, IMAPMailbox(with_token(server)):
        assert sasl(server) == [b"user=desk\x01auth=Bearer tok-1\x01\x01"]
    assert "AUTHENTICATE XOAUTH2" in server.commands


def test_oauthbearer_where_there_is_no_xoauth2() -> None:
    script = {"CAPABILITY": BEARER_ONLY, "AUTHENTICATE": b"+ \r\n", "SASL": b"TAG OK in\r\n"}
    with ScriptedIMAP(script) as server, IMAPMailbox(with_token(server, username="a=b,c")):
        [sent] = sasl(server)
    assert sent == b"n,a=a=3Db=2Cc,\x01host=127.0.0.1\x01port=%d\x01auth=Bearer tok-1\x01\x01" % server.port
    assert "AUTHENTICATE OAUTHBEARER" in server.commands


@pytest.mark.parametrize(
    ("ways", "first", "end"), [(TOKEN_WAYS, XOAUTH2, b""), (BEARER_ONLY, OAUTHBEARER, b"\x01")]
)
def test_a_refused_token_is_renewed_once_and_then_told_with_the_servers_json(
    ways: bytes, first: str, end: bytes
) -> None:
    complaint = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}')
    script = {
        "CAPABILITY": ways,
        "AUTHENTICATE": b"+ \r\n",
        first: b"+ " + complaint + b"\r\n",
        "SASL": b"TAG NO [AUTHENTICATIONFAILED] bad tok-2\r\n",
    }
    asked: list[str] = []

    def token(refused: str) -> str:
        asked.append(refused)
        return "tok-2" if refused else "tok-1"

    with ScriptedIMAP(script) as server:
        refusal = refused(with_token(server, token=token))
    assert "(status 401, schemes bearer, scope https://mail.google.com/)" in str(refusal)
    assert "briefbox mailbox add support --replace" in str(refusal)
    assert asked == ["", "tok-1"]
    assert [b"tok-1" in s or b"tok-2" in s for s in sasl(server)] == [True, False, True, False]
    assert sasl(server)[1] == end
    assert "tok-2" not in str(refusal)


def test_a_server_that_is_busy_costs_no_refresh_token() -> None:
    script = {"CAPABILITY": TOKEN_WAYS, "AUTHENTICATE": b"TAG NO [UNAVAILABLE] try again\r\n"}
    asked: list[str] = []
    with ScriptedIMAP(script) as server:
        refusal = refused(with_token(server, token=lambda refused: asked.append(refused) or "tok-1"))
    assert "tried again later" in str(refusal)
    assert not refusal.permanent
    assert asked == [""]


def test_signed_in_but_not_connected_is_a_matter_of_this_mailbox_and_of_waiting() -> None:
    refusal = b"TAG BAD User is authenticated but not connected.\r\n"
    script = {
        "CAPABILITY": TOKEN_WAYS,
        "AUTHENTICATE": b"+ \r\n",
        "SASL": b"TAG OK AUTHENTICATE completed.\r\n",
        "EXAMINE": refusal,
        "LIST": refusal,
    }
    with (
        ScriptedIMAP(script) as server,
        IMAPMailbox(with_token(server)) as mailbox,
        pytest.raises(MailboxError, match=r"does not open the mailbox \(.*full access") as caught,
    ):
        mailbox.open_folder("INBOX")
    assert type(caught.value) is MailboxError
    assert not caught.value.permanent


def test_complaints_of_any_kind_are_words() -> None:
    assert complaint_of(b'{"error":"invalid_token"}') == "error invalid_token"
    assert complaint_of(base64.b64encode(b'{"status":"400"}')) == "status 400"
    assert complaint_of(b"\xff\xfe") == "��"
    assert complaint_of(b"[1]") == "[1]"


def test_netease_is_told_the_programs_name_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {
        "CAPABILITY": b"* CAPABILITY IMAP4rev1 ID\r\nTAG OK done\r\n",
        "ID": b"* ID NIL\r\nTAG OK done\r\n",
    }
    with ScriptedIMAP(script) as server, IMAPMailbox(account(server)):
        assert not [command for command in server.commands if command.startswith("ID")]
    monkeypatch.setattr(sign_in, "_WANTS_A_NAME", ("127.0.0.1",))
    with ScriptedIMAP(script) as server, IMAPMailbox(account(server)):
        assert 'ID ("name" "briefbox")' in server.commands
    monkeypatch.undo()
    assert sign_in.wants_a_name(Account(host="imap.163.com", port=993, username="desk"))


# --- certificates


def test_connections_share_what_is_trusted_until_the_file_changes(tmp_path: Path) -> None:
    first = make_certificate(tmp_path)
    assert tls_context(first.ca_file) is tls_context(first.ca_file)
    assert tls_context(None) is tls_context(None) is not tls_context(first.ca_file)
    before = tls_context(first.ca_file)
    make_certificate(tmp_path)
    assert tls_context(first.ca_file) is not before


def test_an_authority_beside_the_systems(tmp_path: Path) -> None:
    ca_file = make_certificate(tmp_path).ca_file
    assert len(tls_context(ca_file).get_ca_certs()) == 1
    names = str(tls_context(ca_file, beside_system=True).get_ca_certs())
    assert "briefbox test authority" in names


def test_a_file_that_is_no_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(MailboxTLSError, match="--ca-file"):
            tls_context(path)
