"""Lists of conversations: what an agent filters by, and one page of it. Keyset pages, never an offset."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, or_, select

from briefbox.store.sight import ALL, Sight
from briefbox.tables import Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for. Empty is "any"; values of one field are alternatives, fields add up."""

    state: str = "open"  # open, snoozed, answered, done; "" is all of them
    mailboxes: tuple[int, ...] = ()
    priorities: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    assigned: str = ""  # "none", or a user's id
    needs_human: bool = False
    overdue: bool = False  # beyond the target of its priority
    text: str = ""  # full text: subject, sender, what the mail and its brief say


def page(
    session: Session,
    wanted: Filter,
    *,
    sight: Sight = ALL,
    after: tuple[int, datetime, int] | None = None,
    limit: int = 50,
) -> list[Conversation]:
    """Most urgent first, then who has waited longest. `after` is the last row's `queue_key`."""
    query = select(Conversation).where(*conditions(wanted, sight))
    if after is not None:
        rank_, since, id_ = after
        query = query.where(
            or_(
                col(Conversation.priority_rank) > rank_,
                (col(Conversation.priority_rank) == rank_) & (col(Conversation.waiting_since) > since),
                (col(Conversation.priority_rank) == rank_)
                & (col(Conversation.waiting_since) == since)
                & (col(Conversation.id) > id_),
            )
        )
    order = (col(Conversation.priority_rank), col(Conversation.waiting_since), col(Conversation.id))
    return list(session.exec(query.order_by(*order).limit(limit)))


def conditions(wanted: Filter, sight: Sight) -> list[ColumnElement[bool]]:
    """The filter as SQL."""
    where: list[ColumnElement[bool]] = [
        col(Conversation.state) != "merged",
        sight.where(Conversation.mailbox_id),
    ]
    if wanted.state:
        where.append(col(Conversation.state) == wanted.state)
    for column, values in (
        (Conversation.mailbox_id, wanted.mailboxes),
        (Conversation.category, wanted.categories),
        (Conversation.priority, wanted.priorities),
    ):
        if values:
            where.append(col(column).in_(values))
    if wanted.assigned == "none":
        where.append(col(Conversation.assigned_to).is_(None))
    elif wanted.assigned:
        where.append(col(Conversation.assigned_to) == int(wanted.assigned))
    return where
