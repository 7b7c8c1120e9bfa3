"""One action on many conversations: undone together, and what fails of it stops nothing else.

It does what actions.py and conversations.py do with one, for hundreds with each statement.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from sqlmodel import Session, col, select

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.store import actions, activities, audit_log, conversations, events, queue, rows
from briefbox.store.filters import Filter
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Activity, Confirmation, Conversation, Correction, User

MAX_ROWS = 10_000
MAX_NAMED = 20
_CHUNK = 500

Action = Literal["done", "reopen", "assign", "snooze", "priority", "category"]
ACTIONS: tuple[Action, ...] = ("done", "reopen", "assign", "snooze", "priority", "category")


@dataclass(slots=True)
class BulkResult:
    """What became of a bulk action. `failed` names the first MAX_NAMED conversations, each with why."""

    group: str  # the same for all its activities
    changed: int = 0
    unchanged: int = 0  # they were so already
    num_failed: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    activity_id: int | None = (
        None  # undoing this one undoes all: actions.undo(session, activity_id, user=user)
    )

    def fail(self, conversation_id: int, why: str) -> None:
        """Count one that was left as it is."""
        self.num_failed += 1
        if len(self.failed) < MAX_NAMED:
            self.failed[conversation_id] = why


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
    group: str = "",
) -> BulkResult:
    """Do one thing with each: `to` is whom "assign" gives it (None: nobody), `until` is of "snooze", `value` the
    priority or the category, `group` that of a bulk action that this goes on with. Raises InvalidValueError and NotFoundError for what can be done with none of them."""
    if not 0 < len(ids) <= MAX_ROWS:
        raise InvalidValueError(
            f"{len(ids):,} conversations were chosen; expected 1 to {MAX_ROWS:,} at a time."
        )
    change = _change(session, action, user, to, until, value)
    result = BulkResult(group or uuid4().hex)
    wanted = sorted(set(ids))
    for first in range(0, len(wanted), _CHUNK):
        _some(session, wanted[first : first + _CHUNK], change, user, sight, result)
    audit_log.record(
        session,
        user.email,
        f"bulk {action}",
        result.group,
        changed=result.changed,
        unchanged=result.unchanged,
        failed=result.num_failed,
        **_named(to=to, until=until and until.isoformat(), value=value or None),
    )
    return result


def matching(session: Session, wanted: Filter, sight: Sight = ALL, limit: int = MAX_ROWS) -> list[int]:
    """The ids of all that a filter matches, in their order. As many as `limit`: there may be more."""
    found: list[int] = []
    after = ""
    while len(found) < limit:
        ids, after = queue.page_of_ids(
            session, wanted, sight=sight, after=after, limit=min(2_000, limit - len(found))
        )
        found += ids
        if not after:
            break
    return found


def _named(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# --- what each action changes: it gets the rows of a chunk and yields those that it changed


@dataclass(frozen=True, slots=True)
class _Done:
    """What was done with one conversation, for its activity."""

    conversation: Conversation
    kind: str
    before: dict[str, Any]
    detail: dict[str, Any]


_Change = Callable[[Session, Sequence[Conversation], BulkResult], Iterator[_Done]]
_STATE = ("state", "snoozed_until", "done_at", "done_by")


def _change(
    session: Session, action: Action, user: User, to: int | None, until: datetime | None, value: str
) -> _Change:
    if action == "assign":
        return _assign(session, to)
    if action == "snooze":
        return _snooze(actions.check_snooze(session, until))
    if action in ("priority", "category"):
        return _correct(action, conversations.allowed(session, action, value), user)
    if action == "done":
        return _finish(user)
    if action == "reopen":
        return _reopen
    raise InvalidValueError(f"The action “{action}” is none of {', '.join(ACTIONS)}.")


def _assign(session: Session, to: int | None) -> _Change:
    person, seen = actions.check_person(session, to)
    kind = "unassigned" if to is None else "assigned"

    def change(_session: Session, some: Sequence[Conversation], result: BulkResult) -> Iterator[_Done]:
        for conversation in some:
            if conversation.assigned_to == to:
                continue
            if not seen.sees(conversation.mailbox_id):
                result.fail(conversation.id, actions.does_not_see(person))
                continue
            yield _Done(conversation, kind, activities.values(conversation, "assigned_to"), {"after": to})
            conversation.assigned_to = to

    return change


def _snooze(until: datetime) -> _Change:
    def change(_session: Session, some: Sequence[Conversation], _result: BulkResult) -> Iterator[_Done]:
        for conversation in some:
            if conversation.state == "snoozed" and conversation.snoozed_until == until:
                continue
            detail = {"after": "snoozed", "until": until.isoformat()}
            yield _Done(conversation, "snoozed", activities.values(conversation, *_STATE), detail)
            conversation.state, conversation.snoozed_until = "snoozed", until
            conversation.done_at, conversation.done_by = None, None

    return change


def _reopen(_session: Session, some: Sequence[Conversation], _result: BulkResult) -> Iterator[_Done]:
    for conversation in some:
        if conversation.state == "open":
            continue
        yield _Done(conversation, "reopened", activities.values(conversation, *_STATE), {"after": "open"})
        conversation.state, conversation.snoozed_until = "open", None
        conversation.done_at, conversation.done_by = None, None


def _finish(user: User) -> _Change:
    def change(session: Session, some: Sequence[Conversation], _result: BulkResult) -> Iterator[_Done]:
        moment = now(session)
        going = [conversation for conversation in some if conversation.state != "done"]
        weak = _confirm_weakly(session, going, user, moment)
        for conversation in going:
            detail = {"after": "done", "confirmation": weak.get(conversation.brief_id)}
            yield _Done(conversation, "done", activities.values(conversation, *_STATE), detail)
            conversation.state, conversation.snoozed_until = "done", None
            conversation.done_at, conversation.done_by = moment, user.id

    return change


def _confirm_weakly(
    session: Session, going: Sequence[Conversation], user: User, moment: datetime
) -> dict[int | None, int]:
    """Finishing an unchanged brief is a weak confirmation of it. Returns their ids by brief."""
    by_brief = {c.brief_id: c.id for c in going if c.brief_id is not None}
    corrected = session.exec(
        select(Correction.brief_id).where(
            col(Correction.brief_id).in_(by_brief), col(Correction.undone_at).is_(None)
        )
    )
    for brief_id in {id_ for id_ in corrected if id_ is not None}:
        by_brief.pop(brief_id)
    same = (
        col(Confirmation.brief_id).in_(by_brief),
        Confirmation.user_id == user.id,
        Confirmation.strength == "weak",
    )
    weak: dict[int | None, int] = {}
    for confirmation in session.exec(select(Confirmation).where(*same)).all():
        if confirmation.undone_at is None:
            weak[confirmation.brief_id] = confirmation.id
        else:  # taken back before: said again
            session.delete(confirmation)
    session.flush()
    new = [brief_id for brief_id in by_brief if brief_id not in weak]
    values = [
        {
            "conversation_id": by_brief[brief_id],
            "brief_id": brief_id,
            "user_id": user.id,
            "strength": "weak",
            "created_at": moment,
        }
        for brief_id in new
    ]
    return weak | dict(zip(new, rows.insert(session, Confirmation, values), strict=True))


def _correct(name: Literal["priority", "category"], value: str, user: User) -> _Change:
    def change(session: Session, some: Sequence[Conversation], _result: BulkResult) -> Iterator[_Done]:
        moment = now(session)
        going = [conversation for conversation in some if getattr(conversation, name) != value]
        corrections = [
            {
                "conversation_id": conversation.id,
                "brief_id": conversation.brief_id,
                "user_id": user.id,
                "field": name,
                "before": getattr(conversation, name),
                "after": value,
                "idempotency_key": uuid4().hex,
                "created_at": moment,
            }
            for conversation in going
        ]
        for conversation, id_ in zip(going, rows.insert(session, Correction, corrections), strict=True):
            before = activities.values(conversation, name, "touched", "needs_human")
            detail = {"field": name, "correction": id_, "after": value, "reason": ""}
            yield _Done(conversation, "corrected", before, detail)
            setattr(conversation, name, value)
            conversation.touched = sorted({*conversation.touched, name})
            conversation.needs_human = [f for f in conversation.needs_human if f != name]
            conversation.priority_rank = conversations.rank(conversation.priority)

    return change


# --- a chunk


def _some(
    session: Session,
    ids: Sequence[int],
    change: _Change,
    user: User,
    sight: Sight,
    result: BulkResult,
) -> None:
    held = {conversation.id: conversation for conversation in conversations.locked_many(session, ids)}
    some = []
    for id_ in ids:
        conversation = held.get(id_)
        if conversation is None or not sight.sees(conversation.mailbox_id):
            result.fail(id_, f"There is no conversation {id_}.")
        elif conversation.state == "merged":
            result.fail(id_, f"Conversation {id_} was merged into {conversation.merged_into}.")
        else:
            some.append(conversation)
    failed = result.num_failed
    done = list(change(session, some, result))
    result.changed += len(done)
    result.unchanged += len(some) - len(done) - (result.num_failed - failed)
    moment = now(session)
    values = [
        {
            "conversation_id": one.conversation.id,
            "user_id": user.id,
            "kind": one.kind,
            "detail": one.detail,
            "before": one.before,
            "group": result.group,
            "created_at": moment,
        }
        for one in done
    ]
    for one in done:
        one.conversation.version += 1
        one.conversation.updated_at = moment
        session.add(one.conversation)
    # Writes the conversations too.
    made = rows.insert(session, Activity, values)
    session.flush()
    events.conversations_changed(session, [one.conversation for one in done])
    result.activity_id = made[-1] if made else result.activity_id
    session.expunge_all()
