"""Corrections and confirmations: what agents said about briefs, for export."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from briefbox.store import exports
from briefbox.tables import Confirmation, Correction, User
from desk.api import answers
from desk.api.access import Reading
from desk.api.models import MAX_ID, After, Limit, Model, Moment, Page
from desk.context import TheDesk

router = APIRouter()

Of = Annotated[int | None, Query(ge=1, le=MAX_ID, description="Only those of this one.")]


class CorrectionOut(Model):
    """One field that an agent changed."""

    id: int
    conversation_id: int
    brief_id: int | None = Field(description="null: labelled before there was a brief.")
    user_id: int
    user_email: str
    field: str
    before: str
    after: str
    reason: str
    created_at: Moment
    undone_at: Moment | None = Field(description="When it was taken back; then it teaches nothing.")


class ConfirmationOut(Model):
    """A brief that an agent approved."""

    id: int
    conversation_id: int
    brief_id: int
    user_id: int
    user_email: str
    strength: str = Field(description="strong: said to be right. weak: finished unchanged.")
    created_at: Moment
    undone_at: Moment | None


@router.get(
    "/corrections",
    response_model=Page[CorrectionOut],
    summary="List corrections, oldest first",
    tags=["corrections"],
)
def list_corrections(
    request: Request,
    desk: TheDesk,
    caller: Reading,
    conversation: Of = None,
    limit: Limit = 50,
    after: After = "",
) -> Response:
    """Those that were taken back too."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        found = exports.corrections(session, place, caller.sight, conversation_id=conversation)
        return answers.part(request, found, lambda row: _correction(*row))


@router.get(
    "/confirmations",
    response_model=Page[ConfirmationOut],
    summary="List confirmations, oldest first",
    tags=["confirmations"],
)
def list_confirmations(
    request: Request,
    desk: TheDesk,
    caller: Reading,
    conversation: Of = None,
    limit: Limit = 50,
    after: After = "",
) -> Response:
    """Those that were taken back too."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        found = exports.confirmations(session, place, caller.sight, conversation_id=conversation)
        return answers.part(request, found, lambda row: _confirmation(*row))


def _correction(row: Correction, user: User) -> CorrectionOut:
    same = {name: getattr(row, name) for name in CorrectionOut.model_fields if name != "user_email"}
    return CorrectionOut(**same, user_email=user.email)


def _confirmation(row: Confirmation, user: User) -> ConfirmationOut:
    same = {name: getattr(row, name) for name in ConfirmationOut.model_fields if name != "user_email"}
    return ConfirmationOut(**same, user_email=user.email)
