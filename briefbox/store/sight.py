"""Which mailboxes a person sees, and with them which conversations and emails: the one place that decides it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, true
from sqlmodel import Session, col, select

from briefbox.errors import NotFoundError
from briefbox.tables import Conversation, Email, MailboxAccess, User


@dataclass(frozen=True, slots=True)
class Sight:
    """The mailboxes that are seen; None is all of them."""

    mailboxes: frozenset[int] | None = None

    @classmethod
    def of(cls, session: Session, user: User) -> "Sight":
        """What this person sees: admins everything, others what an admin gave them."""
        if user.role == "admin" or user.all_mailboxes:
            return ALL
        rows = session.exec(select(MailboxAccess.mailbox_id).where(MailboxAccess.user_id == user.id))
        return cls(frozenset(rows))

    def sees(self, mailbox_id: int) -> bool:
        """Whether this mailbox is among them."""
        return self.mailboxes is None or mailbox_id in self.mailboxes

    def where(self, column: Any) -> ColumnElement[bool]:
        """The condition on a column of mailbox ids."""
        return true() if self.mailboxes is None else col(column).in_(sorted(self.mailboxes))

    def check_mailbox(self, mailbox_id: int) -> None:
        """Raises NotFoundError, the same for what is not there and for what is not seen."""
        if not self.sees(mailbox_id):
            raise NotFoundError(f"There is no mailbox {mailbox_id}.")

    def check_conversation(self, session: Session, conversation_id: int) -> None:
        """Raises NotFoundError, the same for what is not there and for what is not seen."""
        query = select(Conversation.mailbox_id).where(Conversation.id == conversation_id)
        mailbox_id = session.exec(query).first()
        if mailbox_id is None or not self.sees(mailbox_id):
            raise NotFoundError(f"There is no conversation {conversation_id}.")

    def check_email(self, session: Session, email_id: int) -> None:
        """Raises NotFoundError, the same for what is not there and for what is not seen."""
        mailbox_id = session.exec(select(Email.mailbox_id).where(Email.id == email_id)).first()
        if mailbox_id is None or not self.sees(mailbox_id):
            raise NotFoundError(f"There is no email {email_id}.")


ALL = Sight()
