"""`briefbox mailbox` as an admin meets it: over a real IMAP server, and with OAuth2 over Dovecot."""

import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from imapclient import IMAPClient
from rich.console import Console
from sqlmodel import col, select
from typer.testing import CliRunner

from briefbox.cli import app, mailbox_ledger, mailbox_sign_in
from briefbox.db import Database, migrate
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.errors import BriefboxError
from briefbox.schemas import FetchedEmail
from briefbox.settings import Settings, load_settings
from briefbox.store import accounting, ledger, mailboxes, processes, secrets
from briefbox.store.ledger import Arrival
from briefbox.tables import AuditEntry, DeadLetter, Email, FolderCursor, LedgerEntry, Mailbox, MailboxEvent
from ingest import guess as guessing
from ingest.guess import Guess
from ingest.oauth import OAuthSecrets
from ingest.poller import Poller
from tests.conftest import commit, make_email
from tests.flow.conftest import PASSWORD, USER, wait_for
from tests.oauth_server import CLIENT_ID, CLIENT_SECRET, OAuthServer
from tests.servers import Dovecot, ScriptedIMAP, dovecot, make_certificate

FIRST_UID = 101  # of a folder of the embedded server


class Installation:
    """Commands in this process, on an installation of its own."""

    def __init__(self, settings: Settings, database: Database, folder: Path) -> None:
        self.settings, self.database, self.folder = settings, database, folder

    def run(self, *words: str, answer: str = "") -> tuple[int, str]:
        """Exit code, and all that was printed, the spaces of tables made single."""
        result = CliRunner().invoke(app, ["mailbox", *words], input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit | BriefboxError):
            raise result.exception
        error = str(result.exception) if isinstance(result.exception, BriefboxError) else ""
        words_only = re.sub(r"[│╭╮╰╯─]", "", f"{result.output}{error}")
        return result.exit_code, " ".join(words_only.split())

    def json(self, *words: str) -> Any:
        result = CliRunner().invoke(app, ["mailbox", *words, "--json"])
        return json.loads(result.stdout)

    def file(self, text: str) -> str:
        path = self.folder / f"secret-{len(list(self.folder.iterdir()))}"
        path.write_text(text + "\n")
        return str(path)

    def row(self, name: str = "support") -> Mailbox:
        with self.database.read() as session:
            return mailboxes.get(session, name)

    def audit(self) -> list[tuple[str, str]]:
        with self.database.read() as session:
            return [
                (e.action, e.object) for e in session.exec(select(AuditEntry).order_by(col(AuditEntry.id)))
            ]

    def change(self, what: Callable[[Any], object]) -> None:
        with self.database.write() as session:
            what(session)

    @contextmanager
    def poller(self) -> Iterator[None]:
        """A poller at work."""
        stop = threading.Event()
        values = {"reconcile_seconds": 0.5, "mailbox_lease_seconds": 5.0}
        poller = Poller(
            self.database,
            self.settings.model_copy(update=values),
            processes.this_process("poll"),
            lambda _: None,
        )
        thread = threading.Thread(target=poller.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    for name, value in {
        "DATA_DIR": str(tmp_path / "d"),
        "ENGINE": "fake",
        "IMAP_TIMEOUT_SECONDS": "10",
    }.items():
        monkeypatch.setenv(f"BRIEFBOX_{name}", value)
    # It would leave the command's own standard error to the poller's thread.
    monkeypatch.setattr("briefbox.cli.context.set_up_logging", lambda *_: None)
    settings = load_settings()
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    yield Installation(settings, database, tmp_path)
    database.close()


@pytest.fixture
def imap(tmp_path: Path) -> Iterator[EmbeddedIMAP]:
    made = make_certificate(tmp_path / "certificate", "localhost")
    with EmbeddedIMAP(
        {USER: PASSWORD}, tls_port=0, cert_file=made.cert_file, key_file=made.key_file
    ) as server:
        yield server


def append(server: EmbeddedIMAP, *raws: bytes) -> None:
    with client(server) as connection:
        for raw in raws:
            connection.append("INBOX", raw)


@contextmanager
def client(server: EmbeddedIMAP) -> Iterator[IMAPClient]:
    assert server._cert_file is not None
    with IMAPClient("127.0.0.1", port=server.port, ssl=False, timeout=10) as connection:
        context = ssl.create_default_context(cafile=server._cert_file.with_name("ca.pem"))
        context.check_hostname = False
        connection.starttls(context)
        connection.login(USER, PASSWORD)
        yield connection


def add(here: Installation, server: EmbeddedIMAP, *more: str) -> tuple[int, str]:
    """Connect the embedded server's inbox over verified TLS."""
    assert server._cert_file is not None
    ca_file = str(server._cert_file.with_name("ca.pem"))
    return here.run(
        "add", "support", USER, "--host", "localhost", "--port", str(server.tls_port), "--ca-file", ca_file,
        "--password-file", here.file(PASSWORD), *more,
    )  # fmt: skip


# --- add and test


def test_a_server_is_guessed_shown_and_used_only_after_a_yes(
    here: Installation, imap: EmbeddedIMAP, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imap.tls_port is not None
    assert imap._cert_file is not None
    found = Guess(
        "localhost", imap.tls_port, "tls", USER, "its own DNS says so", note="An app password, please."
    )
    monkeypatch.setattr(guessing, "guess", lambda address: found)
    words = ["add", "support", USER, "--ca-file", str(imap._cert_file.with_name("ca.pem")), "--password-file"]
    code, said = here.run(*words, here.file(PASSWORD), answer="n\n")
    assert code == 1
    assert f"Server: localhost:{imap.tls_port} with tls, user name {USER} (its own DNS says so)" in said
    assert "An app password, please." in said
    assert here.json("list") == []
    code, said = here.run(*words, here.file(PASSWORD), answer="y\n")
    assert code == 0, said
    assert "Mail that is there already will not be read." in said
    assert "We will not delete, move or mark anything." in said
    row = here.row()
    assert (row.host, row.address, row.start_at, row.older) == ("localhost", USER, "now", "closed")


def test_a_password_typed_in(here: Installation, imap: EmbeddedIMAP) -> None:
    assert imap._cert_file is not None
    code, said = here.run(
        "add", "support", USER, "--host", "localhost", "--port", str(imap.tls_port),
        "--ca-file", str(imap._cert_file.with_name("ca.pem")), answer=f"{PASSWORD}\n",
    )  # fmt: skip
    assert code == 0, said
    assert PASSWORD not in said


def test_every_choice_is_stored_and_a_change_keeps_the_others(here: Installation, imap: EmbeddedIMAP) -> None:
    code, said = add(
        here, imap, "--start", "14 days", "--older", "briefed", "--attachments", "reference",
        "--own-address", "help@larkspur.example", "--own-address", "office@larkspur.example",
    )  # fmt: skip
    assert code == 0, said
    assert "Mail of the last 14 days that is there already becomes closed conversations, briefed" in said
    assert "Attachments stay on the server" in said
    before = here.row()
    assert (before.start_at, before.older, before.attachments) == ("14 days", "briefed", "reference")
    assert before.addresses == ["help@larkspur.example", "office@larkspur.example"]
    assert "exists already" in here.run("add", "support", USER, "--host", "x.example")[1]
    code, said = here.run("add", "support", "--replace", "--keep-sign-in", "--older", "open")
    assert code == 0, said
    after = here.row()
    assert after.older == "open"
    changed = {f for f in mailboxes.SETTINGS if getattr(before, f) != getattr(after, f)}
    assert changed == {"older"}
    assert ("mailbox replaced", "support") in here.audit()


def test_a_stored_password_goes_to_no_other_server_or_user(here: Installation, imap: EmbeddedIMAP) -> None:
    add(here, imap)
    for change in (("--host", "mail.attacker.example"), ("--security", "none"), ("--username", "root")):
        code, said = here.run("add", "support", "--replace", "--keep-sign-in", *change)
        assert code == 1
        assert "sign in again" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--start", "yesterday"], "14 days"),
        (["--start", "0 days"], "14 days"),
        (["--older", "never"], "closed, briefed, open"),
        (["--attachments", "drop"], "keep, reference"),
        (["--auth", "magic"], "password, oauth2"),
        (["--auth", "oauth2", "--provider", "google"], "--client-id"),
        (["--auth", "oauth2", "--provider", "google", "--client-id", "x", "--flow", "device"], "--flow code"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen(here: Installation, words: list[str], says: str) -> None:
    code, said = here.run("add", "support", USER, "--host", "127.0.0.1", *words)
    assert code != 0
    assert says in said


def test_neither_host_nor_address(here: Installation) -> None:
    assert "--host" in here.run("add", "support")[1]
    assert "no e-mail address" in here.run("add", "support", "--username", "a@b")[1]


def test_test_says_in_words_what_will_be_done_and_changes_nothing(
    here: Installation, imap: EmbeddedIMAP
) -> None:
    append(imap, make_email(1), make_email(2))
    add(here, imap)
    before = here.row()
    code, said = here.run("test", "support")
    assert code == 0
    for sentence in (
        "Question number 2",
        "IDLE: new mail is seen at once.",
        "Mail that is there already will not be read.",
        "We will not delete, move or mark anything.",
    ):
        assert sentence in said
    assert here.row() == before
    with client(imap) as connection:
        connection.select_folder("INBOX", readonly=True)
        assert not [
            f
            for found in connection.get_flags(connection.search()).values()
            for f in found
            if f != b"\\Recent"
        ]


def test_a_server_without_idle_is_looked_at_at_intervals(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIEFBOX_POLL_SECONDS", "17")
    script = {"CAPABILITY": b"* CAPABILITY IMAP4rev1 CONDSTORE\r\nTAG OK done\r\n", "LIST": b"TAG OK done\r\n",
              "UID SEARCH": b"* SEARCH\r\nTAG OK done\r\n"}  # fmt: skip
    with ScriptedIMAP(script) as server:
        code, said = here.run(
            "add", "support", "--host", "127.0.0.1", "--port", str(server.port), "--username", "desk",
            "--security", "none", "--password-file", here.file("x"), "--start", "all",
        )  # fmt: skip
    assert code == 0, said
    assert "No IDLE: looked at every 17 s." in said
    assert "CONDSTORE: the server vouches" in said
    assert "Mail that is there already becomes closed conversations without a brief." in said


# --- OAuth2


@pytest.fixture(scope="module")
def token_dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dovecot, OAuthServer]]:
    with (
        OAuthServer() as provider,
        dovecot(tmp_path_factory.mktemp("dovecot"), introspection_url=f"{provider.url}/introspect") as server,
    ):
        yield server, provider


def oauth_words(here: Installation, server: Dovecot, provider: OAuthServer, flow: str) -> list[str]:
    return [
        "add", "support", "--host", "127.0.0.1", "--port", str(server.tls_port), "--username", server.user,
        "--ca-file", str(server.ca_file), "--auth", "oauth2", "--provider", "custom", "--client-id", CLIENT_ID,
        "--client-secret-file", here.file(CLIENT_SECRET), "--flow", flow, "--token-url", f"{provider.url}/token",
        "--device-url", f"{provider.url}/device", "--authorize-url", f"{provider.url}/authorize", "--scope", "imap",
    ]  # fmt: skip


def stored_secrets(here: Installation) -> OAuthSecrets:
    row = here.row()
    return OAuthSecrets.decrypted(secrets.cipher(here.settings), "support", row.oauth_encrypted)


@pytest.mark.dovecot
def test_a_code_on_another_device_connects_a_mailbox(
    here: Installation, token_dovecot: tuple[Dovecot, OAuthServer]
) -> None:
    server, provider = token_dovecot
    code, said = here.run(*oauth_words(here, server, provider, "device"), "--login-as", "ana@example.org")
    assert code == 0, said
    assert (
        "Open https://login.example/device on any device, enter the code WDJB-MJHT and sign in as ana@example.org"
        in said
    )
    held, row = stored_secrets(here), here.row()
    assert held.access_token in provider.access_tokens
    assert (held.client_secret, row.auth, row.password_encrypted) == (CLIENT_SECRET, "oauth2", "")
    everything = (
        said
        + json.dumps(here.json("list"))
        + json.dumps(row.oauth)
        + json.dumps(here.json("test", "support"))
    )
    with here.database.read() as session:
        everything += "".join(json.dumps(e.detail) for e in session.exec(select(AuditEntry)))
    for secret in (held.access_token, held.refresh_token, CLIENT_SECRET, "device-code-ZZ"):
        assert secret not in everything

    # The sentence for a grant that was taken back names this command, and it works as it stands.
    provider.revoke_all()
    assert "briefbox mailbox add support --replace" in here.run("test", "support")[1]
    code, said = here.run("add", "support", "--replace")
    assert code == 0, said
    assert stored_secrets(here).client_secret == CLIENT_SECRET
    assert here.run("test", "support")[0] == 0


@pytest.mark.dovecot
def test_an_application_of_its_own_connects_a_mailbox(
    here: Installation, token_dovecot: tuple[Dovecot, OAuthServer]
) -> None:
    server, provider = token_dovecot
    code, said = here.run(*oauth_words(here, server, provider, "client-credentials"))
    assert code == 0, said
    assert stored_secrets(here).refresh_token == ""


@pytest.mark.dovecot
def test_a_browser_connects_a_mailbox(here: Installation, token_dovecot: tuple[Dovecot, OAuthServer]) -> None:
    server, provider = token_dovecot
    process = subprocess.Popen(
        [sys.executable, "-m", "briefbox", "mailbox", *oauth_words(here, server, provider, "code")],
        env={**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(f"{provider.url}/authorize"):
            answer = httpx.get(line.strip(), follow_redirects=True, timeout=10)
            assert "close this page" in answer.text
    assert process.wait(60) == 0, "".join(said)
    process.stdout.close()
    assert stored_secrets(here).refresh_token in provider.refresh_tokens


def test_microsoft_needs_an_application_before_anything_is_asked_of_it(here: Installation) -> None:
    code, said = here.run("add", "support", "ana@outlook.com", "--yes")
    assert code == 1
    assert (
        "Server: outlook.office365.com:993 with tls, user name ana@outlook.com (Microsoft 365 is known)."
        in said
    )
    assert "It takes OAuth2 only" in said
    assert "--client-id is missing" in said
    assert "docs/mailboxes.md" in said


@pytest.mark.parametrize(
    ("stored", "given", "merged"),
    [
        # A new flow at a known provider has other end-points and scopes.
        ({"provider": "microsoft", "client_id": "a", "scope": "s", "token_url": "t"}, {"flow": "code"},
         {"provider": "microsoft", "client_id": "a", "flow": "code"}),
        # At one's own provider they stay.
        ({"provider": "custom", "client_id": "a", "token_url": "t", "device_url": "d"}, {"flow": "device"},
         {"provider": "custom", "client_id": "a", "flow": "device", "token_url": "t", "device_url": "d"}),
        # Another provider knows nothing of the old one's application.
        ({"provider": "microsoft", "client_id": "a", "tenant": "x"}, {"provider": "google"}, {"provider": "google"}),
        ({"provider": "microsoft", "client_id": "a", "tenant": "x", "scope": "s"}, {"provider": "microsoft"},
         {"provider": "microsoft", "client_id": "a", "tenant": "x", "scope": "s"}),
    ],
)  # fmt: skip
def test_what_of_a_stored_sign_in_is_kept(
    stored: dict[str, str], given: dict[str, str], merged: dict[str, str]
) -> None:
    found = mailbox_sign_in._merged(stored, mailbox_sign_in.OAuthOptions(**given))
    assert {name: value for name, value in found.items() if value} == merged


# --- state


def test_pause_and_resume(here: Installation, imap: EmbeddedIMAP) -> None:
    add(here, imap)
    assert here.run("pause", "support", "--reason", "the server moves house")[0] == 0
    [listed] = here.json("list")
    assert listed["state"] == "paused: the server moves house"
    assert "the server moves house" in here.run("pause", "support")[1]
    assert "paused (the server moves house)" in here.run("reconcile", "support")[1]
    with here.database.write() as session:
        assert mailboxes.claim(session, listed["id"], owner="x", seconds=9) is None
    assert here.run("resume", "support")[0] == 0
    assert "not paused" in here.run("resume", "support")[1]
    [listed] = here.json("list")
    assert listed["state"] == "no poller reads it"
    with here.database.read() as session:
        assert [e.kind for e in session.exec(select(MailboxEvent))] == ["paused", "resumed"]
    assert here.audit()[-2:] == [("mailbox paused", "support"), ("mailbox resumed", "support")]


def test_a_removed_mailbox_keeps_what_it_brought_and_frees_its_name(
    here: Installation, imap: EmbeddedIMAP
) -> None:
    append(imap, make_email(1))
    add(here, imap, "--start", "all")
    with here.poller():
        wait_for(lambda: num_emails(here) == 1, "the mail")
        assert here.run("remove", "support", answer="n\n")[0] == 1
        code, said = here.run("remove", "support", "--yes")
    assert code == 0
    assert "1 emails, 1 conversations and 1 ledger rows stay" in said
    assert here.json("list") == []
    [listed] = here.json("list", "--all")
    assert listed["name"] == f"support (removed {datetime.now(UTC):%Y-%m-%d})"
    row = here.row(listed["name"])
    assert (row.password_encrypted, row.lease_token) == ("", "")
    with here.database.read() as session:
        assert not [f for f in accounting.audit(session) if f.broken]
    # It is not read again, cannot be asked, and its name can be given anew, twice.
    assert "no longer read" in here.run("reconcile", listed["name"])[1]
    assert "no longer read" in here.run("test", listed["name"])[1]
    assert here.json("ledger", listed["name"])["folders"][0]["ledger"] == 1
    assert add(here, imap)[0] == 0
    here.run("remove", "support", "--yes")
    assert len(here.json("list", "--all")) == 2


def num_emails(here: Installation) -> int:
    with here.database.read() as session:
        return len(session.exec(select(Email.id)).all())


def test_list_says_how_far_older_mail_is_read(here: Installation, imap: EmbeddedIMAP) -> None:
    add(here, imap)

    def begin(session: Any) -> None:
        cursor = ledger.open_folder(session, here.row().id, "INBOX", 7)
        cursor.backfill_uid, cursor.older_uid, cursor.last_uid = 34_000, 100_000, 100_000
        session.add(cursor)
        mailboxes.claim(session, here.row().id, owner="poll", seconds=60)

    here.change(begin)
    [listed] = here.json("list")
    assert listed["older_read"] == "34,000 of 100,000 (34%)"
    assert listed["state"] == "reading, older mail 34,000 of 100,000 (34%)"
    here.change(lambda session: mailboxes.note_error(session, listed["id"], "It said no."))
    assert here.json("list")[0]["state"].startswith("error since 20")


# --- ledger, reconcile, retry


def test_the_ledger_agrees_and_says_what_became_of_each_mail(here: Installation, imap: EmbeddedIMAP) -> None:
    append(imap, make_email(1), make_email(2), make_email(3, Auto_Submitted="auto-replied"))
    add(here, imap, "--start", "all", "--older", "open")
    with here.poller():
        wait_for(lambda: num_emails(here) == 3, "three mails")
    code, said = here.run("ledger", "support")
    assert code == 0, said
    assert "INBOX: server 3 = ledger 3." in said
    [skipped] = here.json("ledger", "support")["skipped"]
    assert skipped["number"] == 1
    [line] = here.json("ledger", "support", "--state", "skipped")
    assert (line["uid"], line["subject"]) == (FIRST_UID + 2, "Question number 3")
    assert line["reason"]
    assert "expected one of" in here.run("ledger", "support", "--state", "lost")[1]
    assert "does not read" in here.run("ledger", "support", "--folder", "Spam")[1]


def test_a_real_difference_is_told_with_its_uids_and_exit_code_1(
    here: Installation, imap: EmbeddedIMAP
) -> None:
    append(imap, make_email(1), make_email(2))
    add(here, imap, "--start", "all", "--older", "open")
    with here.poller():
        wait_for(lambda: num_emails(here) == 2, "two mails")
    with client(imap) as connection:
        connection.select_folder("INBOX")
        connection.delete_messages([FIRST_UID])
        connection.expunge([FIRST_UID])
    code, said = here.run("ledger", "support")
    assert code == 0, said  # others may delete what we have taken
    assert "1 more have a row and are no longer in the folder" in said
    append(imap, make_email(3), make_email(4))
    code, said = here.run("ledger", "support")
    assert code == 1
    assert "INBOX: server 3, ledger 1: 2 without a row (UID 103, 104)." in said
    assert here.run("ledger", "support", "--offline")[0] == 0


def test_older_mail_that_is_still_to_be_read_is_no_difference(here: Installation, imap: EmbeddedIMAP) -> None:
    append(imap, *(make_email(n) for n in range(1, 6)))
    add(here, imap, "--start", "all", "--older", "open")
    with here.poller():
        wait_for(lambda: num_emails(here) == 5, "five mails")

    def half_way(session: Any) -> None:
        cursor = session.exec(select(FolderCursor)).one()
        cursor.backfill_uid, cursor.older_uid = 102, 104
        session.add(cursor)
        for entry in session.exec(select(LedgerEntry).where(col(LedgerEntry.uid).in_([103, 104]))):
            session.delete(entry)

    here.change(half_way)
    code, said = here.run("ledger", "support")
    assert code == 0, said
    assert "INBOX: server 5, ledger 3, still to be read 2 of what was there before." in said


def test_a_comparison_is_asked_for_and_waited_for(here: Installation, imap: EmbeddedIMAP) -> None:
    append(imap, make_email(1))
    add(here, imap, "--start", "all", "--older", "open")
    code, said = here.run("reconcile", "support")
    assert code == 1
    assert "No poller reads mailbox support now" in said
    assert "briefbox up" in said
    assert here.row().reconcile_at is not None
    with here.poller():
        wait_for(lambda: num_emails(here) == 1, "the mail")
        code, said = here.run("reconcile", "support", "--wait", "30")
    assert code == 0, said
    assert "INBOX: server 1 = ledger 1." in said


def test_older_mail_is_shown_as_a_bar_while_it_is_read(
    here: Installation, imap: EmbeddedIMAP, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(here, imap)
    terminal = StringIO()
    monkeypatch.setattr(
        mailbox_ledger, "errors", Console(file=terminal, force_terminal=True, width=120, highlight=False)
    )
    with client(imap) as connection:
        uidvalidity = connection.select_folder("INBOX", readonly=True)[b"UIDVALIDITY"]

    def begin(session: Any) -> None:
        mailboxes.claim(session, here.row().id, owner="poll", seconds=60)
        cursor = ledger.open_folder(session, here.row().id, "INBOX", uidvalidity)
        cursor.backfill_uid, cursor.older_uid, cursor.last_uid = 25, 100, 100
        session.add(cursor)

    def read(up_to: int) -> None:
        def change(session: Any) -> None:
            cursor = session.exec(select(FolderCursor)).one()
            cursor.backfill_uid, cursor.reconciled_at = up_to, datetime.now(UTC)
            session.add(cursor)

        here.change(change)

    def poll() -> None:
        for shown, up_to in (("25%", 50), ("50%", 100)):
            wait_for(lambda shown=shown: shown in terminal.getvalue(), shown)
            read(up_to)

    here.change(begin)
    poller = threading.Thread(target=poll)
    poller.start()
    code, said = here.run("reconcile", "support", "--wait", "30")
    poller.join()
    assert code == 0, said
    assert "INBOX: server 0 = ledger 0." in said
    assert "older mail (by UID)" in terminal.getvalue()


def test_a_comparison_that_takes_longer_or_fails_is_told(here: Installation, imap: EmbeddedIMAP) -> None:
    add(here, imap)
    here.change(lambda session: mailboxes.claim(session, here.row().id, owner="poll", seconds=60))
    code, said = here.run("reconcile", "support", "--wait", "0.5")
    assert code == 1
    assert "Not compared within 0.5 s: INBOX." in said
    assert "INBOX: not read yet" in said
    trouble = threading.Timer(
        1, here.change, (lambda session: mailboxes.note_error(session, here.row().id, "It said no."),)
    )
    trouble.start()
    code, said = here.run("reconcile", "support", "--wait", "20")
    trouble.join()
    assert code == 1
    assert "cannot be compared now: It said no." in said


def test_dead_letters_of_a_mailbox_are_retried_over_one_connection(
    here: Installation, imap: EmbeddedIMAP
) -> None:
    append(imap, make_email(1), make_email(2), make_email(3))
    add(here, imap)
    with client(imap) as connection:
        uidvalidity = connection.select_folder("INBOX", readonly=True)[b"UIDVALIDITY"]

    def give_up(session: Any) -> None:
        arrivals = [
            *(Arrival(FetchedEmail(uid, None, problem="the connection broke")) for uid in (101, 102, 199)),
            Arrival(FetchedEmail(103, make_email(3)), problem="cannot be parsed"),
        ]
        commit(session, here.row(), arrivals, uidvalidity=uidvalidity)

    here.change(give_up)
    with here.database.read() as session:
        first = session.exec(select(DeadLetter.id).order_by(col(DeadLetter.id))).first()
    assert "no open dead letter 12345" in here.run("retry", "support", "12345")[1]
    code, said = here.run("retry", "support", str(first))
    assert code == 0, said
    assert f"{first}: It is in the queue now and waits for a brief." in said
    code, said = here.run("retry", "support")
    assert code == 1
    assert "2 of 3 dead letters are settled." in said
    assert "does not give UID 199" in said
    with here.database.read() as session:
        still_open = session.exec(select(DeadLetter.id).where(col(DeadLetter.resolved_at).is_(None))).all()
    assert len(still_open) == 1
    assert num_emails(here) == 3
    assert "1 dead letters" not in here.run("list")[1]
