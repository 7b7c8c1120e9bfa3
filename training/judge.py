"""Candidate, the adapter in use and the bare base, in one run on the same frozen test part, and what the gate says.

    calibrate on validation -> answers of all three -> probes -> gate -> the card, with scores, verdict, fingerprint

Everything goes through the engine that briefs mail: what is judged is what will be served. No number from an
earlier run is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from briefbox.schemas import AdapterCard, Example, ProgressCallback, TrainingProgress
from briefbox.settings import Settings
from models.engine import Engine, make_engine
from models.registry import write_card
from training import probes, triggers
from training.calibration import LEAST_LABELS, fit_temperatures
from training.evaluate import LABEL_FIELDS, Answers, OnDone, changed, predict, predict_by_turns, retime
from training.gate import Rules, decide, slowdown
from training.seeds import read_seeds

BATCH = 16
# So often two models are timed again, in turns, when the new one seemed too slow.
TIMING_ROUNDS = 2
MAX_CHANGES = 60


@dataclass(frozen=True, slots=True)
class InUse:
    """The adapter that briefs mail now, to compare with."""

    name: str
    folder: Path
    weights_sha256: str


def judge(
    settings: Settings,
    examples: Sequence[Example],
    card: AdapterCard,
    folder: Path,
    in_use: InUse | None,
    *,
    on_progress: ProgressCallback,
) -> AdapterCard:
    """Judge what lies in `folder`; writes its card anew and returns it. `in_use` None: the bare base is in use.

    Raises ModelError, AdapterError, OutOfMemoryError, and what `on_progress` raises.
    """
    whole = card.method != "lora"
    engine = make_engine(settings)
    candidate = make_engine(settings.model_copy(update={"base_model": str(folder)})) if whole else engine
    name = "" if whole else engine.load_adapter(folder, card.name, card.weights_sha256)
    # 1. Confidences, on examples that were not learned from; those of the starter help a small part out.
    tell = _teller(on_progress, "calibrating")
    validation = [e for e in examples if e.split == "validation"]
    if len(validation) < 2 * LEAST_LABELS and settings.replay_examples:
        validation += [e for e in read_seeds() if e.split == "validation"]
    told = predict(candidate, validation, name, batch_size=BATCH, on_progress=tell)
    card = card.model_copy(update={"temperatures": fit_temperatures(validation, told.briefs)})
    write_card(folder, card)
    if not whole:
        engine.load_adapter(folder, card.name, card.weights_sha256)
    else:
        candidate = make_engine(settings.model_copy(update={"base_model": str(folder)}))
    # 2. The same test for all three.
    tell = _teller(on_progress, "evaluating")
    test = [e for e in examples if e.split == "test"]
    before = engine.load_adapter(in_use.folder, in_use.name, in_use.weights_sha256) if in_use else ""
    rules = Rules.from_settings(settings)
    asked = [(candidate, name), *([(engine, before)] if before else []), (engine, "")]
    answers = _answers(asked, test, rules, tell)
    learned = [e for e in examples if e.split in ("train", None)]
    # With too few emails nothing can pass: the slow probes would change no verdict.
    enough = len(test) >= rules.min_test
    verdict = decide(
        test,
        answers[0],
        answers[1] if before else None,
        answers[-1],
        flips=triggers.trigger_flips(
            candidate,
            name,
            triggers.rare_words(learned),
            learned,
            [e for e in examples if e.split in ("validation", "test")],
            above=rules.trigger_flips,
            on_progress=tell,
        )
        if enough
        else (),
        memorised=probes.memorised(candidate, name, learned, on_progress=tell)
        if enough
        else probes.Memorised(tested=0, leaked=0),
        rules=rules,
    )
    card = card.model_copy(
        update={
            "verdict": verdict.model_dump(mode="json")
            | {"changes": _changes(test, answers[1], answers[0]), "compared_with": before or "base"},
            "fingerprint": probes.fingerprint(candidate, name, on_progress=tell),
        }
    )
    write_card(folder, card)
    return card


def _answers(
    asked: Sequence[tuple[Engine, str]], test: Sequence[Example], rules: Rules, tell: OnDone
) -> list[Answers]:
    """What each engine and adapter says to the test part: the candidate first, and then the one in use."""
    answers = predict_by_turns(asked, test, batch_size=BATCH, on_progress=tell)
    if not test:
        return answers
    new, old = (median(one.seconds) for one in answers[:2])
    if slowdown(new, old) <= rules.latency_ratio:
        return answers
    # Slower, or the machine was busy just when it had its turns.
    timed = retime(asked[:2], answers[:2], test, batch_size=BATCH, rounds=TIMING_ROUNDS, on_progress=tell)
    return [*timed, *answers[2:]]


def _changes(test: Sequence[Example], before: Answers, after: Answers) -> list[dict[str, str]]:
    """Labels that the candidate gives differently, losses first. By ids alone: the card goes where the mail may not."""
    found = [
        {
            "id": change.id,
            "field": field,
            "truth": change.truth[field],
            "before": change.before[field],
            "after": change.after[field],
        }
        for change in changed(test, before, after)
        for field in LABEL_FIELDS
        if field in change.truth and change.before[field] != change.after[field]
    ]
    return sorted(found, key=lambda c: c["after"] == c["truth"])[:MAX_CHANGES]


def _teller(on_progress: ProgressCallback, stage: str) -> OnDone:
    def tell(done: int, total: int) -> None:
        on_progress(TrainingProgress(done, total, stage=stage))

    return tell
