"""What an operator's programs ask: what briefs cost, and whether everything runs."""

from datetime import date
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from briefbox.errors import InvalidValueError
from briefbox.store import alerts, cost, mailboxes, processes, queue, work
from desk.api import answers
from desk.api.access import Reading, ReadingAsAdmin
from desk.api.models import Model, Moment
from desk.context import TheDesk

router = APIRouter()

Day = Annotated[str, Query(max_length=40, description="YYYY-MM-DD, UTC.")]


class CostRow(Model):
    """One line of the table. Money is a decimal number as text; null: no price is set."""

    name: str
    shadow: bool = Field(description="Briefs by adapters on trial.")
    emails: int
    briefs: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    seconds: Decimal
    money: Decimal | None
    hosted: Decimal | None = Field(description="What a hosted service would ask for the same tokens.")


class CostOut(Model):
    """What briefs cost, in rows by day, mailbox, adapter or engine."""

    since: date
    until: date
    by: str
    currency: str
    rows: list[CostRow]
    total: CostRow


class ProcessOut(Model):
    """A process, and whether it gave a sign of life lately."""

    name: str
    kind: str
    detail: str
    seen_at: Moment
    is_alive: bool


class AlertOut(Model):
    """Something that an admin should know."""

    key: str
    text: str
    times: int
    raised_at: Moment


class HealthOut(Model):
    """Whether everything runs."""

    is_well: bool = Field(description="No alert is open, no mailbox has an error, no process is silent.")
    waiting_briefs: int
    conversations: dict[str, int] = Field(description="How many there are in each state.")
    failing_mailboxes: list[str]
    paused_mailboxes: list[str]
    processes: list[ProcessOut]
    alerts: list[AlertOut]


@router.get("/cost", response_model=CostOut, summary="What briefs cost", tags=["cost"])
def get_cost(
    request: Request,
    desk: TheDesk,
    caller: ReadingAsAdmin,
    since: Day = "",
    until: Day = "",
    by: Annotated[str, Query(max_length=40, description="day, mailbox, adapter or engine.")] = "day",
) -> Response:
    """Without dates: the last 30 days."""
    grouping = next((known for known in cost.GROUPINGS if known == by), None)
    if grouping is None:
        raise InvalidValueError(f"by: “{by}” is none of {', '.join(cost.GROUPINGS)}.")
    with desk.database.read() as session:
        first, last = cost.date_range(session, since, until)
        found = cost.costs(session, cost.Prices.of(desk.settings), since=first, until=last, by=grouping)
    out = CostOut(
        since=found.since,
        until=found.until,
        by=found.by,
        currency=found.prices.currency,
        rows=[_cost_row(row) for row in found.rows],
        total=_cost_row(found.total),
    )
    return answers.one(request, out)


@router.get("/health", response_model=HealthOut, summary="Whether everything runs", tags=["health"])
def get_health(request: Request, desk: TheDesk, caller: Reading) -> Response:
    """For monitoring. Counts and mailboxes are those that the token's owner sees."""
    with desk.database.read() as session:
        active = mailboxes.active(session)
        rows = [row for row in active if caller.sight.sees(row.id)]
        unseen = tuple(mailboxes.alert_key(row.name, "") for row in active if not caller.sight.sees(row.id))
        failing = [row.name for row in rows if row.last_error and row.paused_at is None]
        beats = [
            ProcessOut(
                name=row.name, kind=row.kind, detail=row.detail, seen_at=row.seen_at, is_alive=is_alive
            )
            for row, is_alive in processes.all_of(session)
        ]
        open_alerts = [
            AlertOut(key=row.key, text=row.text, times=row.times, raised_at=row.raised_at)
            for row in alerts.open_alerts(session)
            if not row.key.startswith(unseen)
        ]
        out = HealthOut(
            is_well=not failing and not open_alerts and all(one.is_alive for one in beats),
            waiting_briefs=work.num_waiting(session),
            conversations=queue.counts(session, caller.sight),
            failing_mailboxes=failing,
            paused_mailboxes=[row.name for row in rows if row.paused_at is not None],
            processes=beats,
            alerts=open_alerts,
        )
    return answers.one(request, out)


def _cost_row(row: cost.CostRow) -> CostRow:
    return CostRow(**{name: getattr(row, name) for name in CostRow.model_fields})
