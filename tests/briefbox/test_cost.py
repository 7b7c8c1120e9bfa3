from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session, select

from briefbox.db import Database
from briefbox.errors import InvalidValueError
from briefbox.settings import load_settings
from briefbox.store import cost_words as words
from briefbox.store import mailboxes
from briefbox.store.cost import GROUPINGS, By, CostRow, Costs, Prices, costs, date_range
from briefbox.tables import Brief, Email, Mailbox
from tests.conftest import arrival, commit, make_email

AddBrief = Callable[..., None]

NO_PRICES = Prices.of(load_settings())
PRICES = Prices.of(
    load_settings(
        price_device_hour=0.36,
        device_watts=400,
        price_kwh=0.1,
        price_million_in=0.5,
        price_million_out=2,
        hosted_million_in=1,
        hosted_million_out=4,
    )
)
FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)


@pytest.fixture
def add_brief(database: Database, mailbox: Mailbox) -> AddBrief:
    """`add_brief(day=3, engine="openai", mailbox="sales")` stores an email and its brief."""
    numbers = count(1)

    def add(day: int = 1, hour: int = 12, *, mailbox: str = "support", **fields: Any) -> None:
        number = next(numbers)
        with database.write() as session:
            [email_id] = commit(
                session, _mailbox(session, mailbox), [arrival(number, make_email(number))], folder="INBOX"
            )
            email = session.get_one(Email, email_id)
            values = {"engine": "transformers", "seconds": 10.0, "tokens_in": 1000, "tokens_out": 100}
            brief = Brief(
                email_id=email.id,
                conversation_id=email.conversation_id,
                priority="low",
                category="other",
                base_model="m",
                prompt_version="1",
                created_at=datetime(2026, 11, day, hour, tzinfo=UTC),
                **{**values, **fields},
            )
            session.add(brief)

    return add


def _mailbox(session: Session, name: str) -> Mailbox:
    found = session.exec(select(Mailbox).where(Mailbox.name == name)).first()
    if found is not None:
        return found
    row = Mailbox(name=name, address=name, host="localhost", port=1, username=name, folders=["INBOX"])
    return mailboxes.add(session, row, actor="test")


def look(database: Database, by: By = "day", prices: Prices = PRICES, **range_: date) -> Costs:
    with database.read() as session:
        return costs(session, prices, **{"since": FIRST, "until": LAST, **range_}, by=by)


def names(found: Costs) -> list[str]:
    return [row.name for row in found.rows]


def test_a_local_brief_costs_its_share_of_the_hour_and_the_power(
    database: Database, add_brief: AddBrief
) -> None:
    add_brief(seconds=36.0)
    [row] = look(database).rows
    assert row.money == Decimal("0.004")  # 36 s of an hour at 0.36 + 0.4 kW x 0.1
    assert row.hosted == Decimal("0.0014")
    assert row.per_thousand == Decimal(4)


def test_the_engine_openai_is_paid_by_token(database: Database, add_brief: AddBrief) -> None:
    add_brief(engine="openai", tokens_in=1_000_000, tokens_out=10_000, seconds=99.0)
    [row] = look(database, "engine").rows
    assert (row.name, row.money) == ("openai", Decimal("0.52"))


@pytest.mark.parametrize("by", GROUPINGS)
def test_sums_are_the_sums_of_their_parts(database: Database, add_brief: AddBrief, by: By) -> None:
    add_brief(1, seconds=0.1, tokens_in=7, adapter="lora-1")
    add_brief(2, seconds=0.2, tokens_in=11, engine="openai")
    add_brief(2, seconds=1 / 3, tokens_cached=5, mailbox="sales", prefill_seconds=0.2, decode_seconds=0.1)
    add_brief(3, seconds=0.7, shadow=True, adapter="lora-2")
    found = look(database, by)
    for field in ("emails", "briefs", "tokens_in", "tokens_cached", "tokens_out", "seconds"):
        assert getattr(found.total, field) == sum(getattr(row, field) for row in found.rows), field
    for field in ("prefill_seconds", "decode_seconds", "money", "hosted"):
        assert getattr(found.total, field) == sum(getattr(row, field) or 0 for row in found.rows), field
    assert (found.total.emails, found.total.briefs, found.total.seconds) == (3, 4, Decimal("1.333333"))
    # However it is grouped, the money is the same to far below a cent's thousandth.
    assert found.total.money is not None
    assert round(found.total.money, 12) == round(look(database, "day").total.money or 0, 12)


def test_each_grouping_has_its_names(database: Database, add_brief: AddBrief) -> None:
    add_brief(1, adapter="lora-1")
    add_brief(2, mailbox="sales", engine="fake")
    assert names(look(database, "day")) == ["2026-11-01", "2026-11-02"]
    assert names(look(database, "mailbox")) == ["sales", "support"]
    assert names(look(database, "adapter")) == ["", "lora-1"]
    assert names(look(database, "engine")) == ["fake", "transformers"]


def test_shadow_briefs_cost_and_are_no_emails(database: Database, add_brief: AddBrief) -> None:
    add_brief(seconds=36.0)
    add_brief(seconds=36.0, shadow=True, adapter="lora-2")
    found = look(database, "adapter")
    ours, shadow = found.rows
    assert (shadow.name, shadow.shadow, shadow.emails, shadow.briefs) == ("shadow", True, 0, 1)
    assert (ours.money, shadow.money, shadow.hosted) == (Decimal("0.004"), Decimal("0.004"), None)
    assert found.total.per_thousand == Decimal(8)


@pytest.mark.parametrize(("zone", "hour"), [("Asia/Tokyo", 23), ("America/New_York", 0)])
def test_a_day_is_utc_whatever_the_session_thinks(
    database: Database, add_brief: AddBrief, zone: str, hour: int
) -> None:
    add_brief(2, hour)
    with database.read() as session:
        if not database.is_sqlite:
            session.connection().execute(text(f"SET TIME ZONE '{zone}'"))
        found = costs(session, PRICES, since=date(2026, 11, 2), until=date(2026, 11, 2))
    assert names(found) == ["2026-11-02"]


def test_both_ends_of_a_range_belong_to_it(database: Database, add_brief: AddBrief) -> None:
    for day, hour in ((1, 23), (2, 0), (3, 23), (4, 0)):
        add_brief(day, hour)
    found = look(database, since=date(2026, 11, 2), until=date(2026, 11, 3))
    assert names(found) == ["2026-11-02", "2026-11-03"]
    assert look(database, since=date.min, until=date.max).total.emails == 4


def test_no_briefs_are_no_rows(database: Database) -> None:
    found = look(database)
    assert (found.rows, found.total.money, found.days, words.comparison(found)) == ((), None, 0, "")


def test_without_prices_there_is_no_money_and_the_settings_are_named(
    database: Database, add_brief: AddBrief
) -> None:
    add_brief()
    found = look(database, prices=NO_PRICES)
    assert (found.total.money, found.total.hosted, found.total.per_thousand) == (None, None, None)
    assert words.comparison(found) == ""
    for name in ("PRICE_DEVICE_HOUR", "DEVICE_WATTS", "PRICE_KWH", "HOSTED_MILLION_IN"):
        assert f"BRIEFBOX_{name}" in words.missing(found)
    assert "PRICE_MILLION" not in words.missing(found)
    assert words.missing(look(database)) == ""


def test_prices_by_token_are_asked_for_where_tokens_are_paid(database: Database, add_brief: AddBrief) -> None:
    add_brief(engine="openai")
    said = words.missing(look(database, prices=NO_PRICES))
    assert "BRIEFBOX_PRICE_MILLION_IN" in said
    assert "DEVICE_HOUR" not in said


def table(
    *, emails: int, days: int, seconds: str, money: str | None, hosted: str, prices: Prices = PRICES
) -> Costs:
    total = CostRow(
        "total",
        emails=emails,
        seconds=Decimal(seconds),
        money=None if money is None else Decimal(money),
        hosted=Decimal(hosted),
    )
    local = (Decimal(seconds), emails)
    return Costs("day", FIRST, LAST, prices, (total,), total, days, frozenset({"transformers"}), *local)


def test_the_comparison_tells_from_which_volume_a_machine_pays() -> None:
    # A day of the machine is 9.60; a hosted email is 0.002: from 4,800 emails a day.
    few = table(emails=3000, days=3, seconds="3000", money="0.3333", hosted="6")
    assert (words.break_even(few), words.capacity(few)) == (4800, 86_400)
    assert "cost 0.33 EUR" in words.comparison(few)
    assert "6.00 EUR for the same tokens: briefbox is cheaper" in words.comparison(few)
    assert "costs 9.60 EUR a day and pays from 4,800 emails a day" in words.comparison(few)
    assert "at the present 1,000 a day a hosted service is cheaper" in words.comparison(few)
    many = table(emails=30_000, days=3, seconds="3000", money="0.3333", hosted="60")
    assert "at the present 10,000 a day the machine is cheaper" in words.comparison(many)


def test_a_break_even_beyond_the_machine_is_no_break_even() -> None:
    slow = table(emails=100, days=1, seconds="2000", money="0.22", hosted="0.2")
    said = words.comparison(slow)
    assert "pays from 4,800 emails a day, more than the 4,320 that it can brief" in said
    assert said.endswith("a hosted service is cheaper.")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0.00"),
        ("1234.565", "1,234.56"),
        ("0.104", "0.10"),
        ("0.0123", "0.012"),
        ("0.000008765", "0.0000088"),
        ("0.0996", "0.100"),
        ("1E+3", "1,000.00"),
    ],
)
def test_money_is_rounded_for_people(value: str, shown: str) -> None:
    assert words.amount(Decimal(value)) == shown


def test_the_figures_of_a_column_have_the_same_places() -> None:
    for total, figures, shown in (("0.33", 4, "0.0029"), ("12.3", 4, "0.00"), ("0.025", 3, "0.0029")):
        assert words.amount(Decimal("0.0029"), words.places(Decimal(total), figures)) == shown
    assert words.places(None, 4) == words.places(Decimal(0), 4) == 2


def test_no_money_is_shown_as_nothing() -> None:
    assert words.amount(None) == ""


def test_prices_are_what_was_written_not_a_binary_fraction() -> None:
    assert Prices.of(load_settings(price_device_hour=0.1)).device_hour == Decimal("0.1")


def test_a_range_is_thirty_days_unless_asked(database: Database) -> None:
    with database.read() as session:
        since, until = date_range(session, "", "")
        assert until - since == timedelta(days=29)
        assert abs(until - datetime.now(UTC).date()) <= timedelta(days=1)  # it may be midnight
        assert date_range(session, "", "2026-03-30") == (date(2026, 3, 1), date(2026, 3, 30))
        assert date_range(session, "", "0001-01-02")[0] == date.min
        for since, until in (("yesterday", ""), ("", "2026-02-30"), ("2026-03-02", "2026-03-01")):
            with pytest.raises(InvalidValueError, match="(?i)expected"):
                date_range(session, since, until)


def test_a_range_of_days_is_found_by_the_index(database: Database, add_brief: AddBrief) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL rightly scans a small table")
    with database.read() as session:
        plan = session.connection().execute(
            text("EXPLAIN QUERY PLAN SELECT count(*) FROM briefs WHERE created_at >= '2026' AND seconds > 0")
        )
        assert "ix_briefs_created_at" in str(plan.all())
