"""What idle mailboxes cost, and how soon a mail that arrives in one of them is a committed row.

    python -m bench.idle [--mailboxes 1,500] [--seconds 330] [--arrivals 40] [--embedded]

One `briefbox poll` process watches so many mailboxes of a Dovecot on loopback, each over TLS with a connection that
idles. Memory is the resident set when all are idle; processor time is taken over SECONDS, longer than an IDLE lasts, so
that every connection is renewed once within it. Then mails are appended one by one, to mailboxes in turn, and the time
until the row is committed is taken; beside it, in the same turn, the time until the server says EXISTS to a bare
imapclient that idles on the same mailbox, which nobody can be faster than. Dovecot 2.3 waits half a second before it
says so, and without inotify (Linux gives 128 instances to a user: /proc/sys/fs/inotify/max_user_instances) it
looks every 30 seconds only; `--embedded` measures with the embedded server (without TLS), which does not.
"""

import argparse
import os
import select as selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from imapclient import IMAPClient
from sqlmodel import col, func, select

from bench.common import plain_email, print_table
from briefbox.db import Database, migrate, open_database
from briefbox.embedded.imap import EmbeddedIMAP
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
    arguments.add_argument("--embedded", action="store_true")
    options = arguments.parse_args()
    rows = [
        measure(int(number), options.seconds, options.arrivals, embedded=options.embedded)
        for number in options.mailboxes.split(",")
    ]
    print_table(
        "One poller process",
        [
            "mailboxes",
            "all idle after",
            "memory",
            "processor",
            "APPEND to EXISTS p50",
            "p95",
            "APPEND to row p50",
            "p95",
            "longest",
        ],
        rows,
    )


def measure(number: int, seconds: float, arrivals: int, *, embedded: bool) -> tuple[str, ...]:
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        _embedded(number) if embedded else dovecot(Path(folder) / "dovecot", num_users=number) as server,
    ):
        values = {"data_dir": folder, "engine": "fake", "redis_url": "redis://127.0.0.1:1/0"}
        settings = load_settings(**values)
        database = open_database(settings, check=False)
        migrate(database)
        _add(database, settings, server, number, tls=not embedded)
        environment = {**os.environ, **{f"BRIEFBOX_{name.upper()}": value for name, value in values.items()}}
        with (Path(folder) / "poll.log").open("wb") as log:
            poller = subprocess.Popen(
                [sys.executable, "-m", "briefbox", "poll"], env=environment, stdout=log, stderr=log
            )
        try:
            started = time.perf_counter()
            _await(lambda: _num_read(database) == number, "all mailboxes to be read", 300)
            ready = time.perf_counter() - started
            time.sleep(5)
            before, clock = _processor(poller.pid), time.perf_counter()
            time.sleep(seconds)
            share = (_processor(poller.pid) - before) / (time.perf_counter() - clock)
            # The first one is not counted: it loads what parsing needs.
            pairs = [_arrive(database, server, n, number) for n in range(arrivals + 1)][1:]
            memory = _memory(poller.pid)
        finally:
            poller.terminate()
            poller.wait(60)
            database.close()
    announced, stored = (sorted(times) for times in zip(*pairs, strict=True))
    return (
        str(number),
        f"{ready:.1f} s",
        f"{memory / 2**20:.0f} MB",
        f"{share:.2%} of a core",
        *(f"{value * 1000:.0f} ms" for value in (*_p50_p95(announced), *_p50_p95(stored), stored[-1])),
    )


def _p50_p95(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1]


@contextmanager
def _embedded(number: int) -> Iterator[Dovecot]:
    """The embedded server, described as Dovecot is."""
    names = ["desk", *(f"desk{n}" for n in range(1, number))]
    with EmbeddedIMAP(dict.fromkeys(names, "pw")) as running:
        yield Dovecot(running.port, 0, Path(), Path(), password="pw")


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


def _arrive(database: Database, server: Dovecot, n: int, number: int) -> tuple[float, float]:
    """Seconds until a bare client hears of the mail, and until its row is committed."""
    name = _user(server, (n * 37) % number)
    bare = IMAPClient("127.0.0.1", port=server.port, ssl=False, timeout=30)
    with IMAPClient("127.0.0.1", port=server.port, ssl=False) as client:
        for each in (client, bare):
            each.login(name, server.password)
        bare.select_folder("INBOX", readonly=True)
        bare.idle()
        time.sleep(0.6)
        heard: list[float] = []
        listener = Thread(
            target=lambda: (selectors.select([bare.socket()], [], [], 30), heard.append(time.perf_counter()))
        )
        listener.start()
        started = time.perf_counter()
        client.append("INBOX", plain_email(n, 2000))
        _await(lambda: _num_emails(database) > n, f"email {n}", 60, every=SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        listener.join()
        bare.shutdown()
    return heard[0] - started, seconds


def _num_emails(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(Email)).one()


def _await(condition, what: str, seconds: float, *, every: float = 0.2) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def _memory(process: int) -> int:
    """Resident bytes of the process and its children."""
    children = [
        c for task in Path(f"/proc/{process}/task").iterdir() for c in (task / "children").read_text().split()
    ]
    own = int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
    return own + sum(_memory(int(child)) for child in children)


def _processor(process: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
