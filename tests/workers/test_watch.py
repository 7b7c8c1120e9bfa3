"""workers/watch.py and workers/pace.py: a lease lives as long as the model works, and not forever."""

import time
from collections.abc import Callable

from briefbox.errors import DatabaseBusyError
from workers.pace import Pace
from workers.watch import Watch


def test_the_lease_is_renewed_while_the_model_works_and_no_longer() -> None:
    seen: list[float] = []
    with Watch(seen.append, every=0.05, limit=60) as watch, watch.timing():
        _wait_for(lambda: len(seen) >= 2)
    num = len(seen)
    assert seen == sorted(seen)
    time.sleep(0.15)
    assert len(seen) == num


def test_a_model_that_hangs_ends_the_process_and_renews_nothing_more() -> None:
    seen: list[float] = []
    ends: list[str] = []
    with Watch(seen.append, every=0.05, limit=0.2, end=ends.append) as watch, watch.timing():
        time.sleep(0.6)
    assert len(ends) == 1
    assert "twice what is allowed" in ends[0]
    assert max(seen, default=0.0) < 0.3


def test_the_time_between_batches_does_not_count() -> None:
    ends: list[str] = []
    with Watch(lambda _: None, every=0.05, limit=0.3, end=ends.append) as watch:
        for _ in range(4):
            with watch.timing():
                time.sleep(0.15)
    assert ends == []


def test_a_database_that_is_away_does_not_end_the_renewing() -> None:
    seen: list[float] = []

    def renew(busy: float) -> None:
        seen.append(busy)
        raise DatabaseBusyError("away")

    with Watch(renew, every=0.05, limit=60) as watch, watch.timing():
        _wait_for(lambda: len(seen) >= 2)
    assert seen[:2] == sorted(seen[:2])


def test_slow_is_compared_with_batches_of_the_same_size() -> None:
    pace = Pace(floor=1.0)
    for _ in range(10):
        assert pace.note(32, 3.0) is None
    assert pace.note(1, 40.0) is None, "nothing is known about emails alone yet"
    assert pace.note(30, 29.0) is None
    assert pace.note(30, 33.0) == 11.0
    assert pace.num_done == 10 * 32 + 61
    assert str(pace) == "381 emails done, the last batch of 30 took 33.0 s"


def test_quick_batches_are_never_slow() -> None:
    pace = Pace(floor=1.0)
    for _ in range(10):
        pace.note(1, 0.001)
    assert pace.note(1, 0.9) is None
    assert pace.note(1, 1.1) is not None


def test_what_stays_slow_becomes_the_usual() -> None:
    pace = Pace(floor=0.0)
    for _ in range(50):
        pace.note(1, 1.0)
    slow = [pace.note(1, 20.0) is not None for _ in range(50)]
    assert slow[0]
    assert not slow[-1]


def _wait_for(condition: Callable[[], bool]) -> None:
    """A busy machine may take its time."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
