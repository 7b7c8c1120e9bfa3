"""One action on many conversations: undone together, and what fails of it stops nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import uuid4

from sqlmodel import Session

from briefbox.errors import BriefboxError
from briefbox.store import actions, conversations, queue
from briefbox.store.filters import Filter
from briefbox.store.sight import ALL, Sight
from briefbox.tables import User

MAX_ROWS = 10_000
MAX_NAMED = 20

Action = Literal["done", "reopen", "assign", "snooze", "priority", "category"]
ACTIONS: tuple[Action, ...] = ("done", "reopen", "assign", "snooze", "priority", "category")


@dataclass(slots=True)
class BulkResult:
    """What became of a bulk action. `failed` names the first MAX_NAMED conversations, each with why."""

    group: str  # all of it is undone with any of its activities: undo(session, result.activity_id, user=...)
    changed: int = 0
    unchanged: int = 0  # they were so already
    num_failed: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    activity_id: int | None = None


def apply(
    session: Session,
    ids: Sequence[int],
    action: Action,
    *,
    user: User,
    sight: Sight = ALL,
    to: int | None = None,
    until: datetime | None = None,
    value: str = "",
) -> BulkResult:
    """Do one thing with each: `to` is whom "assign" gives it (None: nobody), `until` is of "snooze", `value` the
    priority or the category. Raises InvalidValueError for what can be done with none of them."""
    result = BulkResult(uuid4().hex)
    for id_ in dict.fromkeys(ids):
        try:
            sight.check_conversation(session, id_)
            before = conversations.get(session, id_).version
            _one(session, id_, action, user, result.group, to, until, value)
        except BriefboxError as error:
            result.num_failed += 1
            if len(result.failed) < MAX_NAMED:
                result.failed[id_] = str(error)
            continue
        if conversations.get(session, id_).version == before:
            result.unchanged += 1
        else:
            result.changed += 1
    return result


def matching(session: Session, wanted: Filter, sight: Sight = ALL, limit: int = MAX_ROWS) -> list[int]:
    """The ids of all that a filter matches, in their order. As many as `limit`: there may be more."""
    found: list[int] = []
    after = ""
    while len(found) < limit:
        page = queue.page(session, wanted, sight=sight, after=after, limit=min(500, limit - len(found)))
        found += [conversation.id for conversation in page.conversations]
        session.expunge_all()
        if not (after := page.next):
            break
    return found


def _one(
    session: Session,
    id_: int,
    action: Action,
    user: User,
    group: str,
    to: int | None,
    until: datetime | None,
    value: str,
) -> None:
    if action == "done":
        conversations.finish(session, id_, user=user, group=group)
    elif action == "reopen":
        conversations.reopen(session, id_, user=user, group=group)
    elif action == "assign":
        actions.assign(session, id_, to, user=user, group=group)
    elif action == "snooze" and until is not None:
        actions.snooze(session, id_, until, user=user, group=group)
    elif action in ("priority", "category"):
        conversations.correct(session, id_, action, value, user=user, group=group)
