"""Passwords: argon2id of them is stored, and nothing here writes one into the audit log or an error."""

import secrets
import unicodedata
from functools import lru_cache

from pwdlib import PasswordHash
from sqlmodel import Session

from briefbox.errors import InvalidValueError
from briefbox.store import audit_log, login_sessions, throttle, users
from briefbox.tables import User

MIN_PASSWORD, MAX_PASSWORD = 12, 256

# The beginnings of what guessing programs try first among passwords that are long enough for us.
COMMON_PASSWORDS = (
    *("password", "passw0rd", "p@ssw0rd", "letmein", "welcome", "iloveyou", "admin", "changeme", "secret"),
    *("qwerty", "qwertz", "azerty", "asdfgh", "1q2w3e4r", "q1w2e3r4", "zxcvbn", "abcdef", "abc123"),
    *("123456", "012345", "987654", "654321", "briefbox", "football", "baseball", "sunshine", "princess"),
)
# A common beginning is forgiven when this many characters follow it.
ENOUGH_BESIDE_COMMON = 10

WRONG = "The email address or the password is not right."


def set_password(session: Session, user: User, password: str, *, keep_session: str = "") -> None:
    """Set a password, and end the person's links and sessions (but the one with the token `keep_session`).

    Raises InvalidValueError with what is wrong with the password.
    """
    password = _normal(password)
    _refuse_weak(password, user)
    user.password_hash = _hasher().hash(password)
    session.add(user)
    users.end_links(session, user)
    login_sessions.end_all(session, user, keep=keep_session)
    audit_log.record(session, user.email, "password set", user.email)


def check_password(session: Session, email: str, password: str, *, address: str, action: str = "") -> User:
    """The person who signs in from the network address `address`. Raises InvalidValueError in one sentence.

    A failure is committed here: the error would roll it back, and the count is what stops guessing. Who has a second
    factor is not signed in by this, and failures are not forgotten before that came too.
    """
    account = email.strip().lower()[:200]
    throttle.check(session, account, address=address)
    user = users.find(session, account)
    # An unknown address costs the same time as a known one, so that nobody can find out who has an account.
    stored = user.password_hash if user is not None and user.password_hash else _nobodys_hash()
    right, better = _hasher().verify_and_update(_normal(password), stored)
    if user is None or not user.password_hash or user.disabled_at is not None or not right:
        throttle.note_failure(session, account, address=address)
        raise InvalidValueError(WRONG)
    if better is not None:
        user.password_hash = better
        session.add(user)
    if not user.totp_encrypted:
        throttle.forget(session, account)
    action = action or ("password accepted" if user.totp_encrypted else "signed in")
    audit_log.record(session, user.email, action, user.email, address=address)
    return user


def _refuse_weak(password: str, user: User) -> None:
    found = password.casefold()
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidValueError(
            f"The password has {len(password)} characters; expected {MIN_PASSWORD} to {MAX_PASSWORD}. A few words in a row are easy to remember."
        )
    own = [part for part in (user.email, user.email.partition("@")[0], user.name.casefold()) if len(part) > 3]
    for common in (*COMMON_PASSWORDS, *own):
        if common in found and len(found.replace(common, "")) < ENOUGH_BESIDE_COMMON:
            raise InvalidValueError(
                "This password is among the first that would be guessed. Choose one without common words, runs of keys, or your own name."
            )
    if len(set(found)) < 5:
        raise InvalidValueError("This password repeats a few characters. Use at least 5 different ones.")


def _normal(password: str) -> str:
    """The same characters from every keyboard; too long is cut here, since hashing costs by length."""
    return unicodedata.normalize("NFKC", password[: MAX_PASSWORD + 1])


@lru_cache(maxsize=1)
def _hasher() -> PasswordHash:
    return PasswordHash.recommended()


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(32))
