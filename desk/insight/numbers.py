"""Numbers by day for everybody, of the mailboxes that they see: what came, how long it took, how often briefs were right."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from threading import Lock
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.store import cost, mailboxes, numbers, sla
from briefbox.store.numbers import Day, Scope
from briefbox.tables import Promotion
from desk.access import Seen, SignedIn
from desk.context import TheDesk, page
from desk.insight import number_charts as charts

router = APIRouter()

MAX_DAYS = 366
# So long a day that is over is taken from memory. Not for ever: a late answer, a merge, an undone correction change it.
KEEP_SECONDS = 900.0
# One of long ago hardly changes any more.
KEEP_OLD_SECONDS, OLD_DAYS = 6 * 3600.0, 14
KEEP_TODAY_SECONDS = 20.0
MAX_KEPT = 4000


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    day: Day


class KeptDays:
    """The days that this process has counted lately, by scope. Shared by threads."""

    def __init__(self) -> None:
        self._days: dict[tuple[Scope, date], _Kept] = {}
        self._lock = Lock()

    def get(
        self, session: Session, first: date, last: date, scope: Scope, targets: Mapping[str, int]
    ) -> dict[date, Day]:
        """Every day of the range; those that are not known are counted in one go."""
        moment, today = monotonic(), now(session).date()
        wanted = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        with self._lock:
            known = {day: kept.day for day in wanted if (kept := self._fresh(scope, day, moment))}
        missing = [day for day in wanted if day not in known]
        if missing:
            counted = numbers.by_day(session, missing[0], missing[-1], scope, targets)
            with self._lock:
                if len(self._days) + len(counted) > MAX_KEPT:
                    self._days.clear()
                for day, found in counted.items():
                    old = (today - day).days
                    keep = KEEP_OLD_SECONDS if old > OLD_DAYS else KEEP_SECONDS if old else KEEP_TODAY_SECONDS
                    self._days[scope, day] = _Kept(moment + keep, found)
            known |= counted
        return dict(sorted(known.items()))

    def _fresh(self, scope: Scope, day: date, moment: float) -> _Kept | None:
        kept = self._days.get((scope, day))
        return kept if kept is not None and kept.until > moment else None


@router.get("/numbers")
def numbers_page(
    request: Request,
    desk: TheDesk,
    user: SignedIn,
    seen: Seen,
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    mailbox: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """The page. Without dates: the last 30 days."""
    with desk.database.read() as session:
        first, last = cost.date_range(session, since, until)
        last = min(last, now(session).date())
        if first > last:
            raise InvalidValueError(f"since: {first} is not here yet. Expected a day up to {last}.")
        if (last - first).days >= MAX_DAYS:
            raise InvalidValueError(
                f"{first} to {last} is {(last - first).days + 1} days; expected at most {MAX_DAYS}."
            )
        if mailbox and not (mailbox.isdecimal() and len(mailbox) < 10):
            raise InvalidValueError(f"mailbox: “{mailbox}” is no mailbox. Choose one of the list.")
        chosen = int(mailbox) if mailbox else None
        if chosen is not None:
            seen.check_mailbox(chosen)
        scope = Scope(seen, chosen)
        kept: KeptDays = request.app.state.days
        targets = sla.targets(session)
        days = kept.get(session, first, last, scope, targets)
        backlog = numbers.backlog(days, numbers.unfinished_after(session, last, scope))
        changes = numbers.adapter_changes(session, first, last)
        boxes = [box for box in mailboxes.active(session) if seen.sees(box.id)]
        return page(
            request,
            "numbers.html",
            since=first,
            until=last,
            mailboxes=boxes,
            chosen=chosen,
            categories=numbers.by_category(days),
            totals=charts.totals(days),
            **_charts(days, backlog, changes, has_targets=bool(targets)),
        )


def _charts(
    days: dict[date, Day], backlog: dict[date, int], changes: list[Promotion], *, has_targets: bool
) -> dict[str, Any]:
    grouped = charts.by_span(days)
    return {
        "work": [
            charts.volume(grouped),
            charts.backlog(grouped, backlog),
            charts.time_to_brief(grouped),
            *([charts.in_time(grouped)] if has_targets else []),
        ],
        "judged": [charts.judged(grouped, name, changes) for name in charts.FIELDS],
        "sure": [charts.calibration(days, name) for name in numbers.LABELS],
    }
