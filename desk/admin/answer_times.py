"""Within how long a customer is to have an answer, by priority, for admins."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from briefbox.errors import InvalidValueError
from briefbox.schemas import PRIORITIES
from briefbox.store import sla
from briefbox.store.numbers import COUNTED, num_beyond
from desk.access import Admin
from desk.context import Fields, TheDesk, page
from desk.durations import in_words, minutes_of

router = APIRouter(prefix="/admin/sla")


@router.get("")
def answer_times_page(request: Request, desk: TheDesk, user: Admin, note: str = "") -> Response:
    """The targets, and how many open conversations are beyond theirs now."""
    return _page(request, desk, note="Saved." if note == "saved" else "")


@router.post("")
def save(request: Request, desk: TheDesk, user: Admin, fields: Fields) -> Response:
    """All of them at once: one that cannot be read changes none, and everything typed stays."""
    problems: dict[str, str] = {}
    targets: dict[str, int | None] = {}
    for priority in PRIORITIES:
        try:
            targets[priority] = minutes_of(fields.get(priority, ""))
            if targets[priority] == 0:
                raise InvalidValueError("Nobody answers within no time; leave it empty for no target.")
        except InvalidValueError as error:
            problems[priority] = str(error)
    if not problems:
        try:
            with desk.database.write() as session:
                for priority, minutes in targets.items():
                    sla.set_target(session, priority, minutes, user.email)
        except InvalidValueError as error:
            problems["all"] = str(error)
    if problems:
        return _page(request, desk, status=400, problems=problems, typed=fields)
    return RedirectResponse("/admin/sla?note=saved", status_code=303)


def _page(
    request: Request,
    desk: TheDesk,
    *,
    status: int = 200,
    note: str = "",
    problems: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    with desk.database.read() as session:
        targets = sla.targets(session)
        return page(
            request,
            "answer_times.html",
            status=status,
            note=note,
            problems=problems or {},
            rows=[(p, _shown(p, targets, typed), *_beyond(session, p, targets)) for p in PRIORITIES],
            counted=COUNTED,
        )


def _shown(priority: str, targets: dict[str, int], typed: dict[str, str] | None) -> str:
    return typed.get(priority, "") if typed is not None else in_words(targets.get(priority))


def _beyond(session: Session, priority: str, targets: dict[str, int]) -> tuple[int, int | None]:
    """How many are open, and how many of them are beyond their target (None: there is none)."""
    minutes = targets.get(priority)
    open_now = num_beyond(session, priority, 0)
    return open_now, None if minutes is None else num_beyond(session, priority, minutes)
