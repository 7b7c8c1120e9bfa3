"""People: one-time links, passwords, sessions, and the brake on guessing.

Only hashes are stored: argon2id of passwords, sha256 of link and session tokens (these are random and
256 bits long, so that a fast hash is enough). Nothing here writes a token or a password into the audit log.
"""

import secrets
import unicodedata
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256

from pwdlib import PasswordHash
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, delete, func, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import LoginFailure, LoginSession, SignInLink, User

# Each may do what the one before it may.
ROLES = ("agent", "reviewer", "admin")
MIN_PASSWORD, MAX_PASSWORD = 12, 256

# Failures allowed in the window before the account or the network address has to wait. An address
# may be a whole office behind one router.
FAILURE_WINDOW = timedelta(minutes=15)
MAX_ACCOUNT_FAILURES, MAX_ADDRESS_FAILURES = 8, 40

# The beginnings of what guessing programs try first among passwords that are long enough for us.
COMMON_PASSWORDS = (
    *("password", "passw0rd", "p@ssw0rd", "letmein", "welcome", "iloveyou", "admin", "changeme", "secret"),
    *("qwerty", "qwertz", "azerty", "asdfgh", "1q2w3e4r", "q1w2e3r4", "zxcvbn", "abcdef", "abc123"),
    *("123456", "012345", "987654", "654321", "briefbox", "football", "baseball", "sunshine", "princess"),
)
# A common beginning is forgiven when this many characters follow it.
ENOUGH_BESIDE_COMMON = 10

WRONG = "The email address or the password is not right."
USED_LINK = "This sign-in link is not valid: it was used already, has expired, or was replaced by a newer one. Ask an admin for a new link (briefbox user link)."


def create(
    session: Session, *, email: str, name: str, role: str = "agent", actor: str, link_hours: float = 24
) -> tuple[User, str]:
    """Add a person. Returns them with the token of their first sign-in link.

    Raises ConflictError if the address exists, InvalidValueError if it is none or the role is unknown.
    """
    address = _address(email)
    if role not in ROLES:
        raise InvalidValueError(f"The role “{role}” is none of {', '.join(ROLES)}.")
    if _find(session, address) is not None:
        raise ConflictError(
            f"A user with the address {address} exists already. Make a new sign-in link for them instead."
        )
    user = User(email=address, name=" ".join(name.split()), role=role, created_at=now(session))
    session.add(user)
    session.flush()
    audit_log.record(session, actor, "user added", address, role=role)
    return user, new_link(session, user, hours=link_hours, actor=actor)


def get(session: Session, email: str) -> User:
    """The person with this address. Raises NotFoundError."""
    user = _find(session, email.strip().lower())
    if user is None:
        raise NotFoundError(f"There is no user with the address {email.strip()}.")
    return user


def all_of(session: Session) -> list[User]:
    """Everybody, by address."""
    return list(session.exec(select(User).order_by(User.email)))


def any_user(session: Session) -> bool:
    """Whether anybody was added yet."""
    return session.exec(select(User.id).limit(1)).first() is not None


# --- one-time links


def new_link(session: Session, user: User, *, hours: float = 24, actor: str = "cli") -> str:
    """Make a one-time link and end the earlier ones. Returns its token, which is stored nowhere."""
    _end_links(session, user)
    token = secrets.token_urlsafe(32)
    session.add(
        SignInLink(
            user_id=user.id,
            token_hash=_hash(token),
            expires_at=now(session) + timedelta(hours=hours),
        )
    )
    audit_log.record(session, actor, "sign-in link made", user.email, hours=hours)
    return token


def peek_link(session: Session, token: str) -> User:
    """Whose link this is; it stays usable. Raises NotFoundError."""
    user = session.exec(
        select(User)
        .join(SignInLink, col(SignInLink.user_id) == col(User.id))
        .where(*_usable(token, now(session)), col(User.disabled_at).is_(None))
    ).first()
    if user is None:
        raise NotFoundError(USED_LINK)
    return user


def use_link(session: Session, token: str) -> User:
    """Use a link up. Raises NotFoundError when it was used, has expired or never existed."""
    user = peek_link(session, token)
    moment = now(session)
    changed = session.exec(
        update(SignInLink).where(*_usable(token, moment)).values(used_at=moment)
    )  # two clicks at once: the row count tells the first from the second
    if not changed.rowcount:
        raise NotFoundError(USED_LINK)
    audit_log.record(session, user.email, "sign-in link used", user.email)
    return user


def _usable(token: str, moment: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        col(SignInLink.token_hash) == _hash(token),
        col(SignInLink.used_at).is_(None),
        col(SignInLink.expires_at) > moment,
    )


def _end_links(session: Session, user: User) -> None:
    session.exec(
        update(SignInLink)
        .where(col(SignInLink.user_id) == user.id, col(SignInLink.used_at).is_(None))
        .values(used_at=now(session))
    )


# --- passwords


def set_password(session: Session, user: User, password: str, *, keep_session: str = "") -> None:
    """Set a password, and end the person's links and sessions (but the one with the token `keep_session`).

    Raises InvalidValueError with what is wrong with the password.
    """
    password = _normal(password)
    _refuse_weak(password, user)
    user.password_hash = _hasher().hash(password)
    session.add(user)
    _end_links(session, user)
    session.exec(
        delete(LoginSession).where(
            col(LoginSession.user_id) == user.id, col(LoginSession.token_hash) != _hash(keep_session)
        )
    )
    audit_log.record(session, user.email, "password set", user.email)


def check_password(
    session: Session, email: str, password: str, *, address: str, action: str = "signed in"
) -> User:
    """The person who signs in from the network address `address`. Raises InvalidValueError in one sentence.

    A failure is committed here: the error would roll it back, and the count is what stops guessing.
    """
    account = email.strip().lower()[:200]
    until = locked_until(session, account, address=address)
    if until is not None:
        raise InvalidValueError(locked_sentence(until - now(session)))
    user = _find(session, account)
    # An unknown address costs the same time as a known one, so that nobody can find out who has an account.
    stored = user.password_hash if user is not None and user.password_hash else _nobodys_hash()
    right, better = _hasher().verify_and_update(_normal(password), stored)
    if user is None or not user.password_hash or user.disabled_at is not None or not right:
        _note_failure(session, account, address)
        session.commit()
        raise InvalidValueError(WRONG)
    if better is not None:
        user.password_hash = better
        session.add(user)
    session.exec(delete(LoginFailure).where(col(LoginFailure.key) == f"account:{account}"))
    audit_log.record(session, user.email, action, user.email, address=address)
    return user


def locked_until(session: Session, email: str, *, address: str) -> datetime | None:
    """Until when sign-ins to this account or from this network address wait. None when they need not."""
    since = now(session) - FAILURE_WINDOW
    ends = []
    for key, allowed in (
        (f"account:{email.strip().lower()[:200]}", MAX_ACCOUNT_FAILURES),
        (f"address:{address}", MAX_ADDRESS_FAILURES),
    ):
        times = session.exec(
            select(LoginFailure.at)
            .where(LoginFailure.key == key, LoginFailure.at > since)
            .order_by(col(LoginFailure.at).desc())
            .limit(allowed)
        ).all()
        if len(times) == allowed:
            ends.append(times[-1] + FAILURE_WINDOW)
    return max(ends, default=None)


def locked_sentence(remaining: timedelta) -> str:
    """What a person is told who has to wait."""
    minutes = max(1, round(remaining.total_seconds() / 60))
    return f"Too many wrong sign-ins. Try again in {minutes} {'minute' if minutes == 1 else 'minutes'}, or ask an admin for a sign-in link."


def _note_failure(session: Session, account: str, address: str) -> None:
    moment = now(session)
    session.exec(delete(LoginFailure).where(col(LoginFailure.at) < moment - FAILURE_WINDOW))
    for key in (f"account:{account}", f"address:{address}"):
        session.add(LoginFailure(key=key, at=moment))
    audit_log.record(session, account, "sign-in refused", account, address=address)


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


# --- sessions


def open_session(session: Session, user: User, *, hours: float) -> str:
    """Sign a browser in. Returns the token for its cookie."""
    moment, token = now(session), secrets.token_urlsafe(32)
    session.exec(delete(LoginSession).where(col(LoginSession.expires_at) < moment))
    session.add(
        LoginSession(
            user_id=user.id,
            token_hash=_hash(token),
            created_at=moment,
            seen_at=moment,
            verified_at=moment,
            expires_at=moment + timedelta(hours=hours),
        )
    )
    session.flush()
    return token


def session_user(session: Session, token: str) -> User | None:
    """Who is signed in with this token; None when it is unknown, over, or the person was disabled."""
    return session.exec(
        select(User)
        .join(LoginSession, col(LoginSession.user_id) == col(User.id))
        .where(
            LoginSession.token_hash == _hash(token),
            LoginSession.expires_at > now(session),
            col(User.disabled_at).is_(None),
        )
    ).first()


def close_session(session: Session, token: str) -> None:
    """Sign a browser out."""
    user = session_user(session, token)
    session.exec(delete(LoginSession).where(col(LoginSession.token_hash) == _hash(token)))
    if user is not None:
        audit_log.record(session, user.email, "signed out", user.email)


def num_sessions(session: Session, user: User) -> int:
    """How many browsers are signed in as this person."""
    return session.exec(
        select(func.count())
        .select_from(LoginSession)
        .where(LoginSession.user_id == user.id, LoginSession.expires_at > now(session))
    ).one()


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def _find(session: Session, address: str) -> User | None:
    return session.exec(select(User).where(User.email == address)).first()


def _address(email: str) -> str:
    address = email.strip().lower()
    local, _, domain = address.rpartition("@")
    if (
        not local
        or not domain
        or len(address) > 200
        or any(c.isspace() or not c.isprintable() for c in address)
    ):
        raise InvalidValueError(
            f"“{email.strip()}” is no email address; expected something like ana@example.org."
        )
    return address
