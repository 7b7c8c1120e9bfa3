"""Lists of conversations: one page of what an agent asks for, and how many there are. Keyset pages, never an offset.

Each state has an index of its own in the order of its list, which holds all that a filter asks about. A page reads
along it and looks at no more than MAX_LOOKED entries: where a filter matches next to nothing among very many, the
page is shorter than asked for, and the next one goes on from there. So no filter takes longer than that.

    open        most urgent first, then who has waited longest
    snoozed     who comes back soonest first
    answered    answered last first
    done        finished last first
    all         opened last first
    with text   by the newest mail that matches, in the order in which mail was stored
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    func,
    literal,
    select,
    tuple_,
)
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from briefbox.errors import InvalidValueError
from briefbox.store import conversations, found, rows, sla
from briefbox.store.filter_sql import NO_PLACE, conditions, cutoffs, in_state
from briefbox.store.filters import Filter
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Conversation

# Entries of an index that one page or one count looks at.
MAX_LOOKED = 60_000
# The same where there is no such index, so that each is a row.
MAX_LOOKED_ROWS = 10_000
# Of what a search finds, the next and the previous one are told for so many of the newest.
MAX_BESIDE = 200
# As many conversations are few for a search.
MAX_FEW = 5_000

_TABLE = rows.table_of(Conversation)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Beyond the microseconds of the year 9999: what is left of it sorts newest first.
_LAST = 10**18
_LAST_ID = 2**31


@dataclass(slots=True)
class Page:
    """Some conversations in their order. Fewer than asked for with a `next` says: so far, look further."""

    conversations: list[Conversation] = field(default_factory=list)
    next: str = ""  # where the page after it begins; "" where there is none


@dataclass(frozen=True, slots=True)
class _Order:
    """The columns that a list is sorted by; the last one is the id."""

    columns: tuple[str, ...]
    newest_first: bool = False

    def by(self, c: Any) -> list[ColumnElement[Any]]:
        return [c[name].desc() if self.newest_first else c[name].asc() for name in self.columns]

    def beyond(self, place: Sequence[Any]) -> ColumnElement[bool]:
        here = tuple_(*(_TABLE.c[name] for name in self.columns))
        there = tuple_(
            *(literal(value, _TABLE.c[name].type) for name, value in zip(self.columns, place, strict=True))
        )
        return here < there if self.newest_first else here > there

    def place(self, row: Any) -> list[Any]:
        return [getattr(row, name) for name in self.columns]


_ORDERS = {
    "open": _Order(("priority_rank", "waiting_since", "id")),
    "snoozed": _Order(("snoozed_until", "id")),
    "answered": _Order(("answered_at", "id"), newest_first=True),
    "done": _Order(("done_at", "id"), newest_first=True),
    "": _Order(("id",), newest_first=True),
}
# What filters ask about: each index of a list holds them all (tables.py).
_ASKED = ("mailbox_id", "assigned_to", "category", "in_doubt", "priority_rank", "waiting_since")


def page(session: Session, wanted: Filter, *, sight: Sight = ALL, after: str = "", limit: int = 50) -> Page:
    """One page of a list. `after` is the `next` of the page before. Raises InvalidValueError."""
    ids, following = page_of_ids(session, wanted, sight=sight, after=after, limit=limit)
    return Page(load(session, ids), following)


def page_of_ids(
    session: Session, wanted: Filter, *, sight: Sight = ALL, after: str = "", limit: int = 50
) -> tuple[list[int], str]:
    """The same without the rows. Raises InvalidValueError."""
    if wanted.text:
        return found.page(session, wanted, sight, after, limit, _few(session, wanted, sight))
    order = _ORDERS[wanted.state]
    looked = _looked(wanted, order, _place(after, order))
    query = select(*(looked.c[name] for name in order.columns))
    query = query.where(*conditions(looked.c, wanted, sight, cutoffs(session, wanted)))
    if session.get_bind().dialect.name == "postgresql":
        query = query.order_by(
            *order.by(looked.c)
        )  # SQLite keeps the order, and would sort all of them again
    hits = session.connection().execute(query.limit(limit + 1)).all()
    shown = hits[:limit]
    if len(hits) > limit:
        following = _place_text(order.place(shown[-1]))
    else:
        following = _end_of_look(session, wanted, order, after)
    return [row.id for row in shown], following


def load(session: Session, ids: Sequence[int]) -> list[Conversation]:
    """These conversations, in this order; what is gone is left out."""
    kept = session.exec(select_rows(Conversation).where(col(Conversation.id).in_(ids))) if ids else ()
    by_id = {conversation.id: conversation for conversation in kept}
    return [by_id[id_] for id_ in ids if id_ in by_id]


def beside(
    session: Session, wanted: Filter, conversation: Conversation, *, sight: Sight = ALL
) -> tuple[int | None, int | None]:
    """The conversations before and after this one in a list, whether or not it is in it any more itself."""
    if wanted.text:
        ids, _ = page_of_ids(session, wanted, sight=sight, limit=MAX_BESIDE)
        if conversation.id not in ids:
            return None, None
        at = ids.index(conversation.id)
        return [None, *ids][at], [*ids, None][at + 1]
    order = _ORDERS[wanted.state]
    backwards = _Order(order.columns, newest_first=not order.newest_first)
    place = order.place(conversation)
    if None in place:  # it was never in a list of this order
        return None, None
    before, after = (_first_beyond(session, wanted, sight, way, place) for way in (backwards, order))
    return before, after


def _first_beyond(
    session: Session, wanted: Filter, sight: Sight, order: _Order, place: Sequence[Any]
) -> int | None:
    looked = _looked(wanted, order, place)
    query = select(looked.c.id).where(*conditions(looked.c, wanted, sight, cutoffs(session, wanted)))
    found: int | None = session.connection().execute(query.order_by(*order.by(looked.c)).limit(1)).scalar()
    return found


def count(session: Session, wanted: Filter, *, sight: Sight = ALL, cap: int = 1000) -> int:
    """How many there are; `cap` is as good as "more". Of what a page would look at, so that it is quick."""
    if wanted.text:
        return found.count(session, wanted, sight, cap, _few(session, wanted, sight))
    looked = _looked(wanted, _ORDERS[wanted.state], None)
    query = select(looked.c.id).where(*conditions(looked.c, wanted, sight, cutoffs(session, wanted)))
    capped = query.limit(cap).subquery()
    return int(session.connection().execute(select(func.count()).select_from(capped)).scalar_one())


def count_each(
    session: Session, wanted: Sequence[Filter], *, sight: Sight = ALL, cap: int = 1000
) -> list[int]:
    """`count` of several filters."""
    return [count(session, one, sight=sight, cap=cap) for one in wanted]


def counts(session: Session, sight: Sight = ALL) -> dict[str, int]:
    """How many there are in each state, counted up to `conversations.MAX_COUNTED`: that many is as good as "more"."""
    return conversations.counts(session, sight)


def matches(wanted: Filter, conversation: Conversation, targets: dict[str, int]) -> bool:
    """Whether a row belongs to the list: the same filter in Python, for live rows. Its text is left out."""
    if conversation.state == "merged" or (wanted.state and conversation.state != wanted.state):
        return False
    if wanted.overdue:
        due = sla.due(conversation, targets)
        if due is None or due > datetime.now(UTC):
            return False
    owner = "none" if conversation.assigned_to is None else str(conversation.assigned_to)
    return (
        (not wanted.mailboxes or conversation.mailbox_id in wanted.mailboxes)
        and (not wanted.priorities or conversation.priority in wanted.priorities)
        and (not wanted.categories or conversation.category in wanted.categories)
        and wanted.assigned in ("", owner)
        and (not wanted.needs_human or bool(conversation.needs_human))
    )


def order_key(conversation: Conversation, wanted: Filter) -> str:
    """Sorts as text like `page` sorts rows. "" for a question of text: a row alone does not tell its place there."""
    if wanted.text:
        return ""
    order = _ORDERS[wanted.state]
    parts = []
    for value in order.place(conversation):
        number = _number(value)
        if isinstance(value, datetime):
            parts.append(f"{_LAST - number if order.newest_first else number:019d}")
        else:
            parts.append(f"{_LAST_ID - number if order.newest_first else number:010d}")
    return "-".join(parts)


def _looked(wanted: Filter, order: _Order, place: Sequence[Any] | None) -> Subquery:
    """What one page looks at, along the index of its list."""
    names = dict.fromkeys((*order.columns, *_ASKED))
    query = _along(wanted, order, place, [_TABLE.c[name] for name in names])
    return query.limit(_bound(wanted)).subquery("looked")


def _along(wanted: Filter, order: _Order, place: Sequence[Any] | None, columns: Sequence[Any]) -> Select[Any]:
    query = select(*columns).where(in_state(_TABLE.c, wanted))
    if place is not None:
        query = query.where(order.beyond(place))
    if wanted.state == "open" and len(wanted.priorities) == 1:
        query = query.where(_TABLE.c.priority_rank == conversations.rank(wanted.priorities[0]))
    return query.order_by(*order.by(_TABLE.c))


def _bound(wanted: Filter) -> int:
    return MAX_LOOKED if wanted.state else MAX_LOOKED_ROWS


def _end_of_look(session: Session, wanted: Filter, order: _Order, after: str) -> str:
    """Where the next page goes on, when this one looked at all that it may and found too few."""
    columns = [_TABLE.c[name] for name in order.columns]
    last = _along(wanted, order, _place(after, order), columns).offset(_bound(wanted) - 1).limit(1)
    row = session.connection().execute(last).first()
    return "" if row is None else _place_text(order.place(row))


def _few(session: Session, wanted: Filter, sight: Sight) -> list[int] | None:
    """All that a filter lets through, where that is few: a search then asks which of these match."""
    if not wanted.state or (wanted.is_only_state and sight.mailboxes is None):
        return None
    order = _ORDERS[wanted.state]
    looked = _looked(wanted, order, None)
    query = select(looked.c.id).where(*conditions(looked.c, wanted, sight, cutoffs(session, wanted)))
    ids = list(session.connection().execute(query.limit(MAX_FEW + 1)).scalars())
    if len(ids) > MAX_FEW or _end_of_look(session, wanted, order, ""):
        return None
    return ids


# --- places in a list, as they stand in the address of the next page


def _number(value: Any) -> int:
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(microseconds=1)
    return 0 if value is None else int(value)


def _place_text(place: Sequence[Any]) -> str:
    return "-".join(str(_number(value)) for value in place)


def _place(text: str, order: _Order) -> list[Any] | None:
    if not text:
        return None
    parts = text.split("-")
    if len(parts) != len(order.columns) or not (text.isascii() and len(text) < 60):
        raise InvalidValueError(NO_PLACE)
    place: list[Any] = []
    for name, part in zip(order.columns, parts, strict=True):
        if not part.isdigit():
            raise InvalidValueError(NO_PLACE)
        number = int(part)
        if name.endswith(("_at", "_since", "_until")):
            try:
                place.append(_EPOCH + timedelta(microseconds=number))
            except OverflowError:
                raise InvalidValueError(NO_PLACE) from None
        else:
            place.append(min(number, _LAST_ID - 1))
    return place
