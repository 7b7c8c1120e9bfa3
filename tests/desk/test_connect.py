"""Connecting an inbox on the desk, step by step, with a scripted mail world behind it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.connecting import Found, FoundEmail, FoundFolder, ServerGuess, SignInCode
from briefbox.db import Database
from briefbox.errors import InvalidValueError, MailboxLoginError
from briefbox.schemas import Brief, BriefRequest, Category, LabelScore, Provenance
from briefbox.settings import Settings
from briefbox.store import drafts, secrets, trials
from briefbox.tables import AuditEntry, Mailbox, MailboxDraft, Trial, User
from desk.app import create_app
from desk.tools import Tools
from tests.desk.conftest import Inbox, browser, person, session_for

ADDRESS = "help@larkspur.example"
NASTY = "<script>alert(1)</script>"


class FakeServers:
    """Implements desk.tools.MailboxTools."""

    def __init__(self) -> None:
        self.looked: list[Mailbox] = []
        self.password = "right"
        self.guessed = ServerGuess(
            "imap.larkspur.example", 993, "tls", ADDRESS, "larkspur.example names it (SRV)"
        )
        self.num_pending = 2
        self.requests = [
            BriefRequest(subject=NASTY, sender="Bo", text="Where is it?", categories=()) for _ in range(2)
        ]
        self.asked: list[tuple[Mapping[str, Any], str]] = []
        self.cipher: secrets.Cipher | None = None

    def guess(self, address: str) -> ServerGuess:
        return self.guessed

    def oauth_config(self, choices: Mapping[str, str]) -> dict[str, str]:
        if not choices["client_id"]:
            raise InvalidValueError("The client id is missing.")
        return {**choices, "token_url": "https://login.example/token"}

    def ask_for_code(self, config: Mapping[str, Any], client_secret: str) -> SignInCode:
        self.asked.append((config, client_secret))
        return SignInCode("WDJB-MJHT", "https://login.example/device", "the-secret-half", interval=0.0)

    def signed_in(self, config: Mapping[str, Any], client_secret: str, code: SignInCode) -> str | None:
        assert code.device_code == "the-secret-half"
        self.num_pending -= 1
        return None if self.num_pending >= 0 else '{"access_token": "good"}'

    def app_signed_in(self, config: Mapping[str, Any], client_secret: str) -> str:
        if client_secret != "s3cret":
            raise MailboxLoginError("The provider refused the application: AADSTS7000215.")
        return '{"access_token": "good"}'

    def look(self, row: Mailbox) -> Found:
        self.looked.append(row)
        assert self.cipher is not None
        if row.auth == "oauth2":
            assert self.cipher.decrypt(row.name, row.oauth_encrypted) == '{"access_token": "good"}'
        elif self.cipher.decrypt(row.name, row.password_encrypted) != self.password:
            raise MailboxLoginError(f"imap refused the password {NASTY}.")
        return Found(
            "imap.larkspur.example:993",
            (FoundFolder("INBOX", 1204), FoundFolder("Team", 3), FoundFolder("Sent", 90, is_sent=True)),
            (FoundEmail(NASTY, NASTY, datetime.now(UTC)),),
            idle=True,
        )

    def newest_requests(
        self, row: Mailbox, categories: tuple[Category, ...], *, limit: int
    ) -> list[BriefRequest]:
        return self.requests

    def retry(self, letter_id: int, *, actor: str) -> str:
        raise MailboxLoginError("The server says no.")


@pytest.fixture
def servers(settings: Settings) -> FakeServers:
    servers = FakeServers()
    servers.cipher = secrets.cipher(settings)
    return servers


@pytest.fixture
def app(database: Database, settings: Settings, servers: FakeServers) -> FastAPI:
    return create_app(database, settings, Tools(mailboxes=servers))


def begin(client: TestClient, **typed: str) -> str:
    """The address of the draft."""
    answer = client.post("/admin/mailboxes/new", data={"address": ADDRESS, "name": "help", **typed})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).removesuffix("/server")


SERVER = {
    "host": "imap.larkspur.example",
    "port": "993",
    "security": "tls",
    "username": ADDRESS,
    "auth": "password",
}
CHOICES = {
    "folder": ["INBOX", "Team"],
    "sent_folder": "Sent",
    "addresses": "hello@larkspur.example\r\n",
    "start": "days",
    "days": "14",
    "older": "briefed",
    "attachments": "reference",
}


def sign_in(client: TestClient, at: str, **typed: str) -> str:
    answer = client.post(f"{at}/server", data={**SERVER, "password": "right", **typed})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_from_the_address_to_live(as_ada: TestClient, inbox: Inbox, servers: FakeServers) -> None:
    at = begin(as_ada)
    text = as_ada.get(f"{at}/server").text
    assert "imap.larkspur.example:993" in text
    assert "Larkspur.example names it (SRV)." in text
    assert sign_in(as_ada, at) == f"{at}/choose"
    text = as_ada.get(f"{at}/choose").text
    assert "We will not delete, move or mark anything." in text
    assert "1,204" in text
    assert NASTY not in text
    assert as_ada.post(f"{at}/choose", data=CHOICES).headers["location"] == f"{at}/try"
    assert "with the last 14 days" in as_ada.get(f"{at}/try").text
    answer = as_ada.post(f"{at}/live")
    [_, row] = inbox.all(Mailbox)
    assert answer.headers["location"] == f"/admin/mailboxes/{row.id}?note=live"
    assert (row.folders, row.sent_folder, row.addresses) == (
        ["INBOX", "Team"],
        "Sent",
        ["hello@larkspur.example"],
    )
    assert (row.start_at, row.older, row.attachments, row.vetted) == ("14 days", "briefed", "reference", True)
    assert servers.cipher is not None
    assert servers.cipher.decrypt("help", row.password_encrypted) == "right"
    assert inbox.all(MailboxDraft) == []
    assert inbox.all(AuditEntry)[-1].action == "mailbox added"
    assert inbox.all(AuditEntry)[-1].actor == "ada@larkspur.example"
    assert as_ada.get(f"/admin/mailboxes/{row.id}?note=live").headers["refresh"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"address": "nobody"}, "no e-mail address"),
        ({"address": "a@b"}, "no e-mail address"),
        ({"name": "support"}, "exists already"),
        ({"name": "x" * 61}, "at most 60"),
        ({"address": f"a\n{ADDRESS}"}, "control character"),
    ],
)
def test_a_wrong_address_or_name_is_said_on_the_page(
    as_ada: TestClient, inbox: Inbox, typed: dict[str, str], said: str
) -> None:
    answer = as_ada.post("/admin/mailboxes/new", data={"address": ADDRESS, "name": "help", **typed})
    assert answer.status_code == 400
    assert said in answer.text
    assert ADDRESS in answer.text or "address" in typed
    assert inbox.all(MailboxDraft) == []


def test_a_wrong_password_is_told_and_all_else_stays(as_ada: TestClient, servers: FakeServers) -> None:
    at = begin(as_ada)
    assert sign_in(as_ada, at, password="wrong", port="9993") == f"{at}/server"
    text = as_ada.get(f"{at}/server").text
    assert "imap refused the password" in text
    assert NASTY not in text
    assert 'value="9993"' in text
    assert "wrong" not in text, "the password never comes back"
    assert as_ada.get(f"{at}/choose").headers["location"] == f"{at}/server"
    assert as_ada.post(f"{at}/live").headers["location"] == f"{at}/server"
    assert sign_in(as_ada, at, password="right") == f"{at}/choose"


def test_a_kept_password_goes_to_no_other_server(as_ada: TestClient, servers: FakeServers) -> None:
    at = begin(as_ada)
    sign_in(as_ada, at)
    assert sign_in(as_ada, at, password="") == f"{at}/choose", "the same server: it is kept"
    assert sign_in(as_ada, at, password="", host="imap.evil.example") == f"{at}/server"
    assert "The password is missing" in as_ada.get(f"{at}/server").text
    assert {row.host for row in servers.looked} == {"imap.larkspur.example"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"port": "0"}, "port"),
        ({"port": "many"}, "port"),
        ({"security": "ssl"}, "none of tls, starttls, none"),
        ({"username": "a\r\nLOGOUT"}, "control character"),
        ({"password": "a\r\nb"}, "control character"),
        ({"password": "a\0b"}, "control character"),
        ({"host": ""}, "needed"),
        ({"auth": "kerberos"}, "none of password, oauth2"),
    ],
)
def test_odd_server_settings_are_answered_in_words(
    as_ada: TestClient, servers: FakeServers, typed: dict[str, str], said: str
) -> None:
    at = begin(as_ada)
    assert sign_in(as_ada, at, **typed) == f"{at}/server"
    assert said in as_ada.get(f"{at}/server").text
    assert servers.looked == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"folder": []}, "No folder is chosen"),
        ({"folder": ["Elsewhere"]}, "No folder is chosen"),
        ({"sent_folder": "INBOX"}, "cannot be watched for answers"),
        ({"sent_folder": "a\r\nb"}, "control character"),
        ({"days": "0"}, "no number of days"),
        ({"days": "ten"}, "no number of days"),
        ({"start": "never"}, "no number of days"),
        ({"older": "burned"}, "none of closed"),
        ({"addresses": "not one"}, "no e-mail address"),
    ],
)
def test_odd_choices_are_answered_in_words(as_ada: TestClient, typed: dict[str, Any], said: str) -> None:
    at = begin(as_ada)
    sign_in(as_ada, at)
    assert as_ada.post(f"{at}/choose", data={**CHOICES, **typed}).headers["location"] == f"{at}/choose"
    assert said in as_ada.get(f"{at}/choose").text


def test_a_code_is_shown_and_waited_for(
    as_ada: TestClient, inbox: Inbox, servers: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("desk.admin.connect_sign_in.MIN_SECONDS", 1.0)
    at = begin(as_ada)
    oauth = {
        "auth": "oauth2",
        "provider": "microsoft",
        "flow": "device",
        "client_id": "app",
        "tenant": "larkspur",
    }
    assert sign_in(as_ada, at, **oauth) == f"{at}/sign-in"
    text = as_ada.get(f"{at}/sign-in")
    assert "WDJB-MJHT" in text.text
    assert "the-secret-half" not in text.text
    assert text.headers["refresh"] == "1"
    [draft] = inbox.all(MailboxDraft)
    assert "the-secret-half" not in str(draft.facts) + str(draft.values) + draft.secret_encrypted
    answers = [as_ada.get(f"{at}/sign-in") for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 303]
    assert answers[-1].headers["location"] == f"{at}/choose"
    as_ada.post(f"{at}/choose", data=CHOICES)
    as_ada.post(f"{at}/live")
    [_, row] = inbox.all(Mailbox)
    assert (row.auth, row.oauth["client_id"], row.password_encrypted) == ("oauth2", "app", "")


def test_the_provider_is_not_asked_more_often_than_it_wants(as_ada: TestClient, servers: FakeServers) -> None:
    at = begin(as_ada)
    sign_in(as_ada, at, auth="oauth2", client_id="app")
    for _ in range(5):
        assert as_ada.get(f"{at}/sign-in").status_code == 200
    assert servers.num_pending == 2


def test_an_application_signs_in_by_itself(as_ada: TestClient, servers: FakeServers) -> None:
    at = begin(as_ada)
    app = {"auth": "oauth2", "flow": "client-credentials", "client_id": "app", "tenant": "larkspur"}
    assert sign_in(as_ada, at, **app, client_secret="wrong") == f"{at}/server"
    assert "AADSTS7000215" in as_ada.get(f"{at}/server").text
    assert sign_in(as_ada, at, **app, client_secret="s3cret") == f"{at}/choose"
    assert sign_in(as_ada, at, auth="oauth2", client_id="") == f"{at}/server"
    assert "The client id is missing" in as_ada.get(f"{at}/server").text


def brief(number: int) -> Brief:
    label = LabelScore(label="high", confidence=0.9, scores={})
    made_by = Provenance(engine="fake", base_model="fake", prompt_version="1")
    return Brief(
        headline=f"Headline {number} {NASTY}",
        summary="It says so.",
        priority=label,
        category=label,
        provenance=made_by,
    )


def test_briefs_are_shown_once_and_stored_nowhere(
    as_ada: TestClient, inbox: Inbox, settings: Settings, database: Database
) -> None:
    at = begin(as_ada)
    sign_in(as_ada, at)
    assert as_ada.post(f"{at}/try").headers["location"] == f"{at}/try"
    waiting = as_ada.get(f"{at}/try")
    assert waiting.headers["refresh"] == "2"
    assert "No worker runs now" in waiting.text
    [row] = inbox.all(Trial)
    assert "Where is it?" not in row.requests_encrypted
    with database.write() as session:
        trial = trials.claim(session, secrets.cipher(settings), seconds=60)
        assert trial is not None
        assert trials.finish(session, secrets.cipher(settings), trial, [brief(1), brief(2)])
    shown = as_ada.get(f"{at}/try")
    assert "Headline 1" in shown.text
    assert NASTY not in shown.text
    assert "refresh" not in shown.headers
    assert inbox.all(Trial) == []
    again = as_ada.get(f"{at}/try").text
    assert "Headline 1" not in again
    assert "nothing of them is kept" in again


def test_a_trial_that_fails_says_why(as_ada: TestClient, settings: Settings, database: Database) -> None:
    at = begin(as_ada)
    sign_in(as_ada, at)
    as_ada.post(f"{at}/try")
    with database.write() as session:
        trial = trials.claim(session, secrets.cipher(settings), seconds=60)
        assert trial is not None
        trials.fail(session, trial, "The model is broken.")
    assert "No briefs came: The model is broken." in as_ada.get(f"{at}/try").text


def test_nothing_to_try_is_said(as_ada: TestClient, servers: FakeServers) -> None:
    servers.requests = []
    at = begin(as_ada)
    sign_in(as_ada, at)
    as_ada.post(f"{at}/try")
    assert "no mail of a customer" in as_ada.get(f"{at}/try").text


def test_giving_up_keeps_nothing(as_ada: TestClient, inbox: Inbox) -> None:
    at = begin(as_ada)
    sign_in(as_ada, at)
    as_ada.post(f"{at}/try")
    assert as_ada.post(f"{at}/cancel").headers["location"] == "/admin/mailboxes?note=cancelled"
    assert inbox.all(MailboxDraft) == inbox.all(Trial) == []
    assert as_ada.get(f"{at}/server").status_code == 404


def test_a_draft_is_its_owners_alone_and_lapses(
    as_ada: TestClient, app: FastAPI, database: Database, inbox: Inbox
) -> None:
    at = begin(as_ada)
    other = browser(app, session_for(database, person(database, "eve@larkspur.example", "Eve", "admin")))
    assert other.get(f"{at}/server").status_code == 404
    assert other.post(f"{at}/live").status_code == 404
    with database.write() as session:
        draft = session.get_one(MailboxDraft, 1)
        draft.expires_at = datetime.now(UTC) - timedelta(seconds=1)
        session.add(draft)
    assert as_ada.get(f"{at}/server").status_code == 404
    with database.write() as session:
        assert drafts.any_lapsed(session)
        assert drafts.end_lapsed(session) == 1


@pytest.mark.parametrize(
    "path", ["/admin/mailboxes", "/admin/mailboxes/new", "/admin/mailboxes/new/x/server"]
)
def test_agents_connect_nothing(as_ana: TestClient, nobody: TestClient, path: str) -> None:
    assert as_ana.get(path).status_code == 403
    assert nobody.get(path).status_code == 303
    assert as_ana.post("/admin/mailboxes/new", data={"address": ADDRESS}).status_code == 403


def test_signing_in_again_tests_first_and_changes_the_sign_in_only(
    as_ada: TestClient, inbox: Inbox, servers: FakeServers, ada: User
) -> None:
    answer = as_ada.post(f"/admin/mailboxes/new/of/{inbox.mailbox.id}")
    at = answer.headers["location"].removesuffix("/server")
    assert "Sign in again to" in as_ada.get(f"{at}/server").text
    assert sign_in(as_ada, at, password="wrong") == f"{at}/server"
    assert inbox.all(Mailbox)[0].password_encrypted == ""
    assert sign_in(as_ada, at) == f"/admin/mailboxes/{inbox.mailbox.id}?note=signed-in"
    [row] = inbox.all(Mailbox)
    assert (row.host, row.username, row.folders, row.vetted) == (
        "imap.larkspur.example",
        ADDRESS,
        ["INBOX"],
        True,
    )
    assert inbox.all(MailboxDraft) == []
