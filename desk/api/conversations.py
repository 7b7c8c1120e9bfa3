"""Conversations: list, get, correct, confirm, assign, snooze, finish, reopen, undo, notes, activities."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.errors import ConflictError, NotFoundError
from briefbox.store import actions, activities, conversations, queue
from briefbox.store.filters import Filter
from desk.api import answers
from desk.api.access import Reading, Writing
from desk.api.answers import Once, OnceOnly
from desk.api.conversation_models import (
    ActivityOut,
    Assignment,
    ConversationOut,
    Fields,
    NoteIn,
    NoteOut,
    Snooze,
    Undo,
    activity_out,
    conversation_out,
    current,
    note_out,
)
from desk.api.models import After, Id, Limit, Page
from desk.context import TheDesk

router = APIRouter(prefix="/conversations", tags=["conversations"])

Many = Annotated[list[str], Query(max_length=50)]
IfMatch = Annotated[
    str,
    Header(
        alias="If-Match",
        description="The ETag of what you saw: 412 with the newer contents when it has changed since.",
    ),
]


@router.get(
    "", response_model=Page[ConversationOut], summary="List conversations, by the filters of the queue"
)
def list_conversations(
    request: Request,
    desk: TheDesk,
    caller: Reading,
    state: Annotated[str, Query(description="open, snoozed, answered, done or all.")] = "",
    mailbox: Many = [],  # noqa: B006 - FastAPI copies it
    priority: Many = [],  # noqa: B006
    category: Many = [],  # noqa: B006
    assigned: Annotated[str, Query(description="me, none, or a user's id.")] = "",
    human: Annotated[str, Query(description="1: only those with labels that need a human.")] = "",
    overdue: Annotated[
        str, Query(description="1: only those beyond the answer time of their priority.")
    ] = "",
    q: Annotated[str, Query(max_length=200, description="Full text: subject, sender, mail, brief.")] = "",
    limit: Limit = 50,
    after: After = "",
) -> Response:
    """In the order of the queue: of open ones the most urgent first, then who has waited longest.

    Values of one filter are alternatives, filters add up. A page may hold fewer than `limit` although there is a
    `next`: then the filter matches little, and the next page looks on from there.
    """
    wanted = Filter.from_query(request.query_params, me=caller.user.id)
    with desk.database.read() as session:
        found = queue.page(session, wanted, sight=caller.sight, after=after, limit=limit)
        items = [conversation_out(session, row) for row in found.conversations]
    return answers.page(request, items, found.next or None)


@router.get("/{conversation_id}", response_model=ConversationOut, summary="Get a conversation")
def get_conversation(request: Request, desk: TheDesk, caller: Reading, conversation_id: Id) -> Response:
    """One that was merged is told as merged, with where its emails are."""
    with desk.database.read() as session:
        return answers.one(request, current(session, conversation_id))


@router.patch("/{conversation_id}", response_model=ConversationOut, summary="Correct fields of the brief")
def correct(
    caller: Writing, once: OnceOnly, conversation_id: Id, fields: Fields, if_match: IfMatch = ""
) -> Response:
    """Each changed field is a correction by the token's owner: it is learned from, and no model writes it again."""

    def change(session: Session) -> None:
        for name, value in fields.given.items():
            conversations.correct(
                session, conversation_id, name, value, user=caller.user, reason=fields.reason
            )

    return _changed(once, conversation_id, change)


@router.post(
    "/{conversation_id}/confirm", response_model=ConversationOut, summary="Say that the brief is right"
)
def confirm(caller: Writing, once: OnceOnly, conversation_id: Id, if_match: IfMatch = "") -> Response:
    """Recorded as a confirmation by the token's owner. 409 where there is no brief yet."""

    def change(session: Session) -> None:
        if conversations.confirm(session, conversation_id, user=caller.user) is None:
            raise ConflictError(
                f"Conversation {conversation_id} has no brief yet that could be confirmed; try again when it has."
            )

    return _changed(once, conversation_id, change)


@router.post("/{conversation_id}/assign", response_model=ConversationOut, summary="Give it to somebody")
def assign(
    caller: Writing, once: OnceOnly, conversation_id: Id, to: Assignment, if_match: IfMatch = ""
) -> Response:
    """To somebody who sees its mailbox, or to nobody."""
    return _changed(
        once,
        conversation_id,
        lambda session: actions.assign(session, conversation_id, to.user_id, user=caller.user),
    )


@router.post("/{conversation_id}/snooze", response_model=ConversationOut, summary="Put it off until a time")
def snooze(
    caller: Writing, once: OnceOnly, conversation_id: Id, snooze: Snooze, if_match: IfMatch = ""
) -> Response:
    """It comes back at that time, or with a new email."""
    return _changed(
        once,
        conversation_id,
        lambda session: actions.snooze(session, conversation_id, snooze.until, user=caller.user),
    )


@router.post("/{conversation_id}/done", response_model=ConversationOut, summary="Finish it")
def done(caller: Writing, once: OnceOnly, conversation_id: Id, if_match: IfMatch = "") -> Response:
    """A new email of the customer opens it again."""
    return _changed(
        once,
        conversation_id,
        lambda session: conversations.finish(session, conversation_id, user=caller.user),
    )


@router.post(
    "/{conversation_id}/reopen", response_model=ConversationOut, summary="Put it back into the queue"
)
def reopen(caller: Writing, once: OnceOnly, conversation_id: Id, if_match: IfMatch = "") -> Response:
    """From done, snoozed or answered."""
    return _changed(
        once,
        conversation_id,
        lambda session: conversations.reopen(session, conversation_id, user=caller.user),
    )


@router.post("/{conversation_id}/undo", response_model=ConversationOut, summary="Take an action back")
def undo(
    caller: Writing, once: OnceOnly, conversation_id: Id, which: Undo = Undo(), if_match: IfMatch = ""
) -> Response:
    """One of the token's owner, within an hour; 409 when somebody has changed the same since."""

    def change(session: Session) -> None:
        activity = actions.last_undoable(session, caller.user, conversation_id=conversation_id)
        chosen = which.activity_id if which.activity_id is not None else activity and activity.id
        if chosen is None or chosen not in _ids(session, conversation_id):
            raise NotFoundError(f"There is nothing of yours to undo in conversation {conversation_id}.")
        actions.undo(session, chosen, user=caller.user)

    return _changed(once, conversation_id, change)


@router.get(
    "/{conversation_id}/notes", response_model=Page[NoteOut], summary="List the notes of a conversation"
)
def list_notes(request: Request, desk: TheDesk, caller: Reading, conversation_id: Id) -> Response:
    """All of them, oldest first."""
    with desk.database.read() as session:
        conversations.get(session, conversation_id)
        items = [note_out(*row) for row in actions.notes(session, conversation_id)]
    return answers.page(request, items, None)


@router.post(
    "/{conversation_id}/notes",
    response_model=NoteOut,
    status_code=201,
    summary="Leave a note for other agents",
)
def add_note(caller: Writing, once: OnceOnly, conversation_id: Id, note: NoteIn) -> Response:
    """No customer and no model reads it."""
    return once.do(
        lambda session: note_out(
            actions.note(session, conversation_id, note.text, user=caller.user), caller.user
        ),
        status=201,
    )


@router.get(
    "/{conversation_id}/activities",
    response_model=Page[ActivityOut],
    summary="List what was done with a conversation",
)
def list_activities(request: Request, desk: TheDesk, caller: Reading, conversation_id: Id) -> Response:
    """All of it, oldest first."""
    with desk.database.read() as session:
        conversations.get(session, conversation_id)
        items = [activity_out(*row) for row in activities.of(session, conversation_id)]
    return answers.page(request, items, None)


def _changed(once: Once, conversation_id: int, change: Callable[[Session], object]) -> Response:
    """Make the change if the asker saw the newest, and answer with what it is then."""

    def locked(session: Session) -> ConversationOut:
        conversations.locked(session, conversation_id)  # held, so that nobody changes it after the look
        once.check_match(current(session, conversation_id))
        change(session)
        return current(session, conversation_id)

    return once.do(locked)


def _ids(session: Session, conversation_id: int) -> set[int]:
    return {activity.id for activity, _ in activities.of(session, conversation_id)}
