"""Second factors in the store: RFC 6238's own numbers, single use, clocks that differ, recovery, two at once."""

from threading import Barrier, Thread

import pyotp
import pytest
from cryptography.fernet import Fernet
from sqlmodel import select

from briefbox.db import Database, now
from briefbox.errors import ConflictError, InvalidValueError, SettingsError
from briefbox.store import second_factor, throttle, users
from briefbox.store.secrets import Cipher
from briefbox.tables import AuditEntry, LoginFailure, User

HOME = "192.0.2.7"
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # of RFC 6238, appendix B


@pytest.fixture
def cipher() -> Cipher:
    return Cipher(Fernet.generate_key().decode())


def turn_on(database: Database, cipher: Cipher, ana: User) -> list[str]:
    with database.write() as session:
        user = users.get(session, ana.email)
        code = pyotp.TOTP(SECRET).at(now(session))
        codes = second_factor.turn_on(session, cipher, user, SECRET, code)
        user.totp_step = 0  # so that the present code can be tried
        return codes


def check(database: Database, cipher: Cipher, ana: User, code: str) -> None:
    with database.write() as session:
        user = users.get(session, ana.email)
        second_factor.check(session, cipher, user, code, address=HOME, action="signed in")


def code_of(database: Database, steps: int = 0) -> str:
    with database.read() as session:
        return pyotp.TOTP(SECRET).at(now(session), counter_offset=steps)


def test_the_codes_are_those_of_the_standard() -> None:
    # The standard shows eight digits; ours are the last six of them.
    for seconds, shown in ((59, "94287082"), (1111111109, "07081804"), (20000000000, "65353130")):
        assert pyotp.TOTP(SECRET).generate_otp(seconds // 30) == shown[-6:]


@pytest.mark.parametrize("steps", [-1, 0, 1])
def test_clocks_may_differ_by_half_a_minute(
    database: Database, cipher: Cipher, ana: User, steps: int
) -> None:
    turn_on(database, cipher, ana)
    check(database, cipher, ana, code_of(database, steps))


@pytest.mark.parametrize("code", ["", "12345", "abcdef", "１２３４５６", "\ud800", "0" * 5000])
def test_what_is_no_code_is_refused(database: Database, cipher: Cipher, ana: User, code: str) -> None:
    turn_on(database, cipher, ana)
    with pytest.raises(InvalidValueError, match="not right"):
        check(database, cipher, ana, code)
    with database.read() as session:
        assert len(session.exec(select(LoginFailure)).all()) == 2


@pytest.mark.parametrize("steps", [-4, 4])
def test_codes_of_another_time_are_refused(database: Database, cipher: Cipher, ana: User, steps: int) -> None:
    turn_on(database, cipher, ana)
    with pytest.raises(InvalidValueError):
        check(database, cipher, ana, code_of(database, steps))


def test_no_code_is_good_after_a_later_one(database: Database, cipher: Cipher, ana: User) -> None:
    turn_on(database, cipher, ana)
    earlier = code_of(database)
    check(database, cipher, ana, code_of(database, 1))
    with pytest.raises(InvalidValueError):
        check(database, cipher, ana, earlier)


def test_of_two_who_type_the_same_code_at_once_one_comes_in(
    database: Database, cipher: Cipher, ana: User
) -> None:
    recovery = turn_on(database, cipher, ana)[0]
    for code in (code_of(database), recovery):
        barrier, came = Barrier(4), []

        def enter(code: str = code, barrier: Barrier = barrier, came: list[bool] = came) -> None:
            barrier.wait(10)
            try:
                check(database, cipher, ana, code)
                came.append(True)
            except InvalidValueError:
                came.append(False)

        threads = [Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(came) == [False, False, False, True]


def test_an_offer_is_for_one_person_and_half_an_hour(
    database: Database, cipher: Cipher, ana: User, ben: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.read() as session:
        sealed = second_factor.offer(session, cipher, ana)
        assert len(second_factor.opened(session, cipher, ana, sealed)) == 32
        for other, text in ((ben, sealed), (ana, sealed[:-9]), (ana, "")):
            with pytest.raises(InvalidValueError, match="Begin again"):
                second_factor.opened(session, cipher, other, text)
        monkeypatch.setattr(second_factor, "OFFER_FOR", -second_factor.OFFER_FOR)
        with pytest.raises(InvalidValueError, match="older than 30 minutes"):
            second_factor.opened(session, cipher, ana, sealed)


def test_there_is_one_second_factor_at_a_time(database: Database, cipher: Cipher, ana: User) -> None:
    turn_on(database, cipher, ana)
    with pytest.raises(ConflictError):
        turn_on(database, cipher, ana)
    with database.write() as session:
        user = users.get(session, ana.email)
        second_factor.turn_off(session, user, actor="test")
        with pytest.raises(InvalidValueError, match="no second factor"):
            second_factor.turn_off(session, user, actor="test")
        with pytest.raises(InvalidValueError):
            second_factor.new_recovery_codes(session, user)
        assert user.recovery_hashes == []


def test_a_secret_is_bound_to_its_person_and_key(
    database: Database, cipher: Cipher, ana: User, ben: User
) -> None:
    turn_on(database, cipher, ana)
    with database.write() as session:
        users.get(session, ben.email).totp_encrypted = users.get(session, ana.email).totp_encrypted
    for user, with_key in ((ben, cipher), (ana, Cipher(Fernet.generate_key().decode()))):
        with pytest.raises(SettingsError, match=f"briefbox user second-factor-off {user.email}"):
            check(database, with_key, user, "123456")


def test_a_used_recovery_code_is_told_to_the_audit_log_without_the_code(
    database: Database, cipher: Cipher, ana: User
) -> None:
    [first, *_] = turn_on(database, cipher, ana)
    check(database, cipher, ana, first)
    with database.read() as session:
        [entry] = session.exec(select(AuditEntry).where(AuditEntry.action == "signed in")).all()
        left = users.get(session, ana.email).recovery_hashes
    assert entry.detail == {"address": HOME, "recovery_code": True, "left": 9}
    assert len(left) == 9
    assert throttle.MAX_ACCOUNT_FAILURES < 10
