"""Mail that is not briefed, why, and how a person overrules it, in either direction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session, col, func, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.schemas import UNFINISHED, EmailKind, LedgerState, ParsedEmail, WorkState
from briefbox.store import activities, audit_log, conversations, dead_letters, threads
from briefbox.store.handling import Handling
from briefbox.store.regroup import show_again
from briefbox.tables import Conversation, DeadLetter, Email, LedgerEntry, Mailbox

MAX_REASON = 200
STATES = (LedgerState.QUEUED, LedgerState.SKIPPED)

_ALREADY = {
    WorkState.WAITING: "waits for its brief already",
    WorkState.RUNNING: "is being briefed just now",
    WorkState.DONE: "has its brief already",
    WorkState.DEAD: "could not be briefed; try again with: briefbox dead-letters retry",
}


@dataclass(frozen=True, slots=True)
class StoredEmail:
    """A stored mail with where it ended."""

    entry: LedgerEntry
    email: Email
    mailbox: Mailbox


def stored(
    session: Session,
    *,
    mailbox_id: int | None = None,
    kind: str = "",
    state: str = "",
    without: Collection[EmailKind] = (),
    before: int | None = None,
    limit: int = 50,
) -> list[StoredEmail]:
    """Stored mail by ledger state and kind, the newest first; `before` is the last row's `entry.id`.

    Raises InvalidValueError for a kind or a state that there is none of.
    """
    _one_of("kind", kind, [k.value for k in EmailKind])
    _one_of("state", state, [s.value for s in STATES])
    query = (
        select(LedgerEntry, Email, Mailbox)
        .join(Email, col(LedgerEntry.email_id) == col(Email.id))
        .join(Mailbox, col(Email.mailbox_id) == col(Mailbox.id))
        .where(col(LedgerEntry.state).in_([state] if state else STATES))
    )
    if mailbox_id is not None:
        query = query.where(Email.mailbox_id == mailbox_id)
    if kind:
        query = query.where(Email.kind == kind)
    if without:
        query = query.where(col(Email.kind).not_in(without))
    if before is not None:
        query = query.where(col(LedgerEntry.id) < before)
    found = session.exec(query.order_by(col(LedgerEntry.id).desc()).limit(limit))
    return [StoredEmail(entry, email, mailbox) for entry, email, mailbox in found]


def num_skipped(session: Session) -> dict[str, int]:
    """How much mail of each kind is skipped."""
    rows = session.exec(
        select(Email.kind, func.count())
        .join(LedgerEntry, col(LedgerEntry.email_id) == col(Email.id))
        .where(LedgerEntry.state == LedgerState.SKIPPED)
        .group_by(Email.kind)
        .order_by(Email.kind)
    )
    return dict(rows.all())


def overrule(session: Session, email_id: int, *, actor: str, handling: Handling = Handling()) -> Email:
    """Brief a mail after all: it becomes customer mail by hand and stands in the queue. The caller sends the hint.

    Raises NotFoundError; ConflictError when it is briefed or waits for it.
    """
    email = _locked(session, email_id)
    if email.work_state != WorkState.NONE:
        raise ConflictError(f"Email {email_id} {_ALREADY[WorkState(email.work_state)]}.")
    moment = now(session)
    was = email.kind
    before = f"{email.kind}: {email.kind_reason}" if email.kind_reason else email.kind
    email.kind, email.kind_reason = EmailKind.CUSTOMER, f"By hand, by {actor}. Before: {before}"
    email.work_state, email.attempts, email.not_before = WorkState.WAITING, 0, moment
    email.backfill = False  # a person waits for it
    session.add(email)
    if email.conversation_id is None:
        parsed = ParsedEmail.model_validate(email.parsed)
        opening = replace(handling, brief_kinds=handling.brief_kinds | {EmailKind.CUSTOMER.value})
        turns = threads.place(session, email.mailbox_id, [(parsed, email)], handling=opening)
        threads.record_turns(session, turns)
        conversations.touch(session, email.conversation_id, moment)
    else:
        conversation = session.exec(
            select(Conversation).where(Conversation.id == email.conversation_id).with_for_update()
        ).one()
        state = conversation.state
        threads.wait_again(conversation, email.received_at)
        if state != "open" and conversation.state == "open":
            activities.record(session, conversation, None, "reopened", email=email.id, was=state)
        conversations.changed(session, conversation)
    _end(session, email, LedgerState.QUEUED, "")
    audit_log.record(session, actor, "email briefed by hand", str(email.id), was=was)
    return email


def skip(
    session: Session, email_id: int, reason: str, *, actor: str, kind: EmailKind = EmailKind.SPAM
) -> Email:
    """Take a mail out of what is briefed. A conversation that holds no other for the agents is done.

    Raises NotFoundError; InvalidValueError without a reason or for the kind customer; ConflictError when it is
    skipped already.
    """
    reason = " ".join(reason.split())[:MAX_REASON]
    if not reason:
        raise InvalidValueError("A mail is skipped with a reason; expected a few words (--reason).")
    if kind == EmailKind.CUSTOMER:
        raise InvalidValueError("Customer mail is not skipped; expected another kind (--kind).")
    email = _locked(session, email_id)
    if email.work_state == WorkState.NONE:
        raise ConflictError(f"Email {email_id} is not briefed already ({email.kind}: {email.kind_reason}).")
    was = email.kind
    email.kind, email.kind_reason = kind, f"By hand, by {actor}: {reason}"
    email.work_state = WorkState.NONE
    email.lease_owner, email.lease_token, email.lease_until = "", "", None
    session.add(email)
    session.flush()
    _end(session, email, LedgerState.SKIPPED, f"{email.kind}: {email.kind_reason}")
    _leave_queue(session, email)
    # Only now: the audit log's lock is taken after those of rows, everywhere.
    for letter in session.exec(
        select(DeadLetter).where(DeadLetter.email_id == email.id, col(DeadLetter.resolved_at).is_(None))
    ).all():
        dead_letters.resolve(session, letter, "skipped by hand", actor=actor)
    audit_log.record(session, actor, "email skipped by hand", str(email.id), was=was, reason=reason)
    return email


def _locked(session: Session, email_id: int) -> Email:
    email = session.exec(select(Email).where(Email.id == email_id).with_for_update()).first()
    if email is None:
        raise NotFoundError(f"There is no email {email_id}. List them with: briefbox email list")
    return email


def _end(session: Session, email: Email, state: LedgerState, reason: str) -> None:
    session.exec(
        update(LedgerEntry)
        .where(col(LedgerEntry.email_id) == email.id, col(LedgerEntry.state).in_(STATES))
        .values(state=state, reason=reason)
    )


def _leave_queue(session: Session, email: Email) -> None:
    if email.conversation_id is None:
        return
    conversation = session.exec(
        select(Conversation).where(Conversation.id == email.conversation_id).with_for_update()
    ).one()
    others = session.exec(
        select(Email.id).where(Email.conversation_id == conversation.id, Email.work_state != WorkState.NONE)
    ).first()
    if others is None and conversation.state in UNFINISHED:
        conversation.state, conversation.done_at = "done", now(session)
        conversation.snoozed_until = None
    show_again(session, conversation)


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value and value not in allowed:
        raise InvalidValueError(f"The {name} “{value}” is none of {', '.join(allowed)}.")
