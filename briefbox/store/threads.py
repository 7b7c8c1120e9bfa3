"""Which conversation an email belongs to.

An email joins the conversation of a mail that its In-Reply-To or References names, within one mailbox.
An empty Message-ID joins nothing: strangers must never share a conversation.
"""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from briefbox.schemas import EmailKind, ParsedEmail, WorkState
from briefbox.tables import Conversation, Email


def place(session: Session, mailbox_id: int, emails: Sequence[tuple[ParsedEmail, Email]]) -> None:
    """Give each new email its conversation: the one it answers, or a new one (customer mail only)."""
    threads = _conversations_named(session, mailbox_id, [parsed for parsed, _ in emails])
    joined: list[tuple[Email, Conversation]] = []
    for parsed, email in emails:
        conversation = next((threads[i] for i in _named(parsed) if i in threads), None)
        if conversation is None and parsed.kind == EmailKind.CUSTOMER:
            conversation = _open(email)
        if conversation is None:
            continue
        _join(conversation, email)
        joined.append((email, conversation))
        if parsed.message_id:
            threads[parsed.message_id] = conversation
    session.add_all(conversation for _, conversation in joined)
    session.flush()
    for email, conversation in joined:
        email.conversation_id = conversation.id


def _named(parsed: ParsedEmail) -> list[str]:
    """The ids an email refers to, nearest first."""
    return [i for i in (*parsed.in_reply_to, *reversed(parsed.references)) if i]


def _conversations_named(
    session: Session, mailbox_id: int, parsed: Sequence[ParsedEmail]
) -> dict[str, Conversation]:
    ids = {i for p in parsed for i in _named(p)}
    if not ids:
        return {}
    rows = session.exec(
        select(Email.message_id, Conversation)
        .join(Conversation, col(Email.conversation_id) == col(Conversation.id))
        .where(Email.mailbox_id == mailbox_id, col(Email.message_id).in_(ids))
    )
    return dict(rows.all())


def _open(email: Email) -> Conversation:
    return Conversation(
        mailbox_id=email.mailbox_id,
        subject=email.subject,
        customer_name=email.from_name,
        customer_address=email.from_address,
        waiting_since=email.received_at,
        opened_at=email.created_at,
        updated_at=email.created_at,
    )


def _join(conversation: Conversation, email: Email) -> None:
    conversation.num_emails += 1
    conversation.version += 1
    conversation.updated_at = email.created_at
    if email.work_state == WorkState.WAITING and conversation.state == "done":
        # A customer who writes again is waiting again.
        conversation.state, conversation.done_at, conversation.done_by = "open", None, None
        conversation.waiting_since = email.received_at
