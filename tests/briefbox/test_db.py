import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import text
from sqlmodel import col, select

from briefbox import db
from briefbox.db import Database, check_revision, migrate, open_database, revision_of
from briefbox.errors import DatabaseBusyError, DatabaseError
from briefbox.settings import Settings
from briefbox.store import login_sessions, queue, search
from briefbox.store.filters import Filter
from briefbox.tables import Category, Conversation, Email, SearchPending, User
from tests.conftest import make_email


def test_the_tables_are_what_the_migrations_make(database: Database) -> None:
    command.check(db._alembic_config(database))


def test_migrations_go_down_and_up_again(database: Database) -> None:
    migrate(database, "base")
    assert revision_of(database) is None
    migrate(database)
    check_revision(database)
    with database.read() as session:
        assert len(session.exec(select(Category)).all()) == 10


def test_what_an_older_version_wrote_is_found_in_the_desk_of_this_one(
    database: Database, deliver: Callable[..., list[int]], ana: User
) -> None:
    deliver(make_email(1), make_email(2), make_email(3))
    with database.write() as session:
        answered, put_off, doubtful = session.exec(select(Conversation).order_by(col(Conversation.id)))
        answered.state, answered.answered_at = "answered", answered.waiting_since
        put_off.state, put_off.snoozed_until = "snoozed", datetime.now(UTC) + timedelta(days=1)
        doubtful.needs_human = ["priority"]
        email = session.exec(select(Email).where(Email.conversation_id == answered.id)).one()
        email.parsed = {**email.parsed, "attachments": [{"name": "a", "type": "text/plain", "size": 1}]}
        session.add_all((answered, put_off, doubtful, email))
        token = login_sessions.open_session(session, ana, hours=1)
    migrate(database, "0005")
    with database.read() as session:
        states = session.connection().execute(text("SELECT state FROM conversations ORDER BY id")).scalars()
        assert list(states) == ["open", "open", "open"], "an older version knows no other"
    migrate(database)
    check_revision(database)
    with database.read() as session:
        rows = list(session.exec(select(Conversation).order_by(col(Conversation.id))))
        # One that was put off was put off by a version that could: an older one has shown it again since.
        assert [row.state for row in rows] == ["answered", "open", "open"]
        assert [row.in_doubt for row in rows] == [False, False, True]
        mails = session.exec(select(Email.num_attachments).order_by(col(Email.id))).all()
        assert list(mails) == [1, 0, 0]
        assert len(session.exec(select(SearchPending)).all()) == 3, "every mail is still to be found"
        assert login_sessions.session_user(session, token) is not None, "nobody is signed out by it"
    while search.index_pending(database):
        pass
    with database.read() as session:
        [found] = queue.page(session, Filter(state="", text='"Question number 2"')).conversations
    assert found.id == put_off.id


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
