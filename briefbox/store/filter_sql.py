"""A filter of the queue as SQL."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, false, or_
from sqlmodel import Session, col

from briefbox.db import now
from briefbox.schemas import PRIORITIES
from briefbox.store import conversations, sla
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight

NO_PLACE = "after: this is no place in this list. Start again at its first page."


def conditions(
    c: Any, wanted: Filter, sight: Sight, cutoffs: dict[str, datetime]
) -> list[ColumnElement[bool]]:
    """The filter over these columns, but for its state and its text."""
    where: list[ColumnElement[bool]] = []
    if sight.mailboxes is not None:
        where.append(c.mailbox_id.in_(sorted(sight.mailboxes)))
    if wanted.mailboxes:
        where.append(c.mailbox_id.in_(wanted.mailboxes))
    if wanted.priorities:
        where.append(c.priority_rank.in_([conversations.rank(name) for name in wanted.priorities]))
    if wanted.categories:
        where.append(c.category.in_(wanted.categories))
    if wanted.assigned == "none":
        where.append(c.assigned_to.is_(None))
    elif wanted.assigned:
        where.append(c.assigned_to == wanted.assigned_id)
    if wanted.needs_human:
        where.append(c.in_doubt.is_(True))
    if wanted.overdue:
        late = [
            and_(c.priority_rank == conversations.rank(name), c.waiting_since <= cutoff)
            for name, cutoff in cutoffs.items()
        ]
        where.append(or_(false(), *late))
    return where


def cutoffs(session: Session, wanted: Filter) -> dict[str, datetime]:
    """By priority: who has waited since before this is overdue. Nobody is in a state in which nobody waits."""
    if not wanted.overdue or wanted.state in ("done", "answered"):
        return {}
    moment = now(session)
    return {
        priority: moment - timedelta(minutes=minutes)
        for priority, minutes in sla.targets(session).items()
        if priority in PRIORITIES
    }


def in_state(c: Any, wanted: Filter) -> ColumnElement[bool]:
    """The state as a literal: an index of some rows is used only where the statement itself says which."""
    if wanted.state:
        return col(c.state) == bindparam(None, wanted.state, literal_execute=True)
    return col(c.state).in_(sla.WAITING) if wanted.overdue else col(c.state) != "merged"
