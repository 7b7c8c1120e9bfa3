"""How models are timed against each other, and that the questions to them can be interrupted."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import pytest

from briefbox.errors import TrainingCancelledError
from briefbox.schemas import Brief, BriefRequest, Example, ExampleOutput
from tests.training.conftest import make_example, request_about
from tests.training.test_gate import answers, brief, judged_set, verdict
from training import judge, probes
from training.gate import Rules


class Timed:
    """An engine on a clock of its own: `seconds` for each email by adapter, plus what the machine adds in a pass."""

    base_model = "base"

    def __init__(self, seconds: dict[str, float], load: Callable[[int], float] = lambda _pass: 0.0) -> None:
        self.now, self.passes = 0.0, 0
        self._seconds, self._load = seconds, load

    def brief(self, requests: Sequence[BriefRequest], adapter: str) -> list[Brief]:
        self.now += (self._seconds[adapter] + self._load(self.passes)) * len(requests)
        self.passes += 1
        return [brief("normal", "Billing") for _ in requests]


def slowdown_of(engine: Timed, monkeypatch: pytest.MonkeyPatch, *, batches: int = 1) -> float:
    monkeypatch.setattr("training.evaluate.time.perf_counter", lambda: engine.now)
    asked: Any = [(engine, "new"), (engine, "old"), (engine, "")]
    found = judge._answers(asked, judged_set(judge.BATCH * batches), Rules(), lambda _done, _total: None)
    assert [a.model for a in found] == ["new", "old", "base"]
    new, old = (median(a.seconds) for a in found[:2])
    return new / old


def test_a_machine_that_was_busy_for_one_model_only_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Timed({"new": 1.0, "old": 1.0, "": 1.0}, load=lambda number: 0.9 if number == 0 else 0.0)
    assert slowdown_of(engine, monkeypatch) == 1.0
    assert engine.passes == 3 + 2 * judge.TIMING_ROUNDS


@pytest.mark.parametrize("slower", ["new", "old"])
def test_work_that_begins_amid_the_test_slows_both(slower: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a good model is turned down for it, nor is a slow one let through because the other one had it worse."""
    seconds = {"new": 1.0, "old": 1.0, "": 1.0} | {slower: 1.25}
    # From the first third on; asked one after the other, only the second and third model would be slowed down.
    engine = Timed(seconds, load=lambda number: 0.0 if number < 6 else 1.0)
    expected = 2.25 / 2.0 if slower == "new" else 2.0 / 2.25
    assert slowdown_of(engine, monkeypatch, batches=6) == pytest.approx(expected)
    assert engine.passes == 3 * 6


def test_a_model_that_is_slower_by_itself_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Timed({"new": 1.9, "old": 1.0, "": 1.0})
    assert slowdown_of(engine, monkeypatch) == pytest.approx(1.9)
    examples = judged_set()
    slow = answers(examples, range(0, 80, 10), seconds=1.9)
    found = verdict(examples, slow, answers(examples, range(0, 80, 3), seconds=1.0))
    assert found.rule == "latency"


def test_a_model_that_is_not_slower_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Timed({"new": 1.2, "old": 1.0, "": 1.0})
    slowdown_of(engine, monkeypatch)
    assert engine.passes == 3


@pytest.mark.parametrize("questions", [probes.fingerprint, probes.memorised])
def test_the_last_questions_can_be_interrupted_too(questions: Callable[..., object]) -> None:
    engine: Any = Timed({"new": 1.0})

    def stop(done: int, _total: int) -> None:
        if done:
            raise TrainingCancelledError("cancelled")

    learned: list[Example] = [
        make_example(n, input=request_about(f"Order 44{n:02}1"), output=ExampleOutput(summary=f"44{n:02}1"))
        for n in range(20)
    ]
    extra = (learned,) if questions is probes.memorised else ()
    with pytest.raises(TrainingCancelledError):
        questions(engine, "new", *extra, on_progress=stop)
    assert engine.passes == 1
