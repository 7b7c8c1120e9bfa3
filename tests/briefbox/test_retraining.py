"""When the next training run begins by itself, and the words for it."""

from datetime import UTC, datetime, timedelta

import pytest

from briefbox.errors import SettingsError
from briefbox.settings import Settings
from briefbox.store.retraining import Retraining, slot_after, slot_before

TUESDAY = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def words(**changes: object) -> str:
    values = {
        "corrections": 41,
        "confirmations": 7,
        "wanted": 100,
        "next_slot": datetime(2026, 11, 29, 2, 0, tzinfo=UTC),
        "cool_down_until": None,
        "open_run": None,
        "reason": "",
        "timezone": "UTC",
    } | changes
    return str(Retraining(**values))  # type: ignore[arg-type]


def test_the_schedule_in_plain_words() -> None:
    assert words() == "41 of 100 corrections; next run Sunday 02:00"
    assert words(open_run=3) == "41 of 100 corrections; run 3 is under way"
    assert words(wanted=0, next_slot=None) == "41 corrections; no day is set for the next run"
    assert words(reason="x") == "41 of 100 corrections; a run is due now"
    assert words(corrections=0, confirmations=0).endswith(
        "next run Sunday 02:00, if there is something new by then"
    )


@pytest.mark.parametrize(
    ("weekday", "after", "before"),
    [
        ("sunday", datetime(2026, 11, 29, 2, tzinfo=UTC), datetime(2026, 11, 22, 2, tzinfo=UTC)),
        ("tuesday", datetime(2026, 12, 1, 2, tzinfo=UTC), datetime(2026, 11, 24, 2, tzinfo=UTC)),
        ("daily", datetime(2026, 11, 25, 2, tzinfo=UTC), datetime(2026, 11, 24, 2, tzinfo=UTC)),
        ("never", None, None),
    ],
)
def test_the_slots_around_a_moment(
    settings: Settings, weekday: str, after: datetime | None, before: datetime | None
) -> None:
    own = settings.model_copy(update={"train_weekday": weekday})
    assert (slot_after(TUESDAY, own), slot_before(TUESDAY, own)) == (after, before)


def test_two_o_clock_stays_two_o_clock_when_the_clocks_change(settings: Settings) -> None:
    own = settings.model_copy(
        update={"train_weekday": "daily", "train_timezone": "Europe/Berlin", "train_hour": 5}
    )
    before_change = slot_after(datetime(2026, 10, 24, 0, tzinfo=UTC), own)
    after_change = slot_after(datetime(2026, 10, 25, 0, tzinfo=UTC), own)
    assert before_change == datetime(2026, 10, 24, 3, tzinfo=UTC)
    assert after_change == datetime(2026, 10, 25, 4, tzinfo=UTC)
    assert after_change - before_change == timedelta(hours=25)


def test_a_time_zone_that_nobody_knows_is_a_sentence(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="BRIEFBOX_TRAIN_TIMEZONE is 'Mars'"):
        slot_after(TUESDAY, settings.model_copy(update={"train_timezone": "Mars"}))
