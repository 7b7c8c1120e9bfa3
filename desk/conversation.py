"""One conversation: the brief with what agents say about it, then the mails.

Everything works with plain forms (POST, then redirect to the page); a program that asks for JSON gets JSON.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError
from briefbox.schemas import BRIEF_FIELDS, PRIORITIES, BriefField, ParsedEmail
from briefbox.store import conversations, work
from briefbox.tables import Brief, Conversation, Correction, Email, Mailbox, User
from desk import brief_view, regroup
from desk.access import SignedIn
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.live import stamp
from desk.queue import rows

router = APIRouter(prefix="/conversations/{conversation_id}")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

# Most characters of one mail's text on the page; a browser takes seconds to lay out more.
MAX_SHOWN = 100_000

REASONS = ("too long", "too short", "something is wrong", "something is missing", "unclear", "wrong language")

NOTES = {
    "corrected": "Saved. It will be used in the next training.",
    "unchanged": "That is what it says already; nothing was changed.",
    "confirmed": "Noted as right. It will be used in the next training.",
    "no-brief": "There is no brief yet that could be right.",
    "reopened": "Back in the queue.",
    "split": "This is a conversation of its own now. To undo that, merge it back.",
    "merged": "Merged. All mail of both stands here.",
    "unmerged": "It stands for itself again.",
    "briefed": "It counts as customer mail now; its brief follows.",
    "skipped": "Taken out of what is briefed.",
}


@dataclass(frozen=True, slots=True)
class FieldView:
    """One field of the brief: what stands there, how sure the model was, and who changed it."""

    name: BriefField
    value: str
    corrections: Sequence[tuple[Correction, User]]
    confidence: float | None
    doubtful: bool
    unsure: bool  # the model's value stands there, and nobody knows how sure the model was
    suggestion: str  # what a later brief says, where it differs
    kept: str  # what this agent typed and we could not save


@dataclass(frozen=True, slots=True)
class MailView:
    """One mail as plain text: the new part, and the quoted history to unfold."""

    email: Email
    parsed: ParsedEmail
    text: str
    quoted: str
    num_cut: int


@router.get("")
def conversation_page(request: Request, desk: TheDesk, conversation_id: Id, note: str = "") -> Response:
    """The page; of one that was merged into another, the other's."""
    with desk.database.read() as session:
        standing = conversations.standing(session, conversation_id).id
    if standing != conversation_id:
        return RedirectResponse(f"/conversations/{standing}?note=merged", status_code=303)
    return _page(request, desk, conversation_id, note=NOTES.get(note, ""))


@router.post("/correct")
def correct(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Write one field. `before` is the value that the agent saw."""
    name, value, before = fields.get("field", ""), fields.get("value", ""), fields.get("before")
    try:
        with desk.database.write() as session:
            field = _field(name)
            standing = getattr(conversations.get(session, conversation_id), field)
            correction = conversations.correct(
                session,
                conversation_id,
                field,
                value,
                user=user,
                before=standing if before is not None and _same(before, standing) else before,
                reason=fields.get("reason", ""),
                idempotency_key=fields.get("idempotency_key", "")[:100],
            )
            correction_id = correction.id if correction is not None else None
    except (ConflictError, InvalidValueError) as error:
        if wants_json(request):
            raise
        status = 409 if isinstance(error, ConflictError) else 400
        return _page(request, desk, conversation_id, status=status, problem=str(error), kept={name: value})
    note = "unchanged" if correction_id is None else "corrected"
    return answer(request, f"/conversations/{conversation_id}?note={note}", correction_id=correction_id)


@router.post("/confirm")
def confirm(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn) -> Response:
    """The brief is right as it stands."""
    with desk.database.write() as session:
        confirmation = conversations.confirm(session, conversation_id, user=user)
        confirmation_id = confirmation.id if confirmation is not None else None
    note = "no-brief" if confirmation_id is None else "confirmed"
    return answer(request, f"/conversations/{conversation_id}?note={note}", confirmation_id=confirmation_id)


@router.post("/done")
def done(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn) -> Response:
    """Finish, and go on with the queue."""
    with desk.database.write() as session:
        conversations.finish(session, conversation_id, user=user)
    return answer(request, f"/?done={conversation_id}")


@router.post("/reopen")
def reopen(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn) -> Response:
    """Put it back into the queue."""
    with desk.database.write() as session:
        conversations.reopen(session, conversation_id, user=user)
    return answer(request, f"/conversations/{conversation_id}?note=reopened")


# --- the page


def _page(
    request: Request,
    desk: Desk,
    conversation_id: int,
    *,
    status: int = 200,
    note: str = "",
    problem: str = "",
    kept: dict[str, str] | None = None,
) -> Response:
    with desk.database.read() as session:
        since = stamp(now(session))
        conversation = conversations.standing(session, conversation_id)
        conversation_id = conversation.id
        brief = _brief(session, conversation)
        mails = [_mail(email) for email in conversations.emails(session, conversation_id)]
        return page(
            request,
            "conversation.html",
            status=status,
            note=note,
            problem=problem,
            since=since,
            row=rows(session, [conversation])[0],
            conversation=conversation,
            brief=brief,
            view=_view(session, desk, conversation, brief, mails),
            mailbox=session.get(Mailbox, conversation.mailbox_id),
            fields=_fields(session, conversation, brief, kept or {}),
            confirmations=[
                (c, by)
                for c, by in conversations.confirmations(session, conversation_id)
                if c.strength == "strong" and c.brief_id == conversation.brief_id
            ],
            done_by=session.get(User, conversation.done_by) if conversation.done_by else None,
            mails=mails,
            offered=regroup.offered(session, conversation),
            merged_here=regroup.merged_here(session, conversation),
            skip_kinds=regroup.KINDS,
            priorities=PRIORITIES,
            categories=work.active_categories(session),
            reasons=REASONS,
            limits=conversations.MAX_TEXT,
            idempotency_key=uuid4().hex,
        )


def _brief(session: Session, conversation: Conversation) -> Brief | None:
    """The brief that stands in the conversation; never one of an adapter on trial."""
    brief = session.get(Brief, conversation.brief_id) if conversation.brief_id else None
    return None if brief is None or brief.shadow else brief


def _view(
    session: Session,
    desk: Desk,
    conversation: Conversation,
    brief: Brief | None,
    mails: Sequence[MailView],
) -> brief_view.BriefView | None:
    if brief is None:
        return None
    text = next((mail.text for mail in mails if mail.email.id == brief.email_id), "")
    return brief_view.view(session, desk.settings, conversation, brief, text)


def _fields(
    session: Session, conversation: Conversation, brief: Brief | None, kept: dict[str, str]
) -> dict[str, FieldView]:
    changed: dict[str, list[tuple[Correction, User]]] = defaultdict(list)
    for correction, user in conversations.corrections(session, conversation.id):
        changed[correction.field].append((correction, user))
    confidence: dict[str, Any] = {}
    if brief is not None:
        confidence = {"priority": brief.priority_confidence, "category": brief.category_confidence}

    def view(name: BriefField) -> FieldView:
        value, suggestion = getattr(conversation, name), conversation.suggestion.get(name, "")
        return FieldView(
            name=name,
            value=value,
            corrections=changed[name],
            confidence=confidence.get(name),
            doubtful=name in conversation.needs_human,
            unsure=name in confidence and confidence[name] is None and name not in conversation.touched,
            suggestion=suggestion if suggestion != value else "",
            kept=kept.get(name, ""),
        )

    return {name: view(name) for name in BRIEF_FIELDS}


def _mail(email: Email) -> MailView:
    parsed = ParsedEmail.model_validate(email.parsed)
    text, whole = parsed.reply.strip() or parsed.text.strip(), parsed.text.strip()
    # What follows the new part is history; where the parser took it from the middle, the whole text is.
    quoted = whole.removeprefix(text).strip() if whole != text else ""
    return MailView(
        email=email,
        parsed=parsed,
        text=text[:MAX_SHOWN],
        quoted=quoted[:MAX_SHOWN],
        num_cut=max(0, len(text) - MAX_SHOWN) + max(0, len(quoted) - MAX_SHOWN),
    )


def _field(name: str) -> BriefField:
    for field in BRIEF_FIELDS:
        if field == name:
            return field
    raise InvalidValueError(f"The field “{name}” is none of {', '.join(BRIEF_FIELDS)}.")


def _same(shown: str, standing: str) -> bool:
    """Forms send line breaks in their own way and cannot send NUL."""
    return shown == standing.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
