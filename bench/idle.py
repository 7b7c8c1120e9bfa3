"""What idle mailboxes cost, and how soon a mail that arrives in one of them is a committed row.

    python -m bench.idle [--mailboxes 1,500] [--seconds 330] [--arrivals 40] [--plain]

One `briefbox poll` process watches so many mailboxes of a Dovecot on loopback, each over TLS with a connection that
idles. Memory is the resident set when all are idle; processor time is taken over SECONDS, longer than an IDLE lasts, so
that every connection is renewed once within it. Then mails are appended one by one, to mailboxes in turn, and the time
until the row is committed is taken. Needs Dovecot 2.3.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from imapclient import IMAPClient
from sqlmodel import col, func, select

from bench.common import plain_email, print_table
from briefbox.db import Database, migrate, open_database
from briefbox.settings import Settings, load_settings
from briefbox.store import mailboxes, secrets
from briefbox.tables import Email, Mailbox
from tests.servers import Dovecot, dovecot

SAMPLE_SECONDS = 0.004
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--mailboxes", default="1,500")
    arguments.add_argument("--seconds", type=float, default=330)
    arguments.add_argument("--arrivals", type=int, default=40)
    arguments.add_argument("--plain", action="store_true", help="without TLS")
    options = arguments.parse_args()
    rows = [
        measure(int(number), options.seconds, options.arrivals, tls=not options.plain)
        for number in options.mailboxes.split(",")
    ]
    print_table(
        "One poller process",
        [
            "mailboxes",
            "all idle after",
            "memory",
            "of it each",
            "processor",
            "APPEND to row p50",
            "p95",
            "longest",
        ],
        rows,
    )


def measure(number: int, seconds: float, arrivals: int, *, tls: bool) -> tuple[str, ...]:
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        dovecot(Path(folder) / "dovecot", num_users=number) as server,
    ):
        values = {"data_dir": folder, "engine": "fake", "redis_url": "redis://127.0.0.1:1/0"}
        settings = load_settings(**values)
        database = open_database(settings, check=False)
        migrate(database)
        _add(database, settings, server, number, tls=tls)
        environment = {**os.environ, **{f"BRIEFBOX_{name.upper()}": value for name, value in values.items()}}
        with (Path(folder) / "poll.log").open("wb") as log:
            poller = subprocess.Popen(
                [sys.executable, "-m", "briefbox", "poll"], env=environment, stdout=log, stderr=log
            )
        try:
            started = time.perf_counter()
            empty = _memory(poller.pid, after=3.0)
            _await(lambda: _num_read(database) == number, "all mailboxes to be read", 300)
            ready = time.perf_counter() - started
            time.sleep(5)
            memory, before, clock = _memory(poller.pid), _processor(poller.pid), time.perf_counter()
            time.sleep(seconds)
            share = (_processor(poller.pid) - before) / (time.perf_counter() - clock)
            times = sorted(_arrive(database, server, n, number) for n in range(arrivals))
        finally:
            poller.terminate()
            poller.wait(60)
            database.close()
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
    each = f"{(memory - empty) / number / 1024:.0f} KB" if number > 1 else ""
    return (
        str(number),
        f"{ready:.1f} s",
        f"{memory / 2**20:.0f} MB",
        each,
        f"{share:.2%} of a core",
        f"{statistics.median(times) * 1000:.0f} ms",
        f"{p95 * 1000:.0f} ms",
        f"{times[-1] * 1000:.0f} ms",
    )


def _add(database: Database, settings: Settings, server: Dovecot, number: int, *, tls: bool) -> None:
    cipher = secrets.cipher(settings)
    with database.write() as session:
        for n in range(number):
            row = Mailbox(
                name=f"box{n}",
                address=f"box{n}@larkspur.example",
                host="127.0.0.1",
                port=server.tls_port if tls else server.port,
                security="tls" if tls else "none",
                username=_user(server, n),
                password_encrypted=cipher.encrypt(f"box{n}", server.password),
                ca_file=str(server.ca_file) if tls else "",
                folders=["INBOX"],
            )
            mailboxes.add(session, row, actor="bench")


def _user(server: Dovecot, number: int) -> str:
    return server.user + (str(number) if number else "")


def _num_read(database: Database) -> int:
    with database.read() as session:
        read = select(func.count()).select_from(Mailbox).where(col(Mailbox.last_success_at).is_not(None))
        return session.exec(read).one()


def _arrive(database: Database, server: Dovecot, n: int, number: int) -> float:
    with IMAPClient("127.0.0.1", port=server.port, ssl=False) as client:
        client.login(_user(server, (n * 37) % number), server.password)
        started = time.perf_counter()
        client.append("INBOX", plain_email(n, 2000))
        _await(lambda: _num_emails(database) > n, f"email {n}", 60, every=SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
    time.sleep(0.3)
    return seconds


def _num_emails(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(Email)).one()


def _await(condition, what: str, seconds: float, *, every: float = 0.2) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def _memory(process: int, *, after: float = 0.0) -> int:
    """Resident bytes."""
    time.sleep(after)
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def _processor(process: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
