"""The agent queue: a page of a list, its live changes, and the views that people keep."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlmodel import Session

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.schemas import PRIORITIES
from briefbox.store import actions, alerts, conversations, login_sessions, presence, queue, sla, views
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight
from briefbox.tables import User
from desk.access import Seen, SignedIn, session_token
from desk.agents import said
from desk.agents.lists import above
from desk.agents.rows import Row, change, rows
from desk.agents.shown import counted
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.live import Audience, moment_of, stamp
from desk.times import local_input, snooze_choices

router = APIRouter()

PAGE_SIZE = 50

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
Number = Annotated[int, Query(ge=0, le=2**31 - 1)]


@router.get("/")
def queue_page(
    request: Request,
    desk: TheDesk,
    user: SignedIn,
    sight: Seen,
    after: Annotated[str, Query()] = "",
    did: Number = 0,
    failed: Number = 0,
    done: Number = 0,
) -> Response:
    """A page of a list. `after` is where the page before it ended; `did` is what was done just now, `failed` how
    many of it could not be changed, and `done` the conversation that was finished just now."""
    wanted = Filter.from_query(request.query_params, me=user.id)
    with desk.database.read() as session:
        if done and not did and (last := actions.last_undoable(session, user, conversation_id=done)):
            did = last.id if last.kind == "done" else 0
        note = said.note(session, user, did, failed, desk.settings.timezone) if did or failed else None
        return _page(request, desk, session, user, sight, wanted, after=after, note=note)


@router.get("/conversations/{conversation_id}/row")
def one_row(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, sight: Seen) -> Response:
    """One row as a list shows it, for the script of the page; and what the person can undo of it."""
    wanted = Filter.from_query(request.query_params, me=user.id)
    with desk.database.read() as session:
        sight.check_conversation(session, conversation_id)
        targets = sla.targets(session)
        [row] = rows(session, [conversations.get(session, conversation_id)], targets)
        last = actions.last_undoable(session, user, conversation_id=conversation_id)
        shown = change(desk.pages, desk.settings.timezone, row, wanted, targets)
        note = said.note(session, user, last.id, 0, desk.settings.timezone) if last is not None else None
        return JSONResponse(
            {
                "row": shown,
                "activity": note.activity_id if note is not None else None,
                "said": note.text if note is not None else "",
            }
        )


# --- live changes


@router.get("/events")
async def events(
    request: Request,
    desk: TheDesk,
    user: SignedIn,
    sight: Seen,
    since: Annotated[int, Query(ge=0)] = 0,
    bare: Annotated[str, Query(max_length=1)] = "",
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Changes as a stream of server-sent events: from `since` on, or from where the stream broke off.

    The rest of the address is that of the list; `bare` is no list, only which conversations changed.
    """
    given = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else since
    try:
        start = moment_of(given)
    except OverflowError:
        raise InvalidValueError("since: expected microseconds since 1970.") from None
    if not given:
        start = datetime.now(UTC)
    token = session_token(desk, request)
    wanted = None if bare else Filter.from_query(request.query_params, me=user.id)
    return StreamingResponse(
        desk.live.listen(
            start, Audience(sight, wanted), still_allowed=lambda: _still_sees(desk, token, sight)
        ),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would hold events back
    )


def _still_sees(desk: Desk, token: str, sight: Sight) -> bool:
    """Whether the person is still signed in and sees the same mailboxes; otherwise the page connects anew."""
    with desk.database.read() as session:
        user = login_sessions.session_user(session, token, idle_minutes=desk.settings.session_idle_minutes)
        return user is not None and Sight.of(session, user) == sight


# --- views


@router.post("/views")
def save_view(request: Request, desk: TheDesk, user: SignedIn, sight: Seen, fields: Fields) -> Response:
    """Keep a filter under a name."""
    query = fields.get("query", "")
    name, shared = fields.get("name", ""), fields.get("shared", "") == "1"
    try:
        with desk.database.write() as session:
            view_id = views.save(session, user, name, query, shared=shared).id
    except (ConflictError, InvalidValueError) as error:
        if wants_json(request):
            raise
        wanted = Filter.from_query(query, me=user.id)
        status = 409 if isinstance(error, ConflictError) else 400
        kept = {"name": name, "shared": shared, "problem": str(error)}
        with desk.database.read() as session:
            return _page(request, desk, session, user, sight, wanted, status=status, kept=kept)
    return answer(request, _list(Filter.from_query(query), user), view_id=view_id)


@router.post("/views/{view_id}/remove")
def remove_view(request: Request, desk: TheDesk, user: SignedIn, view_id: Id) -> Response:
    """Take a view away; what it shows stays."""
    with desk.database.write() as session:
        view = next((view for view in views.of(session, user) if view.id == view_id), None)
        if view is None:
            raise NotFoundError(f"There is no view {view_id} of yours.")
        wanted = Filter.from_query(view.query)
        views.remove(session, user, view_id)
    return answer(request, _list(wanted, user))


def _list(wanted: Filter, user: User) -> str:
    query = wanted.to_query(me=user.id)
    return f"/?{query}" if query else "/"


# --- the page


def _page(
    request: Request,
    desk: Desk,
    session: Session,
    user: User,
    sight: Sight,
    wanted: Filter,
    *,
    after: str = "",
    status: int = 200,
    note: said.Note | None = None,
    kept: dict[str, Any] | None = None,
) -> Response:
    moment = now(session)
    found = queue.page(session, wanted, sight=sight, after=after, limit=PAGE_SIZE)
    shown = rows(session, found.conversations)
    # A first page that is all there is tells how many there are: nobody has to count.
    number = len(found.conversations) if not after and not found.next else None
    counts = counted(session, wanted, sight, number=number)
    timezone = desk.settings.timezone
    query = wanted.to_query(me=user.id)
    return page(
        request,
        "queue.html",
        status=status,
        wanted=wanted,
        query=query,
        rows=[(row, queue.order_key(row.conversation, wanted)) for row in shown],
        present=_present(session, shown, user),
        since=stamp(moment),
        here=counts["here"],
        above=above(session, wanted, user=user, sight=sight, counts=counts["tabs"]),
        alerts=alerts.open_alerts(session) if user.role == "admin" else [],
        after=after,
        next=found.next,
        note=note,
        kept=kept or {},
        priorities=PRIORITIES,
        me=user.id,
        timezone=timezone,
        snoozes=snooze_choices(moment, timezone),
        earliest=local_input(moment, timezone),
    )


def _present(session: Session, shown: Sequence[Row], user: User) -> dict[int, list[str]]:
    """Who else looks at these conversations."""
    found = presence.all_now(session)
    me = user.name or user.email
    return {
        row.conversation.id: others
        for row in shown
        if (others := [name for name in found.get(row.conversation.id, ()) if name != me])
    }
