"""What an admin should know until it is over: one row for each subject, raised, counted and resolved."""

from collections.abc import Iterable

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select, update

from briefbox.db import now
from briefbox.tables import Alert


def raise_alert(session: Session, key: str, text: str) -> bool:
    """Say that something is wrong with `key`, and what. True when it was not known to be wrong before.

    Raised again, an open alert counts and takes the newer text; a resolved one opens again.
    """
    moment = now(session)
    row = session.exec(select(Alert).where(Alert.key == key).with_for_update()).first()
    if row is None:
        try:
            with session.begin_nested():
                session.add(Alert(key=key, text=text, raised_at=moment, seen_at=moment))
        except IntegrityError:
            # Another process said it first, between the two statements.
            row = session.exec(select(Alert).where(Alert.key == key).with_for_update()).one()
        else:
            return True
    new = row.resolved_at is not None
    if new:
        row.raised_at, row.resolved_at, row.times = moment, None, 0
    row.text, row.seen_at, row.times = text, moment, row.times + 1
    session.add(row)
    session.flush()
    return new


def resolve(session: Session, key: str) -> bool:
    """Say that it is over. False when there was nothing open."""
    over = (
        update(Alert)
        .where(col(Alert.key) == key, col(Alert.resolved_at).is_(None))
        .values(resolved_at=now(session))
    )
    return bool(session.exec(over).rowcount)


def resolve_all(session: Session, keys: Iterable[str]) -> set[str]:
    """Say of all of these that they are over. Returns those that were open."""
    open_ = col(Alert.key).in_(list(keys)), col(Alert.resolved_at).is_(None)
    found = set(session.exec(select(Alert.key).where(*open_)))
    if found:
        session.exec(update(Alert).where(*open_).values(resolved_at=now(session)))
    return found


def resolve_beginning(session: Session, beginning: str) -> None:
    """Say of everything whose key begins so that nobody needs to know any more."""
    over = update(Alert).where(
        col(Alert.key).startswith(beginning, autoescape=True), col(Alert.resolved_at).is_(None)
    )
    session.exec(over.values(resolved_at=now(session)))


def open_alerts(session: Session) -> list[Alert]:
    """What is wrong now, oldest first."""
    query = select(Alert).where(col(Alert.resolved_at).is_(None))
    return list(session.exec(query.order_by(col(Alert.raised_at), col(Alert.id))))
