"""Within how long a customer is to have an answer, by priority; and when that is for a conversation."""

from datetime import datetime, timedelta

from sqlmodel import Session, select

from briefbox.errors import InvalidValueError
from briefbox.schemas import PRIORITIES
from briefbox.store import audit_log
from briefbox.tables import Conversation, SLATarget

MAX_MINUTES = 365 * 24 * 60
# Only in these does somebody wait for us.
WAITING = ("open", "snoozed")


def targets(session: Session) -> dict[str, int]:
    """Minutes by priority; a priority without a target is left out."""
    return dict(session.exec(select(SLATarget.priority, SLATarget.minutes)).all())


def due(conversation: Conversation, targets: dict[str, int]) -> datetime | None:
    """Until when the customer is to have an answer. None where nobody waits, or there is no target."""
    minutes = targets.get(conversation.priority)
    if minutes is None or conversation.state not in WAITING:
        return None
    return conversation.waiting_since + timedelta(minutes=minutes)


def set_target(session: Session, priority: str, minutes: int | None, actor: str) -> None:
    """Change the target of a priority; None takes it away. Raises InvalidValueError."""
    if priority not in PRIORITIES:
        raise InvalidValueError(f"The priority “{priority}” is none of {', '.join(PRIORITIES)}.")
    if minutes is not None and not 1 <= minutes <= MAX_MINUTES:
        raise InvalidValueError(f"{minutes} minutes are no target; expected 1 to {MAX_MINUTES:,}, or none.")
    row = session.get(SLATarget, priority)
    before = None if row is None else row.minutes
    if before == minutes:
        return
    if minutes is None:
        session.delete(row)
    else:
        row = row or SLATarget(priority=priority, minutes=minutes)
        row.minutes = minutes
        session.add(row)
    session.flush()
    audit_log.record(session, actor, "target changed", priority, before=before, after=minutes)
