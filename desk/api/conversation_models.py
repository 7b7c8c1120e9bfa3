"""Conversations as programs see and change them."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator
from sqlmodel import Session

from briefbox.schemas import BRIEF_FIELDS, BriefField
from briefbox.store import actions, conversations
from briefbox.tables import Activity, Conversation, Mailbox, Note, User
from desk.api.models import MAX_ID, Model, Moment

Priority = Literal["urgent", "high", "normal", "low"]
State = Literal["open", "snoozed", "answered", "done", "merged"]


class ConversationOut(Model):
    """One row of the queue: the emails of one thread, and what stands in its brief after the agents."""

    id: int
    mailbox_id: int
    mailbox: str = Field(description="The mailbox's name.")
    state: State
    merged_into: int | None = Field(description="Of a merged one: the conversation that took its emails.")
    subject: str
    customer_name: str
    customer_address: str
    priority: Priority | Literal[""] = Field(description="Empty: not briefed yet.")
    category: str
    headline: str
    summary: str
    needs_human: list[str] = Field(description="Labels that the model was not sure of.")
    touched: list[str] = Field(description="Fields that an agent changed; no model writes them again.")
    suggestion: dict[str, str] = Field(description="What a later brief says about touched fields.")
    brief_id: int | None
    assigned_to: int | None = Field(description="Id of the agent who has it.")
    num_emails: int
    version: int = Field(description="Counts changes.")
    waiting_since: Moment
    answered_at: Moment | None
    snoozed_until: Moment | None
    opened_at: Moment
    updated_at: Moment
    done_at: Moment | None
    link: str = Field(description="Its page on the desk, as a path.")


class Fields(Model):
    """Fields of a brief to correct; the others stay as they are."""

    priority: Priority | None = None
    category: Annotated[str, Field(max_length=200)] | None = None
    headline: Annotated[str, Field(max_length=1000)] | None = None
    summary: Annotated[str, Field(max_length=10_000)] | None = None
    reason: Annotated[str, Field(max_length=200)] = Field(
        default="", description="Why it was wrong, for those who look after the model."
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if not self.given:
            raise ValueError(f"expected one or more of {', '.join(BRIEF_FIELDS)}")
        return self

    @property
    def given(self) -> dict[BriefField, str]:
        """The fields that are to be written."""
        return {name: value for name in BRIEF_FIELDS if (value := getattr(self, name)) is not None}


class Assignment(Model):
    """Who is to have it."""

    user_id: Annotated[int, Field(ge=1, le=MAX_ID)] | None = Field(description="null: nobody.")


class Snooze(Model):
    """Until when it is put off."""

    until: AwareDatetime = Field(description="With its time zone, for example 2026-12-01T09:00:00+01:00.")


class Undo(Model):
    """Which action to take back."""

    activity_id: Annotated[int, Field(ge=1, le=MAX_ID)] | None = Field(
        default=None, description="null: the last one of the token's owner that can be undone."
    )


class NoteIn(Model):
    """A note between agents."""

    text: Annotated[str, Field(min_length=1, max_length=actions.MAX_NOTE)]


class NoteOut(Model):
    """A note between agents; no customer and no model reads it."""

    id: int
    conversation_id: int
    user_id: int
    user_email: str
    text: str
    created_at: Moment


class ActivityOut(Model):
    """Something that was done with a conversation."""

    id: int
    conversation_id: int
    kind: str
    user_id: int | None = Field(description="null: it came about by itself.")
    user_email: str | None
    created_at: Moment
    undone_at: datetime | None


def conversation_out(session: Session, row: Conversation) -> ConversationOut:
    """One row as it goes out."""
    mailbox = session.get(Mailbox, row.mailbox_id)
    same = {name: getattr(row, name) for name in _SAME}
    return ConversationOut(
        **same,
        mailbox=mailbox.name if mailbox is not None else "",
        suggestion={name: str(value) for name, value in row.suggestion.items()},
        link=f"/conversations/{row.id}",
    )


_SAME = tuple(name for name in ConversationOut.model_fields if name not in ("mailbox", "suggestion", "link"))


def current(session: Session, conversation_id: int) -> ConversationOut:
    """As it stands now. Raises NotFoundError."""
    return conversation_out(session, conversations.get(session, conversation_id))


def note_out(note: Note, user: User) -> NoteOut:
    """One note as it goes out."""
    return NoteOut(
        id=note.id,
        conversation_id=note.conversation_id,
        user_id=note.user_id,
        user_email=user.email,
        text=note.text,
        created_at=note.created_at,
    )


def activity_out(activity: Activity, user: User | None) -> ActivityOut:
    """One activity as it goes out."""
    return ActivityOut(
        id=activity.id,
        conversation_id=activity.conversation_id,
        kind=activity.kind,
        user_id=activity.user_id,
        user_email=user.email if user is not None else None,
        created_at=activity.created_at,
        undone_at=activity.undone_at,
    )
