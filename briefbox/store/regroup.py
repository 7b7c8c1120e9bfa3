"""Taking conversations apart and putting them together by hand.

What was said of a mail goes where the mail goes: its briefs, and the corrections and confirmations of these. Ids are
told anew from the mails of both conversations, so that a later answer finds the right one.

Locks are taken in one order, emails before conversations and each by id: a worker that stores a brief does the same.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import String, cast, delete
from sqlmodel import Session, col, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.schemas import BRIEF_FIELDS, EmailKind, ParsedEmail, WorkState
from briefbox.store import audit_log, conversations, search
from briefbox.store.thread_keys import subject_key
from briefbox.store.thread_match import ids_of, our_addresses, people_of
from briefbox.store.threads import store_ids
from briefbox.tables import AuditEntry, Brief, Confirmation, Conversation, Correction, Email, ThreadId

MERGED = "conversation merged"


def split(session: Session, email_id: int, *, actor: str, with_later: bool = False) -> Conversation:
    """Move a mail, or it and all later ones, from its conversation to a new one, which is open.

    Undone by merging the new one back. Raises NotFoundError; InvalidValueError when nothing would stay behind.
    """
    email = session.get(Email, email_id)
    if email is None or email.conversation_id is None:
        raise NotFoundError(f"There is no email {email_id} in a conversation.")
    _lock_emails(session, [email.conversation_id])
    [source] = _lock(session, [email.conversation_id])
    mails = _mails(session, source.id)
    at = next((i for i, mail in enumerate(mails) if mail.id == email_id), None)
    if at is None:
        raise ConflictError(f"Email {email_id} was moved in the meantime; nothing was split.")
    leaving = mails[at:] if with_later else [mails[at]]
    if len(leaving) == len(mails):
        raise InvalidValueError(
            f"Conversation {source.id} has no other mail, so that nothing would stay in it; split from a later one."
        )
    target = _opened(session, source, leaving)
    staying = [mail for mail in mails if mail not in leaving]
    _move(session, leaving, source.id, target.id)
    if not any(_wants_answer(mail) and mail.received_at == source.waiting_since for mail in staying):
        _wait(source, staying)
    for conversation in (source, target):
        show_again(session, conversation)
        _tell_anew(session, conversation)
    audit_log.record(
        session,
        actor,
        "conversation split",
        str(source.id),
        into=target.id,
        emails=[mail.id for mail in leaving],
    )
    return target


def merge(session: Session, from_id: int, into_id: int, *, actor: str) -> Conversation:
    """Move all mail of one conversation into another, which keeps what agents said of it. Returns the other.

    Raises NotFoundError; InvalidValueError for two that cannot be one; ConflictError when one was merged already.
    """
    if from_id == into_id:
        raise InvalidValueError(f"Conversation {from_id} cannot be merged into itself.")
    _lock_emails(session, [from_id, into_id])
    by_id = {row.id: row for row in _lock(session, [from_id, into_id])}
    source, target = by_id[from_id], by_id[into_id]
    if source.mailbox_id != target.mailbox_id:
        raise InvalidValueError(
            f"Conversations {from_id} and {into_id} are of two mailboxes; only those of one can be merged."
        )
    kept: dict[str, str] = {f: getattr(target, f) for f in BRIEF_FIELDS if f in target.touched}
    moved = _mails(session, source.id)
    said = _move(session, moved, source.id, target.id, whole=True)
    followers = list(session.exec(select(Conversation.id).where(Conversation.merged_into == source.id)))
    audit_log.record(
        session,
        actor,
        MERGED,
        str(source.id),
        into=target.id,
        emails=[mail.id for mail in moved],
        corrections=said,
        followers=followers,
        state=source.state,
    )
    _wait_like_either(source, target)
    source.state, source.merged_into = "merged", target.id
    session.exec(
        update(Conversation).where(col(Conversation.merged_into) == source.id).values(merged_into=target.id)
    )
    show_again(session, source)
    show_again(session, target, kept=kept)
    for conversation in (source, target):
        _tell_anew(session, conversation)
    return target


def unmerge(session: Session, from_id: int, *, actor: str, out_of: int | None = None) -> Conversation:
    """Undo a merge: the mails that came from this conversation go back to it, as far as they still are together.

    `out_of` is where the caller believes them to be. Raises NotFoundError; ConflictError when it is not merged, or nothing can go back.
    """
    source = session.get(Conversation, from_id)
    if source is None:
        raise NotFoundError(f"There is no conversation {from_id}.")
    if source.state != "merged" or source.merged_into is None:
        raise ConflictError(f"Conversation {from_id} is not merged into another one.")
    if out_of not in (None, source.merged_into):
        raise ConflictError(f"Conversation {from_id} is merged into {source.merged_into}, not into {out_of}.")
    entry = session.exec(
        select(AuditEntry)
        .where(AuditEntry.action == MERGED, AuditEntry.object == str(from_id))
        .order_by(col(AuditEntry.id).desc())
    ).first()
    into_id = source.merged_into
    _lock_emails(session, [into_id])
    by_id = {row.id: row for row in _lock(session, [from_id, into_id], merged_too=True)}
    source, target = by_id[from_id], by_id[into_id]
    mails = _mails(session, into_id)
    going = [mail for mail in mails if entry is not None and mail.id in entry.detail["emails"]]
    if entry is None or not going or len(going) == len(mails):
        raise ConflictError(
            f"The mails of conversation {from_id} are no longer beside others in {into_id}; split it by hand instead."
        )
    source.state, source.merged_into = entry.detail["state"], None
    _move(session, going, into_id, from_id, corrections=entry.detail["corrections"])
    session.exec(
        update(Conversation)
        .where(col(Conversation.id).in_(entry.detail["followers"]), col(Conversation.state) == "merged")
        .values(merged_into=from_id)
    )
    for conversation in (source, target):
        show_again(session, conversation)
        _tell_anew(session, conversation)
    audit_log.record(session, actor, "conversation merge undone", str(from_id), out_of=into_id)
    return source


def show_again(session: Session, conversation: Conversation, *, kept: dict[str, str] | None = None) -> None:
    """Write what a conversation shows from its newest brief and what agents said last; `kept` stands above both."""
    brief = session.exec(
        select(Brief)
        .join(Email, col(Brief.email_id) == col(Email.id))
        .where(
            Brief.conversation_id == conversation.id,
            col(Brief.shadow).is_(False),
            Email.work_state != WorkState.NONE,
        )
        .order_by(col(Email.received_at).desc(), col(Brief.id).desc())
    ).first()
    said: dict[str, str] = {}
    about: dict[str, int | None] = {}
    for correction in session.exec(
        select(Correction)
        .where(Correction.conversation_id == conversation.id, col(Correction.undone_at).is_(None))
        .order_by(col(Correction.id))
    ):
        said[correction.field], about[correction.field] = correction.after, correction.brief_id
    said |= kept or {}
    for field in BRIEF_FIELDS:
        setattr(conversation, field, said.get(field) or (getattr(brief, field) if brief else ""))
    conversation.brief_id = brief.id if brief else None
    conversation.touched = sorted(said)
    conversation.suggestion = {
        field: getattr(brief, field)
        for field, value in said.items()
        if brief is not None and about.get(field) != brief.id and getattr(brief, field) != value
    }
    confirmed = (
        brief is not None
        and session.exec(
            select(Confirmation.id).where(
                Confirmation.brief_id == brief.id,
                Confirmation.strength == "strong",
                col(Confirmation.undone_at).is_(None),
            )
        ).first()
    )
    doubtful = brief.needs_human if brief is not None and not confirmed else []
    conversation.needs_human = [field for field in doubtful if field not in said]
    conversation.priority_rank = conversations.rank(conversation.priority)
    conversations.changed(session, conversation)
    session.flush()
    search.note_conversation(session, conversation)


# --- parts


def _lock_emails(session: Session, conversation_ids: Collection[int]) -> None:
    session.exec(
        select(Email.id)
        .where(col(Email.conversation_id).in_(conversation_ids))
        .order_by(col(Email.id))
        .with_for_update()
    ).all()


def _lock(session: Session, ids: Sequence[int], *, merged_too: bool = False) -> list[Conversation]:
    rows = session.exec(
        select(Conversation)
        .where(col(Conversation.id).in_(ids))
        .order_by(col(Conversation.id))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    missing = set(ids) - {row.id for row in rows}
    if missing:
        raise NotFoundError(f"There is no conversation {min(missing)}.")
    for row in rows:
        if not merged_too:
            conversations.refuse_merged(row)
    return list(rows)


def _mails(session: Session, conversation_id: int) -> list[Email]:
    query = select(Email).where(Email.conversation_id == conversation_id)
    query = query.execution_options(populate_existing=True)
    return list(session.exec(query.order_by(col(Email.received_at), col(Email.id))))


def _move(
    session: Session,
    mails: Sequence[Email],
    source_id: int,
    target_id: int,
    *,
    whole: bool = False,
    corrections: Collection[int] = (),
) -> list[int]:
    """Move mails with all that was said of them. Returns the ids of the corrections that went along.

    `whole`: also corrections that are about no brief; `corrections`: also these.
    """
    for mail in mails:
        mail.conversation_id = target_id
        session.add(mail)
    session.flush()
    briefs = list(session.exec(select(Brief.id).where(col(Brief.email_id).in_([mail.id for mail in mails]))))
    session.exec(update(Brief).where(col(Brief.id).in_(briefs)).values(conversation_id=target_id))
    session.exec(
        update(Confirmation).where(col(Confirmation.brief_id).in_(briefs)).values(conversation_id=target_id)
    )
    about = col(Correction.brief_id).in_(briefs) | col(Correction.id).in_(corrections)
    if whole:
        about |= col(Correction.brief_id).is_(None)
    going = list(session.exec(select(Correction.id).where(Correction.conversation_id == source_id, about)))
    session.exec(
        update(Correction)
        .where(col(Correction.id).in_(going))
        .values(
            conversation_id=target_id,
            # Unique within a conversation; the one it comes to may have the same.
            idempotency_key=col(Correction.idempotency_key) + "@" + cast(col(Correction.id), String),
        )
    )
    return going


def _opened(session: Session, source: Conversation, mails: Sequence[Email]) -> Conversation:
    first = next((mail for mail in mails if mail.kind == EmailKind.CUSTOMER), mails[0])
    moment = now(session)
    conversation = Conversation(
        mailbox_id=source.mailbox_id,
        subject=first.subject,
        subject_key=subject_key(first.subject),
        customer_name=first.from_name,
        customer_address=first.from_address.strip().lower(),
        waiting_since=first.received_at,
        opened_at=moment,
        updated_at=moment,
    )
    _wait(conversation, mails)
    session.add(conversation)
    session.flush()
    return conversation


def _wants_answer(mail: Email) -> bool:
    return mail.kind != EmailKind.OWN and (
        mail.kind == EmailKind.CUSTOMER or mail.work_state != WorkState.NONE
    )


def _wait(conversation: Conversation, mails: Sequence[Email]) -> None:
    """Since when it waits, as its mails in their order tell it."""
    since, answered_at = None, None
    for mail in mails:
        if mail.kind == EmailKind.OWN and since is not None:
            answered_at = mail.received_at
        elif _wants_answer(mail) and (since is None or answered_at is not None):
            since, answered_at = mail.received_at, None
    conversation.waiting_since = since or conversation.waiting_since
    conversation.answered_at = answered_at
    if conversation.state in ("open", "answered"):
        conversation.state = "open" if answered_at is None else "answered"


def _wait_like_either(source: Conversation, target: Conversation) -> None:
    """Of two that become one: open if either is, waiting since the one that has waited longer."""
    if source.state == "done":
        return
    if target.state == "done":
        target.state, target.done_at, target.done_by = source.state, None, None
        target.snoozed_until = source.snoozed_until
        target.waiting_since, target.answered_at = source.waiting_since, source.answered_at
        return
    waiting = [c.waiting_since for c in (source, target) if c.answered_at is None]
    if waiting:
        target.waiting_since, target.answered_at = min(waiting), None
        if "open" in (source.state, target.state) or target.state == "answered":
            target.state, target.snoozed_until = "open", None


def _tell_anew(session: Session, conversation: Conversation) -> None:
    """Write from its mails what later mail is told by: ids, participants, their number."""
    ours = our_addresses(session, conversation.mailbox_id)
    ids: dict[tuple[str, int], bool] = {}
    participants: set[str] = set()
    mails = _mails(session, conversation.id)
    for mail in mails:
        parsed = ParsedEmail.model_validate(mail.parsed)
        participants |= people_of(parsed, ours)
        for key, held in ids_of(parsed).items():
            ids[key, conversation.id] = held or ids.get((key, conversation.id), False)
    session.exec(delete(ThreadId).where(col(ThreadId.conversation_id) == conversation.id))
    store_ids(session, conversation.mailbox_id, ids)
    conversation.participants = sorted(participants)
    conversation.num_emails = len(mails)
    session.add(conversation)
    session.flush()
