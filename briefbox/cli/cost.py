"""The command `cost`: tokens, device time and money of the briefs, and what a hosted service would ask."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer

from briefbox.cli.context import database_for
from briefbox.cli.output import console, print_json, print_table
from briefbox.errors import InvalidValueError
from briefbox.store import cost as store
from briefbox.store import cost_words as words

TITLES: dict[store.By, str] = {
    "day": "day (UTC)",
    "mailbox": "mailbox",
    "adapter": "adapter",
    "engine": "engine",
}


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(cost)


def cost(
    since: Annotated[str, typer.Option(help="First day, YYYY-MM-DD in UTC. Default: 30 days.")] = "",
    until: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD in UTC. Default: today.")] = "",
    by: Annotated[str, typer.Option(help="A row for each: day, mailbox, adapter or engine.")] = "day",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What briefs cost: emails, tokens, device time, money, and what a hosted service would ask for the same."""
    grouping = next((known for known in store.GROUPINGS if known == by), None)
    if grouping is None:
        raise InvalidValueError(f"--by {by}: expected one of {', '.join(store.GROUPINGS)}.")
    database, settings = database_for()
    with database.read() as session:
        first, last = store.date_range(session, since, until)
        found = store.costs(session, store.Prices.of(settings), since=first, until=last, by=grouping)
    if as_json:
        print_json(_facts(found))
        return
    print_table(
        f"Cost of briefs from {first} to {last}",
        _columns(found),
        [_cells(row, found) for row in (*found.rows, found.total)] if found.rows else [],
        empty="no brief was written in these days",
    )
    for sentence in (words.comparison(found), words.missing(found)):
        if sentence:
            console.print(sentence, soft_wrap=True, markup=False)


def _columns(found: store.Costs) -> list[str]:
    currency = found.prices.currency
    columns = [TITLES[found.by], "emails", "tokens in", "cached", "tokens out", "device s"]
    if found.total.money is not None:
        columns += [currency, f"{currency} per 1,000 emails"]
    if found.total.hosted is not None:
        columns.append(f"{currency} hosted")
    return columns


def _cells(row: store.CostRow, found: store.Costs) -> Sequence[str]:
    cells = [
        _label(row, found),
        f"{row.emails:,}" if not row.shadow else "",
        f"{row.tokens_in:,}",
        f"{row.tokens_cached:,}",
        f"{row.tokens_out:,}",
        f"{row.seconds:,.1f}",
    ]
    if found.total.money is not None:
        cells.append(words.amount(row.money, words.places(found.total.money, 4)))
        cells.append(words.amount(row.per_thousand, words.places(found.total.per_thousand, 3)))
    if found.total.hosted is not None:
        cells.append(words.amount(row.hosted, words.places(found.total.hosted, 4)))
    return cells


def _label(row: store.CostRow, found: store.Costs) -> str:
    if row.shadow:
        return f"shadow ({row.briefs:,} brief{'' if row.briefs == 1 else 's'})"
    return row.name or "none (the base model)"


def _facts(found: store.Costs) -> dict[str, Any]:
    """The same as data; money and seconds are strings so that no reader rounds them."""
    return {
        "by": found.by,
        "since": found.since,
        "until": found.until,
        "currency": found.prices.currency,
        "rows": [_row_facts(row) for row in found.rows],
        "total": _row_facts(found.total),
        "emails_a_day": float(round(words.emails_a_day(found), 2)),
        "break_even_emails_a_day": words.break_even(found),
        "emails_a_day_at_most": words.capacity(found),
        "comparison": words.comparison(found),
        "missing": words.missing(found),
    }


def _row_facts(row: store.CostRow) -> dict[str, Any]:
    facts = {
        "name": row.name,
        "shadow": row.shadow,
        "emails": row.emails,
        "briefs": row.briefs,
        "tokens_in": row.tokens_in,
        "tokens_cached": row.tokens_cached,
        "tokens_out": row.tokens_out,
        "seconds": row.seconds,
        "prefill_seconds": row.prefill_seconds,
        "decode_seconds": row.decode_seconds,
        "money": row.money,
        "money_per_1000_emails": row.per_thousand,
        "hosted": row.hosted,
    }
    return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in facts.items()}
