"""The database: one engine, transactions that either read or write, and errors in plain words.

SQLite runs in WAL mode with synchronous=FULL, so that a commit survives a power cut, and a writing
transaction takes its lock at BEGIN (IMMEDIATE): a claim reads and writes the same rows, and two
readers that both want to write would deadlock. PostgreSQL needs none of this.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import BaseModel
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlmodel import Session

from briefbox.errors import DatabaseBusyError, DatabaseError
from briefbox.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 20_000


class Database:
    """Sessions on one database. Safe to share between threads, not between forked processes."""

    def __init__(self, address: str) -> None:
        """Make the engine; nothing is connected yet. `address` is an SQLAlchemy URL."""
        self.address = address
        self.is_sqlite = address.startswith("sqlite")
        self.engine = _make_engine(address)
        self._writer = self.engine.execution_options(briefbox_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; what it changed is thrown away. Raises DatabaseBusyError, DatabaseError."""
        with self._errors_in_words(), Session(self.engine, expire_on_commit=False) as session:
            yield session
            session.expunge_all()  # a rollback would empty the rows that the caller keeps
            session.rollback()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One writing transaction: committed at the end, rolled back if the body raises."""
        with self._errors_in_words(), Session(self._writer, expire_on_commit=False) as session:
            yield session
            session.commit()

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
            raise DatabaseBusyError(
                f"The database at {self.shown_address} cannot be used now ({reason}). Nothing was changed; check that it runs and has room, or set BRIEFBOX_DATABASE_URL."
            ) from error

    @property
    def shown_address(self) -> str:
        """The address without its password."""
        return make_url(self.address).render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def open_database(settings: Settings, *, check: bool = True) -> Database:
    """The database of these settings, its schema checked against this code.

    Raises DatabaseError when the schema is missing, older or newer, and DatabaseBusyError when the
    server cannot be reached.
    """
    if settings.database_url is None:
        settings.ensure_data_dir()
    database = Database(settings.database_address)
    if check:
        check_revision(database)
    return database


def now(session: Session) -> datetime:
    """The database server's clock (leases of several machines must not depend on their own)."""
    bind = session.get_bind()
    if bind.dialect.name == "sqlite":
        return datetime.now(UTC)  # SQLite's clock is this machine's; SQL would only give milliseconds
    value: datetime = session.connection().execute(text("SELECT clock_timestamp()")).scalar_one()
    return value.astimezone(UTC)


# --- schema


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to `revision` (forwards or back). Raises DatabaseError if it is newer than this code."""
    with database._errors_in_words():
        with database.engine.connect() as connection:
            _refuse_unknown(database, _current(connection))
        config = _alembic_config(database)
        if revision == "head" or revision.startswith("+"):
            command.upgrade(config, revision)
        else:
            current = revision_of(database)
            known = _script(config)
            older = current is not None and revision in {
                s.revision for s in known.iterate_revisions(current, "base")
            }
            (command.downgrade if older or revision in {"base", "-1"} else command.upgrade)(config, revision)


def revision_of(database: Database) -> str | None:
    """The schema revision that the database is at; None when it is empty."""
    with database._errors_in_words(), database.engine.connect() as connection:
        return _current(connection)


def check_revision(database: Database) -> None:
    """Raise DatabaseError unless the schema is exactly what this code expects."""
    current = revision_of(database)
    _refuse_unknown(database, current)
    head = _script(_alembic_config(database)).get_current_head()
    if current != head:
        found = (
            "has no tables yet"
            if current is None
            else f"is at revision {current}, and this version needs {head}"
        )
        raise DatabaseError(f"The database at {database.shown_address} {found}. Run: briefbox migrate")


def _refuse_unknown(database: Database, current: str | None) -> None:
    known = {script.revision for script in _script(_alembic_config(database)).walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseError(
            f"The database at {database.shown_address} is at revision {current}, which this briefbox does not know: it was written by a newer version. Install that version, or restore a backup made with this one."
        )


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _alembic_config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = database.engine
    return config


def _script(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)


# --- engine


def _make_engine(address: str) -> Engine:
    if not address.startswith("sqlite"):
        return create_engine(
            address, pool_pre_ping=True, pool_size=5, max_overflow=10, json_serializer=to_json
        )
    engine = create_engine(
        address,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        json_serializer=to_json,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


class JSONText(str):
    """A value for a JSON column that is JSON already."""

    __slots__ = ()


def to_json(value: Any) -> str:
    """For JSON columns. Our own values (schemas.Frozen) write themselves, several times faster than as dicts."""
    if isinstance(value, JSONText):
        return value
    return value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver's own implicit BEGIN comes too late to be IMMEDIATE; _begin_sqlite does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("briefbox_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
