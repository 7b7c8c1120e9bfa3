"""Who has a conversation open now, what they are writing, and how long each had it open in all.

A page says so every few seconds while somebody can see it (a sign of life); who has not been heard of for
`SEEN_SECONDS` is no longer there. One row for each conversation and person.
"""

from datetime import timedelta
from math import isnan

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.schemas import BRIEF_FIELDS
from briefbox.store import activities
from briefbox.tables import Presence, User

# Three signs of life, and at most so much time is counted for one.
SEEN_SECONDS = 30.0
NOTE = "note"
_EDITED = (*BRIEF_FIELDS, NOTE)


def here(session: Session, conversation_id: int, user: User, editing: str, seconds: float) -> None:
    """A sign of life: `editing` is what they are writing ("" is nothing), `seconds` how long they have looked since the last one.

    What two pages of one person say of the same time is counted once.
    """
    moment = now(session)
    row = _row(session, conversation_id, user.id)
    # A little more than has passed: the page's clock and ours do not tick together.
    passed = (moment - row.seen_at).total_seconds() + 1.0
    row.seconds += 0.0 if isnan(seconds) else max(0.0, min(seconds, SEEN_SECONDS, passed))
    row.editing = editing if editing in _EDITED else ""
    row.seen_at = moment
    session.add(row)
    session.flush()


def others(session: Session, conversation_id: int, user: User) -> list[tuple[User, str]]:
    """Who else has it open now, with what they are writing; by name."""
    query = (
        select(User, Presence.editing)
        .join(Presence, col(Presence.user_id) == col(User.id))
        .where(
            Presence.conversation_id == conversation_id,
            Presence.user_id != user.id,
            Presence.seen_at > now(session) - timedelta(seconds=SEEN_SECONDS),
        )
    )
    return [(person, editing) for person, editing in session.exec(query.order_by(User.name, col(User.id)))]


def all_now(session: Session) -> dict[int, list[str]]:
    """The names of those who have each conversation open now."""
    query = (
        select(Presence.conversation_id, User.name, User.email)
        .join(User, col(Presence.user_id) == col(User.id))
        .where(Presence.seen_at > now(session) - timedelta(seconds=SEEN_SECONDS))
    )
    found: dict[int, list[str]] = {}
    for conversation_id, name, email in session.exec(query.order_by(User.name, col(User.id))):
        found.setdefault(conversation_id, []).append(name or email)
    return found


def time_spent(session: Session, conversation_id: int) -> float:
    """How many seconds people had it open, all of them together."""
    query = select(func.sum(Presence.seconds)).where(
        col(Presence.conversation_id).in_(activities.family(session, conversation_id))
    )
    return float(session.exec(query).one() or 0.0)


def _row(session: Session, conversation_id: int, user_id: int) -> Presence:
    query = select(Presence).where(Presence.conversation_id == conversation_id, Presence.user_id == user_id)
    row = session.exec(query.with_for_update()).first()
    if row is not None:
        return row
    # Never seen before: what it says of the time until now is believed.
    begun = now(session) - timedelta(seconds=SEEN_SECONDS)
    row = Presence(conversation_id=conversation_id, user_id=user_id, seen_at=begun)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        # Another page of the same person said it first, between the two statements.
        return session.exec(query.with_for_update()).one()
    return row
