"""Training stands aside for mail, and ends all the same."""

import pytest

from briefbox.errors import TrainingCancelledError
from training.yielding import Yielding


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_without_mail_it_never_waits() -> None:
    clock = Clock()
    yielding = Yielding(lambda: False, floor=0.1, clock=clock, sleep=clock.sleep)
    clock.now += 5
    yielding.stand_aside()
    assert clock.now == 5
    assert yielding.paused_seconds == 0


def test_it_waits_until_the_mail_is_done() -> None:
    clock = Clock()
    yielding = Yielding(lambda: clock.now < 12, floor=0.1, clock=clock, sleep=clock.sleep)
    clock.now += 5
    yielding.stand_aside()
    assert clock.now == pytest.approx(12, abs=0.5)


def test_a_queue_that_is_never_empty_leaves_training_its_floor() -> None:
    clock = Clock()
    yielding = Yielding(lambda: True, floor=0.2, clock=clock, sleep=clock.sleep)
    for _ in range(10):
        clock.now += 3
        yielding.stand_aside()
    assert 10 * 3 / clock.now == pytest.approx(0.2)
    assert yielding.paused_seconds == pytest.approx(120)


def test_a_cancelled_run_does_not_sleep_on() -> None:
    def check() -> None:
        raise TrainingCancelledError("cancelled")

    clock = Clock()
    yielding = Yielding(lambda: True, floor=0.1, check=check, clock=clock, sleep=clock.sleep)
    clock.now += 60
    with pytest.raises(TrainingCancelledError):
        yielding.stand_aside()
    assert clock.now == 60
