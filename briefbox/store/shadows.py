"""Where the adapter on trial and the brief that agents see say different things, and which of them a person picks."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import aliased
from sqlmodel import Session, col, or_, select

from briefbox.errors import ConflictError, NotFoundError
from briefbox.schemas import BRIEF_FIELDS, BriefField
from briefbox.store import conversations
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Adapter, Brief, Confirmation, Conversation, Correction, User

Choice = Literal["shown", "shadow"]
_SHADOW = aliased(Brief)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two briefs of one email that differ in `fields`, which no agent has decided."""

    conversation: Conversation
    shown: Brief
    shadow: Brief
    fields: tuple[BriefField, ...]


def disagreements(session: Session, *, limit: int = 50, sight: Sight = ALL) -> list[Disagreement]:
    """Undecided disagreements of the adapter on trial, those in a label first, then the newest.

    Only with briefs that stand in the queue now: what a later email of the conversation replaced is settled.
    """
    confirmed = select(Confirmation.brief_id).where(Confirmation.strength == "strong")
    different = (getattr(_SHADOW, field) != getattr(Brief, field) for field in BRIEF_FIELDS)
    labels = or_(_SHADOW.priority != Brief.priority, _SHADOW.category != Brief.category)
    query = (
        select(Conversation, Brief, _SHADOW)
        .join(Brief, col(Conversation.brief_id) == col(Brief.id))
        .join(_SHADOW, col(_SHADOW.email_id) == col(Brief.email_id))
        .join(Adapter, col(_SHADOW.adapter) == col(Adapter.name))
        .where(Adapter.state == "shadow", col(_SHADOW.shadow).is_(True), or_(*different))
        .where(col(Brief.id).not_in(confirmed), sight.where(Conversation.mailbox_id))
        .order_by(labels.desc(), col(_SHADOW.id).desc())
    )
    rows: list[Disagreement] = []
    for conversation, shown, shadow in session.exec(query):
        if fields := _open_fields(conversation, shown, shadow):
            rows.append(Disagreement(conversation, shown, shadow, fields))
        if len(rows) == limit:
            break
    return rows


def pick(session: Session, shadow_id: int, choice: Choice, *, user: User) -> list[Correction]:
    """What a person says of a disagreement; `shadow_id` is the id of the brief by the adapter on trial.

    Picking its values corrects the open fields, picking the shown ones confirms the shown brief, both as an agent
    does in the queue. A second delivery changes nothing. Raises NotFoundError; ConflictError when the queue shows
    another brief of the email by now; InvalidValueError for a value that no agent could enter.
    """
    shadow = session.get(Brief, shadow_id)
    if shadow is None or not shadow.shadow:
        raise NotFoundError(f"There is no brief {shadow_id} by an adapter on trial.")
    conversation = conversations.get(session, shadow.conversation_id)
    shown = session.get(Brief, conversation.brief_id) if conversation.brief_id else None
    if shown is None or shown.email_id != shadow.email_id:
        raise ConflictError(
            "A later email of the conversation was briefed in the meantime; nothing was picked. Look at the newer brief."
        )
    fields = _open_fields(conversation, shown, shadow)
    made: list[Correction] = []
    if choice == "shown":
        conversations.confirm(session, conversation.id, user=user)
    else:
        for field in fields:
            correction = conversations.correct(
                session,
                conversation.id,
                field,
                getattr(shadow, field),
                user=user,
                before=getattr(shown, field),
                reason=f"picked from {shadow.adapter} on trial",
                idempotency_key=f"shadow-{shadow.id}-{field}",
            )
            made += [correction] if correction is not None else []
    return made


def _open_fields(conversation: Conversation, shown: Brief, shadow: Brief) -> tuple[BriefField, ...]:
    """Fields in which the two differ and that no agent has touched."""
    return tuple(
        field
        for field in BRIEF_FIELDS
        if field not in conversation.touched and getattr(shown, field) != getattr(shadow, field)
    )
