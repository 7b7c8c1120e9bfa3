"""What somebody did last, to be said back to them with a way to undo it."""

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, func, select

from briefbox.tables import Activity, Conversation, User


@dataclass(frozen=True, slots=True)
class Told:
    """An action, of one conversation or in bulk, that stands."""

    activity_id: int
    kind: str
    detail: dict[str, Any]
    number: int  # of conversations
    headline: str  # of the conversation, where it is one


def told(session: Session, user: User, activity_id: int) -> Told | None:
    """What this person did; None where it is not theirs, or is undone."""
    activity = session.get(Activity, activity_id)
    if activity is None or activity.user_id != user.id or activity.undone_at is not None:
        return None
    number = 1
    if activity.group:
        same = (
            Activity.group == activity.group,
            Activity.user_id == user.id,
            col(Activity.undone_at).is_(None),
        )
        number = session.exec(
            select(func.count(func.distinct(col(Activity.conversation_id)))).where(*same)
        ).one()
    conversation = session.get_one(Conversation, activity.conversation_id)
    headline = (conversation.headline or conversation.subject) if number == 1 else ""
    return Told(activity.id, activity.kind, dict(activity.detail), number, headline)
