"""OAuth2 for mailboxes: tokens are renewed once, stored before they are used, and never shown; Dovecot takes them over TLS."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import DatabaseBusyError, InvalidValueError, MailboxError, MailboxLoginError
from briefbox.settings import Settings
from briefbox.store import mailboxes, processes, secrets
from briefbox.tables import AuditEntry, Mailbox
from ingest import oauth, token_endpoint
from ingest.accounts import account_of
from ingest.imap_mailbox import IMAPMailbox
from ingest.oauth import AccessTokens, OAuthSecrets
from ingest.poller import Poller
from ingest.token_endpoint import CodeSignIn, Grant
from tests.conftest import make_email
from tests.flow.conftest import wait_for
from tests.oauth_server import CLIENT_ID, CLIENT_SECRET, OAuthServer
from tests.servers import Dovecot, dovecot


@pytest.fixture
def provider() -> Iterator[OAuthServer]:
    with OAuthServer() as running:
        yield running


@pytest.fixture(scope="module")
def token_dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dovecot, OAuthServer]]:
    with (
        OAuthServer() as provider,
        dovecot(tmp_path_factory.mktemp("dovecot"), introspection_url=f"{provider.url}/introspect") as server,
    ):
        yield server, provider


def config(provider: OAuthServer, **more: Any) -> dict[str, str]:
    return oauth.configure(
        "custom",
        **{
            "flow": "device",
            "client_id": CLIENT_ID,
            "token_url": f"{provider.url}/token",
            "device_url": f"{provider.url}/device",
            "authorize_url": f"{provider.url}/authorize",
            "scope": "imap",
            **more,
        },
    )


def store(
    database: Database, settings: Settings, provider: OAuthServer, held: OAuthSecrets, **more: Any
) -> Mailbox:
    row = Mailbox(
        name="support",
        address="desk",
        host="127.0.0.1",
        port=1,
        username="desk",
        folders=["INBOX"],
        auth="oauth2",
        oauth=config(provider),
        oauth_encrypted=held.encrypted(secrets.cipher(settings), "support"),
    )
    for name, value in more.items():
        setattr(row, name, value)
    with database.write() as session:
        return mailboxes.add(session, row, actor="test")


def stored(database: Database, settings: Settings) -> OAuthSecrets:
    with database.read() as session:
        row = mailboxes.get(session, "support")
    return OAuthSecrets.decrypted(secrets.cipher(settings), "support", row.oauth_encrypted)


def granted(provider: OAuthServer, *, age: float = 0) -> OAuthSecrets:
    """Secrets as after a sign-in `age` seconds ago."""
    said = provider.grant()
    grant = Grant(said["access_token"], said["refresh_token"], said["expires_in"], time.time() - age)
    return OAuthSecrets(client_secret=CLIENT_SECRET).with_grant(grant)


# --- renewing


def test_a_good_token_is_used_as_it_is(database: Database, settings: Settings, provider: OAuthServer) -> None:
    held = granted(provider)
    row = store(database, settings, provider, held)
    assert AccessTokens(row, secrets.cipher(settings), database)() == held.access_token
    assert provider.num_refreshes() == 0


@pytest.mark.parametrize("age", [3400, 100_000])
def test_a_token_is_renewed_before_its_end_and_stored_before_it_is_used(
    database: Database, settings: Settings, provider: OAuthServer, age: float
) -> None:
    held = granted(provider, age=age)
    row = store(database, settings, provider, held)
    token = AccessTokens(row, secrets.cipher(settings), database)()
    after = stored(database, settings)
    assert token == after.access_token != held.access_token
    assert after.refresh_token in provider.refresh_tokens
    assert after.refresh_token != held.refresh_token
    assert (after.client_secret, after.claimed_until) == (CLIENT_SECRET, 0)
    assert time.time() + 3000 < after.renew_at < after.expires_at


def test_a_refused_token_is_renewed_although_its_time_is_not_over(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    held = granted(provider)
    tokens = AccessTokens(store(database, settings, provider, held), secrets.cipher(settings), database)
    fresh = tokens(held.access_token)
    assert fresh != held.access_token
    # Another poller that was refused the old one gets the new one, and spends nothing.
    assert tokens(held.access_token) == fresh
    assert provider.num_refreshes() == 1


def test_ten_pollers_spend_one_refresh_token(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    provider.slow = 0.3
    row = store(database, settings, provider, granted(provider, age=5000))
    start = threading.Barrier(10)

    def one(_: int) -> str:
        start.wait(10)
        return AccessTokens(row, secrets.cipher(settings), database)()

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(one, range(10)))
    assert len(set(found)) == 1
    assert provider.num_refreshes() == 1


def test_a_poller_that_died_while_renewing_holds_nobody_up_for_long(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    held = replace(granted(provider, age=5000), claimed_until=time.time() + 0.8)
    row = store(database, settings, provider, held)
    started = time.time()
    assert AccessTokens(row, secrets.cipher(settings), database)() in provider.access_tokens
    assert 0.5 < time.time() - started < 5


def test_a_sign_in_during_a_renewal_wins(
    database: Database, settings: Settings, provider: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store(database, settings, provider, granted(provider, age=5000))
    newer = granted(provider)
    ask = token_endpoint.refresh

    def meanwhile(client: Any, refresh_token: str) -> Grant:
        with database.write() as session:
            fresh = mailboxes.get_by_id(session, row.id)
            fresh.oauth_encrypted = newer.encrypted(secrets.cipher(settings), "support")
            session.add(fresh)
        return ask(client, refresh_token)

    monkeypatch.setattr(token_endpoint, "refresh", meanwhile)
    assert AccessTokens(row, secrets.cipher(settings), database)() == newer.access_token
    assert stored(database, settings) == newer


def test_a_rotated_token_is_stored_although_the_database_is_busy_at_that_moment(
    database: Database, settings: Settings, provider: OAuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store(database, settings, provider, granted(provider, age=5000))
    calls, swap = [], mailboxes.swap_oauth

    def busy(session: Any, mailbox_id: int, *, old: str, new: str) -> bool:
        calls.append(new)
        if len(calls) in (2, 3):
            raise DatabaseBusyError("locked")
        return swap(session, mailbox_id, old=old, new=new)

    monkeypatch.setattr(mailboxes, "swap_oauth", busy)
    token = AccessTokens(row, secrets.cipher(settings), database)()
    assert len(calls) == 4
    assert stored(database, settings).access_token == token


def test_a_grant_that_was_taken_back_names_the_command_that_signs_in_again(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    row = store(database, settings, provider, granted(provider, age=5000))
    provider.revoke_all()
    with pytest.raises(
        MailboxLoginError, match=r"invalid_grant.*briefbox mailbox add support --replace"
    ) as caught:
        AccessTokens(row, secrets.cipher(settings), database)()
    assert caught.value.permanent
    assert stored(database, settings).claimed_until == 0


@pytest.mark.parametrize(
    "answer",
    [
        (503, "busy"),
        (500, {"error": "server_error"}),
        (429, ""),
        (400, {"error": "temporarily_unavailable"}),
        (200, "<html>sign in to the hotel's network</html>"),
        (302, {"error": ""}),
    ],
)
def test_a_provider_that_is_away_is_asked_again_later(
    database: Database, settings: Settings, provider: OAuthServer, answer: tuple[int, Any]
) -> None:
    row = store(database, settings, provider, granted(provider, age=5000))
    tokens = AccessTokens(row, secrets.cipher(settings), database)
    provider.says = [answer]
    with pytest.raises(MailboxError, match="tried again later|sign in again") as caught:
        tokens()
    assert not caught.value.permanent or answer[0] == 302
    assert tokens() in provider.access_tokens


def test_a_provider_that_cannot_be_reached_is_asked_again_later(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    row = store(
        database,
        settings,
        provider,
        granted(provider, age=5000),
        oauth=config(provider, token_url="http://127.0.0.1:1/token"),
    )
    with pytest.raises(MailboxError, match="cannot be asked now") as caught:
        AccessTokens(row, secrets.cipher(settings), database)()
    assert not caught.value.permanent


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("invalid_client", "--client-secret-file"),
        ("invalid_scope", "--scope"),
        ("interaction_required", "sign in again"),
    ],
)
def test_other_refusals_say_what_to_check(
    database: Database, settings: Settings, provider: OAuthServer, error: str, says: str
) -> None:
    row = store(database, settings, provider, granted(provider, age=5000))
    provider.says = [(401, {"error": error, "error_description": "AADSTS7000222:\r\nThe keys are expired."})]
    with pytest.raises(MailboxLoginError, match=says) as caught:
        AccessTokens(row, secrets.cipher(settings), database)()
    assert "AADSTS7000222: The keys are expired" in str(caught.value)


def test_an_application_signs_in_for_itself(
    database: Database, settings: Settings, provider: OAuthServer
) -> None:
    held = OAuthSecrets(client_secret=CLIENT_SECRET)
    row = store(database, settings, provider, held, oauth=config(provider, flow="client-credentials"))
    tokens = AccessTokens(row, secrets.cipher(settings), database)
    first = tokens()
    assert tokens() == first != tokens(first)
    assert {form["grant_type"] for _, form in provider.requests} == {"client_credentials"}


# --- secrets stay secret


def test_no_secret_shows_in_logs_errors_reprs_or_the_audit_log(
    database: Database, settings: Settings, provider: OAuthServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    held = granted(provider, age=5000)
    row = store(database, settings, provider, held)
    tokens = AccessTokens(row, secrets.cipher(settings), database)
    shown = [
        repr(held),
        repr(oauth.client_of(row.oauth, CLIENT_SECRET)),
        repr(account_of(row, settings, database)),
    ]
    echo = f"unknown token {held.refresh_token} for {CLIENT_SECRET}"
    for answer in ((400, {"error": "invalid_grant", "error_description": echo}), (500, echo), (200, echo)):
        provider.says = [answer]
        with pytest.raises(MailboxError) as caught:
            tokens()
        shown += [str(caught.value), repr(caught.value)]
    tokens()
    with database.read() as session:
        row = mailboxes.get(session, "support")
        shown += [json.dumps(row.oauth), row.oauth_encrypted, row.last_error]
        shown += [json.dumps(entry.detail) for entry in session.exec(select(AuditEntry))]
    everything = "\n".join([*shown, caplog.text])
    for secret in (
        held.access_token,
        held.refresh_token,
        CLIENT_SECRET,
        stored(database, settings).access_token,
    ):
        assert secret not in everything


def test_tokens_are_bound_to_their_mailbox(settings: Settings, provider: OAuthServer) -> None:
    encrypted = granted(provider).encrypted(secrets.cipher(settings), "support")
    with pytest.raises(Exception, match="written for support"):
        OAuthSecrets.decrypted(secrets.cipher(settings), "sales", encrypted)


# --- signing in


def test_device_code(provider: OAuthServer) -> None:
    client = oauth.client_of(config(provider), CLIENT_SECRET)
    code = token_endpoint.ask_for_device_code(client)
    assert (code.user_code, code.address) == ("WDJB-MJHT", "https://login.example/device")
    assert "device-code-ZZ" not in repr(code)
    provider.pending = 2
    provider.says = [(400, {"error": "slow_down"})]
    waits: list[float] = []
    grant = token_endpoint.wait_for_device(client, code, sleep=waits.append)
    assert grant.refresh_token in provider.refresh_tokens
    assert waits == [1, 6, 6, 6]


@pytest.mark.parametrize("secret", ["", CLIENT_SECRET])
def test_an_application_names_itself_once_with_or_without_a_secret(
    provider: OAuthServer, secret: str
) -> None:
    client = oauth.client_of(config(provider), secret)
    code = token_endpoint.ask_for_device_code(client)
    grant = token_endpoint.wait_for_device(client, code, sleep=lambda _: None)
    token_endpoint.refresh(client, grant.refresh_token)
    at_known = replace(client, provider="google")
    token_endpoint.refresh(at_known, provider.grant()["refresh_token"])
    *own, known = [form for _, form in provider.requests]
    for form in own:
        assert form.get("client_id") == (None if secret else CLIENT_ID)
        assert form.get("basic", "").startswith("Basic ") is bool(secret)
        assert "client_secret" not in form
    assert (known["client_id"], known.get("client_secret", "")) == (CLIENT_ID, secret)


def test_what_a_provider_says_does_nothing_to_the_terminal(provider: OAuthServer) -> None:
    said = {"user_code": "A\x1b[2JB", "verification_url": "https://x.example/\r\n", "device_code": "d"}
    provider.says = [(200, said), (400, {"error": "\x1b[31mno", "error_description": "\x07"})]
    client = oauth.client_of(config(provider))
    code = token_endpoint.ask_for_device_code(client)
    assert (code.user_code, code.address) == ("A [2JB", "https://x.example/")
    with pytest.raises(token_endpoint.RefusedError) as caught:
        token_endpoint.ask_for_device_code(client)
    assert str(caught.value).isprintable()


def test_device_code_that_is_denied_or_runs_out(provider: OAuthServer) -> None:
    client = oauth.client_of(config(provider))
    code = token_endpoint.ask_for_device_code(client)
    provider.says = [(400, {"error": "access_denied"})]
    with pytest.raises(token_endpoint.RefusedError, match="access_denied"):
        token_endpoint.wait_for_device(client, code, sleep=lambda _: None)
    provider.pending = 1000
    with pytest.raises(MailboxLoginError, match="Nobody entered the code WDJB-MJHT"):
        token_endpoint.wait_for_device(client, code, sleep=lambda _: None)


def test_a_sign_in_in_the_browser_with_pkce(provider: OAuthServer) -> None:
    client = replace(
        oauth.client_of(config(provider, flow="code"), CLIENT_SECRET), login_as="ana@example.org"
    )
    with CodeSignIn(client) as sign_in:
        refused: list[int] = []

        def browse() -> None:
            # Somebody else's answer, without our state, changes nothing.
            stranger = f"http://127.0.0.1:{sign_in.port}/?code=x&state=y"
            refused.append(httpx.get(stranger, timeout=10).status_code)
            httpx.get(sign_in.address, follow_redirects=True, timeout=10)

        person = threading.Thread(target=browse)
        person.start()
        grant = sign_in.wait(20)
        person.join()
    assert refused == [400]
    assert grant.access_token in provider.access_tokens
    [(_, asked)] = [r for r in provider.requests if r[0] == "/authorize"]
    assert (asked["code_challenge_method"], asked["login_hint"]) == ("S256", "ana@example.org")
    assert asked["redirect_uri"] == f"http://127.0.0.1:{sign_in.port}/"
    [(_, form)] = [r for r in provider.requests if r[0] == "/token"]
    assert form["basic"].startswith("Basic ")


def test_a_sign_in_in_the_browser_that_is_declined(provider: OAuthServer) -> None:
    with CodeSignIn(oauth.client_of(config(provider, flow="code"))) as sign_in:
        state = httpx.URL(sign_in.address).params["state"]
        address = f"http://127.0.0.1:{sign_in.port}/?error=access_denied&error_description=No&state={state}"
        person = threading.Thread(target=httpx.get, args=(address,), kwargs={"timeout": 10})
        person.start()
        with pytest.raises(token_endpoint.RefusedError, match="access_denied: No"):
            sign_in.wait(20)
        person.join()


def test_what_microsoft_and_google_are_asked() -> None:
    device = oauth.configure("microsoft", client_id="a", tenant="larkspur.example")
    assert (device["flow"], device["scope"]) == (
        "device",
        "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
    )
    assert device["token_url"] == "https://login.microsoftonline.com/larkspur.example/oauth2/v2.0/token"
    app = oauth.configure("microsoft", client_id="a", tenant="t", flow="client-credentials")
    assert app["scope"] == "https://outlook.office365.com/.default"
    with CodeSignIn(oauth.client_of(oauth.configure("microsoft", client_id="a", flow="code"))) as sign_in:
        assert httpx.URL(sign_in.address).params["redirect_uri"] == f"http://localhost:{sign_in.port}/"
    with CodeSignIn(oauth.client_of(oauth.configure("google", client_id="a"))) as sign_in:
        asked = dict(httpx.URL(sign_in.address).params)
    assert (asked["scope"], asked["access_type"]) == ("https://mail.google.com/", "offline")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"provider": "acme"}, "--provider"),
        ({"provider": "google", "flow": "device"}, "--flow code"),
        ({"provider": "microsoft", "flow": "client-credentials"}, "--tenant"),
        ({"provider": "microsoft", "client_id": ""}, "--client-id"),
        ({"provider": "custom", "flow": "code"}, "--token-url"),
        ({"provider": "custom", "flow": "code", "token_url": "https://x/t"}, "--authorize-url"),
        ({"provider": "custom", "token_url": "http://login.example/token"}, "https"),
        ({"provider": "custom", "token_url": "file:///etc/passwd"}, "https"),
    ],
)
def test_a_wrong_configuration_names_the_option(values: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        oauth.configure(values.pop("provider"), **{"client_id": "a", **values})


# --- Dovecot


def dovecot_row(
    database: Database, settings: Settings, server: Dovecot, provider: OAuthServer, held: OAuthSecrets
) -> Mailbox:
    return store(
        database,
        settings,
        provider,
        held,
        port=server.tls_port,
        ca_file=str(server.ca_file),
        username=server.user,
    )


@pytest.mark.dovecot
def test_dovecot_is_read_with_a_token_over_verified_tls(
    database: Database, settings: Settings, token_dovecot: tuple[Dovecot, OAuthServer]
) -> None:
    server, provider = token_dovecot
    row = dovecot_row(database, settings, server, provider, granted(provider))
    with IMAPMailbox(account_of(row, settings, database)) as mailbox:
        assert mailbox.open_folder("INBOX").uidvalidity


@pytest.mark.dovecot
def test_a_token_that_dovecot_refuses_is_renewed_once_and_signs_in(
    database: Database, settings: Settings, token_dovecot: tuple[Dovecot, OAuthServer]
) -> None:
    server, provider = token_dovecot
    held = granted(provider)
    del provider.access_tokens[held.access_token]  # the provider ended it early
    row = dovecot_row(database, settings, server, provider, held)
    before = provider.num_refreshes()
    with IMAPMailbox(account_of(row, settings, database)) as mailbox:
        assert mailbox.open_folder("INBOX").uidvalidity
    assert provider.num_refreshes() == before + 1


@pytest.mark.dovecot
def test_dovecot_refuses_a_token_of_somebody_else_and_says_so(
    database: Database,
    settings: Settings,
    token_dovecot: tuple[Dovecot, OAuthServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, provider = token_dovecot
    monkeypatch.setattr(provider, "username", "ben")
    held = granted(provider)
    row = dovecot_row(database, settings, server, provider, held)
    with pytest.raises(MailboxLoginError, match=r"refused the token for 'desk'.*--replace") as caught:
        IMAPMailbox(account_of(row, settings, database)).open()
    assert held.access_token not in str(caught.value)
    assert stored(database, settings).access_token not in str(caught.value)


@pytest.mark.dovecot
def test_a_shared_mailbox_is_opened_with_the_token_of_a_person_who_may(
    database: Database,
    settings: Settings,
    token_dovecot: tuple[Dovecot, OAuthServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, provider = token_dovecot
    monkeypatch.setattr(provider, "username", "shared")  # what this person's token opens
    row = dovecot_row(database, settings, server, provider, granted(provider))
    row.username, row.oauth = "shared", config(provider, login_as="ana@example.org")
    with IMAPMailbox(account_of(row, settings, database)) as mailbox:
        assert mailbox.open_folder("INBOX").uidvalidity


@pytest.mark.dovecot
def test_a_poller_outlives_its_token(
    database: Database,
    settings: Settings,
    token_dovecot: tuple[Dovecot, OAuthServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, provider = token_dovecot
    monkeypatch.setattr(provider, "expires_in", 2)
    row = dovecot_row(database, settings, server, provider, granted(provider))
    with database.write() as session:
        session.get_one(Mailbox, row.id).start_at = "all"
    before = provider.num_refreshes()
    with server.client() as client:
        already = client.select_folder("INBOX", readonly=True)[b"EXISTS"]
    stop, taken = threading.Event(), []
    values = settings.model_copy(update={"reconcile_seconds": 1.0, "mailbox_lease_seconds": 5.0})

    def poll() -> None:
        Poller(database, values, processes.this_process("poll"), taken.extend).run(stop)

    for number in (1, 2):  # each time the token of the last one is long over
        provider.access_tokens.clear()
        server.append(make_email(already + number))
        stop.clear()
        thread = threading.Thread(target=poll)
        thread.start()
        try:
            wait_for(lambda number=number: len(taken) == already + number, f"mail {number}")
        finally:
            stop.set()
            thread.join(30)
    assert provider.num_refreshes() >= before + 2


@pytest.mark.dovecot
def test_password_and_token_live_side_by_side(token_dovecot: tuple[Dovecot, OAuthServer]) -> None:
    server, _ = token_dovecot
    with server.client() as client:
        assert client.folder_exists("INBOX")
