"""Seconds from APPEND to committed brief: IMAP server, poller, Valkey, Celery worker and engine, as `briefbox up` runs them.

    python -m bench.latency [--emails N] [--engine fake|transformers|both] [--pause SECONDS]

Emails are appended one at a time, each after the one before it was briefed and a short pause, so
that the figure is the latency of a quiet inbox and not of a queue. The poller waits in IDLE.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from imapclient import IMAPClient
from sqlmodel import func, select

from bench.common import plain_email, print_table
from briefbox.cli.supervisor import Supervisor
from briefbox.db import Database, migrate, open_database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import load_settings
from briefbox.store import mailboxes, processes, secrets
from briefbox.tables import Brief, Mailbox

USER, PASSWORD = "desk", "pw"
SAMPLE_SECONDS = 0.004


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--emails", type=int, default=30)
    arguments.add_argument("--engine", choices=["fake", "transformers", "both"], default="both")
    arguments.add_argument("--pause", type=float, default=0.3)
    options = arguments.parse_args()
    rows = []
    for engine in ("fake", "transformers") if options.engine == "both" else (options.engine,):
        times = measure(engine, options.emails, options.pause)
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1]
        rows.append(
            (
                engine,
                len(times),
                f"{p50 * 1000:.0f} ms",
                f"{p95 * 1000:.0f} ms",
                f"{max(times) * 1000:.0f} ms",
            )
        )
    print_table("APPEND to committed brief", ["engine", "emails", "p50", "p95", "longest"], rows)


def measure(engine: str, number: int, pause: float) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="bench") as folder, EmbeddedIMAP({USER: PASSWORD}) as imap:
        models = Path.home() / ".cache" / "briefbox" / "models"
        values = {"data_dir": folder, "engine": engine, "desk_port": 0, "models_dir": str(models)}
        settings = load_settings(**values)
        database = open_database(settings, check=False)
        migrate(database)
        row = Mailbox(
            name="bench",
            address=USER,
            host="127.0.0.1",
            port=imap.port,
            security="none",
            username=USER,
            folders=["INBOX"],
            start_at="all",
        )
        row.password_encrypted = secrets.cipher(settings).encrypt("bench", PASSWORD)
        with database.write() as session:
            mailboxes.add(session, row, actor="bench")
        environment = {f"BRIEFBOX_{name.upper()}": str(value) for name, value in values.items()}
        supervisor = Supervisor(settings, environment=environment, log_dir=Path(folder) / "logs")
        supervisor.start()
        try:
            return _append_and_wait(database, imap.port, number, pause)
        finally:
            supervisor.stop()
            database.close()


def _append_and_wait(database: Database, port: int, number: int, pause: float) -> list[float]:
    _await_worker(database)
    times = []
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(USER, PASSWORD)
        # The first one is not counted: it finds the poller connecting and the model's caches cold.
        for n in range(number + 1):
            started = time.perf_counter()
            client.append("INBOX", plain_email(n, 600))
            while _num_briefs(database) <= n:
                time.sleep(SAMPLE_SECONDS)
                if time.perf_counter() - started > 120:
                    raise SystemExit(f"email {n} was not briefed within 120 s")
            if n:
                times.append(time.perf_counter() - started)
            time.sleep(pause)
    return times


def _await_worker(database: Database) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with database.read() as session:
            if any(
                beat.kind == "worker" and beat.detail != "started" for beat, _ in processes.all_of(session)
            ):
                return
        time.sleep(0.2)
    raise SystemExit("the worker was not ready within 180 s")


def _num_briefs(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(Brief)).one()


if __name__ == "__main__":
    main()
