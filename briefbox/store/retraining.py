"""When the next training run begins by itself, and how to say so: "41 of 100 corrections; next run Sunday 02:00"."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.errors import SettingsError
from briefbox.settings import Settings
from briefbox.tables import Confirmation, Conversation, Correction, Dataset, TrainingRun

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, slots=True)
class Retraining:
    """Where the schedule stands. `reason` says why a run is due now; "" when none is."""

    corrections: int  # of finished conversations, new since the last run's dataset
    confirmations: int
    wanted: int  # corrections that start a run at once; 0: never
    next_slot: datetime | None  # UTC; None: no day is set
    cool_down_until: datetime | None
    open_run: int | None  # the id of a run that waits or trains now
    reason: str
    timezone: str

    def __str__(self) -> str:
        count = f"{self.corrections} of {self.wanted}" if self.wanted else str(self.corrections)
        parts = [f"{count} corrections"]
        if self.open_run is not None:
            parts.append(f"run {self.open_run} is under way")
        elif self.reason:
            parts.append("a run is due now")
        elif self.next_slot is None:
            parts.append("no day is set for the next run")
        else:
            local = self.next_slot.astimezone(ZoneInfo(self.timezone))
            nothing = not (self.corrections or self.confirmations)
            parts.append(
                f"next run {local:%A %H:%M}" + (", if there is something new by then" if nothing else "")
            )
        return "; ".join(parts)


def look(session: Session, settings: Settings) -> Retraining:
    """Where the schedule stands now. Raises SettingsError for a time zone that nobody knows."""
    moment = now(session)
    last = _last_run(session)
    since = learned_until(session)
    corrections = _count(session, Correction, since)
    confirmations = _count(session, Confirmation, since)
    open_run = last.id if last is not None and last.state in ("waiting", "running") else None
    cool = last.created_at + timedelta(hours=settings.train_cool_down_hours) if last is not None else None
    slot = slot_after(moment, settings)
    before = slot_before(moment, settings)
    reason = ""
    if open_run is None and corrections + confirmations and (cool is None or moment >= cool):
        wanted = settings.train_after_corrections
        oldest = _oldest(session, since)
        if wanted and corrections >= wanted:
            reason = f"{corrections} new corrections"
        elif before is not None and oldest is not None and oldest < before:
            # Also when the machine was off at that hour: the slot was missed, and is made up for.
            reason = f"the time set for it: {settings.train_weekday} {settings.train_hour:02}:00"
    return Retraining(
        corrections=corrections,
        confirmations=confirmations,
        wanted=settings.train_after_corrections,
        next_slot=slot,
        cool_down_until=cool,
        open_run=open_run,
        reason=reason,
        timezone=settings.train_timezone,
    )


def learned_until(session: Session) -> datetime | None:
    """When the corrections of the last run's dataset were harvested; None where none were."""
    last = _last_run(session)
    learned = session.get(Dataset, last.dataset_id) if last is not None else None
    return learned.created_at if learned is not None and learned.source == "corrections" else None


def _last_run(session: Session) -> TrainingRun | None:
    query = select(TrainingRun).where(col(TrainingRun.state) != "cancelled")
    return session.exec(query.order_by(col(TrainingRun.id).desc()).limit(1)).first()


def slot_after(moment: datetime, settings: Settings) -> datetime | None:
    """The next time that the settings name, UTC; None when they name none."""
    return _slot(moment, settings, forward=True)


def slot_before(moment: datetime, settings: Settings) -> datetime | None:
    """The last time that the settings name, UTC; None when they name none."""
    return _slot(moment, settings, forward=False)


def _slot(moment: datetime, settings: Settings, *, forward: bool) -> datetime | None:
    if settings.train_weekday == "never":
        return None
    try:
        zone = ZoneInfo(settings.train_timezone)
    except (KeyError, ValueError, OSError) as error:
        raise SettingsError(
            f"BRIEFBOX_TRAIN_TIMEZONE is {settings.train_timezone!r}, which is no time zone; expected a name such as UTC or Europe/Berlin."
        ) from error
    day = moment.astimezone(zone)
    for distance in range(8):
        # Days are counted on the local calendar: 02:00 stays 02:00 when the clocks change.
        local = (day + timedelta(days=distance if forward else -distance)).replace(
            hour=settings.train_hour, minute=0, second=0, microsecond=0
        )
        right_day = settings.train_weekday in ("daily", WEEKDAYS[local.weekday()])
        if right_day and (local > moment if forward else local <= moment):
            return local.astimezone(UTC)
    raise AssertionError("every weekday comes within eight days")


def _count(session: Session, table: type[Correction] | type[Confirmation], since: datetime | None) -> int:
    query = (
        select(func.count())
        .select_from(table)
        .join(Conversation, col(table.conversation_id) == col(Conversation.id))
        .where(Conversation.state == "done", col(table.undone_at).is_(None))
    )
    return session.exec(query.where(col(table.created_at) > since) if since else query).one()


def _oldest(session: Session, since: datetime | None) -> datetime | None:
    times: list[datetime] = []
    for table in (Correction, Confirmation):
        query = select(func.min(table.created_at)).where(col(table.undone_at).is_(None))
        found = session.exec(query.where(col(table.created_at) > since) if since else query).one()
        if found is not None:
            times.append(found)
    return min(times, default=None)
