"""What briefs cost: one grouped query over the stored tokens and seconds, then money by the operator's prices.

Money is Decimal from the prices to the last sum and is rounded only where it is shown. Days are UTC.
Left out: the hours in which a machine waits for mail, and training.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Self, get_args

from sqlmodel import Session, col, func, literal_column, select

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.settings import Settings
from briefbox.tables import Brief, Email, Mailbox

By = Literal["day", "mailbox", "adapter", "engine"]
GROUPINGS: tuple[By, ...] = get_args(By)

# The engine whose server may be paid by token; all others run on the operator's own machine.
PAID_ENGINE = "openai"
SHADOW = "shadow"
MILLION, HOUR, HOURS_A_DAY = Decimal(1_000_000), Decimal(3600), Decimal(24)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in one currency (see the settings of the same names); 0 is "not set"."""

    currency: str
    device_hour: Decimal
    watts: Decimal
    kwh: Decimal
    million_in: Decimal
    million_out: Decimal
    hosted_in: Decimal
    hosted_out: Decimal

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The prices of these settings."""

        def price(value: float) -> Decimal:
            return Decimal(str(value))  # what the operator wrote, not its nearest binary fraction

        return cls(
            settings.currency,
            price(settings.price_device_hour),
            price(settings.device_watts),
            price(settings.price_kwh),
            price(settings.price_million_in),
            price(settings.price_million_out),
            price(settings.hosted_million_in),
            price(settings.hosted_million_out),
        )

    @property
    def machine_hour(self) -> Decimal:
        """An hour of the machine with its power; 0 where neither has a price."""
        return self.device_hour + self.watts / 1000 * self.kwh

    def own(self, engine: str, seconds: Decimal, tokens_in: int, tokens_out: int) -> Decimal | None:
        """What briefs cost here. None where no price applies."""
        if engine == PAID_ENGINE:
            return _by_token(self.million_in, self.million_out, tokens_in, tokens_out)
        return seconds * self.machine_hour / HOUR if self.machine_hour else None

    def hosted(self, tokens_in: int, tokens_out: int) -> Decimal | None:
        """What a hosted service would ask for the same tokens. None where it has no price."""
        return _by_token(self.hosted_in, self.hosted_out, tokens_in, tokens_out)


@dataclass(frozen=True, slots=True)
class CostRow:
    """One line of the table. Money is unrounded; None means that no price applies.

    Shadow briefs stand in one row of their own: they cost, but their emails are counted where they were briefed
    for the agents (`emails` is 0), and a hosted service would not be asked for them (`hosted` is None).
    """

    name: str  # day as YYYY-MM-DD, or the name of the mailbox, adapter ("" is the bare base model) or engine
    shadow: bool = False
    emails: int = 0
    briefs: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0  # of tokens_in
    tokens_out: int = 0
    seconds: Decimal = Decimal(0)
    prefill_seconds: Decimal = Decimal(0)
    decode_seconds: Decimal = Decimal(0)
    money: Decimal | None = None
    hosted: Decimal | None = None

    @property
    def per_thousand(self) -> Decimal | None:
        """Money per 1,000 emails."""
        return self.money * 1000 / self.emails if self.money is not None and self.emails else None

    def plus(self, other: "CostRow") -> "CostRow":
        """The sum of two rows under the name of this one."""
        return CostRow(
            self.name,
            self.shadow,
            self.emails + other.emails,
            self.briefs + other.briefs,
            self.tokens_in + other.tokens_in,
            self.tokens_cached + other.tokens_cached,
            self.tokens_out + other.tokens_out,
            self.seconds + other.seconds,
            self.prefill_seconds + other.prefill_seconds,
            self.decode_seconds + other.decode_seconds,
            _sum(self.money, other.money),
            _sum(self.hosted, other.hosted),
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """The table: its rows, the one of shadow briefs last, and their sum.

    `days` counts from the first brief to the end of the range, or to today where that is earlier. `local_seconds`
    and `local_emails` are those of the machine here, without shadow briefs; `engines` are all that wrote.
    """

    by: By
    since: date
    until: date
    prices: Prices
    rows: tuple[CostRow, ...]
    total: CostRow
    days: int
    engines: frozenset[str]
    local_seconds: Decimal
    local_emails: int


def costs(session: Session, prices: Prices, *, since: date, until: date, by: By = "day") -> Costs:
    """Sum up the briefs written from `since` to `until`, both included."""
    written = session.execute(_query(session, by, since, until)).all()
    rows: dict[tuple[bool, str], CostRow] = {}
    local = CostRow("")
    for part in written:
        name = SHADOW if part.shadow else str(part.what)
        row = _row(name, part, prices)
        key = (row.shadow, name)
        rows[key] = rows[key].plus(row) if key in rows else row
        if part.engine != PAID_ENGINE and not row.shadow:
            local = local.plus(row)
    ordered = tuple(rows[key] for key in sorted(rows))
    total = CostRow("total")
    for row in ordered:
        total = total.plus(row)
    days = 0
    if written:
        first = min(part.first for part in written).astimezone(UTC).date()
        days = (max(first, min(until, now(session).date())) - first).days + 1
    engines = frozenset(part.engine for part in written)
    return Costs(by, since, until, prices, ordered, total, days, engines, local.seconds, local.emails)


def parse_day(text: str, name: str) -> date:
    """A day as YYYY-MM-DD. Raises InvalidValueError, which names the field."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidValueError(
            f"{name}: “{text[:40]}” is no day; expected YYYY-MM-DD, for example 2026-11-24."
        ) from None


def date_range(session: Session, since: str, until: str, *, days: int = 30) -> tuple[date, date]:
    """The days of a range as people give them; "" for until is today, "" for since makes it `days` long.

    Raises InvalidValueError.
    """
    last = parse_day(until, "until") if until else now(session).date()
    # The year 1 has nothing before it.
    back = min(timedelta(days=days - 1), last - date.min)
    first = parse_day(since, "since") if since else last - back
    if first > last:
        raise InvalidValueError(f"since: {first} is after until, {last}. Expected the earlier day first.")
    return first, last


# --- parts


def _query(session: Session, by: By, since: date, until: date) -> Any:
    """One row for each (what, shadow, engine): prices differ by engine."""
    query = select(  # type: ignore[call-overload]
        _name(session, by).label("what"),
        col(Brief.shadow).label("shadow"),
        col(Brief.engine).label("engine"),
        func.count().label("briefs"),
        func.min(Brief.created_at).label("first"),
        *(
            func.sum(getattr(Brief, column)).label(column)
            for column in (
                "tokens_in",
                "tokens_cached",
                "tokens_out",
                "seconds",
                "prefill_seconds",
                "decode_seconds",
            )
        ),
    ).select_from(Brief)
    if by == "mailbox":
        query = query.join(Email, col(Email.id) == col(Brief.email_id))
        query = query.join(Mailbox, col(Mailbox.id) == col(Email.mailbox_id))
    start = datetime.combine(since, time(), UTC)
    query = query.where(col(Brief.created_at) >= start)
    if until < date.max:
        query = query.where(col(Brief.created_at) < datetime.combine(until + timedelta(days=1), time(), UTC))
    return query.group_by(literal_column("what"), col(Brief.shadow), col(Brief.engine))


def _name(session: Session, by: By) -> Any:
    if by == "mailbox":
        return col(Mailbox.name)
    if by == "adapter":
        return col(Brief.adapter)
    if by == "engine":
        return col(Brief.engine)
    if session.get_bind().dialect.name == "sqlite":
        return func.date(Brief.created_at)  # stored in UTC
    return func.date(func.timezone(literal_column("'UTC'"), Brief.created_at))


def _row(name: str, part: Any, prices: Prices) -> CostRow:
    seconds = _seconds(part.seconds)
    return CostRow(
        name=name,
        shadow=bool(part.shadow),
        emails=0 if part.shadow else part.briefs,
        briefs=part.briefs,
        tokens_in=int(part.tokens_in),
        tokens_cached=int(part.tokens_cached),
        tokens_out=int(part.tokens_out),
        seconds=seconds,
        prefill_seconds=_seconds(part.prefill_seconds),
        decode_seconds=_seconds(part.decode_seconds),
        money=prices.own(part.engine, seconds, int(part.tokens_in), int(part.tokens_out)),
        hosted=None if part.shadow else prices.hosted(int(part.tokens_in), int(part.tokens_out)),
    )


def _seconds(value: float) -> Decimal:
    """Measured times are floats; their sum is exact to the microsecond, so that no grouping changes it."""
    return Decimal(str(value)).quantize(Decimal("0.000001"))


def _by_token(price_in: Decimal, price_out: Decimal, tokens_in: int, tokens_out: int) -> Decimal | None:
    if not (price_in or price_out):
        return None
    return (price_in * tokens_in + price_out * tokens_out) / MILLION


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return other if one is None else one if other is None else one + other
