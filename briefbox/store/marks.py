"""What a row of the queue says about the mails of a conversation, without reading them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, or_, select

from briefbox.schemas import WorkState
from briefbox.tables import Email

_UNBRIEFED = (WorkState.WAITING, WorkState.RUNNING, WorkState.DEAD)


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one conversation."""

    being_read: bool = False  # a mail of it has no brief yet
    failed: bool = False  # a mail of it could not be briefed
    instructed: bool = False  # a mail of it contains text addressed to an assistant
    num_attachments: int = 0


NONE = Marks()


def of(session: Session, ids: Sequence[int]) -> dict[int, Marks]:
    """The marks of these conversations; one without any is left out."""
    if not ids:
        return {}
    query = (
        select(
            Email.conversation_id,
            Email.work_state,
            Email.instructions_found,
            func.sum(Email.num_attachments),
        )
        .where(
            col(Email.conversation_id).in_(ids),
            or_(
                col(Email.work_state).in_(_UNBRIEFED),
                col(Email.instructions_found),
                Email.num_attachments > 0,
            ),
        )
        .group_by(col(Email.conversation_id), col(Email.work_state), col(Email.instructions_found))
    )
    found: dict[int, Marks] = {}
    for id_, state, instructed, attachments in session.exec(query).all():
        if id_ is None:
            continue
        before = found.get(id_, NONE)
        found[id_] = Marks(
            being_read=before.being_read or state in (WorkState.WAITING, WorkState.RUNNING),
            failed=before.failed or state == WorkState.DEAD,
            instructed=before.instructed or instructed,
            num_attachments=before.num_attachments + int(attachments),
        )
    return found
