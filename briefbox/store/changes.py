"""What changed lately: what live pages look for."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from briefbox.tables import Conversation


def since(session: Session, moment: datetime, *, limit: int) -> list[tuple[int, datetime]]:
    """Ids of conversations written after `moment`, with when; the newest first."""
    query = (
        select(Conversation.id, Conversation.updated_at)
        .where(col(Conversation.updated_at) > moment)
        .order_by(col(Conversation.updated_at).desc())
    )
    return [(id_, at) for id_, at in session.exec(query.limit(limit))]


def mailboxes(session: Session, ids: Sequence[int]) -> dict[int, int]:
    """The mailbox of each of these conversations."""
    if not ids:
        return {}
    query = select(Conversation.id, Conversation.mailbox_id).where(col(Conversation.id).in_(ids))
    return dict(session.exec(query).all())
