"""What happened, in numbers for people: by day (UTC), for the mailboxes that somebody sees.

Everything is read along an index by time, a range of days at once: when conversations were opened, when they were
finished, when briefs were written. What a brief was judged as is asked of conversations finished on a day, and of the
brief that stood in the queue then; what a category is, as it stands now.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, case, cast, extract, literal_column
from sqlmodel import Session, and_, col, func, or_, select

from briefbox.db import now
from briefbox.schemas import BRIEF_FIELDS, UNFINISHED, EmailKind
from briefbox.store import conversations
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Brief, Confirmation, Conversation, Correction, Email, Promotion

# More are not counted one by one.
COUNTED = 10_000
LABELS = ("priority", "category")
BINS = 10


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose mail: the mailboxes that are seen, or one of them."""

    sight: Sight = ALL
    mailbox_id: int | None = None

    def where(self, column: Any) -> ColumnElement[bool]:
        """The condition on a column of mailbox ids."""
        seen = self.sight.where(column)
        return seen if self.mailbox_id is None else and_(seen, col(column) == self.mailbox_id)


@dataclass(slots=True)
class Day:
    """One day. Shares are left to the reader: these are counts, which add up."""

    opened: dict[str, int] = field(default_factory=dict)  # by category; "" where none is known
    briefs: int = 0
    brief_median: float | None = None  # seconds from the mail's arrival to its brief
    brief_p95: float | None = None
    finished: int = 0
    judged: int = 0  # finished with a brief
    corrected: dict[str, int] = field(default_factory=dict)  # by field
    accepted: dict[str, int] = field(default_factory=dict)  # "right as it is", and not corrected
    # field -> tenth of the confidence -> how many, how many of them were left or confirmed, sum of confidences
    sure: dict[str, dict[int, tuple[int, int, float]]] = field(default_factory=dict)
    within: int = 0  # opened on this day and answered in time
    late: int = 0  # answered too late, or due and not answered yet
    in_time_yet: int = 0  # not answered, and not due


def by_day(
    session: Session, first: date, last: date, scope: Scope, targets: Mapping[str, int]
) -> dict[date, Day]:
    """Every day from `first` to `last`. `targets` are minutes to the first answer by priority."""
    start, end = _bounds(first, last)
    days = {first + timedelta(days=n): Day() for n in range((last - first).days + 1)}
    _opened(session, days, start, end, scope)
    _briefed(session, days, start, end, scope)
    _finished(session, days, start, end, scope)
    _sure(session, days, start, end, scope)
    _answered(session, days, start, end, scope, targets)
    return days


def num_beyond(session: Session, priority: str, minutes: int, *, sight: Sight = ALL) -> int:
    """How many open conversations of a priority have waited so long, counted up to COUNTED + 1."""
    waiting = select(Conversation.id).where(
        Conversation.state == "open",
        Conversation.priority_rank == conversations.rank(priority),
        col(Conversation.waiting_since) <= now(session) - timedelta(minutes=minutes),
        sight.where(Conversation.mailbox_id),
    )
    return session.exec(select(func.count()).select_from(waiting.limit(COUNTED + 1).subquery())).one()


def unfinished_after(session: Session, last: date, scope: Scope) -> int:
    """How many conversations were not finished at the end of a day, as far as stored times tell.

    What is unfinished now, without what came later, and with what was finished later.
    """
    _, end = _bounds(last, last)
    mine = scope.where(Conversation.mailbox_id)
    unfinished = select(func.count()).where(col(Conversation.state).in_(UNFINISHED), mine)
    later = select(func.count()).where(
        col(Conversation.opened_at) >= end, Conversation.state != "merged", mine
    )
    done = select(func.count()).where(Conversation.state == "done", col(Conversation.done_at) >= end, mine)
    return session.exec(unfinished).one() - session.exec(later).one() + session.exec(done).one()


def adapter_changes(session: Session, first: date, last: date) -> list[Promotion]:
    """When another adapter came into use."""
    start, end = _bounds(first, last)
    query = select(Promotion).where(col(Promotion.created_at) >= start, col(Promotion.created_at) < end)
    return list(session.exec(query.order_by(col(Promotion.created_at), col(Promotion.id))))


# --- each number


def _opened(session: Session, days: dict[date, Day], start: datetime, end: datetime, scope: Scope) -> None:
    day = _day(session, Conversation.opened_at).label("day")
    query = (
        select(day, col(Conversation.category), func.count())
        .where(*_between(Conversation.opened_at, start, end), Conversation.state != "merged")
        .where(scope.where(Conversation.mailbox_id))
        .group_by(literal_column("day"), col(Conversation.category))
    )
    for when, category, number in session.exec(query):
        days[_date(when)].opened[category] = number


def _briefed(session: Session, days: dict[date, Day], start: datetime, end: datetime, scope: Scope) -> None:
    """Without older mail, which waits behind all other by design, and without adapters on trial."""
    seconds = _seconds(session, Email.received_at, Brief.created_at).label("seconds")
    day = _day(session, Brief.created_at).label("day")
    each = (
        select(day, seconds)
        .select_from(Brief)
        .join(Email, col(Brief.email_id) == col(Email.id))
        .where(*_between(Brief.created_at, start, end), col(Brief.shadow).is_(False))
        .where(col(Email.backfill).is_(False), scope.where(Email.mailbox_id))
        .subquery()
    )
    ranked = select(
        each.c.day,
        each.c.seconds,
        func.row_number().over(partition_by=each.c.day, order_by=each.c.seconds).label("rank"),
        func.count().over(partition_by=each.c.day).label("number"),
    ).subquery()
    half, most = ((ranked.c.number * n + 99) // 100 for n in (50, 95))
    query = select(ranked.c.day, ranked.c.seconds, ranked.c.rank, ranked.c.number).where(
        or_(ranked.c.rank == half, ranked.c.rank == most)
    )
    for when, took, rank, number in session.exec(query):
        found = days[_date(when)]
        found.briefs = number
        took = max(0.0, float(took))
        if rank == (number * 50 + 99) // 100:
            found.brief_median = took
        if rank == (number * 95 + 99) // 100:
            found.brief_p95 = took


def _finished(session: Session, days: dict[date, Day], start: datetime, end: datetime, scope: Scope) -> None:
    day = _day(session, Conversation.done_at).label("day")
    done = (
        Conversation.state == "done",
        *_between(Conversation.done_at, start, end),
        scope.where(Conversation.mailbox_id),
    )
    counts = select(day, func.count(), func.count(col(Conversation.brief_id))).where(*done)
    for when, number, judged in session.exec(counts.group_by(literal_column("day"))):
        days[_date(when)].finished, days[_date(when)].judged = number, judged
    brief_id = col(Conversation.brief_id)
    by_field: tuple[Any, ...] = (literal_column("day"), col(Correction.field))
    conversation = func.count(func.distinct(Conversation.id))
    given = (
        select(day, col(Correction.field), conversation)
        .select_from(Conversation)
        .join(Correction, col(Correction.brief_id) == brief_id)
        .where(*done, col(Correction.undone_at).is_(None))
    )
    for when, name, number in session.exec(given.group_by(*by_field)):
        days[_date(when)].corrected[name] = number
    # Pressed "right as it is", without those whose field was corrected: of these there are few.
    pressed = (Confirmation.strength == "strong", col(Confirmation.undone_at).is_(None))
    strong = (
        select(day, conversation)
        .select_from(Conversation)
        .join(Confirmation, col(Confirmation.brief_id) == brief_id)
        .where(*done, *pressed)
    )
    for when, number in session.exec(strong.group_by(literal_column("day"))):
        days[_date(when)].accepted = dict.fromkeys(BRIEF_FIELDS, number)
    both = given.join(Confirmation, col(Confirmation.brief_id) == brief_id).where(*pressed)
    for when, name, number in session.exec(both.group_by(*by_field)):
        days[_date(when)].accepted[name] -= number


def _sure(session: Session, days: dict[date, Day], start: datetime, end: datetime, scope: Scope) -> None:
    day = _day(session, Conversation.done_at).label("day")
    done = (
        Conversation.state == "done",
        *_between(Conversation.done_at, start, end),
        scope.where(Conversation.mailbox_id),
    )
    tenths = {name: _tenth(getattr(Brief, f"{name}_confidence")).label(f"{name}_tenth") for name in LABELS}
    sums = (func.sum(getattr(Brief, f"{name}_confidence")) for name in LABELS)
    of = (
        select(day, *tenths.values(), func.count(), *sums)  # type: ignore[call-overload]
        .select_from(Conversation)
        .join(Brief, col(Brief.id) == col(Conversation.brief_id))
        .where(*done)
        .group_by(literal_column("day"), *(literal_column(f"{name}_tenth") for name in LABELS))
    )
    for when, *places, number, first, second in session.exec(of):
        for name, place, total in zip(LABELS, places, (first, second), strict=True):
            if place is not None:
                bins = days[_date(when)].sure.setdefault(name, {})
                before = bins.get(int(place), (0, 0, 0.0))
                bins[int(place)] = (before[0] + number, before[1] + number, before[2] + float(total))
    for name in LABELS:
        wrong = (
            select(day, tenths[name], func.count(func.distinct(Conversation.id)))
            .select_from(Conversation)
            .join(Correction, col(Correction.brief_id) == col(Conversation.brief_id))
            .join(Brief, col(Brief.id) == col(Conversation.brief_id))
            .where(*done, Correction.field == name, col(Correction.undone_at).is_(None))
            .group_by(literal_column("day"), literal_column(f"{name}_tenth"))
        )
        for when, place, number in session.exec(wrong):
            if place is not None:
                bins = days[_date(when)].sure[name]
                count, right, total = bins[int(place)]
                bins[int(place)] = (count, right - number, total)


def _tenth(confidence: Any) -> Any:
    """0 to 9; NULL where the engine's server does not tell."""
    # SQLite's floor() takes no NULL, even where its case is not reached.
    place = cast(func.floor(func.coalesce(confidence, 0.0) * BINS), Integer)
    return case((confidence.is_(None), None), (confidence >= 1, BINS - 1), else_=place)


def _answered(
    session: Session,
    days: dict[date, Day],
    start: datetime,
    end: datetime,
    scope: Scope,
    targets: Mapping[str, int],
) -> None:
    """The first mail of ours in the conversation, or that it was finished, whichever came first."""
    if not targets:
        return
    own = (
        select(func.min(Email.received_at))
        .where(col(Email.conversation_id) == col(Conversation.id), Email.kind == EmailKind.OWN)
        .correlate(Conversation)
        .scalar_subquery()
    )
    minutes = case(*((col(Conversation.priority) == name, n) for name, n in targets.items()), else_=None)
    until = case((col(Conversation.state) == "done", col(Conversation.done_at)), else_=None)
    day = _day(session, Conversation.opened_at).label("day")
    each = (
        select(  # type: ignore[call-overload]
            day,
            (minutes * 60).label("allowed"),
            _seconds(session, Conversation.opened_at, own).label("mail"),
            _seconds(session, Conversation.opened_at, until).label("done"),
            _seconds(session, Conversation.opened_at, now(session)).label("age"),
        )
        .where(*_between(Conversation.opened_at, start, end), scope.where(Conversation.mailbox_id))
        .where(Conversation.state != "merged", col(Conversation.priority).in_(list(targets)))
        .subquery()
    )
    c = each.c
    in_time = or_(c.mail <= c.allowed, c.done <= c.allowed)
    open_yet = and_(c.mail.is_(None), c.done.is_(None), c.age <= c.allowed)
    kind = case((in_time, "within"), (open_yet, "in_time_yet"), else_="late").label("kind")
    query = select(c.day, kind, func.count()).group_by(c.day, literal_column("kind"))
    for when, name, number in session.exec(query):
        setattr(days[_date(when)], name, number)


# --- time, in both databases


def _bounds(first: date, last: date) -> tuple[datetime, datetime]:
    return datetime.combine(first, time(), UTC), datetime.combine(last + timedelta(days=1), time(), UTC)


def _between(column: Any, start: datetime, end: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return col(column) >= start, col(column) < end


def _day(session: Session, column: Any) -> Any:
    if session.get_bind().dialect.name == "sqlite":
        return func.date(column)  # stored in UTC
    return func.date(func.timezone(literal_column("'UTC'"), column))


def _date(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


def _seconds(session: Session, begin: Any, end: Any) -> Any:
    """From one time to another; NULL where either is."""
    if session.get_bind().dialect.name == "sqlite":
        if isinstance(end, datetime):
            end = end.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
        return (func.julianday(end) - func.julianday(begin)) * 86_400.0
    return extract("epoch", end - begin)


def backlog(days: Mapping[date, Day], at_end: int) -> dict[date, int]:
    """How many were unfinished at the end of each day, counted back from the last."""
    found: dict[date, int] = {}
    for day in sorted(days, reverse=True):
        found[day] = max(0, at_end)
        at_end += days[day].finished - sum(days[day].opened.values())
    return dict(sorted(found.items()))


def by_category(days: Mapping[date, Day]) -> list[tuple[str, int]]:
    """Of all days together, most first."""
    total: defaultdict[str, int] = defaultdict(int)
    for day in days.values():
        for name, number in day.opened.items():
            total[name] += number
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))
