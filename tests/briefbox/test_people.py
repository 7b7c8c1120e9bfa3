"""People as admins change them, sessions, linked accounts, and the chain of the audit log: on both databases."""

from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlmodel import col, select, update

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_check, audit_log, audit_search, identities, login_sessions, people, users
from briefbox.store.audit_search import Filter
from briefbox.store.sight import Sight
from briefbox.tables import AuditEntry, LoginSession, Mailbox, User

IDLE = 60.0


def admin(database: Database, name: str) -> User:
    with database.write() as session:
        user, _ = users.create(
            session, email=f"{name}@larkspur.example", name=name, role="admin", actor="test"
        )
        user.password_hash = "something"
        session.add(user)
        return user


def change(database: Database, user: User, **values: object) -> bool:
    given = {"role": user.role, "all_mailboxes": True, "actor": "test"} | values
    with database.write() as session:
        return people.change(session, users.by_id(session, user.id), **given)  # type: ignore[arg-type]


def test_a_person_sees_the_mailboxes_that_were_given(database: Database, mailbox: Mailbox, ana: User) -> None:
    assert change(database, ana, all_mailboxes=False, mailbox_ids=[mailbox.id, mailbox.id])
    with database.read() as session:
        user = users.by_id(session, ana.id)
        assert Sight.of(session, user).mailboxes == {mailbox.id}
        assert people.one(session, ana.id).mailboxes == ("support",)
    assert not change(database, ana, all_mailboxes=False, mailbox_ids=[mailbox.id])
    with pytest.raises(NotFoundError, match="no mailbox 999"):
        change(database, ana, all_mailboxes=False, mailbox_ids=[999])
    change(database, ana, role="admin", all_mailboxes=False)
    with database.read() as session:
        assert people.one(session, ana.id).mailboxes is None  # admins see all


def test_two_admins_who_demote_each_other_at_once_leave_one(database: Database) -> None:
    pair = [admin(database, "ada"), admin(database, "una")]
    barrier, refused = Barrier(2), []

    def demote(user: User) -> None:
        barrier.wait(10)
        try:
            change(database, user, role="agent")
        except ConflictError:
            refused.append(user.email)

    threads = [Thread(target=demote, args=(user,)) for user in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with database.read() as session:
        assert [user.role for user in users.all_of(session)].count("admin") == 1
    assert len(refused) == 1


def test_who_cannot_sign_in_is_no_admin_to_be_left_with(database: Database) -> None:
    ada, una = admin(database, "ada"), admin(database, "una")
    with database.write() as session:
        session.exec(update(User).where(col(User.id) == una.id).values(password_hash=""))
    with database.write() as session, pytest.raises(ConflictError, match="last admin"):
        people.disable(session, users.by_id(session, ada.id), actor="test")
    with database.write() as session:
        identities.link(session, users.by_id(session, una.id), "https://login.example", "1")
        people.disable(session, users.by_id(session, ada.id), actor="test")
        assert users.by_id(session, ada.id).disabled_at is not None


def test_an_account_elsewhere_is_one_person(database: Database, ana: User, ben: User) -> None:
    with database.write() as session:
        identities.link(session, ana, "https://login.example", "1")
        identities.link(session, ana, "https://other.example", "1")
        with pytest.raises(ConflictError, match="linked already"):
            identities.link(session, ben, "https://login.example", "1")
        found = identities.find_user(session, "https://login.example", "1")
        assert found is not None
        assert found.id == ana.id
        assert identities.find_user(session, "https://login.example", "2") is None
        [first, second] = identities.of_user(session, ana)
        with pytest.raises(NotFoundError):
            identities.unlink(session, ben, first.id)
        identities.unlink(session, ana, first.id)
        with pytest.raises(InvalidValueError, match="only way"):
            identities.unlink(session, ana, second.id)


# --- sessions


def test_an_idle_session_is_nobody_and_a_touched_one_goes_on(database: Database, ana: User) -> None:
    with database.write() as session:
        token = login_sessions.open_session(session, ana, hours=5, address="192.0.2.1", browser="x" * 999)
        session.exec(update(LoginSession).values(seen_at=datetime.now(UTC) - timedelta(minutes=59)))
    with database.write() as session:
        login = login_sessions.current(session, token, idle_minutes=IDLE)
        assert login is not None
        assert login.is_stale
        assert len(login.row.browser) == login_sessions.MAX_BROWSER
        assert login_sessions.current(session, token, idle_minutes=58) is None
        assert login_sessions.of_user(session, ana, idle_minutes=58) == []
        login_sessions.touch(session, login.row.id)
    with database.read() as session:
        login = login_sessions.current(session, token, idle_minutes=1)
        assert login is not None
        assert not login.is_stale


def test_a_pending_session_is_nobody(database: Database, ana: User) -> None:
    with database.write() as session:
        token = login_sessions.open_session(session, ana, hours=5, pending=True)
        assert login_sessions.current(session, token, idle_minutes=IDLE) is None
        assert login_sessions.of_user(session, ana, idle_minutes=IDLE) == []
        pending = login_sessions.pending_user(session, token)
        assert pending is not None
        assert pending.id == ana.id
        with pytest.raises(NotFoundError):
            login_sessions.renew(session, token)


def test_a_renewed_session_has_another_token_and_is_proved(database: Database, ana: User) -> None:
    with database.write() as session:
        old = login_sessions.open_session(session, ana, hours=5)
        session.exec(update(LoginSession).values(verified_at=datetime.now(UTC) - timedelta(minutes=16)))
    with database.write() as session:
        before = login_sessions.current(session, old, idle_minutes=IDLE)
        assert before is not None
        assert not before.is_verified
        fresh = login_sessions.renew(session, old)
        assert login_sessions.current(session, old, idle_minutes=IDLE) is None
    with database.read() as session:
        after = login_sessions.current(session, fresh, idle_minutes=IDLE)
        assert after is not None
        assert after.is_verified
        assert after.row.id == before.row.id


def test_sessions_are_ended_one_by_one_and_all(database: Database, ana: User, ben: User) -> None:
    with database.write() as session:
        keep, _, _ = (login_sessions.open_session(session, ana, hours=5) for _ in range(3))
        bens = login_sessions.open_session(session, ben, hours=5)
        rows = login_sessions.of_user(session, ana, idle_minutes=IDLE)
        with pytest.raises(NotFoundError):
            login_sessions.end(session, ben, rows[0].id)
        other = next(row for row in rows if not login_sessions.is_this(row, keep))
        login_sessions.end(session, ana, other.id)
        assert login_sessions.end_all(session, ana, keep=keep, actor="test") == 1
        assert login_sessions.num_sessions(session, ana) == 1
        assert login_sessions.session_user(session, bens) is not None
        assert set(login_sessions.last_seen(session)) == {ana.id, ben.id}


# --- the audit log


def test_a_denial_is_noted_once_a_minute_for_each_thing(database: Database) -> None:
    with database.write() as session:
        for object in ("a", "a", "b", "a"):
            audit_log.record_denial(session, "ana", object)
        session.exec(
            update(AuditEntry)
            .where(col(AuditEntry.object) == "a")
            .values(at=datetime.now(UTC) - timedelta(minutes=2))
        )
        audit_log.record_denial(session, "ana", "a")
        found = session.exec(select(AuditEntry.object).order_by(col(AuditEntry.id))).all()
    assert list(found) == ["a", "b", "a"]


def test_the_chain_is_checked_in_steps_and_again_after_a_week(database: Database) -> None:
    with database.write() as session:
        for number in range(10):
            audit_log.record(session, "cli", "tested", str(number), number=number)
    with database.write() as session:
        assert audit_check.step(session, limit=4)
        assert audit_check.step(session, limit=4)
        assert not audit_check.step(session, limit=4)
        assert not audit_check.is_due(session)
        assert audit_check.state(session).broken == ()
        second = session.exec(select(AuditEntry).where(AuditEntry.object == "1")).one()
        session.exec(update(AuditEntry).where(col(AuditEntry.id) == second.id).values(object="x"))
        session.expire_all()
        audit_check.step(session)
        assert audit_check.state(session).broken == ()  # what was checked is checked again in a week
        session.exec(update(audit_check.AuditCheck).values(began_at=datetime.now(UTC) - timedelta(days=8)))
        session.expire_all()
        assert audit_check.is_due(session)
        audit_check.step(session)
        assert audit_check.state(session).broken == (second.id,)
        assert audit_log.broken_links(session) == [second.id]


def test_entries_that_are_missing_at_the_end_are_noticed(database: Database) -> None:
    with database.write() as session:
        for number in range(4):
            audit_log.record(session, "cli", "tested", str(number))
        audit_check.step(session)
        last = session.exec(select(AuditEntry).where(AuditEntry.object == "3")).one()
        session.delete(last)
        session.flush()
        assert audit_log.broken_links(session) == []  # the chain alone cannot tell
        assert audit_check.is_due(session)
        audit_check.step(session)
        assert audit_check.state(session).broken == (last.id,)


def test_the_log_is_searched_by_key(database: Database) -> None:
    with database.write() as session:
        for number in range(25):
            audit_log.record(session, f"person {number % 2}", "tested", str(number))
    with database.read() as session:
        first = audit_search.entries(session, Filter(actor="person 1"), before=None, limit=5)
        second = audit_search.entries(session, Filter(actor="person 1"), before=first[-1].id, limit=5)
        assert [e.object for e in first + second] == [str(n) for n in range(23, 3, -2)]
        every = audit_search.every(session, Filter(action="tested"), limit=22, chunk=5)
        assert [e.object for e in every] == [str(n) for n in range(24, 2, -1)]
        assert audit_search.recent_words(session) == (["person 0", "person 1"], ["tested"])
        future = Filter(since=datetime.now(UTC) + timedelta(hours=1))
        assert audit_search.entries(session, future, before=None, limit=5) == []
