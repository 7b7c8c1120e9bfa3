"""What agents do with conversations besides judging briefs: assign, put off, note, and undo.

    open --snooze--> snoozed --its time, or a new mail--> open
    open --a mail of ours--> answered --a new mail--> open
    any of them --done--> done --reopen, or a new mail--> open

Each action is one `Activity` that holds the values from before. Undoing writes these back, if nobody changed
them since.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam
from sqlmodel import Session, col, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import activities, audit_log, conversations, events, rows, search
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Activity, Confirmation, Conversation, Correction, Note, User

MAX_NOTE = 10_000
# Longer ago, it is no slip of the hand any more.
UNDO_WINDOW = timedelta(hours=1)
MAX_SNOOZE = timedelta(days=400)
# A literal, by which the index of what is put off is found.
_PUT_OFF = col(Conversation.state) == bindparam(None, "snoozed", literal_execute=True)
_CHUNK = 500
_TIMES = ("snoozed_until", "done_at")


def assign(
    session: Session, conversation_id: int, to: int | None, *, user: User, group: str = ""
) -> Conversation:
    """Give it to somebody, or to nobody. Raises NotFoundError, InvalidValueError, ConflictError."""
    conversation = conversations.locked(session, conversation_id)
    if conversation.assigned_to == to:
        return conversation
    person, seen = check_person(session, to)
    if not seen.sees(conversation.mailbox_id):
        raise InvalidValueError(does_not_see(person))
    before = activities.values(conversation, "assigned_to")
    kind = "unassigned" if to is None else "assigned"
    activities.record(session, conversation, user, kind, before=before, group=group, after=to)
    conversation.assigned_to = to
    conversations.changed(session, conversation)
    return conversation


def check_person(session: Session, to: int | None) -> tuple[User | None, Sight]:
    """Who is to have a conversation, and what they see; None is nobody, who may have any. Raises NotFoundError."""
    if to is None:
        return None, ALL
    person = session.get(User, to)
    if person is None or person.disabled_at is not None:
        raise NotFoundError(f"There is no user {to} who could take it.")
    return person, Sight.of(session, person)


def does_not_see(person: User | None) -> str:
    """Why somebody cannot have it."""
    return f"{person.email if person else 'Nobody'} does not see this mailbox. An admin can change that."


def snooze(
    session: Session, conversation_id: int, until: datetime, *, user: User, group: str = ""
) -> Conversation:
    """Put it off until a time: it leaves the queue and comes back then, or with a new mail.

    Raises InvalidValueError when that is not ahead, or too far.
    """
    until = check_snooze(session, until)
    conversation = conversations.locked(session, conversation_id)
    before = activities.values(conversation, "state", "snoozed_until", "done_at", "done_by")
    activities.record(
        session,
        conversation,
        user,
        "snoozed",
        before=before,
        group=group,
        after="snoozed",
        until=until.isoformat(),
    )
    conversation.state, conversation.snoozed_until = "snoozed", until
    conversation.done_at, conversation.done_by = None, None
    conversations.changed(session, conversation)
    return conversation


def check_snooze(session: Session, until: datetime | None) -> datetime:
    """The time, where it is one to put something off until. Raises InvalidValueError."""
    moment = now(session)
    if until is None or not moment < until <= moment + MAX_SNOOZE:
        said = "This" if until is None else f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        raise InvalidValueError(
            f"{said} is no time to put it off until; expected one from now to {MAX_SNOOZE.days} days ahead."
        )
    return until


def wake_due(session: Session, *, limit: int = 500) -> int:
    """Bring back what was put off until now. Returns how many. Several processes may do it at once."""
    moment = now(session)
    due = (
        select(Conversation)
        .where(_PUT_OFF, col(Conversation.snoozed_until) <= moment)
        .order_by(col(Conversation.snoozed_until))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = session.exec(due).all()
    for conversation in found:
        activities.record(session, conversation, None, "woken")
        conversation.state, conversation.snoozed_until = "open", None
        conversations.changed(session, conversation)
    return len(found)


def any_due(session: Session) -> bool:
    """Whether something was put off until now: asked without the right to write."""
    query = select(Conversation.id).where(_PUT_OFF, col(Conversation.snoozed_until) <= now(session))
    return session.exec(query.limit(1)).first() is not None


# --- notes


def note(session: Session, conversation_id: int, text: str, *, user: User) -> Note:
    """Leave a note for other agents. Raises InvalidValueError."""
    conversation = conversations.locked(session, conversation_id)
    text = text.strip()
    if not 0 < len(text) <= MAX_NOTE:
        raise InvalidValueError(f"The note has {len(text)} characters; expected 1 to {MAX_NOTE:,}.")
    row = Note(conversation_id=conversation.id, user_id=user.id, text=text, created_at=now(session))
    session.add(row)
    session.flush()
    activities.record(session, conversation, user, "noted", note=row.id)
    conversations.changed(session, conversation)
    return row


def notes(session: Session, conversation_id: int) -> list[tuple[Note, User]]:
    """The notes of a conversation and of those merged into it, oldest first, with who wrote them."""
    query = (
        select(Note, User)
        .join(User, col(Note.user_id) == col(User.id))
        .where(
            col(Note.conversation_id).in_(activities.family(session, conversation_id)),
            col(Note.deleted_at).is_(None),
        )
    )
    return [(row, user) for row, user in session.exec(query.order_by(col(Note.id)))]


# --- undo


def last_undoable(session: Session, user: User, *, conversation_id: int | None = None) -> Activity | None:
    """What this person did last and can still take back: of one conversation, or of all."""
    query = select(Activity).where(
        Activity.user_id == user.id,
        col(Activity.undone_at).is_(None),
        col(Activity.kind).in_(
            ("assigned", "unassigned", "snoozed", "done", "reopened", "corrected", "confirmed", "dismissed")
        ),
        Activity.created_at > now(session) - UNDO_WINDOW,
    )
    if conversation_id is not None:
        query = query.where(Activity.conversation_id == conversation_id)
    return session.exec(query.order_by(col(Activity.id).desc()).limit(1)).first()


def undo(session: Session, activity_id: int, *, user: User) -> list[int]:
    """Take back what this person did, with all of the same bulk action. Returns the conversations concerned.

    What somebody changed since stays as it is; ConflictError when that leaves nothing to take back.
    """
    first = session.get(Activity, activity_id)
    if first is None or first.user_id != user.id or first.undone_at is not None or not first.before:
        raise NotFoundError("There is nothing of yours to undo here.")
    together = [first]
    if first.group:
        same = (Activity.group == first.group, Activity.user_id == user.id, col(Activity.undone_at).is_(None))
        together = list(session.exec(select(Activity).where(*same).order_by(col(Activity.id).desc())))
    else:
        conversations.locked(session, first.conversation_id)  # refuses one that was merged
    undone = [
        id_
        for at in range(0, len(together), _CHUNK)
        for id_ in _undo_some(session, together[at : at + _CHUNK], user)
    ]
    if not undone:
        raise ConflictError("Somebody has changed it since, so that nothing was undone. Look at it again.")
    if first.group:
        audit_log.record(session, user.email, "bulk action undone", first.group, conversations=len(undone))
    return undone


def _undo_some(session: Session, some: Sequence[Activity], user: User) -> list[int]:
    """Take back those that still stand. Returns the conversations concerned."""
    held = {row.id: row for row in conversations.locked_many(session, [one.conversation_id for one in some])}
    standing = [one for one in some if (row := held.get(one.conversation_id)) and _stands(row, one)]
    moment = now(session)
    for table, key in ((Correction, "correction"), (Confirmation, "confirmation")):
        said = [one.detail[key] for one in standing if one.detail.get(key) is not None]
        if said:
            session.exec(update(table).where(col(table.id).in_(said)).values(undone_at=moment))
    for activity in standing:
        conversation = held[activity.conversation_id]
        _bring_back(conversation, activity)
        activity.undone_at = conversation.updated_at = moment
        conversation.version += 1
        session.add(activity)
        session.add(conversation)
        if activity.detail.get("field") in conversations.MAX_TEXT:
            search.note_conversation(session, conversation)
    events.conversations_changed(
        session, [held[id_] for id_ in sorted({one.conversation_id for one in standing})]
    )
    undone = [
        {
            "conversation_id": one.conversation_id,
            "user_id": user.id,
            "kind": "undone",
            "detail": {"what": one.kind, "activity": one.id},
            "created_at": moment,
        }
        for one in standing
    ]
    rows.insert(session, Activity, undone)
    return [one.conversation_id for one in standing]


def _bring_back(conversation: Conversation, activity: Activity) -> None:
    before = dict(activity.before)
    # What was done with other fields since stays: of lists, only what this action changed is brought back.
    doubted = before.pop("needs_human", [])
    touched = before.pop("touched", [])
    field = activity.detail.get("field")
    if activity.kind == "corrected" and field not in touched:
        conversation.touched = [name for name in conversation.touched if name != field]
        if (
            field in conversation.suggestion
        ):  # what a later brief said of it stands again, as if nobody had come
            before[field] = conversation.suggestion[field]
            conversation.suggestion = {k: v for k, v in conversation.suggestion.items() if k != field}
    for name, value in before.items():
        setattr(conversation, name, _moment(value) if name in _TIMES else value)
    again = [name for name in doubted if name not in conversation.touched]
    conversation.needs_human = [
        *conversation.needs_human,
        *(n for n in again if n not in conversation.needs_human),
    ]
    conversation.priority_rank = conversations.rank(conversation.priority)


def _stands(conversation: Conversation, activity: Activity) -> bool:
    """Whether what the action wrote is still there."""
    if conversation.state == "merged":
        return False
    if activity.kind == "confirmed":
        return True
    if activity.kind == "corrected":
        return bool(getattr(conversation, activity.detail["field"]) == activity.detail["after"])
    if activity.kind == "dismissed":
        return activity.detail["field"] not in conversation.suggestion
    name = "assigned_to" if activity.kind in ("assigned", "unassigned") else "state"
    return bool(getattr(conversation, name) == activity.detail.get("after"))


def _moment(value: Any) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
