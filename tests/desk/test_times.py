"""Named times to put something off until, on days when the clocks change too."""

from datetime import UTC, datetime

import pytest

from briefbox.errors import InvalidValueError, SettingsError
from desk import times

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def choices(moment: str, timezone: str = BERLIN) -> dict[str, tuple[str, str]]:
    """Label and UTC time by key."""
    return {
        key: (label, f"{until:%Y-%m-%d %H:%M}")
        for key, label, until in times.snooze_choices(at(moment), timezone)
    }


def test_an_ordinary_day() -> None:
    assert choices("2026-11-25 12:34") == {  # a Wednesday, 13:34 in Berlin
        "later": ("Later today, 16:45", "2026-11-25 15:45"),
        "tomorrow": ("Tomorrow, 09:00", "2026-11-26 08:00"),
        "monday": ("Next Monday, 09:00", "2026-11-30 08:00"),
    }


def test_nine_stays_nine_when_the_clocks_change() -> None:
    # Spring forward in Berlin: 29 March 2026. Back: 25 October 2026.
    assert choices("2026-03-28 12:00")["tomorrow"][1] == "2026-03-29 07:00"
    assert choices("2026-03-28 12:00")["monday"][1] == "2026-03-30 07:00"
    assert choices("2026-10-24 12:00")["tomorrow"][1] == "2026-10-25 08:00"
    assert choices("2026-10-23 12:00")["tomorrow"][1] == "2026-10-24 07:00"


def test_three_hours_are_three_hours_when_the_clocks_change() -> None:
    # 01:00 in Berlin; the clocks go from 02:00 to 03:00.
    assert choices("2026-03-29 00:00")["later"] == ("Later today, 05:00", "2026-03-29 03:00")
    assert choices("2026-10-25 00:30")["later"] == ("Later today, 04:30", "2026-10-25 03:30")


def test_a_day_is_the_desks_own() -> None:
    # 23:30 UTC is the next day in Berlin, and still Sunday in New York.
    assert choices("2026-11-29 23:30")["monday"][1] == "2026-12-07 08:00"
    assert choices("2026-11-29 23:30", "America/New_York")["monday"][1] == "2026-11-30 14:00"
    assert choices("2026-11-25 21:00")["later"] == ("In three hours, 01:00", "2026-11-26 00:00")


def test_on_a_monday_the_next_one_is_meant() -> None:
    assert choices("2026-11-30 08:30")["monday"][1] == "2026-12-07 08:00"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("tomorrow", "2026-11-26 08:00"),
        ("2026-12-01T14:30", "2026-12-01 13:30"),
        ("2026-12-01 14:30:00", "2026-12-01 13:30"),
        ("2026-12-01T14:30+00:00", "2026-12-01 14:30"),
        ("2027-03-28T02:30", "2027-03-28 01:30"),  # skipped: 03:30 it is
        ("2027-10-31T02:30", "2027-10-31 00:30"),  # comes twice: the first
    ],
)
def test_a_key_or_a_local_time_is_read(given: str, expected: str) -> None:
    found = times.parse_snooze(given, at("2026-11-25 12:34"), BERLIN)
    assert f"{found:%Y-%m-%d %H:%M}" == expected
    assert found.tzinfo is UTC


@pytest.mark.parametrize("given", ["", "soon", "2026-13-01T10:00", "0001-01-01T00:00", "9" * 400])
def test_anything_else_is_refused_in_words(given: str) -> None:
    with pytest.raises(InvalidValueError, match="expected later, tomorrow, monday"):
        times.parse_snooze(given, at("2026-11-25 12:34"), BERLIN)


def test_a_wrong_time_zone_names_its_setting() -> None:
    for name in ("Mars", "../etc/passwd", ""):
        with pytest.raises(SettingsError, match="BRIEFBOX_TIMEZONE"):
            times.snooze_choices(at("2026-11-25 12:34"), name)


def test_times_as_people_say_them() -> None:
    now = at("2026-11-25 12:34")
    said = [
        times.say_time(at(moment), now, BERLIN)
        for moment in ("2026-11-25 15:45", "2026-11-25 23:30", "2026-11-30 08:00", "2027-01-04 08:00")
    ]
    assert said == ["today 16:45", "tomorrow 00:30", "Mon 30 Nov, 09:00", "Mon 4 Jan 2027, 09:00"]
    assert times.local_input(at("2026-11-30 08:00"), BERLIN) == "2026-11-30T09:00"
