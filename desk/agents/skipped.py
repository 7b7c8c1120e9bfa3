"""Mail that is not briefed, each with its reason and the way to brief it after all."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from briefbox.schemas import EmailKind, LedgerState, ParsedEmail
from briefbox.store import skips
from briefbox.store.skips import StoredEmail
from desk.context import TheDesk, page

router = APIRouter()

PAGE_SIZE = 50
MAX_SHOWN = 2_000


@dataclass(frozen=True, slots=True)
class SkippedView:
    """One mail with the beginning of its text."""

    stored: StoredEmail
    text: str


@router.get("/skipped")
def skipped_page(
    request: Request,
    desk: TheDesk,
    kind: Annotated[str, Query(max_length=40)] = "",
    before: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    briefed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """The newest first. `briefed` is the conversation of a mail that was taken out of here just now."""
    with desk.database.read() as session:
        found = skips.stored(
            session,
            kind=kind,
            state=LedgerState.SKIPPED,
            without=() if kind else (EmailKind.OWN,),
            before=before or None,
            limit=PAGE_SIZE + 1,
        )
        counts = skips.num_skipped(session)
        return page(
            request,
            "skipped.html",
            kind=kind,
            counts=counts,
            total=sum(number for name, number in counts.items() if name != EmailKind.OWN),
            mails=[_view(row) for row in found[:PAGE_SIZE]],
            next=found[PAGE_SIZE - 1].entry.id if len(found) > PAGE_SIZE else 0,
            first_page=not before,
            briefed=briefed,
        )


def _view(row: StoredEmail) -> SkippedView:
    parsed = ParsedEmail.model_validate(row.email.parsed)
    return SkippedView(row, (parsed.reply.strip() or parsed.text.strip())[:MAX_SHOWN])
