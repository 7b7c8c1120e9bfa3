"""The same request sent twice has one effect: its answer is kept under the key that the program chose.

The key's row is written in the transaction of the effect itself. So a crash leaves both or neither, and of two that
come at once the second waits for the first at the unique key. What failed is not kept: it may be tried again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, select

from briefbox.db import Database, now
from briefbox.errors import InvalidValueError
from briefbox.tables import IdempotencyKey

KEPT = timedelta(hours=24)
MAX_KEY = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. `repeated`: it is the answer of an earlier request."""

    status: int
    body: str
    repeated: bool = False


class KeyReusedError(InvalidValueError):
    """The key was used for another request."""


def once(
    database: Database,
    token_id: int,
    key: str,
    request_hash: str,
    do: Callable[[Session], Answer],
) -> Answer:
    """Do it in one transaction, or give the answer that this key got before. An empty key does it each time.

    Raises KeyReusedError when the key belongs to another request, and whatever `do` raises.
    """
    if not key:
        with database.write() as session:
            return do(session)
    try:
        with database.write() as session:
            return _stored(session, token_id, key, request_hash) or _do(
                session, token_id, key, request_hash, do
            )
    except _TakenError:
        with database.read() as session:
            answer = _stored(session, token_id, key, request_hash)
        assert answer is not None  # the other one has committed: that is what it was taken by
        return answer


def forget_old(session: Session) -> int:
    """Drop the keys of yesterday. Returns how many."""
    old = delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now(session) - KEPT)
    return int(session.exec(old).rowcount)


class _TakenError(Exception):
    """Another request with the same key came first."""


def _stored(session: Session, token_id: int, key: str, request_hash: str) -> Answer | None:
    row = session.exec(
        select(IdempotencyKey).where(IdempotencyKey.token_id == token_id, IdempotencyKey.key == key)
    ).first()
    if row is None:
        return None
    if row.request_hash != request_hash:
        raise KeyReusedError(
            "This Idempotency-Key was used for another request within the last 24 hours; expected a new key for a new request."
        )
    return Answer(row.status, row.body, repeated=True)


def _do(
    session: Session, token_id: int, key: str, request_hash: str, do: Callable[[Session], Answer]
) -> Answer:
    row = IdempotencyKey(
        token_id=token_id, key=key, request_hash=request_hash, status=0, created_at=now(session)
    )
    session.add(row)
    try:
        session.flush()  # PostgreSQL waits here for another one with the same key
    except IntegrityError as error:
        raise _TakenError from error
    answer = do(session)
    row.status, row.body = answer.status, answer.body
    session.add(row)
    return answer
