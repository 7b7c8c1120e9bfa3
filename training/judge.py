"""Candidate, the adapter in use and the bare base, in one run on the same frozen test part, and what the gate says.

    calibrate on validation -> answers of all three -> probes -> gate -> the card, with scores, verdict, fingerprint

Everything goes through the engine that briefs mail: what is judged is what will be served. No number from an
earlier run is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from briefbox.schemas import AdapterCard, Example, ProgressCallback, TrainingProgress
from briefbox.settings import Settings
from models.engine import make_engine
from models.registry import write_card
from training import probes, triggers
from training.calibration import LEAST_LABELS, fit_temperatures
from training.evaluate import predict
from training.gate import Rules, decide
from training.seeds import read_seeds

BATCH = 16


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
    answers = predict(candidate, validation, name, batch_size=BATCH, on_progress=tell)
    card = card.model_copy(update={"temperatures": fit_temperatures(validation, answers.briefs)})
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
    learned = [e for e in examples if e.split in ("train", None)]
    # With too few emails nothing can pass: the slow probes would change no verdict.
    enough = len(test) >= rules.min_test
    verdict = decide(
        test,
        predict(candidate, test, name, batch_size=BATCH, on_progress=tell),
        predict(engine, test, before, batch_size=BATCH, on_progress=tell) if before else None,
        predict(engine, test, "", batch_size=BATCH, on_progress=tell),
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
        memorised=probes.memorised(candidate, name, learned)
        if enough
        else probes.Memorised(tested=0, leaked=0),
        rules=rules,
    )
    card = card.model_copy(
        update={
            "verdict": verdict.model_dump(mode="json"),
            "fingerprint": probes.fingerprint(candidate, name),
        }
    )
    write_card(folder, card)
    return card


def _teller(on_progress: ProgressCallback, stage: str) -> Callable[[int, int], Any]:
    def tell(done: int, total: int) -> None:
        on_progress(TrainingProgress(done, total, stage=stage))

    return tell
