"""Real servers and real processes for whole paths: embedded IMAP or Dovecot, Valkey, `briefbox` commands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from imapclient import IMAPClient
from sqlmodel import col, func, select

from briefbox.db import Database, migrate, open_database
from briefbox.embedded import valkey
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings, load_settings
from briefbox.store import mailboxes, secrets
from briefbox.tables import Brief, Email, LedgerEntry, Mailbox

PASSWORD = "correct horse battery"
USER = "support@larkspur.example"


@dataclass
class Stack:
    """An installation in a folder: settings, database, inbox, and the processes a test starts."""

    settings: Settings
    environment: dict[str, str]
    database: Database
    imap_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Run `briefbox WORDS` (or Valkey) with its output in a file."""
        command = (
            valkey.command(self.settings)
            if name == "valkey"
            else [sys.executable, "-m", "briefbox", *(words or (name,))]
        )
        log = (self.settings.data_dir / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        if name == "valkey":
            wait_for(lambda: valkey.answers(self.settings), "valkey")
        return self.processes[name]

    def start_all(self) -> None:
        """Valkey, worker, poller and beat."""
        for name in ("valkey", "worker", "poll", "beat"):
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL: no chance to clean up."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def append(self, *raws: bytes) -> None:
        """Put mails into the inbox, as a mail server would receive them."""
        with IMAPClient("127.0.0.1", port=self.imap_port, ssl=False, timeout=30) as client:
            client.login(USER, PASSWORD)
            for raw in raws:
                client.append("INBOX", raw)

    def num_briefs(self) -> int:
        """Briefs committed so far."""
        with self.database.read() as session:
            return session.exec(select(func.count()).select_from(Brief)).one()

    def num_emails(self) -> int:
        """Emails committed so far."""
        with self.database.read() as session:
            return session.exec(select(func.count()).select_from(Email)).one()

    def briefs(self) -> list[Brief]:
        """All briefs in order."""
        with self.database.read() as session:
            return list(session.exec(select(Brief).order_by(col(Brief.id))))

    def subjects(self) -> list[str]:
        """The subjects of all stored emails."""
        with self.database.read() as session:
            return list(session.exec(select(Email.subject)))

    def ledger_states(self) -> dict[str, int]:
        """Ledger rows by state."""
        with self.database.read() as session:
            return dict(
                session.exec(select(LedgerEntry.state, func.count()).group_by(LedgerEntry.state)).all()
            )

    def logs(self) -> str:
        """What the processes printed, for a failing test."""
        return "\n".join(
            f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.settings.data_dir.glob("*.log"))
        )


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Wait until the condition holds; fail naming what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)


@pytest.fixture
def imap() -> Iterator[EmbeddedIMAP]:
    """An embedded IMAP server with one empty support inbox."""
    with EmbeddedIMAP({USER: PASSWORD}) as server:
        yield server


@pytest.fixture
def make_stack(request: pytest.FixtureRequest) -> Iterator[Callable[..., Stack]]:
    """Make an installation; at the end its processes are ended by their ids."""
    made: list[Stack] = []
    # A unix socket's path must fit into 107 bytes, so not in pytest's deep folders.
    folder = TemporaryDirectory(prefix="bbflow")

    def make(
        imap_port: int,
        *,
        database_url: str | None = None,
        engine: str = "fake",
        security: str = "none",
        user: str = USER,
        ca_file: str = "",
        **extra: str,
    ) -> Stack:
        values = {
            "DATA_DIR": folder.name,
            "ENGINE": engine,
            "SWEEP_SECONDS": "0.5",
            "RECONCILE_SECONDS": "2",
            "MAILBOX_LEASE_SECONDS": "2",
            "LEASE_SECONDS": "2",
            **({"DATABASE_URL": database_url} if database_url else {}),
            **extra,
        }
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **{f"BRIEFBOX_{k}": v for k, v in values.items()},
        }
        settings = load_settings(**{k.lower(): v for k, v in values.items()})
        database = open_database(settings, check=False)
        migrate(database)
        row = Mailbox(
            name="support",
            address=USER,
            host="127.0.0.1",
            port=imap_port,
            security=security,
            username=user,
            ca_file=ca_file,
            password_encrypted=secrets.cipher(settings).encrypt("support", PASSWORD),
            folders=["INBOX"],
            start_at="all",
        )
        with database.write() as session:
            mailboxes.add(session, row, actor="test")
        made.append(Stack(settings, environment, database, imap_port))
        return made[-1]

    yield make
    failed = getattr(request.node, "rep_call", None)
    for stack in made:
        for process in stack.processes.values():
            process.terminate()
        for process in stack.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if failed is not None and failed.failed:
            sys.stderr.write(stack.logs())
        stack.database.close()
    folder.cleanup()


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let the fixture above know whether the test failed, so that it shows the processes' logs."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    setattr(item, f"rep_{report.when}", report)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packaged model is kept between test runs once it is converted."""
    return Path(os.environ.get("BRIEFBOX_TEST_MODELS") or f"/tmp/briefbox-test-models-{os.getuid()}")
