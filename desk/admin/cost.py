"""What briefs cost, for admins: the table of `briefbox cost` with a range of days and a bar for each row."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from briefbox.errors import InvalidValueError
from briefbox.store import cost, cost_words
from desk.access import admin
from desk.context import TheDesk, page

router = APIRouter(dependencies=[Depends(admin)])

LABELS: dict[cost.By, str] = {"day": "Day", "mailbox": "Mailbox", "adapter": "Adapter", "engine": "Engine"}


@dataclass(frozen=True, slots=True)
class RowView:
    """One line with its money as it is shown."""

    row: cost.CostRow
    money: str
    per_thousand: str
    hosted: str


@router.get("/cost")
def cost_page(
    request: Request,
    desk: TheDesk,
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    by: Annotated[str, Query(max_length=40)] = "day",
) -> Response:
    """The table. Without dates: the last 30 days."""
    grouping = next((known for known in cost.GROUPINGS if known == by), None)
    if grouping is None:
        raise InvalidValueError(f"by: “{by}” is none of {', '.join(cost.GROUPINGS)}.")
    with desk.database.read() as session:
        first, last = cost.date_range(session, since, until)
        found = cost.costs(session, cost.Prices.of(desk.settings), since=first, until=last, by=grouping)
    return page(
        request,
        "cost.html",
        found=found,
        rows=[_view(row, found.total) for row in found.rows],
        total=_view(found.total, found.total),
        figures=[
            cost_words.amount(x) for x in (found.total.money, found.total.per_thousand, found.total.hosted)
        ],
        most=max((row.emails for row in found.rows), default=0),
        label=LABELS[grouping],
        groupings=LABELS,
        comparison=cost_words.comparison(found),
        missing=cost_words.missing(found),
    )


def _view(row: cost.CostRow, total: cost.CostRow) -> RowView:
    amount, places = cost_words.amount, cost_words.places
    return RowView(
        row,
        money=amount(row.money, places(total.money, 4)),
        per_thousand=amount(row.per_thousand, places(total.per_thousand, 3)),
        hosted=amount(row.hosted, places(total.hosted, 4)),
    )
