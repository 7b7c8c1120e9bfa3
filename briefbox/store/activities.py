"""What was done with a conversation, by whom, and what undoing it brings back. Append-only."""

from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from briefbox.db import now
from briefbox.tables import Activity, Conversation, User


def record(
    session: Session,
    conversation: Conversation,
    user: User | None,
    kind: str,
    *,
    before: dict[str, Any] | None = None,
    group: str = "",
    **detail: Any,
) -> Activity:
    """Append one inside the caller's transaction. `before` are the values of columns that undoing brings back."""
    activity = Activity(
        conversation_id=conversation.id,
        user_id=None if user is None else user.id,
        kind=kind,
        detail=detail,
        before=before or {},
        group=group,
        created_at=now(session),
    )
    session.add(activity)
    session.flush()
    return activity


def of(session: Session, conversation_id: int) -> list[tuple[Activity, User | None]]:
    """What was done with a conversation and with those merged into it, oldest first, with who."""
    query = (
        select(Activity, User)
        .join(User, col(Activity.user_id) == col(User.id), isouter=True)
        .where(col(Activity.conversation_id).in_(family(session, conversation_id)))
    )
    return [(activity, user) for activity, user in session.exec(query.order_by(col(Activity.id)))]


def family(session: Session, conversation_id: int) -> list[int]:
    """The conversation and those that were merged into it: what was said of them belongs to it."""
    merged = select(Conversation.id).where(
        Conversation.merged_into == conversation_id, Conversation.state == "merged"
    )
    return [conversation_id, *session.exec(merged)]


def values(conversation: Conversation, *names: str) -> dict[str, Any]:
    """These columns as they stand, as JSON."""

    def plain(value: Any) -> Any:
        return value.isoformat() if isinstance(value, datetime) else value

    return {name: plain(getattr(conversation, name)) for name in names}
