"""Briefs: every version, with what made it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from briefbox.store import conversations, exports
from briefbox.tables import Brief
from desk.api import answers
from desk.api.access import Reading
from desk.api.models import MAX_ID, After, Id, Limit, Model, Moment, Page
from desk.context import TheDesk

router = APIRouter(tags=["briefs"])


class Label(Model):
    """A label with how sure the model was, of a closed set."""

    label: str
    confidence: float | None = Field(description="null: the engine's server does not tell.")
    scores: dict[str, float] = Field(description="Of every allowed label; together 1.")


class SentenceOut(Model):
    """A sentence of the summary, and the part of the email that supports it."""

    text: str
    start: int | None = Field(description="In characters of the email's text; null: nothing supports it.")
    end: int | None


class OmissionOut(Model):
    """What of the conversation the model did not read."""

    part: str
    emails: int
    tokens: int


class MadeBy(Model):
    """Everything that made it."""

    engine: str
    base_model: str
    base_revision: str
    adapter: str = Field(description="Empty: the bare base model.")
    prompt_version: str
    device: str
    attempt: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    seconds: float


class BriefOut(Model):
    """What a model said about an email."""

    id: int
    email_id: int
    conversation_id: int
    headline: str
    summary: str
    priority: Label
    category: Label
    needs_human: list[str]
    language: str
    sentences: list[SentenceOut]
    instructions_found: bool
    cut: bool = Field(description="Something was left out.")
    omitted: list[OmissionOut]
    made_by: MadeBy
    created_at: Moment


@router.get("/briefs", response_model=Page[BriefOut], summary="List briefs, all versions, oldest first")
def list_briefs(
    request: Request,
    desk: TheDesk,
    caller: Reading,
    conversation: Annotated[int | None, Query(ge=1, le=MAX_ID, description="Only those of this one.")] = None,
    limit: Limit = 50,
    after: After = "",
) -> Response:
    """For export. To hear of new ones, use a webhook."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        found = exports.briefs(session, place, caller.sight, conversation_id=conversation)
        return answers.part(request, found, brief_out)


@router.get(
    "/conversations/{conversation_id}/briefs",
    response_model=Page[BriefOut],
    summary="List the briefs of a conversation",
)
def list_of_conversation(
    request: Request,
    desk: TheDesk,
    caller: Reading,
    conversation_id: Id,
    limit: Limit = 50,
    after: After = "",
) -> Response:
    """All versions of all its emails, oldest first."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        conversations.get(session, conversation_id)
        found = exports.briefs(session, place, caller.sight, conversation_id=conversation_id)
        return answers.part(request, found, brief_out)


@router.get("/briefs/{brief_id}", response_model=BriefOut, summary="Get a brief")
def get_brief(request: Request, desk: TheDesk, caller: Reading, brief_id: Id) -> Response:
    """With everything that made it."""
    with desk.database.read() as session:
        return answers.one(request, brief_out(exports.brief(session, brief_id, caller.sight)))


def brief_out(row: Brief) -> BriefOut:
    """One row as it goes out."""
    return BriefOut(
        id=row.id,
        email_id=row.email_id,
        conversation_id=row.conversation_id,
        headline=row.headline,
        summary=row.summary,
        priority=Label(label=row.priority, confidence=row.priority_confidence, scores=row.priority_scores),
        category=Label(label=row.category, confidence=row.category_confidence, scores=row.category_scores),
        needs_human=list(row.needs_human),
        language=row.language,
        sentences=[
            SentenceOut(text=one["text"], start=one.get("start"), end=one.get("end"))
            for one in row.grounding.get("sentences", ())
        ],
        instructions_found=row.instructions_found,
        cut=row.cut,
        omitted=[
            OmissionOut(part=one["part"], emails=one.get("emails", 1), tokens=one.get("tokens", 0))
            for one in row.omitted
        ],
        made_by=MadeBy(**{name: getattr(row, name) for name in MadeBy.model_fields}),
        created_at=row.created_at,
    )
