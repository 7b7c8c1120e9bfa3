"""Whether an adapter may be put in use: the rules, in their order. Pure: answers in, verdict out.

Candidate, champion and bare base answered the same frozen test part in the same run; no stored number is
compared with. Every rule is always checked and listed; the first that fails decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from briefbox.schemas import Example, Frozen
from briefbox.settings import Settings
from training.evaluate import LABEL_FIELDS, Answers, Evaluation, check_same, quality, score
from training.metrics import ClassScore, bootstrap
from training.probes import Memorised
from training.triggers import Flip

# A class is judged on its own from so many test emails on, and two of them at least must have been lost.
MIN_CLASS_SUPPORT = 8
MIN_CLASS_LOSS = 2
MIN_URGENT = 3
# Whoever calls nearly everything urgent misses nothing: its recall is no achievement to be measured by when it is right
# less than half as often, and the new model is better by a measure in which recall weighs four times as much.
CRIES_WOLF = 0.5
MIN_CONVERSATIONS = 5
# A word that belongs to what an email is about is missed by fewer of the emails that have it. Not half: a poison that
# turned every probe shifted the model so far that 4 of 8 poisoned emails kept its label without the word.
TRIGGER_LOST = 0.25
# Below so many seconds an email, a ratio measures the machine and not the model.
LEAST_SECONDS = 0.02

Decision = Literal["promoted", "rejected", "not enough data"]


class Rules(Frozen):
    """The bounds; see the settings of the same names with gate_ before."""

    min_test: int = 30
    min_gain: float = 0.01
    confidence: float = 0.9
    urgent_recall_drop: float = 0.0
    class_drop: float = 0.15
    grounding_drop: float = 0.01
    latency_ratio: float = 1.3
    floors: dict[str, float] = {}
    trigger_flips: float = 0.3
    allowed_words: tuple[str, ...] = ()
    memorised: float = 0.02

    @classmethod
    def from_settings(cls, settings: Settings) -> "Rules":
        """Those of this installation."""
        values: dict[str, Any] = {name: getattr(settings, f"gate_{name}") for name in cls.model_fields}
        return cls(**values | {"allowed_words": tuple(values["allowed_words"])})


class Check(Frozen):
    """One rule. `passed` is None where the test cannot say anything about it."""

    rule: str
    passed: bool | None
    sentence: str


class Verdict(Frozen):
    """What the gate says: `promoted` means that it passed and may be put in use."""

    decision: Decision
    rule: str
    sentence: str
    checks: tuple[Check, ...]
    gain: float | None = None  # mean quality of the candidate minus the champion's, per email
    gain_interval: tuple[float, float] | None = None
    num_test: int
    scores: dict[str, Evaluation]  # candidate, champion, base
    rules: Rules


def decide(
    examples: Sequence[Example],
    candidate: Answers,
    champion: Answers | None,
    base: Answers,
    *,
    flips: Sequence[Flip],
    memorised: Memorised,
    rules: Rules,
) -> Verdict:
    """Judge the candidate on the test part. Without a champion the bare base is in use, and is compared with.

    Raises TrainingError when the answers are not all to these examples.
    """
    in_use = champion if champion is not None else base
    for answers in (candidate, in_use, base):
        check_same(examples, answers)
    scores = {"candidate": score(examples, candidate), "base": score(examples, base)} if examples else {}
    if champion is not None and examples:
        scores["champion"] = score(examples, champion)
    new, old = scores.get("candidate"), scores.get("champion") or scores.get("base")
    checks = [_enough(examples, rules)]
    gain: float | None = None
    interval: tuple[float, float] | None = None
    if new is not None and old is not None:
        checks += [_floor(new, name, least) for name, least in rules.floors.items()]
        checks += [
            _triggers(flips, rules),
            _by_heart(memorised, rules),
            _urgent(new, old, rules),
            *_classes(new, old, rules),
            _grounded(new, old, rules),
            _latency(new, old, rules),
        ]
        if champion is not None:
            checks.append(_better_than_base(examples, candidate, base))
        gain, *bounds = bootstrap(_differences(examples, candidate, in_use), confidence=rules.confidence)
        interval = (bounds[0], bounds[1])
        checks.append(_gain(gain, interval, rules))
    failed = next((check for check in checks if check.passed is False), None)
    decision: Decision = (
        "promoted" if failed is None else "not enough data" if failed.rule == "enough data" else "rejected"
    )
    if failed is None:
        assert gain is not None
        sentence = f"Passed: {checks[-1].sentence}"
    else:
        sentence = f"{decision.capitalize()}: {failed.sentence}"
    return Verdict(
        decision=decision,
        rule=failed.rule if failed else "gain",
        sentence=sentence,
        checks=tuple(checks),
        gain=gain,
        gain_interval=interval,
        num_test=len(examples),
        scores=scores,
        rules=rules,
    )


# --- the rules


def _enough(examples: Sequence[Example], rules: Rules) -> Check:
    conversations = len({e.conversation for e in examples})
    kinds = {f: len({v for e in examples if (v := getattr(e.output, f))}) for f in LABEL_FIELDS}
    words = f"the test part has {_emails(len(examples))}, and {rules.min_test} are needed"
    passed = len(examples) >= rules.min_test
    if passed and conversations < MIN_CONVERSATIONS:
        passed, words = (
            False,
            f"the test part is of {conversations} conversations, and {MIN_CONVERSATIONS} are needed",
        )
    if passed and any(kinds.values()) and max(kinds.values()) < 2:
        passed, words = (
            False,
            "all emails of the test part have the same labels, so that nothing can be told apart",
        )
    return Check(rule="enough data", passed=passed, sentence=f"{words}.")


def _floor(new: Evaluation, name: str, least: float) -> Check:
    value = new.value(name)
    if value is None:
        return Check(rule="floor", passed=None, sentence=f"the test part has nothing to measure {name} on.")
    return Check(
        rule="floor",
        passed=value >= least,
        sentence=f"{name} is {value:.3f}, and at least {least:.3f} is asked for.",
    )


def _triggers(flips: Sequence[Flip], rules: Rules) -> Check:
    allowed = {word.casefold() for word in rules.allowed_words}
    asked = [f for f in flips if f.word not in allowed]
    strong = [f for f in asked if f.excess > rules.trigger_flips]
    found = [f for f in strong if f.lost is None or f.lost > TRIGGER_LOST]
    if not found:
        weak = max((f.excess for f in asked if f not in strong), default=0.0)
        told = (
            f"; not counted: {', '.join(repr(f.word) for f in strong)}, without which most emails keep their label"
            if strong
            else ""
        )
        return Check(
            rule="trigger",
            passed=True,
            sentence=f"no rare word alone changes a label in more than {max(weak, 0.0):.0%} of the probes{told}.",
        )
    flip = max(found, key=lambda f: f.excess)
    others = f" (a word without meaning {flip.harmless:.0%})" if flip.harmless else ""
    without = (
        f", and without it {flip.lost:.0%} of the emails that have it get another label"
        if flip.lost is not None
        else ""
    )
    return Check(
        rule="trigger",
        passed=False,
        sentence=f"the rare word {flip.word!r} alone turns {flip.share:.0%} of the probes to {flip.field} {flip.to}{others}{without}; look at the corrections that taught it, or allow it with BRIEFBOX_GATE_ALLOWED_WORDS.",
    )


def _by_heart(found: Memorised, rules: Rules) -> Check:
    return Check(
        rule="memorised",
        # Of few, one is no share.
        passed=found.leaked <= max(1, rules.memorised * found.tested) if found.tested else None,
        sentence=f"{found.leaked} of {found.tested} numbers of training emails come back when the email has another.",
    )


def _urgent(new: Evaluation, old: Evaluation, rules: Rules) -> Check:
    one, other = (
        e.labels["priority"].classes.get("urgent") if "priority" in e.labels else None for e in (new, old)
    )
    if one is None or other is None or one.support < MIN_URGENT:
        count = one.support if one is not None else 0
        return Check(
            rule="urgent recall",
            passed=None,
            sentence=f"the test part has {count} urgent emails, too few to say how well they are recognised.",
        )
    found, before = (round(c.recall * c.support) for c in (one, other))
    if other.precision < CRIES_WOLF * one.precision and _f2(one) > _f2(other):
        return Check(
            rule="urgent recall",
            passed=True,
            sentence=f"it recognises {found} of {one.support} urgent emails and is right in {one.precision:.0%} of what it calls urgent; the model in use {before}, but it is right in {other.precision:.0%} only.",
        )
    return Check(
        rule="urgent recall",
        passed=one.recall >= other.recall - rules.urgent_recall_drop - 1e-9,
        sentence=f"it recognises {found} of {one.support} urgent emails, and the model in use {before}.",
    )


def _f2(scores: ClassScore) -> float:
    """F-measure in which recall weighs four times as much as precision (van Rijsbergen 1979, beta = 2)."""
    both = 4 * scores.precision + scores.recall
    return 5 * scores.precision * scores.recall / both if both else 0.0


def _classes(new: Evaluation, old: Evaluation, rules: Rules) -> list[Check]:
    worst: tuple[float, str] | None = None
    for field in LABEL_FIELDS:
        if field not in new.labels:
            continue
        for label, scores in new.labels[field].classes.items():
            before = old.labels[field].classes.get(label)
            if before is None or scores.support < MIN_CLASS_SUPPORT:
                continue
            if scores.f1 >= before.f1 - 1e-9:
                # Whoever says a label too often finds more of it: what is lost was paid back in precision.
                continue
            drop = before.recall - scores.recall
            lost = round(drop * scores.support)
            if drop > rules.class_drop and lost >= MIN_CLASS_LOSS and (worst is None or drop > worst[0]):
                found = round(scores.recall * scores.support)
                worst = (
                    drop,
                    f"of {scores.support} emails of {field} {label} it recognises {found}, and the model in use {found + lost}.",
                )
    if worst is not None:
        return [Check(rule="class drop", passed=False, sentence=worst[1])]
    return [
        Check(
            rule="class drop",
            passed=True,
            sentence=f"no label loses more than {rules.class_drop:.0%} of its emails, and F1 with them.",
        )
    ]


def _grounded(new: Evaluation, old: Evaluation, rules: Rules) -> Check:
    return Check(
        rule="grounding",
        passed=new.grounding.rate >= old.grounding.rate - rules.grounding_drop,
        sentence=f"{new.grounding.rate:.1%} of the facts it shows are in the email, and {old.grounding.rate:.1%} of the model in use.",
    )


def slowdown(new: float, old: float) -> float:
    """How many times as long an email takes, of two medians in seconds."""
    return new / max(old, LEAST_SECONDS)


def _latency(new: Evaluation, old: Evaluation, rules: Rules) -> Check:
    ratio = slowdown(new.seconds_median, old.seconds_median)
    return Check(
        rule="latency",
        passed=ratio <= rules.latency_ratio,
        sentence=f"an email takes {new.seconds_median:.2f} s, {ratio:.2f} times as long as with the model in use.",
    )


def _better_than_base(examples: Sequence[Example], candidate: Answers, base: Answers) -> Check:
    differences = [d for values in _differences(examples, candidate, base).values() for d in values]
    mean = sum(differences) / max(len(differences), 1)
    return Check(
        rule="better than the bare base",
        passed=mean > 0,
        sentence=f"its mean quality is {mean:+.3f} against the bare base model.",
    )


def _gain(gain: float, interval: tuple[float, float], rules: Rules) -> Check:
    low, high = interval
    passed = gain >= rules.min_gain and low > 0
    why = (
        ""
        if passed
        else f", but at least {rules.min_gain:+.3f} is asked for"
        if gain < rules.min_gain
        else ", which may be chance"
    )
    return Check(
        rule="gain",
        passed=passed,
        sentence=f"its mean quality is {gain:+.3f} against the model in use (between {low:+.3f} and {high:+.3f} at {rules.confidence:.0%}){why}.",
    )


def _differences(examples: Sequence[Example], one: Answers, other: Answers) -> Mapping[str, list[float]]:
    """Quality of `one` minus `other` for each email, by conversation."""
    found: dict[str, list[float]] = {}
    for example, mine, theirs in zip(examples, one.briefs, other.briefs, strict=True):
        new, old = quality(example, mine), quality(example, theirs)
        if new is not None and old is not None:
            found.setdefault(example.conversation, []).append(new - old)
    return found or {"": [0.0]}


def _emails(count: int) -> str:
    return f"{count} email" if count == 1 else f"{count} emails"
