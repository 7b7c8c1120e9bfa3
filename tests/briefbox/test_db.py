import sqlite3
from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import text
from sqlmodel import select

from briefbox import db
from briefbox.db import Database, check_revision, migrate, open_database, revision_of
from briefbox.errors import DatabaseBusyError, DatabaseError
from briefbox.settings import Settings
from briefbox.tables import Category, User


def test_the_tables_are_what_the_migrations_make(database: Database) -> None:
    command.check(db._alembic_config(database))


def test_migrations_go_down_and_up_again(database: Database) -> None:
    migrate(database, "base")
    assert revision_of(database) is None
    migrate(database)
    check_revision(database)
    with database.read() as session:
        assert len(session.exec(select(Category)).all()) == 10


def test_an_empty_database_is_refused_with_the_command_that_fixes_it(settings: Settings) -> None:
    with pytest.raises(DatabaseError, match="has no tables yet. Run: briefbox migrate"):
        open_database(settings)


def test_a_newer_database_is_refused_and_left_as_it_is(database: Database) -> None:
    with database.write() as session:
        session.connection().execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (check_revision, migrate):
        with pytest.raises(DatabaseError, match="written by a newer version"):
            use(database)
    assert revision_of(database) == "9999"


def test_times_come_back_aware_and_naive_ones_are_refused(database: Database) -> None:
    moment = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
    with database.write() as session:
        session.add(User(email="a@example.org", created_at=moment))
    with database.read() as session:
        assert session.exec(select(User.created_at)).one() == moment
    with pytest.raises(Exception, match="naive datetime"), database.write() as session:
        session.add(User(email="b@example.org", created_at=moment.replace(tzinfo=None)))


def test_a_failing_body_writes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as session:
        session.add(User(email="a@example.org", created_at=datetime.now(UTC)))
        session.flush()
        _ = 1 / 0
    with database.read() as session:
        assert session.exec(select(User)).all() == []


def test_an_unreachable_server_is_a_busy_database() -> None:
    with pytest.raises(DatabaseBusyError, match="BRIEFBOX_DATABASE_URL"):
        check_revision(Database("postgresql+psycopg://me:hunter2@127.0.0.1:1/none"))


def test_a_locked_sqlite_is_a_busy_database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 50)
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    other = sqlite3.connect(settings.data_dir / "briefbox.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseBusyError, match="locked"), database.write() as session:
        session.add(User(email="a@example.org", created_at=datetime.now(UTC)))
    other.rollback()
    other.close()
    database.close()
