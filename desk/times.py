"""Times as people name them, in the desk's time zone: until when something is put off, and how that is said.

Days are counted on the local calendar: 09:00 stays 09:00 when the clocks change.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from briefbox.errors import InvalidValueError, SettingsError

MORNING = 9
LATER_HOURS = 3
STEP_MINUTES = 15
MONDAY = 0


def zone(name: str) -> ZoneInfo:
    """The time zone of the setting. Raises SettingsError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise SettingsError(
            f"BRIEFBOX_TIMEZONE is {name!r}, which is no time zone; expected a name such as UTC or Europe/Berlin."
        ) from error


def snooze_choices(moment: datetime, timezone: str) -> list[tuple[str, str, datetime]]:
    """The named times to put something off until: key, label, and the time in UTC. Raises SettingsError."""
    local = moment.astimezone(zone(timezone))
    later = _rounded_up(moment + timedelta(hours=LATER_HOURS))
    at = later.astimezone(local.tzinfo)
    name = "Later today" if at.date() == local.date() else "In three hours"
    return [
        ("later", f"{name}, {at:%H:%M}", later),
        ("tomorrow", f"Tomorrow, {MORNING:02}:00", _morning(local, 1)),
        ("monday", f"Next Monday, {MORNING:02}:00", _morning(local, 7 - (local.weekday() - MONDAY) % 7)),
    ]


def parse_snooze(value: str, moment: datetime, timezone: str) -> datetime:
    """The time in UTC that a choice's key names, or a local date and time. Raises InvalidValueError, SettingsError.

    A local time that the clocks skip means the one an hour later; one that comes twice means the first.
    """
    for key, _, until in snooze_choices(moment, timezone):
        if value == key:
            return until
    try:
        given = datetime.fromisoformat(value.strip())
        return (given if given.tzinfo else given.replace(tzinfo=zone(timezone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError(
            f"“{value[:50]}” is no time to put it off until; expected later, tomorrow, monday, or a date and time such as 2026-11-30T09:00."
        ) from None


def say_time(moment: datetime, now: datetime, timezone: str) -> str:
    """A moment not far from now, for people: "today 16:30", "tomorrow 09:00", "Mon 30 Nov, 09:00"."""
    there, here = moment.astimezone(zone(timezone)), now.astimezone(zone(timezone))
    days = (there.date() - here.date()).days
    near = {-1: "yesterday", 0: "today", 1: "tomorrow"}
    if days in near:
        return f"{near[days]} {there:%H:%M}"
    year = "" if there.year == here.year else f" {there.year}"
    return f"{there:%a} {there.day} {there:%b}{year}, {there:%H:%M}"


def local_input(moment: datetime, timezone: str) -> str:
    """A moment as a field of type datetime-local takes it."""
    return f"{moment.astimezone(zone(timezone)):%Y-%m-%dT%H:%M}"


def _morning(local: datetime, days: int) -> datetime:
    there = (local + timedelta(days=days)).replace(hour=MORNING, minute=0, second=0, microsecond=0, fold=0)
    return there.astimezone(UTC)


def _rounded_up(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(second=0, microsecond=0)
    return whole + timedelta(minutes=-whole.minute % STEP_MINUTES)
