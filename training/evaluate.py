"""Judge briefs against what people said they should be. The answers come from the engine that serves mail.

predict: examples -> briefs      score: examples + briefs -> numbers      changed: what two models say differently
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from briefbox.errors import TrainingError
from briefbox.schemas import BRIEF_FIELDS, Brief, BriefField, BriefRequest, Category, Example, Frozen
from models.engine import Engine
from models.facts import find_facts
from models.grounding import Evidence
from models.prompt import allowed_labels
from training.metrics import LabelScores, TextScores, label_scores, rouge, text_scores

LABEL_FIELDS: tuple[BriefField, ...] = ("priority", "category")
TEXT_FIELDS: tuple[BriefField, ...] = ("headline", "summary")

OnDone = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model says to examples: a brief for each, in their order, and what it took."""

    model: str
    ids: tuple[str, ...]
    briefs: tuple[Brief, ...]
    seconds: tuple[float, ...]  # each email's share of its batch
    memory: float  # bytes, the most that the process or the device held


class Grounding(Frozen):
    """Facts (numbers, dates, ids, ...) that the model wrote; `written` counts those that were removed as well."""

    written: int
    removed: int
    shown: int  # facts in what a person sees
    shown_grounded: int

    @property
    def rate(self) -> float:
        """Share of the shown facts that the email holds."""
        return self.shown_grounded / self.shown if self.shown else 1.0

    @property
    def written_rate(self) -> float:
        """Share of all written facts that the email holds."""
        return (self.written - self.removed) / self.written if self.written else 1.0


class Evaluation(Frozen):
    """All scores of one model on one set of examples."""

    model: str
    n: int
    labels: dict[str, LabelScores]
    texts: dict[str, TextScores]
    urgent_recall: float | None  # None: the set has no urgent email
    grounding: Grounding
    kept: float  # share of briefs in which a person would change nothing
    seconds_median: float
    seconds_p95: float
    memory: float

    def value(self, name: str) -> float | None:
        """A metric by its name, for floors: "priority/macro_f1", "summary/rougeL", "grounding"; None if there is none."""
        if name == "grounding":
            return self.grounding.rate
        if name == "urgent_recall":
            return self.urgent_recall
        field, _, metric = name.partition("/")
        scores = self.labels.get(field) or self.texts.get(field)
        found = getattr(scores, metric, None)
        return float(found) if isinstance(found, (int, float)) else None


def predict(
    engine: Engine,
    examples: Sequence[Example],
    adapter: str,
    *,
    batch_size: int,
    on_progress: OnDone | None = None,
) -> Answers:
    """Briefs of all examples with a resident adapter ("" is the bare base).

    Emails of like length are briefed together. Raises AdapterError, ModelError, OutOfMemoryError.
    """
    models = [(engine, adapter)]
    return predict_by_turns(models, examples, batch_size=batch_size, on_progress=on_progress)[0]


def predict_by_turns(
    models: Sequence[tuple[Engine, str]],
    examples: Sequence[Example],
    *,
    batch_size: int,
    on_progress: OnDone | None = None,
) -> list[Answers]:
    """What `predict` says of each engine and adapter; each batch goes to all of them before the next one.

    So what else the machine does meanwhile slows all of them down, and not the one that was being asked.
    """
    order = sorted(range(len(examples)), key=lambda n: len(examples[n].input.text))
    # Whole batches of one list of categories: an engine takes them apart otherwise.
    order.sort(key=lambda n: [c.name for c in request_of(examples[n]).categories])
    briefs: list[dict[int, Brief]] = [{} for _ in models]
    seconds: list[dict[int, float]] = [{} for _ in models]
    for at in range(0, len(order), batch_size):
        numbers = order[at : at + batch_size]
        requests = [request_of(examples[n]) for n in numbers]
        for model, (engine, adapter) in enumerate(models):
            started = time.perf_counter()
            made = engine.brief(requests, adapter)
            took = (time.perf_counter() - started) / len(numbers)
            briefs[model].update(zip(numbers, made, strict=True))
            seconds[model].update(dict.fromkeys(numbers, took))
            if on_progress is not None:
                on_progress(sum(map(len, briefs)), len(examples) * len(models))
    everything = range(len(examples))
    return [
        Answers(
            model=adapter or engine.base_model,
            ids=tuple(example.id for example in examples),
            briefs=tuple(briefs[model][n] for n in everything),
            seconds=tuple(seconds[model][n] for n in everything),
            memory=_memory(),
        )
        for model, (engine, adapter) in enumerate(models)
    ]


def retime(
    models: Sequence[tuple[Engine, str]],
    answers: Sequence[Answers],
    examples: Sequence[Example],
    *,
    batch_size: int,
    rounds: int,
    on_progress: OnDone | None = None,
) -> list[Answers]:
    """The models' answers with the least time that each email took, in `rounds` more rounds by turns.

    What else a machine does can only make a model slower. Raises as `predict` does.
    """
    timed = list(answers)
    for _ in range(rounds):
        again = predict_by_turns(models, examples, batch_size=batch_size, on_progress=on_progress)
        timed = [
            replace(one, seconds=tuple(map(min, one.seconds, other.seconds)))
            for one, other in zip(timed, again, strict=True)
        ]
    return timed


def request_of(example: Example) -> BriefRequest:
    """What is asked: as it was, with the right category on the list, as fine-tuning asks it too."""
    category = example.output.category
    if category and category not in allowed_labels("category", example.input):
        categories = (*example.input.categories, Category(name=category))
        return example.input.model_copy(update={"categories": categories})
    return example.input


def score(examples: Sequence[Example], answers: Answers) -> Evaluation:
    """All scores. A field that an example lacks does not count. Raises TrainingError when the two do not belong together."""
    check_same(examples, answers)
    labels: dict[str, LabelScores] = {}
    texts: dict[str, TextScores] = {}
    pairs = list(zip(examples, answers.briefs, strict=True))
    for field in LABEL_FIELDS:
        told = [(v, getattr(b, field)) for e, b in pairs if (v := getattr(e.output, field)) is not None]
        if told:
            labels[field] = label_scores(
                [v for v, _ in told], [s.label for _, s in told], [s.confidence for _, s in told]
            )
    for field in TEXT_FIELDS:
        written = [
            (v, getattr(b, field))
            for e, b in pairs
            if is_target(e, field) and (v := getattr(e.output, field))
        ]
        if written:
            texts[field] = text_scores([v for v, _ in written], [t for _, t in written])
    urgent = labels["priority"].classes.get("urgent") if "priority" in labels else None
    times = sorted(answers.seconds)
    return Evaluation(
        model=answers.model,
        n=len(examples),
        labels=labels,
        texts=texts,
        urgent_recall=urgent.recall if urgent and urgent.support else None,
        grounding=_grounding(pairs),
        kept=sum(_kept(e, b) for e, b in pairs) / len(pairs) if pairs else 0.0,
        seconds_median=median(times) if times else 0.0,
        seconds_p95=times[int(0.95 * (len(times) - 1))] if times else 0.0,
        memory=answers.memory,
    )


def quality(example: Example, brief: Brief) -> float | None:
    """How good one brief is, 0 to 1: the mean over the fields that the example has. None when it has none."""
    values = [
        float(getattr(brief, field).label == wanted)
        for field in LABEL_FIELDS
        if (wanted := getattr(example.output, field)) is not None
    ]
    values += [
        rouge(wanted, getattr(brief, field))["rougeL"]
        for field in TEXT_FIELDS
        if is_target(example, field) and (wanted := getattr(example.output, field))
    ]
    return sum(values) / len(values) if values else None


def is_target(example: Example, field: BriefField) -> bool:
    """Whether a text is worth comparing with.

    A headline or summary that an agent left as it was is the words of the model of that day: to compare with it
    would reward whichever model sounds like that one. Only what a person wrote counts.
    """
    return example.strength == "imported" or field in example.changed


class Change(Frozen):
    """One example on which two models differ."""

    id: str
    subject: str
    text: str
    truth: dict[str, str]
    before: dict[str, str]
    after: dict[str, str]
    better: float  # quality after minus before


def changed(examples: Sequence[Example], before: Answers, after: Answers) -> tuple[Change, ...]:
    """Every example on which the two say anything different, the greatest loss first."""
    check_same(examples, before)
    check_same(examples, after)
    found: list[Change] = []
    for example, one, other in zip(examples, before.briefs, after.briefs, strict=True):
        said, says = values_of(one), values_of(other)
        if said != says:
            found.append(
                Change(
                    id=example.id,
                    subject=example.input.subject,
                    text=example.input.text,
                    truth={f: v for f in BRIEF_FIELDS if (v := getattr(example.output, f)) is not None},
                    before=said,
                    after=says,
                    better=(quality(example, other) or 0.0) - (quality(example, one) or 0.0),
                )
            )
    return tuple(sorted(found, key=lambda change: change.better))


def values_of(brief: Brief) -> dict[str, str]:
    """The four fields as text."""
    return {
        "priority": brief.priority.label,
        "category": brief.category.label,
        "headline": brief.headline,
        "summary": brief.summary,
    }


def check_same(examples: Sequence[Example], answers: Answers) -> None:
    """Raises TrainingError: a score of one set must never be compared with a score of another."""
    if tuple(example.id for example in examples) != answers.ids:
        raise TrainingError(
            f"The answers of {answers.model} are to other examples than those they are scored on; expected one answer to each example, in their order, from the same run."
        )


def _kept(example: Example, brief: Brief) -> bool:
    wanted = {f: v for f in BRIEF_FIELDS if (v := getattr(example.output, f)) is not None}
    said = values_of(brief)
    return all(said[field] == value for field, value in wanted.items())


def _grounding(pairs: Sequence[tuple[Example, Brief]]) -> Grounding:
    removed = shown = grounded = 0
    for example, brief in pairs:
        evidence = Evidence(example.input)
        removed += len(brief.grounding.removed)
        for text in (brief.headline, brief.summary):
            facts = find_facts(text)
            shown += len(facts)
            grounded += sum(evidence.holds(fact) for fact in facts)
    return Grounding(written=shown + removed, removed=removed, shown=shown, shown_grounded=grounded)


def _memory() -> float:
    # Not imported for this: where torch is not loaded there is no device memory to speak of.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
