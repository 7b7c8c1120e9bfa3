"""`briefbox demo`: the whole flow on one machine, with nothing to configure.

An embedded IMAP server holds a support inbox; sample emails drip into it; the real poller, Valkey,
Celery worker, model and desk do the rest, as `briefbox up` runs them. `--check` does what a person
would do, over HTTP, and says whether it worked.
"""

import os
import re
import secrets as random_secrets
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, field
from email.utils import make_msgid
from importlib.resources import files
from pathlib import Path
from statistics import median
from threading import Event, Thread

import httpx
from imapclient import IMAPClient
from rich.table import Table
from sqlmodel import col, select

from briefbox.cli.checks import print_audit, run_audit
from briefbox.cli.output import console, set_up_logging
from briefbox.cli.supervisor import Supervisor
from briefbox.db import Database, migrate, open_database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.errors import BriefboxError
from briefbox.schemas import EmailKind
from briefbox.settings import PREFIX, Settings, load_settings
from briefbox.store import mailboxes, secrets, users
from briefbox.tables import Brief, Conversation, Correction, Email, Mailbox
from ingest.parse import parse_email
from training.default_adapter import install_starter

INBOX_USER = "support@larkspur.example"
# Nobody reads it: whoever looks at the demo may connect it on the desk.
SPARE_USER, NUM_SPARE = "workshop@larkspur.example", 12
DEFAULT_PORT = 8025
# In --check the emails arrive quickly, but still one by one, as mail does.
CHECK_INTERVAL_SECONDS = 0.2


@dataclass(slots=True)
class Sent:
    """An email put into the inbox, and when (time.monotonic)."""

    raw: bytes
    at: float
    customer: bool


@dataclass(slots=True)
class Arrived:
    """A brief that stands in the queue, and how long after its email's arrival it stood there."""

    email_id: int
    seconds: float


@dataclass(slots=True)
class Times:
    """When each thing happened, in seconds after the start."""

    started: float = field(default_factory=time.monotonic)
    ready: float | None = None
    first_brief: float | None = None
    all_briefed: float | None = None

    def now(self) -> float:
        return time.monotonic() - self.started


class Demo:
    """One run of the demo in a folder of its own."""

    def __init__(
        self, *, host: str, port: int | None, engine: str, interval: float, data_dir: Path | None, stop: Event
    ) -> None:
        """Nothing is started yet. `data_dir` None: a temporary folder, removed at the end."""
        self.host, self.interval, self.stop = host, interval, stop
        self._temporary = None if data_dir else Path(tempfile.mkdtemp(prefix="briefbox-demo-"))
        self.data_dir = data_dir or self._temporary or Path()
        self.environment = _environment(self.data_dir, host, port or _free_port(host), engine)
        self.times = Times()
        self.sent: list[Sent] = []

    # --- for a person

    def show(self, num_emails: int | None) -> str:
        """Run until Ctrl-C. Returns what went wrong, or ""."""
        with self.running() as run:
            console.print("\n[bold]Open the agent queue[/] (one-time sign-in):")
            console.print(f"  {run.link}\n", soft_wrap=True, style="cyan")
            console.print(
                f"Sample emails arrive over IMAP every {self.interval:g} s. Logs: {self.data_dir / 'logs'}   Ctrl-C stops everything.\n"
            )
            self._fill_spare(run)
            console.print(
                f"Another inbox waits to be connected (Admin, Connect an inbox): {SPARE_USER}, server 127.0.0.1, port {run.imap.port}, no encryption, password {run.password}\n",
                soft_wrap=True,
            )
            drip = Thread(target=self._drip, args=(run, num_emails, self.interval), daemon=True)
            drip.start()
            seen: set[int] = set()
            told = False
            while not self.stop.wait(0.3):
                run.supervisor.watch()
                for brief, conversation in self._new_briefs(run, seen):
                    self._tell(brief, conversation)
                if not told and not drip.is_alive() and len(seen) >= self._num_customer():
                    told = True
                    console.print(
                        "\nAll sample emails are in the queue. Correct a few in the browser; Ctrl-C stops the demo."
                    )
            console.print("\nstopping ...")
        return ""

    # --- without a person

    def check(self, num_emails: int, *, timeout: float) -> str:
        """Do what a person would do. Returns why it failed, or ""; prints a table either way."""
        problem = ""
        report = None
        seen: set[int] = set()
        waits: list[float] = []
        corrected = ""
        with self.running() as run:
            drip = Thread(target=self._drip, args=(run, num_emails, CHECK_INTERVAL_SECONDS), daemon=True)
            drip.start()
            deadline = time.monotonic() + timeout
            while len(seen) < num_emails and not self.stop.is_set():
                if time.monotonic() > deadline:
                    problem = f"{len(seen)} of {num_emails} emails were briefed within {timeout:.0f} s"
                    break
                run.supervisor.watch()
                for brief, conversation in self._new_briefs(run, seen):
                    self._tell(brief, conversation)
                    waits.append(self._waited(run, brief))
                self.stop.wait(0.2)
            self.times.all_briefed = self.times.now()
            drip.join(30)
            if not problem and self.stop.is_set():
                problem = "stopped by a signal"
            if not problem:
                try:
                    corrected = self._correct_over_http(run)
                    report = run_audit(run.database, run.settings)
                except (BriefboxError, httpx.HTTPError) as error:
                    problem = str(error)
            if report is not None and not report["clean"]:
                problem = "the audit is not clean"
        if report is not None:
            print_audit(report)
        self._print_times(len(seen), num_emails, waits, corrected)
        if problem:
            console.print(
                f"FAILED: {problem}. Logs are kept in {self.data_dir / 'logs'}", style="red", soft_wrap=True
            )
            return problem
        console.print(
            f"PASSED: {num_emails} emails briefed, one corrected through the desk, audit clean.",
            style="green",
        )
        self.clean_up()
        return ""

    def _correct_over_http(self, run: "DemoRun") -> str:
        """Sign in with the link, correct the first row's priority by the page's own form, and look for the row it must leave."""
        with httpx.Client(
            base_url=run.settings.desk_address, follow_redirects=True, timeout=30, trust_env=False
        ) as browser:
            browser.post(run.link.removeprefix(run.settings.desk_address)).raise_for_status()
            page = browser.get("/").raise_for_status().text
            found = re.search(r"/conversations/(\d+)", page)
            if found is None:
                raise BriefboxError("the queue page shows no conversation")
            conversation_id = int(found[1])
            with run.database.read() as session:
                before = session.get_one(Conversation, conversation_id).priority
            after = "low" if before != "low" else "high"
            form = {
                "field": "priority",
                "value": after,
                "before": before,
                "idempotency_key": random_secrets.token_hex(8),
            }
            browser.post(f"/conversations/{conversation_id}/correct", data=form).raise_for_status()
        with run.database.read() as session:
            row = session.exec(
                select(Correction).where(Correction.conversation_id == conversation_id)
            ).first()
            now = session.get_one(Conversation, conversation_id).priority
        if row is None or (row.before, row.after, now) != (before, after, after):
            raise BriefboxError(
                f"the correction of conversation {conversation_id} from {before} to {after} was not stored"
            )
        return f"conversation {conversation_id}: priority {before} → {after}"

    # --- the parts

    def running(self) -> "DemoRun":
        """Everything that runs, as a context."""
        return DemoRun(self)

    def _drip(self, run: "DemoRun", num_customer: int | None, interval: float) -> None:
        """Put samples into the inbox, one by one, until `num_customer` of them were customer mail."""
        samples = _samples()
        wanted = num_customer or sum(_is_customer(raw) for raw in samples)
        with IMAPClient("127.0.0.1", port=run.imap.port, ssl=False, timeout=30) as client:
            client.login(INBOX_USER, run.password)
            copy = 0
            while wanted > 0 and not self.stop.is_set():
                for raw in samples:
                    message = _copy(raw, copy) if copy else raw
                    sent = Sent(message, time.monotonic(), _is_customer(message))
                    client.append("INBOX", message)
                    self.sent.append(sent)
                    wanted -= sent.customer
                    if wanted == 0 or self.stop.wait(interval):
                        return
                copy += 1

    def _fill_spare(self, run: "DemoRun") -> None:
        with IMAPClient("127.0.0.1", port=run.imap.port, ssl=False, timeout=30) as client:
            client.login(SPARE_USER, run.password)
            client.create_folder("Sent")
            for raw in _samples()[:NUM_SPARE]:
                client.append("INBOX", raw.replace(INBOX_USER.encode(), SPARE_USER.encode()))

    def _num_customer(self) -> int:
        return sum(sent.customer for sent in list(self.sent))

    def _new_briefs(self, run: "DemoRun", seen: set[int]) -> list[tuple[Brief, Conversation]]:
        with run.database.read() as session:
            query = (
                select(Brief, Conversation)
                .join(Conversation, col(Brief.conversation_id) == col(Conversation.id))
                .where(col(Brief.shadow).is_(False))  # nobody sees those
                .order_by(col(Brief.id))
            )
            rows = [(b, c) for b, c in session.exec(query) if b.email_id not in seen]
        if rows and self.times.first_brief is None:
            self.times.first_brief = self.times.now()
        seen.update(b.email_id for b, _ in rows)
        return rows

    def _waited(self, run: "DemoRun", brief: Brief) -> float:
        with run.database.read() as session:
            created = session.get_one(Email, brief.email_id).created_at
        return max(0.0, (brief.created_at - created).total_seconds())

    def _tell(self, brief: Brief, conversation: Conversation) -> None:
        colour = {"urgent": "bold red", "high": "yellow", "normal": "default", "low": "dim"}[brief.priority]
        who = conversation.customer_name or conversation.customer_address
        console.print(
            f"{self.times.now():6.1f} s  [{colour}]{brief.priority:<7}[/] {brief.category:<18} ", end=""
        )
        console.print(f"{brief.headline}  ({who})", markup=False)

    def _print_times(self, num_seen: int, num_emails: int, waits: list[float], corrected: str) -> None:
        table = Table(title="briefbox demo --check", title_justify="left")
        table.add_column("what")
        table.add_column("result", justify="right")
        rows = [
            ("emails briefed", f"{num_seen} of {num_emails}"),
            ("processes up after", _seconds(self.times.ready)),
            ("first brief after", _seconds(self.times.first_brief)),
            ("all briefed after", _seconds(self.times.all_briefed)),
            ("committed row to brief, median", _seconds(median(waits)) if waits else "-"),
            ("committed row to brief, longest", _seconds(max(waits)) if waits else "-"),
            ("correction over HTTP", corrected or "-"),
        ]
        for row in rows:
            table.add_row(*row)
        console.print(table)

    def clean_up(self) -> None:
        """Remove the temporary folder."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


class DemoRun:
    """Everything that runs during one demo, started and stopped in order."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.password = random_secrets.token_urlsafe(16)
        os.environ.update(demo.environment)
        self.settings: Settings = load_settings()
        set_up_logging("WARNING", "demo")
        self.imap = EmbeddedIMAP({INBOX_USER: self.password, SPARE_USER: self.password})
        self.supervisor = Supervisor(
            self.settings, environment=demo.environment, log_dir=demo.data_dir / "logs"
        )
        self.database: Database = open_database(self.settings, check=False)
        self.link = ""

    def __enter__(self) -> "DemoRun":
        console.print("starting: embedded IMAP server, Valkey, poller, worker with the model, desk ...")
        self.imap.__enter__()
        try:
            migrate(self.database)
            install_starter(self.database, self.settings)
            self._prepare()
            self.supervisor.start()
            self._await_desk()
        except BaseException:
            self.__exit__()
            raise
        self.demo.times.ready = self.demo.times.now()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self.database.close()
        self.imap.__exit__(None, None, None)
        if not self.demo.times.all_briefed:
            self.demo.clean_up()

    def _prepare(self) -> None:
        row = Mailbox(
            name="support",
            address=INBOX_USER,
            host="127.0.0.1",
            port=self.imap.port,
            security="none",
            username=INBOX_USER,
            password_encrypted=secrets.cipher(self.settings).encrypt("support", self.password),
            folders=["INBOX"],
            start_at="all",
        )
        with self.database.write() as session:
            mailboxes.add(session, row, actor="demo", replace=True)
            known = next((u for u in users.all_of(session) if u.email == "demo@larkspur.example"), None)
            if known is None:
                _, token = users.create(
                    session, email="demo@larkspur.example", name="Demo", role="admin", actor="demo"
                )
            else:
                token = users.new_link(session, known)
        self.link = f"{self.settings.desk_address}/link/{token}"

    def _await_desk(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not self.demo.stop.is_set():
            self.supervisor.watch()
            try:
                if (
                    httpx.get(f"{self.settings.desk_address}/healthz", timeout=2, trust_env=False).status_code
                    == 200
                ):
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        if not self.demo.stop.is_set():
            raise BriefboxError(
                f"The desk did not answer at {self.settings.desk_address} within 60 s. Its log is {self.demo.data_dir / 'logs' / 'desk.log'}"
            )


def _environment(data_dir: Path, host: str, port: int, engine: str) -> dict[str, str]:
    """What the demo's processes are told. A database or Redis of the operator is never touched."""
    for name in ("DATABASE_URL", "REDIS_URL", "DATABASE_URL_FILE", "REDIS_URL_FILE"):
        os.environ.pop(PREFIX + name, None)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "briefbox" / "models"
    values = {
        "DATA_DIR": str(data_dir),
        # Converting the packaged model takes half a minute: done once for all demos.
        "MODELS_DIR": os.environ.get(f"{PREFIX}MODELS_DIR") or str(cache),
        "DESK_HOST": host,
        "DESK_PORT": str(port),
        "DESK_URL": f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}",  # noqa: S104 - only compared
        "ENGINE": engine,
        # The inbox that may be connected in the browser is on this machine.
        "PRIVATE_NETWORKS": "127.0.0.0/8",
        # Small batches: the first brief should not wait for seven others.
        "BATCH_SIZE": "4",
        "SWEEP_SECONDS": "2",
        "RECONCILE_SECONDS": "10",
        "MAILBOX_LEASE_SECONDS": "10",
    }
    return {PREFIX + name: value for name, value in values.items()}


def _free_port(host: str) -> int:
    for port in (DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise BriefboxError(f"No port can be opened on {host}. Choose another address with --host.")


def _samples() -> list[bytes]:
    folder = files("briefbox.demo").joinpath("emails")
    return [
        entry.read_bytes()
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".eml")
    ]


def _is_customer(raw: bytes) -> bool:
    return parse_email(raw).kind == EmailKind.CUSTOMER


def _copy(raw: bytes, number: int) -> bytes:
    """The same sample sent once more: other bytes and another Message-ID, so that it is another email."""
    head, _, body = raw.partition(b"\r\n\r\n")
    head = re.sub(rb"(?im)^message-id:.*(\r\n[ \t].*)*\r\n", b"", head + b"\r\n")
    head = re.sub(rb"(?im)^(in-reply-to|references):.*(\r\n[ \t].*)*\r\n", b"", head)
    extra = f"Message-ID: {make_msgid(idstring=str(number), domain='demo.example')}\r\n".encode()
    return extra + head + b"\r\n" + body


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
