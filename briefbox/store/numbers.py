"""What happened, in numbers for people: by day, for the mailboxes that somebody sees."""

from datetime import timedelta

from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.store import conversations
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Conversation

# More are not counted one by one.
COUNTED = 10_000


def num_beyond(session: Session, priority: str, minutes: int, *, sight: Sight = ALL) -> int:
    """How many open conversations of a priority have waited so long, counted up to COUNTED + 1."""
    waiting = select(Conversation.id).where(
        Conversation.state == "open",
        Conversation.priority_rank == conversations.rank(priority),
        col(Conversation.waiting_since) <= now(session) - timedelta(minutes=minutes),
        sight.where(Conversation.mailbox_id),
    )
    return session.exec(select(func.count()).select_from(waiting.limit(COUNTED + 1).subquery())).one()
