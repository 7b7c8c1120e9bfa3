"""People: links are used once, guesses are slowed down, and the database holds no secret."""

from datetime import UTC, datetime, timedelta

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel import col, select, update

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log, login_sessions, passwords, throttle, users
from briefbox.tables import AuditEntry, LoginFailure, LoginSession, SignInLink, User

GOOD = "brass bell in the snow"
HOME = "192.0.2.7"


@pytest.fixture
def quick_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id that costs next to nothing: the real one takes longer than all the rest of these tests."""
    cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    nobody = cheap.hash("nobody")
    monkeypatch.setattr(passwords, "_hasher", lambda: cheap)
    monkeypatch.setattr(passwords, "_nobodys_hash", lambda: nobody)


@pytest.fixture
def olu(database: Database, quick_hashing: None) -> User:
    """An agent with a password."""
    with database.write() as session:
        user, _ = users.create(session, email="Olu@Larkspur.example ", name="Olu", actor="test")
        passwords.set_password(session, user, GOOD)
    return user


def link_for(database: Database, *, hours: float = 24) -> str:
    with database.write() as session:
        return users.create(
            session, email="new@larkspur.example", name="New", actor="test", link_hours=hours
        )[1]


def guess(database: Database, email: str, password: str = "wrong wrong wrong", address: str = HOME) -> str:
    with database.write() as session, pytest.raises(InvalidValueError) as caught:
        passwords.check_password(session, email, password, address=address)
    return str(caught.value)


def test_an_address_is_stored_in_one_form_and_only_once(database: Database, olu: User) -> None:
    assert olu.email == "olu@larkspur.example"
    with database.write() as session, pytest.raises(ConflictError, match="exists already"):
        users.create(session, email="OLU@larkspur.example", name="", actor="test")
    with database.read() as session:
        assert users.get(session, " Olu@larkspur.example").id == olu.id
        assert [u.email for u in users.all_of(session)] == ["olu@larkspur.example"]
        with pytest.raises(NotFoundError, match=r"nobody@example\.org"):
            users.get(session, "nobody@example.org")


@pytest.mark.parametrize("email", ["", "olu", "@x.example", "olu@", "o lu@x.example", "o\x00lu@x.example"])
def test_what_is_no_address_is_refused(database: Database, email: str) -> None:
    with database.write() as session, pytest.raises(InvalidValueError, match="is no email address"):
        users.create(session, email=email, name="", actor="test")


def test_an_unknown_role_is_refused(database: Database) -> None:
    with database.write() as session, pytest.raises(InvalidValueError, match="agent, reviewer, admin"):
        users.create(session, email="a@b.example", name="", role="root", actor="test")


def test_any_user_turns_true_with_the_first(database: Database) -> None:
    with database.read() as session:
        assert not users.any_user(session)
    link_for(database)
    with database.read() as session:
        assert users.any_user(session)


# --- links


def test_a_link_is_used_once_and_looking_does_not_count(database: Database) -> None:
    token = link_for(database)
    with database.write() as session:
        assert users.peek_link(session, token).name == "New"
        assert users.peek_link(session, token).name == "New"
        assert users.use_link(session, token).name == "New"
    with database.write() as session, pytest.raises(NotFoundError, match="used already"):
        users.use_link(session, token)


def test_a_link_expires(database: Database) -> None:
    token = link_for(database, hours=-0.001)
    with database.write() as session, pytest.raises(NotFoundError, match="expired"):
        users.use_link(session, token)


def test_a_new_link_ends_the_older_one(database: Database, olu: User) -> None:
    with database.write() as session:
        old = users.new_link(session, olu)
        new = users.new_link(session, olu, hours=1)
        with pytest.raises(NotFoundError):
            users.peek_link(session, old)
        assert users.peek_link(session, new).id == olu.id


def test_a_link_of_a_disabled_person_is_dead(database: Database, olu: User) -> None:
    with database.write() as session:
        token = users.new_link(session, olu)
        session.exec(update(User).values(disabled_at=datetime.now(UTC)))
    with database.write() as session, pytest.raises(NotFoundError):
        users.use_link(session, token)


@pytest.mark.parametrize("token", ["", "nonsense", "ä" * 500, "\ud800"])
def test_odd_link_tokens_are_unknown(database: Database, token: str) -> None:
    with database.read() as session, pytest.raises(NotFoundError):
        users.peek_link(session, token)


# --- passwords


def test_passwords_are_stored_as_argon2id_with_the_recommended_cost(database: Database) -> None:
    link = link_for(database)
    with database.write() as session:
        user = users.use_link(session, link)
        passwords.set_password(session, user, GOOD)
        assert user.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        assert passwords.check_password(session, user.email, GOOD, address=HOME)


def test_a_hash_with_other_costs_is_renewed_at_the_next_sign_in(
    database: Database, olu: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    dearer = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=8, parallelism=1),))
    monkeypatch.setattr(passwords, "_hasher", lambda: dearer)
    with database.write() as session:
        user = passwords.check_password(session, olu.email, GOOD, address=HOME)
        assert "t=2" in user.password_hash


def test_the_right_password_signs_in_whatever_the_case_of_the_address(database: Database, olu: User) -> None:
    with database.write() as session:
        assert passwords.check_password(session, "OLU@Larkspur.example", GOOD, address=HOME).id == olu.id


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "expected 12 to 256"),
        ("x" * 300, "expected 12 to 256"),
        ("password1234", "first that would be guessed"),
        ("Qwertyuiop12", "first that would be guessed"),
        ("123456789012", "first that would be guessed"),
        ("olu@larkspur.example", "first that would be guessed"),
        ("abababababab", "repeats"),
    ],
)
def test_weak_passwords_are_refused_in_words(database: Database, olu: User, password: str, why: str) -> None:
    with database.write() as session, pytest.raises(InvalidValueError, match=why):
        passwords.set_password(session, olu, password)


def test_the_same_password_from_another_keyboard_is_the_same(database: Database, olu: User) -> None:
    with database.write() as session:
        passwords.set_password(session, olu, "Größe der Glocke")
    with database.write() as session:
        assert passwords.check_password(session, olu.email, "Gro\u0308ße der Glocke", address=HOME)


def test_unknown_wrong_and_passwordless_accounts_get_the_same_sentence(database: Database, olu: User) -> None:
    link_for(database)
    sentences = {
        guess(database, olu.email),
        guess(database, "nobody@example.org"),
        guess(database, "new@larkspur.example"),
        guess(database, "new@larkspur.example", ""),
    }
    assert sentences == {passwords.WRONG}


def test_a_disabled_person_cannot_sign_in(database: Database, olu: User) -> None:
    with database.write() as session:
        session.exec(update(User).values(disabled_at=datetime.now(UTC)))
    assert guess(database, olu.email, GOOD) == passwords.WRONG


def test_guessing_one_account_is_stopped_even_for_the_right_password(database: Database, olu: User) -> None:
    for number in range(throttle.MAX_ACCOUNT_FAILURES):
        guess(database, olu.email, address=f"192.0.2.{number}")
    assert "Too many wrong sign-ins" in guess(database, olu.email, GOOD, address="198.51.100.1")


def test_guessing_many_accounts_from_one_address_is_stopped(
    database: Database, quick_hashing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAX_ADDRESS_FAILURES", 3)
    for number in range(3):
        guess(database, f"person{number}@example.org")
    assert "Too many" in guess(database, "another@example.org")
    assert guess(database, "another@example.org", address="198.51.100.1") == passwords.WRONG


def test_the_wait_ends_after_the_window(database: Database, olu: User) -> None:
    for _ in range(throttle.MAX_ACCOUNT_FAILURES):
        guess(database, olu.email)
    with database.write() as session:
        until = throttle.locked_until(session, olu.email, address=HOME)
        assert until is not None
        assert timedelta(minutes=14) < until - datetime.now(UTC) <= throttle.FAILURE_WINDOW
        session.exec(update(LoginFailure).values(at=datetime.now(UTC) - throttle.FAILURE_WINDOW))
    with database.write() as session:
        assert passwords.check_password(session, olu.email, GOOD, address=HOME).id == olu.id


def test_signing_in_forgets_the_failures_of_the_account(database: Database, olu: User) -> None:
    guess(database, olu.email)
    with database.write() as session:
        passwords.check_password(session, olu.email, GOOD, address=HOME)
    with database.read() as session:
        keys = session.exec(select(LoginFailure.key)).all()
    assert keys == [f"address:{HOME}"]


# --- sessions


def test_a_session_lives_until_it_is_closed(database: Database, olu: User) -> None:
    with database.write() as session:
        token = login_sessions.open_session(session, olu, hours=1)
        found = login_sessions.session_user(session, token)
        assert found is not None
        assert found.id == olu.id
        login_sessions.close_session(session, token)
        assert login_sessions.session_user(session, token) is None


@pytest.mark.parametrize("token", ["", "nonsense", "\ud800"])
def test_unknown_session_tokens_are_nobody(database: Database, token: str) -> None:
    with database.read() as session:
        assert login_sessions.session_user(session, token) is None


def test_a_session_ends_with_its_time_and_with_its_person(database: Database, olu: User) -> None:
    with database.write() as session:
        assert (
            login_sessions.session_user(session, login_sessions.open_session(session, olu, hours=-1)) is None
        )
        token = login_sessions.open_session(session, olu, hours=1)
        session.exec(update(User).values(disabled_at=datetime.now(UTC)))
        assert login_sessions.session_user(session, token) is None


def test_a_new_password_ends_links_and_all_sessions_but_the_kept_one(database: Database, olu: User) -> None:
    with database.write() as session:
        here, elsewhere = (login_sessions.open_session(session, olu, hours=1) for _ in range(2))
        link = users.new_link(session, olu)
        passwords.set_password(session, olu, "another good one 7", keep_session=here)
    with database.read() as session:
        assert login_sessions.session_user(session, here) is not None
        assert login_sessions.session_user(session, elsewhere) is None
        assert login_sessions.num_sessions(session, olu) == 1
        with pytest.raises(NotFoundError):
            users.peek_link(session, link)


def test_expired_sessions_are_thrown_away_at_the_next_sign_in(database: Database, olu: User) -> None:
    with database.write() as session:
        login_sessions.open_session(session, olu, hours=-1)
        login_sessions.open_session(session, olu, hours=1)
        assert len(session.exec(select(LoginSession)).all()) == 1


# --- what is left behind


def test_neither_tokens_nor_passwords_are_stored_or_audited(database: Database, quick_hashing: None) -> None:
    link = link_for(database)
    with database.write() as session:
        user = users.use_link(session, link)
        passwords.set_password(session, user, GOOD)
        token = login_sessions.open_session(session, user, hours=1)
    guess(database, user.email, "a wrong but secret one")
    with database.read() as session:
        assert audit_log.broken_links(session) == []
        written = [
            row.model_dump_json()
            for table in (User, SignInLink, LoginSession, LoginFailure, AuditEntry)
            for row in session.exec(select(table)).all()
        ]
        actions = session.exec(select(AuditEntry.action).order_by(col(AuditEntry.id))).all()
    assert not [row for row in written for secret in (link, token, GOOD, "a wrong but") if secret in row]
    assert actions == [
        "user added",
        "sign-in link made",
        "sign-in link used",
        "password set",
        "sign-in refused",
    ]
