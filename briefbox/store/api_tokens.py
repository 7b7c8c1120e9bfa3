"""Keys of programs to the REST API: made for oneself, shown once, good for some scopes until they end.

A token opens at most what its owner may do, and nothing any more when the owner is disabled. Stored are its sha256
(it is random and 256 bits long, so that a fast hash is enough) and its first letters, by which people tell tokens apart.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlmodel import Session, col, delete, func, or_, select, update

from briefbox.db import now
from briefbox.errors import InvalidValueError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import APIToken, LoginFailure, User

READ, WRITE, ADMIN = "read", "write", "admin"
SCOPES = (READ, WRITE, ADMIN)
BEGINNING = "bbx_"
SHOWN = len(BEGINNING) + 6
MAX_NAME, MAX_TOKENS, MAX_DAYS = 80, 50, 366 * 5
# When it was used last is kept to the minute: each request would otherwise be a write.
USED_STEP = timedelta(minutes=1)
# Wrong tokens from one network address, after which it has to wait. What is right is let in all the same: 256 bits
# are not guessed, and one forgotten script must not lock out the others behind the same router.
FAILURE_WINDOW = timedelta(minutes=15)
MAX_FAILURES = 40


@dataclass(frozen=True, slots=True)
class Key:
    """A token that is good now, with whose it is."""

    token: APIToken
    user: User


def create(
    session: Session, user: User, *, name: str, scopes: list[str], days: int | None
) -> tuple[APIToken, str]:
    """Make a token for this person. Returns it with its text, which is stored nowhere.

    `days` is how long it is good; None: until it is revoked. Raises InvalidValueError.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidValueError(
            f"The name has {len(name)} characters; expected 1 to {MAX_NAME}, for example the program that uses it."
        )
    if not scopes or any(scope not in SCOPES for scope in scopes):
        raise InvalidValueError(f"Choose what the token may do: one or more of {', '.join(SCOPES)}.")
    if ADMIN in scopes and user.role != "admin":
        raise InvalidValueError("Only an admin's token can have the scope admin.")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise InvalidValueError(f"A token is good for 1 to {MAX_DAYS} days, or until it is revoked.")
    if len(of_user(session, user.id)) >= MAX_TOKENS:
        raise InvalidValueError(
            f"You have {MAX_TOKENS} tokens already. Revoke one that is not used any more."
        )
    moment, text = now(session), BEGINNING + secrets.token_urlsafe(32)
    row = APIToken(
        user_id=user.id,
        name=name,
        prefix=text[:SHOWN],
        token_hash=_hash(text),
        scopes=[scope for scope in SCOPES if scope in scopes],
        created_at=moment,
        expires_at=None if days is None else moment + timedelta(days=days),
    )
    session.add(row)
    session.flush()
    audit_log.record(session, user.email, "API token made", row.prefix, name=name, scopes=row.scopes)
    return row, text


def find(session: Session, text: str) -> Key | None:
    """The token and its owner; None for one that is unknown, revoked or over, or whose owner was disabled."""
    if not text.startswith(BEGINNING):
        return None
    row = session.exec(
        select(APIToken, User)
        .join(User, col(APIToken.user_id) == col(User.id))
        .where(
            APIToken.token_hash == _hash(text),
            col(APIToken.revoked_at).is_(None),
            or_(col(APIToken.expires_at).is_(None), col(APIToken.expires_at) > now(session)),
            col(User.disabled_at).is_(None),
        )
    ).first()
    return None if row is None else Key(*row)


def needs_note(token: APIToken, moment: datetime) -> bool:
    """Whether its last use is to be written down again."""
    return token.last_used_at is None or moment - token.last_used_at >= USED_STEP


def note_used(session: Session, token_id: int) -> None:
    """It was used just now."""
    session.exec(update(APIToken).where(col(APIToken.id) == token_id).values(last_used_at=now(session)))


def revoke(session: Session, token_id: int, *, actor: User) -> APIToken:
    """End a token: one's own, or as an admin anybody's. Raises NotFoundError."""
    row = session.get(APIToken, token_id)
    if row is None or (row.user_id != actor.id and actor.role != "admin"):
        raise NotFoundError(f"There is no token {token_id} of yours.")
    if row.revoked_at is None:
        row.revoked_at = now(session)
        session.add(row)
        audit_log.record(session, actor.email, "API token revoked", row.prefix, name=row.name)
    return row


def of_user(session: Session, user_id: int) -> list[APIToken]:
    """Somebody's tokens that were not revoked, newest first."""
    query = select(APIToken).where(APIToken.user_id == user_id, col(APIToken.revoked_at).is_(None))
    return list(session.exec(query.order_by(col(APIToken.id).desc())))


def all_of(session: Session) -> list[tuple[APIToken, User]]:
    """Everybody's tokens that were not revoked, newest first."""
    query = (
        select(APIToken, User)
        .join(User, col(APIToken.user_id) == col(User.id))
        .where(col(APIToken.revoked_at).is_(None))
    )
    return [(token, user) for token, user in session.exec(query.order_by(col(APIToken.id).desc()))]


# --- wrong ones


def locked_until(session: Session, address: str) -> datetime | None:
    """Until when this network address has to wait that sent too many wrong tokens; None when it need not."""
    times = session.exec(
        select(LoginFailure.at)
        .where(LoginFailure.key == _failure_key(address), LoginFailure.at > now(session) - FAILURE_WINDOW)
        .order_by(col(LoginFailure.at).desc())
        .limit(MAX_FAILURES)
    ).all()
    return times[-1] + FAILURE_WINDOW if len(times) == MAX_FAILURES else None


def note_wrong(session: Session, address: str) -> None:
    """A wrong token came from this network address."""
    moment, key = now(session), _failure_key(address)
    session.exec(
        delete(LoginFailure).where(
            col(LoginFailure.key) == key, col(LoginFailure.at) < moment - FAILURE_WINDOW
        )
    )
    count = select(func.count()).select_from(LoginFailure).where(LoginFailure.key == key)
    if session.exec(count).one() == 0:
        audit_log.record(session, "api", "API token refused", address)
    session.add(LoginFailure(key=key, at=moment))


def _failure_key(address: str) -> str:
    return f"token from {address}"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()
