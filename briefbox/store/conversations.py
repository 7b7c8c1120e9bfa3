"""The agent queue: what the model and the agents say about each conversation.

The model never writes a field that an agent has touched: what it says later stands beside it as a suggestion.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import uuid4

from sqlalchemy import bindparam
from sqlmodel import Session, col, func, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.schemas import BRIEF_FIELDS, PRIORITIES, STATES, BriefField
from briefbox.store import activities, audit_log, events, search
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Brief, Category, Confirmation, Conversation, Correction, Email, User

NO_PRIORITY_YET = len(PRIORITIES)
MAX_COUNTED = 10_000
_LISTED = {
    "open": col(Conversation.priority_rank),
    "snoozed": col(Conversation.snoozed_until),
    "answered": col(Conversation.answered_at),
    "done": col(Conversation.done_at),
}
MAX_TEXT = {"headline": 300, "summary": 4000}


def show_brief(session: Session, brief: Brief) -> None:
    """Bring a new brief into its conversation, leaving what agents touched alone. A shadow brief changes nothing."""
    if brief.shadow:
        return
    conversation = session.exec(
        select(Conversation).where(Conversation.id == brief.conversation_id).with_for_update()
    ).one()
    search.note(session, [brief.email_id])
    events.brief_made(session, brief, conversation)
    newest = session.get(Brief, conversation.brief_id) if conversation.brief_id else None
    if newest is not None and _received_at(session, newest) > _received_at(session, brief):
        return  # an older email of the thread was briefed late: the newer one keeps the row
    for field in BRIEF_FIELDS:
        said = getattr(brief, field)
        if field in conversation.touched:
            conversation.suggestion = {**conversation.suggestion, field: said}
        else:
            setattr(conversation, field, said)
    conversation.needs_human = [field for field in brief.needs_human if field not in conversation.touched]
    conversation.priority_rank = rank(conversation.priority)
    conversation.brief_id = brief.id
    changed(session, conversation)


def counts(session: Session, sight: Sight = ALL) -> dict[str, int]:
    """How many there are in each state. Counted up to MAX_COUNTED, which is as good as "more"."""
    found = {}
    for state in STATES:
        # A literal, by which the state's own index is found.
        query = select(Conversation.id).where(
            col(Conversation.state) == bindparam(None, state, literal_execute=True)
        )
        if sight.mailboxes is not None:
            query = query.where(sight.where(Conversation.mailbox_id))
        else:  # in the order of its list, so that its own index is taken and not a longer one
            query = query.order_by(_LISTED[state])
        capped = query.limit(MAX_COUNTED).subquery()
        found[state] = session.exec(select(func.count()).select_from(capped)).one()
    return found


def get(session: Session, conversation_id: int) -> Conversation:
    """Raises NotFoundError."""
    conversation = session.get(Conversation, conversation_id)
    if conversation is None:
        raise NotFoundError(f"There is no conversation {conversation_id}.")
    return conversation


def standing(session: Session, conversation_id: int) -> Conversation:
    """The conversation, or the one that its mail was merged into. Raises NotFoundError."""
    conversation = get(session, conversation_id)
    while conversation.state == "merged" and conversation.merged_into is not None:
        conversation = get(session, conversation.merged_into)
    return conversation


def emails(session: Session, conversation_id: int) -> list[Email]:
    """The mails of a conversation, newest first."""
    query = select(Email).where(Email.conversation_id == conversation_id)
    return list(session.exec(query.order_by(col(Email.received_at).desc(), col(Email.id).desc())))


def corrections(session: Session, conversation_id: int) -> list[tuple[Correction, User]]:
    """What agents changed, oldest first, with who."""
    query = (
        select(Correction, User)
        .join(User, col(Correction.user_id) == col(User.id))
        .where(Correction.conversation_id == conversation_id, col(Correction.undone_at).is_(None))
    )
    return list(session.exec(query.order_by(col(Correction.id))))


def confirmations(session: Session, conversation_id: int) -> list[tuple[Confirmation, User]]:
    """Who approved its briefs, oldest first."""
    query = (
        select(Confirmation, User)
        .join(User, col(Confirmation.user_id) == col(User.id))
        .where(Confirmation.conversation_id == conversation_id, col(Confirmation.undone_at).is_(None))
    )
    return list(session.exec(query.order_by(col(Confirmation.id))))


def correct(
    session: Session,
    conversation_id: int,
    field: BriefField,
    value: str,
    *,
    user: User,
    before: str | None = None,
    reason: str = "",
    idempotency_key: str = "",
    group: str = "",
) -> Correction | None:
    """Write an agent's value of one field. None when it is the value that stands there already.

    `before` is the value the agent saw; `group` is the same for all that one bulk action changes. Raises ConflictError when it is no longer the one that stands there
    (nothing is lost: the message carries the newer one), InvalidValueError, NotFoundError.
    """
    conversation = locked(session, conversation_id)
    key = idempotency_key or uuid4().hex
    repeated = session.exec(
        select(Correction).where(
            Correction.conversation_id == conversation_id,
            Correction.user_id == user.id,
            Correction.idempotency_key == key,
        )
    ).first()
    if repeated is not None:
        return repeated
    current = getattr(conversation, field)
    value = allowed(session, field, value)
    if value == current:
        return None
    if before is not None and before != current:
        raise ConflictError(
            f"The {field} was changed to “{current}” in the meantime; your value “{value}” was not written. Look at the newer one and correct it if it is wrong."
        )
    correction = Correction(
        conversation_id=conversation.id,
        brief_id=conversation.brief_id,
        user_id=user.id,
        field=field,
        before=current,
        after=value,
        reason=reason[:200],
        idempotency_key=key,
        created_at=now(session),
    )
    session.add(correction)
    session.flush()
    taken = conversation.suggestion.get(field) == value
    activities.record(
        session,
        conversation,
        user,
        "corrected",
        before={
            field: current,
            "touched": list(conversation.touched),
            "needs_human": list(conversation.needs_human),
            **({"suggestion": dict(conversation.suggestion)} if taken else {}),
        },
        group=group,
        field=field,
        correction=correction.id,
        after=value,
        reason=correction.reason,
    )
    setattr(conversation, field, value)
    if taken:
        conversation.suggestion = {n: said for n, said in conversation.suggestion.items() if n != field}
    conversation.touched = sorted({*conversation.touched, field})
    conversation.needs_human = [f for f in conversation.needs_human if f != field]
    conversation.priority_rank = rank(conversation.priority)
    changed(session, conversation)
    session.flush()
    if field in MAX_TEXT:
        search.note_conversation(session, conversation)
    return correction


def confirm(
    session: Session,
    conversation_id: int,
    *,
    user: User,
    strength: str = "strong",
    group: str = "",
    brief_id: int | None = None,
) -> Confirmation | None:
    """Record that the brief is right as it stands. None when there is no brief to confirm.

    `brief_id` is the brief that the agent saw. Raises ConflictError when another one stands there by now.
    """
    conversation = locked(session, conversation_id)
    if conversation.brief_id is None:
        return None
    if brief_id not in (None, conversation.brief_id):
        raise ConflictError(
            "A newer mail was briefed in the meantime; nothing was confirmed. Look at the newer brief first."
        )
    same = (
        Confirmation.brief_id == conversation.brief_id,
        Confirmation.user_id == user.id,
        Confirmation.strength == strength,
    )
    existing = session.exec(select(Confirmation).where(*same)).first()
    if existing is not None and existing.undone_at is None:
        return existing
    if existing is not None:  # taken back before: said again
        session.delete(existing)
        session.flush()
    confirmation = Confirmation(
        conversation_id=conversation.id,
        brief_id=conversation.brief_id,
        user_id=user.id,
        strength=strength,
        created_at=now(session),
    )
    session.add(confirmation)
    session.flush()
    if strength == "strong":
        activities.record(
            session,
            conversation,
            user,
            "confirmed",
            before={"needs_human": list(conversation.needs_human)},
            group=group,
            confirmation=confirmation.id,
        )
        conversation.needs_human = []
    changed(session, conversation)
    session.flush()
    return confirmation


def finish(session: Session, conversation_id: int, *, user: User, group: str = "") -> Conversation:
    """Mark a conversation done. Finishing an unchanged brief is a weak confirmation of it."""
    conversation = locked(session, conversation_id)
    if conversation.state == "done":
        return conversation
    corrected = session.exec(
        select(Correction.id).where(
            Correction.conversation_id == conversation.id,
            Correction.brief_id == conversation.brief_id,
            col(Correction.undone_at).is_(None),
        )
    ).first()
    weak = confirm(session, conversation_id, user=user, strength="weak") if corrected is None else None
    activities.record(
        session,
        conversation,
        user,
        "done",
        before=activities.values(conversation, "state", "snoozed_until", "done_at", "done_by"),
        group=group,
        after="done",
        confirmation=weak.id if weak is not None else None,
    )
    conversation.state, conversation.done_at, conversation.done_by = "done", now(session), user.id
    conversation.snoozed_until = None
    changed(session, conversation)
    audit_log.record(session, user.email, "conversation done", str(conversation.id))
    return conversation


def reopen(session: Session, conversation_id: int, *, user: User, group: str = "") -> Conversation:
    """Put a conversation that is finished, put off or answered back into the queue."""
    conversation = locked(session, conversation_id)
    if conversation.state != "open":
        activities.record(
            session,
            conversation,
            user,
            "reopened",
            before=activities.values(conversation, "state", "snoozed_until", "done_at", "done_by"),
            group=group,
            after="open",
        )
        conversation.state, conversation.done_at, conversation.done_by = "open", None, None
        conversation.snoozed_until = None
        changed(session, conversation)
        audit_log.record(session, user.email, "conversation reopened", str(conversation.id))
    return conversation


def touch(session: Session, conversation_id: int | None, moment: datetime) -> None:
    """Make live pages look at a conversation again."""
    if conversation_id is not None:
        session.exec(
            update(Conversation).where(col(Conversation.id) == conversation_id).values(updated_at=moment)
        )


def rank(priority: str) -> int:
    """0 for urgent ... 3 for low, 4 where none is known yet."""
    return PRIORITIES.index(priority) if priority in PRIORITIES else NO_PRIORITY_YET


def locked(session: Session, conversation_id: int) -> Conversation:
    """The row, held against others until the commit. Raises NotFoundError, ConflictError for a merged one."""
    conversation = session.exec(
        select(Conversation).where(Conversation.id == conversation_id).with_for_update()
    ).first()
    if conversation is None:
        raise NotFoundError(f"There is no conversation {conversation_id}.")
    refuse_merged(conversation)
    return conversation


def locked_many(session: Session, ids: Collection[int]) -> list[Conversation]:
    """Those that exist, merged ones too, held against others until the commit; in one order for everybody."""
    query = select(Conversation).where(col(Conversation.id).in_(ids)).order_by(col(Conversation.id))
    return list(session.exec(query.with_for_update().execution_options(populate_existing=True)).all())


def refuse_merged(conversation: Conversation) -> None:
    """Raises ConflictError for a conversation whose mail stands in another one now."""
    if conversation.state == "merged":
        raise ConflictError(
            f"Conversation {conversation.id} was merged into {conversation.merged_into}; nothing was written. Go on there."
        )


def allowed(session: Session, field: BriefField, value: str) -> str:
    """The value as it is written. Raises InvalidValueError for one that a field cannot have."""
    value = " ".join(value.split()) if field != "summary" else value.strip()
    if field == "priority" and value not in PRIORITIES:
        raise InvalidValueError(f"The priority “{value}” is none of {', '.join(PRIORITIES)}.")
    if field == "category":
        names = list(
            session.exec(
                select(Category.name)
                .where(col(Category.retired_at).is_(None))
                .order_by(col(Category.position))
            )
        )
        if value not in names:
            raise InvalidValueError(f"The category “{value}” is none of {', '.join(names)}.")
    if field in MAX_TEXT and not 0 < len(value) <= MAX_TEXT[field]:
        raise InvalidValueError(f"The {field} has {len(value)} characters; expected 1 to {MAX_TEXT[field]}.")
    return value


def _received_at(session: Session, brief: Brief) -> datetime:
    return session.exec(select(Email.received_at).where(Email.id == brief.email_id)).one()


def changed(session: Session, conversation: Conversation) -> None:
    """Count a write: live pages look at it again, and a second writer sees that it is newer."""
    conversation.version += 1
    conversation.updated_at = now(session)
    session.add(conversation)
    events.conversations_changed(session, [conversation])
