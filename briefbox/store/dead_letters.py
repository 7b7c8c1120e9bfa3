"""Dead letters: what we gave up on, why, and the way back."""

from sqlmodel import Session, col, select, update

from briefbox.db import now
from briefbox.errors import NotFoundError
from briefbox.schemas import WorkState
from briefbox.store import audit_log
from briefbox.tables import DeadLetter, Email


def unresolved(session: Session, *, limit: int = 200) -> list[DeadLetter]:
    """Open dead letters, newest first."""
    query = (
        select(DeadLetter).where(col(DeadLetter.resolved_at).is_(None)).order_by(col(DeadLetter.id).desc())
    )
    return list(session.exec(query.limit(limit)))


def open_of(session: Session, mailbox_id: int) -> list[DeadLetter]:
    """The open dead letters of one mailbox, oldest first."""
    query = select(DeadLetter).where(
        DeadLetter.mailbox_id == mailbox_id, col(DeadLetter.resolved_at).is_(None)
    )
    return list(session.exec(query.order_by(col(DeadLetter.id))))


def get(session: Session, letter_id: int) -> DeadLetter:
    """Raises NotFoundError."""
    letter = session.get(DeadLetter, letter_id)
    if letter is None:
        raise NotFoundError(
            f"There is no dead letter {letter_id}. List them with: briefbox dead-letters list"
        )
    return letter


def needs_server(letter: DeadLetter) -> bool:
    """Whether its bytes were never received, so that a retry has to ask the mailbox server."""
    return letter.stage != "brief" and letter.raw_id is None


def retry_brief(session: Session, letter: DeadLetter, *, actor: str) -> int | None:
    """Offer the email of a brief-stage dead letter to the workers again. Returns the email's id."""
    if letter.email_id is None or letter.resolved_at is not None:
        return None
    session.exec(
        update(Email)
        .where(col(Email.id) == letter.email_id, col(Email.work_state) == WorkState.DEAD)
        .values(work_state=WorkState.WAITING, attempts=0, not_before=now(session))
    )
    resolve(session, letter, "retried", actor=actor)
    return letter.email_id


def resolve(session: Session, letter: DeadLetter, resolution: str, *, actor: str) -> None:
    """Close a dead letter; the row stays."""
    letter.resolved_at, letter.resolution = now(session), resolution
    session.add(letter)
    audit_log.record(session, actor, "dead letter resolved", str(letter.id), resolution=resolution)
