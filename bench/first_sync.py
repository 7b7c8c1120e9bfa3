"""The first sync of a very large mailbox: speed, memory, what a kill costs, and what comparing costs afterwards.

    python -m bench.first_sync [--emails 100000] [--kill 0.4]

`briefbox poll` reads a Dovecot inbox of so many 2 KB mails into a fresh database with no limit of speed, is killed with
SIGKILL when that share of the mails is committed, and started again. Then the unchanged folder is compared in full over a
new connection, through a proxy that counts bytes. Needs Dovecot 2.3.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from sqlmodel import func, select

from bench.common import plain_email, print_table
from briefbox.db import Database, migrate, open_database
from briefbox.settings import Settings, load_settings
from briefbox.store import mailboxes, secrets
from briefbox.tables import Email, LedgerEntry, Mailbox
from ingest.accounts import account_of
from ingest.folder import Folder
from ingest.imap_mailbox import IMAPMailbox
from tests.servers import Dovecot, dovecot


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--emails", type=int, default=100_000)
    arguments.add_argument("--kill", type=float, default=0.4)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as folder, dovecot(Path(folder) / "dovecot") as server:
        fill(server, options.emails)
        values = {"data_dir": folder, "engine": "fake", "redis_url": "redis://127.0.0.1:1/0"}
        values |= {"backfill_per_second": "0", "fetch_batch": "200", "mailbox_lease_seconds": "5"}
        settings = load_settings(**values)
        database = open_database(settings, check=False)
        migrate(database)
        add(database, settings, server)
        rows = sync(database, values, Path(folder), options.emails, options.kill)
        print_table(
            f"First sync of {options.emails} mails, killed at {options.kill:.0%}",
            ["share read", "emails/s since the start", "memory of the poller"],
            rows,
        )
        compare(database, settings, server, options.emails)
        database.close()


def fill(server: Dovecot, number: int) -> None:
    """Put the mails into the inbox, many with each command."""
    with server.client() as client:
        for start in range(0, number, 500):
            raws = [plain_email(n, 2000) for n in range(start, min(start + 500, number))]
            client.multiappend("INBOX", raws)


def add(database: Database, settings: Settings, server: Dovecot) -> None:
    row = Mailbox(
        name="bench",
        address="bench@larkspur.example",
        host="127.0.0.1",
        port=server.tls_port,
        security="tls",
        username=server.user,
        password_encrypted=secrets.cipher(settings).encrypt("bench", server.password),
        ca_file=str(server.ca_file),
        folders=["INBOX"],
        start_at="all",
        older="closed",
    )
    with database.write() as session:
        mailboxes.add(session, row, actor="bench")


def sync(
    database: Database, values: dict[str, str], folder: Path, number: int, kill_at: float
) -> list[tuple[str, ...]]:
    environment = {**os.environ, **{f"BRIEFBOX_{name.upper()}": value for name, value in values.items()}}
    rows, marks = [], [0.02, 0.1, 0.2, kill_at, 0.6, 0.8, 1.0]
    process, started, before = _poll(environment, folder), time.perf_counter(), 0
    try:
        while marks:
            time.sleep(0.25)
            if process.poll() is not None:
                raise SystemExit(f"the poller ended with {process.returncode}: {folder / 'poll.log'}")
            got = _newest(database)
            if got < marks[0] * number:
                continue
            mark = marks.pop(0)
            speed = (got - before) / (time.perf_counter() - started)
            rows.append((f"{mark:.0%}", f"{speed:.0f}", f"{_memory(process.pid) / 2**20:.0f} MB"))
            if mark == kill_at:
                process.kill()
                process.wait()
                before = _count(database, LedgerEntry)
                process, started = _poll(environment, folder), time.perf_counter()
                rows.append(("killed, started again", "", ""))
    finally:
        process.terminate()
        process.wait(60)
    held, emails = _count(database, LedgerEntry), _count(database, Email)
    if held != number or emails != number:
        raise SystemExit(f"{number} mails on the server, {held} ledger rows, {emails} emails")
    return rows


def compare(database: Database, settings: Settings, server: Dovecot, number: int) -> None:
    """What comparing the unchanged folder costs over a new connection."""
    with database.read() as session:
        row = mailboxes.get(session, "bench")
    seconds, received = [], 0
    for _ in range(5):
        with database.write() as session:
            row = mailboxes.get(session, "bench")
            row.lease_until, row.host, row.port, row.security = None, "127.0.0.1", server.port, "none"
            session.flush()
            lease = mailboxes.claim(session, row.id, owner="bench", seconds=60)
        assert lease is not None
        with counting_proxy(server.port) as (port, counted):
            row.port = port
            with IMAPMailbox(account_of(row, settings, database)) as mailbox:
                before, started = counted[0], time.perf_counter()
                Folder(database, settings, lease, "INBOX", lambda _: None).reconcile(mailbox, in_full=True)
                seconds.append(time.perf_counter() - started)
                received = counted[0] - before
    print_table(
        f"Comparing the unchanged folder of {number} mails",
        ["seconds (median)", "bytes from the server"],
        [(f"{statistics.median(seconds):.3f}", received)],
    )


@contextmanager
def counting_proxy(port: int) -> Iterator[tuple[int, list[int]]]:
    """A port that leads to `port`, and how many bytes came from there."""
    counted = [0]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                Thread(target=_pump, args=(near, far, None), daemon=True).start()
                _pump(far, near, counted)

        Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], counted


def _pump(source: socket.socket, target: socket.socket, counted: list[int] | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if counted is not None:
                counted[0] += len(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _poll(environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "poll.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "briefbox", "poll"], env=environment, stdout=log, stderr=log
        )


def _count(database: Database, table: type[Email] | type[LedgerEntry]) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(table)).one()


def _newest(database: Database) -> int:
    """The last row's id: as many as there are rows, and counting them would keep a processor busy."""
    with database.read() as session:
        return session.exec(select(func.max(LedgerEntry.id))).one() or 0


def _memory(process: int) -> int:
    return int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
