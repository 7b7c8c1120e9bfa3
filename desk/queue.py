"""The agent queue: rows sorted by urgency, then by how long the customer has waited, and their live changes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from jinja2 import Environment
from sqlmodel import Session, col, or_, select

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.schemas import STATES, WorkState
from briefbox.store import alerts, conversations
from briefbox.tables import Conversation, Email
from desk.access import SignedIn, session_token, still_signed_in
from desk.context import TheDesk, page
from desk.live import moment_of, stamp

router = APIRouter()

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Row:
    """What the queue shows of one conversation."""

    conversation: Conversation
    being_read: bool  # a mail of it has no brief yet
    failed: bool  # a mail of it could not be briefed
    instructed: bool  # a mail of it contains text addressed to an assistant

    @property
    def stamp(self) -> int:
        """Which of two versions of a row is the newer one."""
        return stamp(self.conversation.updated_at)

    @property
    def order(self) -> str:
        """Sorts as text like `conversations.queue` sorts rows; the page places new rows by it."""
        c = self.conversation
        if c.state == "done":
            done = stamp(c.done_at) if c.done_at else 0
            return f"{10**17 - done:018d}-{c.id:010d}"
        return f"{c.priority_rank}-{stamp(c.waiting_since):018d}-{c.id:010d}"


def rows(session: Session, found: Sequence[Conversation]) -> list[Row]:
    """Conversations with the state of their briefs."""
    query = select(Email.conversation_id, Email.work_state, Email.instructions_found).where(
        col(Email.conversation_id).in_([c.id for c in found]),
        or_(col(Email.work_state) != WorkState.DONE, col(Email.instructions_found)),
    )
    states: dict[int | None, set[str]] = defaultdict(set)
    instructed: set[int | None] = set()
    for id_, state, instructions_found in session.exec(query).all() if found else ():
        states[id_].add(state)
        if instructions_found:
            instructed.add(id_)
    return [
        Row(
            c,
            being_read=not states[c.id].isdisjoint((WorkState.WAITING, WorkState.RUNNING)),
            failed=WorkState.DEAD in states[c.id],
            instructed=c.id in instructed,
        )
        for c in found
    ]


def live_rows(pages: Environment, session: Session, changed: Sequence[Conversation]) -> list[dict[str, Any]]:
    """Changed rows as the page's script takes them (see desk/live.py)."""
    template = pages.get_template("row.html")
    return [
        {
            "id": row.conversation.id,
            "stamp": row.stamp,
            "state": row.conversation.state,
            "order": row.order,
            "html": template.render(row=row),
        }
        for row in rows(session, changed)
    ]


@router.get("/")
def queue_page(
    request: Request,
    desk: TheDesk,
    user: SignedIn,
    state: Annotated[str, Query()] = "open",
    after: Annotated[str, Query()] = "",
    done: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """A page of the queue. `after` is where the page before it ended; `done` was finished just now."""
    if state not in STATES:
        raise InvalidValueError(f"The state “{state}” is none of {', '.join(STATES)}.")
    with desk.database.read() as session:
        since = stamp(now(session))
        found = conversations.queue(session, state=state, after=_place(after), limit=PAGE_SIZE + 1)
        shown = rows(session, found[:PAGE_SIZE])
        more = len(found) > PAGE_SIZE
        finished = session.get(Conversation, done) if done else None
        return page(
            request,
            "queue.html",
            state=state,
            rows=shown,
            since=since,
            counts=conversations.counts(session),
            alerts=alerts.open_alerts(session) if user.role == "admin" else [],
            after=after,
            after_order=_order(after),
            more=more,
            next=_place_text(shown[-1].conversation) if more and state == "open" else "",
            finished=finished if finished is not None and finished.state == "done" else None,
        )


@router.get("/events")
async def events(
    request: Request,
    desk: TheDesk,
    since: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Changes as a stream of server-sent events: from `since` on, or from where the stream broke off."""
    given = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else since
    try:
        start = moment_of(given)
    except OverflowError:
        raise InvalidValueError("since: expected microseconds since 1970.") from None
    if not given:
        start = datetime.now(UTC)
    token = session_token(desk, request)
    return StreamingResponse(
        desk.live.listen(start, still_allowed=lambda: still_signed_in(desk, token)),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would hold events back
    )


# --- places in the queue, as they stand in the address of the next page


def _place_text(conversation: Conversation) -> str:
    rank, since, id_ = conversations.queue_key(conversation)
    return f"{rank}-{stamp(since)}-{id_}"


def _place(text: str) -> tuple[int, datetime, int] | None:
    if not text:
        return None
    rank, _, rest = text.partition("-")
    since, _, id_ = rest.partition("-")
    try:
        if not (text.isascii() and len(text) < 50):
            raise ValueError(text)
        return min(int(rank), 9), moment_of(int(since)), min(int(id_), 2**31 - 1)
    except (ValueError, OverflowError):
        raise InvalidValueError(
            "after: this is no place in the queue. Start again at its first page."
        ) from None


def _order(text: str) -> str:
    place = _place(text)
    return "" if place is None else f"{place[0]}-{stamp(place[1]):018d}-{place[2]:010d}"
