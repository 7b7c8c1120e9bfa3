"""Arithmetic of evaluation: labels, confidences, texts, and how sure a difference is. Knows no model."""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from briefbox.schemas import Frozen

BINS = 10
THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(20))
RESAMPLES = 2000
_WORD = re.compile(r"\w+(?:[.,:]\d+)*", re.UNICODE)


class ClassScore(Frozen):
    """One label: of those said how many were right, of those true how many were found; `support` is how many are true."""

    precision: float
    recall: float
    f1: float
    support: int


class Bin(Frozen):
    """Answers with a confidence in [low, high)."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class LabelScores(Frozen):
    """How well one field was labelled. `macro_f1` is over the labels that occur in the truth."""

    n: int
    accuracy: float
    macro_f1: float
    classes: dict[str, ClassScore]
    confusion: dict[str, dict[str, int]]  # truth -> answer -> count
    ece: float | None  # expected calibration error; None where the engine tells no confidence
    reliability: tuple[Bin, ...] = ()
    abstention: tuple[tuple[float, float, float], ...] = ()  # threshold, share answered, accuracy of those


class TextScores(Frozen):
    """How near texts come to those that people wrote. F-measures of ROUGE; `edit` in words by the longer text."""

    n: int
    rouge1: float
    rouge2: float
    rougeL: float  # the metric's own name
    words: float
    edit: float
    kept: float  # share that is equal to the target


def label_scores(
    truth: Sequence[str], answers: Sequence[str], confidences: Sequence[float | None]
) -> LabelScores:
    """Scores of one field; the three sequences go together and are not empty."""
    labels = sorted(set(truth))
    confusion: dict[str, dict[str, int]] = {}
    for wanted, said in zip(truth, answers, strict=True):
        row = confusion.setdefault(wanted, {})
        row[said] = row.get(said, 0) + 1
    said_counts, right = Counter(answers), [a == b for a, b in zip(truth, answers, strict=True)]
    classes: dict[str, ClassScore] = {}
    for label in sorted({*labels, *answers}):
        hits = confusion.get(label, {}).get(label, 0)
        support = sum(confusion.get(label, {}).values())
        precision = hits / said_counts[label] if said_counts[label] else 0.0
        recall = hits / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        classes[label] = ClassScore(precision=precision, recall=recall, f1=f1, support=support)
    told = [(c, ok) for c, ok in zip(confidences, right, strict=True) if c is not None]
    return LabelScores(
        n=len(truth),
        accuracy=sum(right) / len(right),
        macro_f1=sum(classes[label].f1 for label in labels) / len(labels),
        classes=classes,
        confusion=confusion,
        ece=calibration_error(told) if told else None,
        reliability=reliability(told),
        abstention=abstention(told),
    )


def reliability(told: Sequence[tuple[float, bool]], bins: int = BINS) -> tuple[Bin, ...]:
    """Confidence and accuracy in bins of equal width; empty ones left out."""
    found: dict[int, list[tuple[float, bool]]] = {}
    for confidence, ok in told:
        found.setdefault(min(int(confidence * bins), bins - 1), []).append((confidence, ok))
    return tuple(
        Bin(
            low=number / bins,
            high=(number + 1) / bins,
            count=len(members),
            confidence=sum(c for c, _ in members) / len(members),
            accuracy=sum(ok for _, ok in members) / len(members),
        )
        for number, members in sorted(found.items())
    )


def calibration_error(told: Sequence[tuple[float, bool]], bins: int = BINS) -> float:
    """Expected calibration error: Naeini et al. 2015, as in Guo et al. 2017 (arXiv:1706.04599), equation 3."""
    return sum(b.count / len(told) * abs(b.accuracy - b.confidence) for b in reliability(told, bins))


def abstention(told: Sequence[tuple[float, bool]]) -> tuple[tuple[float, float, float], ...]:
    """For thresholds: the share of answers that is at least so sure, and how many of these are right."""
    curve: list[tuple[float, float, float]] = []
    for threshold in THRESHOLDS:
        sure = [ok for confidence, ok in told if confidence >= threshold]
        if sure:
            curve.append((threshold, len(sure) / len(told), sum(sure) / len(sure)))
    return tuple(curve)


# --- texts


class Words:
    """Words of any script: rouge-score's own tokenizer drops all that is not a-z and digits."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-cased words and whole numbers."""
        return words(text)


def words(text: str) -> list[str]:
    """Lower-cased words; a number with its separators is one."""
    return _WORD.findall(text.casefold())


def rouge(target: str, text: str) -> dict[str, float]:
    """F-measures of ROUGE-1, -2 and -L (Lin 2004) by the package rouge-score."""
    found = _scorer().score(target, text)
    return {name: float(score.fmeasure) for name, score in found.items()}


def text_scores(targets: Sequence[str], texts: Sequence[str]) -> TextScores:
    """Scores of one field; not empty."""
    found = [rouge(target, text) for target, text in zip(targets, texts, strict=True)]
    pairs = list(zip(targets, texts, strict=True))

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return TextScores(
        n=len(pairs),
        rouge1=mean([f["rouge1"] for f in found]),
        rouge2=mean([f["rouge2"] for f in found]),
        rougeL=mean([f["rougeL"] for f in found]),
        words=mean([len(text.split()) for text in texts]),
        edit=mean([edit_share(target, text) for target, text in pairs]),
        kept=mean([float(target.strip() == text.strip()) for target, text in pairs]),
    )


def edit_share(target: str, text: str) -> float:
    """Word edits from `text` to `target` (Levenshtein) by the longer one's words: 0 is equal, 1 is all new."""
    one, other = words(text), words(target)
    if not one or not other:
        return float(bool(one or other))
    row = list(range(len(other) + 1))
    for number, word in enumerate(one, start=1):
        before, row[0] = row[0], number
        for at, wanted in enumerate(other, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != wanted))
    return row[-1] / max(len(one), len(other))


_SCORER: list[Any] = []


def _scorer() -> Any:
    if not _SCORER:
        from rouge_score.rouge_scorer import RougeScorer

        _SCORER.append(RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Words()))
    return _SCORER[0]


# --- how sure


def bootstrap(
    differences: Mapping[str, Sequence[float]], *, confidence: float, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of all differences and its interval, by resampling whole clusters (conversations).

    Percentile bootstrap: Efron and Tibshirani 1993, chapter 13; clusters because emails of one conversation are
    not independent.
    """
    clusters = [(sum(values), len(values)) for values in differences.values() if values]
    mean = sum(s for s, _ in clusters) / sum(n for _, n in clusters)
    rng = random.Random(seed)
    means: list[float] = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(clusters, k=len(clusters))
        means.append(sum(s for s, _ in drawn) / sum(n for _, n in drawn))
    means.sort()
    tail = (1 - confidence) / 2
    return mean, means[int(tail * RESAMPLES)], means[min(int((1 - tail) * RESAMPLES), RESAMPLES - 1)]
