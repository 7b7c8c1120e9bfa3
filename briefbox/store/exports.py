"""Lists for programs, by keyset: emails, briefs, corrections, confirmations oldest first; what training made newest first.

Each returns the rows after a place and whether there are more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlmodel import Session, col, select

from briefbox.errors import NotFoundError
from briefbox.store.sight import Sight
from briefbox.tables import (
    Adapter,
    Brief,
    Confirmation,
    Conversation,
    Correction,
    Dataset,
    Email,
    RawEmail,
    TrainingRun,
    User,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins and how long it is at most. `after` is the id of the last row of the page before; 0: the first."""

    after: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One page of a list."""

    rows: Sequence[T]
    next: int | None  # the place where the next one begins


def emails(session: Session, conversation_id: int, place: Place) -> Part[Email]:
    """The emails of a conversation, in the order in which they were stored."""
    query = select(Email).where(Email.conversation_id == conversation_id)
    return _oldest_first(session, query, Email, place)


def email(session: Session, email_id: int) -> Email:
    """Raises NotFoundError."""
    row = session.get(Email, email_id)
    if row is None:
        raise NotFoundError(f"There is no email {email_id}.")
    return row


def is_whole(session: Session, row: Email) -> bool:
    """Whether we hold all its bytes; False where parts stayed on the server."""
    return not session.exec(select(RawEmail.left).where(RawEmail.id == row.raw_id)).one()


def briefs(
    session: Session, place: Place, sight: Sight, *, conversation_id: int | None = None
) -> Part[Brief]:
    """Every version of every brief that is shown, or those of one conversation."""
    query = (
        select(Brief)
        .join(Conversation, col(Brief.conversation_id) == col(Conversation.id))
        .where(sight.where(Conversation.mailbox_id), col(Brief.shadow).is_(False))
    )
    if conversation_id is not None:
        query = query.where(Brief.conversation_id == conversation_id)
    return _oldest_first(session, query, Brief, place)


def brief(session: Session, brief_id: int, sight: Sight) -> Brief:
    """Raises NotFoundError, the same for what is not there and for what is not seen."""
    row = session.get(Brief, brief_id)
    if row is None or row.shadow:
        raise NotFoundError(f"There is no brief {brief_id}.")
    conversation = session.get_one(Conversation, row.conversation_id)
    if not sight.sees(conversation.mailbox_id):
        raise NotFoundError(f"There is no brief {brief_id}.")
    return row


def corrections(
    session: Session, place: Place, sight: Sight, *, conversation_id: int | None = None
) -> Part[tuple[Correction, User]]:
    """What agents changed, with who; those that were taken back too."""
    return _judged(session, Correction, place, sight, conversation_id)


def confirmations(
    session: Session, place: Place, sight: Sight, *, conversation_id: int | None = None
) -> Part[tuple[Confirmation, User]]:
    """What agents approved, with who; those that were taken back too."""
    return _judged(session, Confirmation, place, sight, conversation_id)


def runs(session: Session, place: Place) -> Part[TrainingRun]:
    """Training runs, newest first."""
    return _newest_first(session, TrainingRun, place)


def adapters(session: Session, place: Place) -> Part[Adapter]:
    """Adapters, newest first; those whose files are gone too."""
    return _newest_first(session, Adapter, place)


def datasets(session: Session, place: Place) -> Part[Dataset]:
    """Versions of datasets, newest first."""
    return _newest_first(session, Dataset, place)


# --- parts


def _judged(
    session: Session, table: Any, place: Place, sight: Sight, conversation_id: int | None
) -> Part[tuple[Any, User]]:
    query = (
        select(table, User)
        .join(User, col(table.user_id) == col(User.id))
        .join(Conversation, col(table.conversation_id) == col(Conversation.id))
        .where(sight.where(Conversation.mailbox_id), col(table.id) > place.after)
    )
    if conversation_id is not None:
        query = query.where(table.conversation_id == conversation_id)
    found = [(row, user) for row, user in session.exec(query.order_by(col(table.id)).limit(place.limit + 1))]
    shown = found[: place.limit]
    return Part(shown, shown[-1][0].id if len(found) > place.limit else None)


def _oldest_first(session: Session, query: Any, table: Any, place: Place) -> Part[Any]:
    ordered = query.where(col(table.id) > place.after).order_by(col(table.id))
    return _part(session, ordered, place.limit)


def _newest_first(session: Session, table: Any, place: Place) -> Part[Any]:
    query = select(table)
    if place.after:
        query = query.where(col(table.id) < place.after)
    return _part(session, query.order_by(col(table.id).desc()), place.limit)


def _part(session: Session, query: Any, limit: int) -> Part[Any]:
    found = list(session.exec(query.limit(limit + 1)))
    shown = found[:limit]
    return Part(shown, shown[-1].id if len(found) > limit else None)
