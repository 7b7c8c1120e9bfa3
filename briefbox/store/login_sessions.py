"""Signed-in browsers: by a random token whose hash alone is stored, until idle for too long or too old.

Tokens are 256 bits of chance, so that a fast hash is enough.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlmodel import Session, col, delete, func, select, update

from briefbox.db import now
from briefbox.errors import NotFoundError
from briefbox.store import audit_log
from briefbox.tables import LoginSession, User

# How long a proof of who one is counts for what asks for it anew.
VERIFIED_FOR = timedelta(minutes=15)
# Between the password and the second factor.
PENDING_FOR = timedelta(minutes=10)
TOUCH_EVERY = timedelta(minutes=1)
MAX_BROWSER = 300


@dataclass(frozen=True, slots=True)
class Login:
    """A signed-in browser and whose it is."""

    user: User
    row: LoginSession
    is_verified: bool  # who they are was proved within the last minutes
    is_stale: bool  # `seen_at` is to be written


def open_session(
    session: Session,
    user: User,
    *,
    hours: float,
    address: str = "",
    browser: str = "",
    pending: bool = False,
) -> str:
    """Sign a browser in; one that is `pending` still lacks the second factor. Returns the token for its cookie."""
    moment, token = now(session), secrets.token_urlsafe(32)
    session.exec(delete(LoginSession).where(col(LoginSession.expires_at) < moment))
    session.add(
        LoginSession(
            user_id=user.id,
            token_hash=_hash(token),
            pending=pending,
            address=address,
            browser=browser[:MAX_BROWSER],
            created_at=moment,
            seen_at=moment,
            verified_at=moment,
            expires_at=moment + (PENDING_FOR if pending else timedelta(hours=hours)),
        )
    )
    session.flush()
    return token


def current(session: Session, token: str, *, idle_minutes: float) -> Login | None:
    """Who is signed in with this token; None when it is unknown, over, idle for too long, or the person was disabled."""
    moment = now(session)
    found = _find(session, token, moment, pending=False)
    if found is None:
        return None
    user, row = found
    if row.seen_at < moment - timedelta(minutes=idle_minutes):
        return None
    return Login(
        user,
        row,
        is_verified=row.verified_at > moment - VERIFIED_FOR,
        is_stale=row.seen_at < moment - TOUCH_EVERY,
    )


def session_user(session: Session, token: str, *, idle_minutes: float = float(60 * 24 * 365)) -> User | None:
    """The person alone."""
    login = current(session, token, idle_minutes=idle_minutes)
    return None if login is None else login.user


def pending_user(session: Session, token: str) -> User | None:
    """Who gave the right password with this token and still owes the second factor."""
    found = _find(session, token, now(session), pending=True)
    return None if found is None else found[0]


def touch(session: Session, login_id: int) -> None:
    """Note that the browser was seen."""
    session.exec(update(LoginSession).where(col(LoginSession.id) == login_id).values(seen_at=now(session)))


def renew(session: Session, token: str) -> str:
    """A new token for the same browser, which has just proved who it is. Raises NotFoundError."""
    fresh = secrets.token_urlsafe(32)
    changed = session.exec(
        update(LoginSession)
        .where(col(LoginSession.token_hash) == _hash(token), col(LoginSession.pending).is_(False))
        .values(token_hash=_hash(fresh), verified_at=now(session))
    )
    if not changed.rowcount:
        raise NotFoundError("You were signed out meanwhile. Sign in again.")
    return fresh


# --- lists and ends


def of_user(session: Session, user: User, *, idle_minutes: float) -> list[LoginSession]:
    """The browsers that are signed in as this person, the one seen last first."""
    moment = now(session)
    query = select(LoginSession).where(
        LoginSession.user_id == user.id,
        LoginSession.expires_at > moment,
        LoginSession.seen_at >= moment - timedelta(minutes=idle_minutes),
        ~col(LoginSession.pending),
    )
    return list(session.exec(query.order_by(col(LoginSession.seen_at).desc(), col(LoginSession.id).desc())))


def num_sessions(session: Session, user: User) -> int:
    """How many browsers are signed in as this person."""
    query = select(func.count()).where(
        LoginSession.user_id == user.id, LoginSession.expires_at > now(session), ~col(LoginSession.pending)
    )
    return session.exec(query).one()


def last_seen(session: Session) -> dict[int, datetime]:
    """When each person with a session was seen last."""
    query = select(LoginSession.user_id, func.max(LoginSession.seen_at)).where(~col(LoginSession.pending))
    return dict(session.exec(query.group_by(col(LoginSession.user_id))).all())


def close_session(session: Session, token: str) -> None:
    """Sign a browser out."""
    user = session_user(session, token)
    session.exec(delete(LoginSession).where(col(LoginSession.token_hash) == _hash(token)))
    if user is not None:
        audit_log.record(session, user.email, "signed out", user.email)


def end(session: Session, user: User, login_id: int) -> None:
    """A person signs another of their browsers out. Raises NotFoundError."""
    gone = session.exec(
        delete(LoginSession).where(col(LoginSession.id) == login_id, col(LoginSession.user_id) == user.id)
    )
    if not gone.rowcount:
        raise NotFoundError("That browser is signed out already.")
    audit_log.record(session, user.email, "session ended", user.email)


def end_all(session: Session, user: User, *, keep: str = "", actor: str = "") -> int:
    """Sign somebody out everywhere, but in the browser with the token `keep`. How many that were.

    With `actor` it is told to the audit log; without, it follows from something that tells itself.
    """
    gone = session.exec(
        delete(LoginSession).where(
            col(LoginSession.user_id) == user.id, col(LoginSession.token_hash) != _hash(keep)
        )
    )
    if actor:
        audit_log.record(session, actor, "sessions ended", user.email, sessions=gone.rowcount)
    return gone.rowcount


def is_this(row: LoginSession, token: str) -> bool:
    """Whether the row is that of the browser with this token."""
    return row.token_hash == _hash(token)


def _find(
    session: Session, token: str, moment: datetime, *, pending: bool
) -> tuple[User, LoginSession] | None:
    return session.exec(
        select(User, LoginSession)
        .join(LoginSession, col(LoginSession.user_id) == col(User.id))
        .where(
            LoginSession.token_hash == _hash(token),
            LoginSession.expires_at > moment,
            col(LoginSession.pending).is_(pending),
            col(User.disabled_at).is_(None),
        )
    ).first()


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "replace")).hexdigest()
