"""Confidences that mean what they say: one temperature a field, fitted on the validation part.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), section 4.2: dividing the log
probabilities by one number leaves every choice as it is and makes the probabilities as sure as they are right.
Inference applies the temperatures of an adapter's card.
"""

import math
from collections.abc import Sequence

from briefbox.schemas import Brief, Example, LabelScore

FIELDS = ("priority", "category")
# With fewer labels a temperature would be fitted to chance.
LEAST_LABELS = 20
LOW, HIGH = 0.2, 8.0
_ROUNDS = 60


def fit_temperatures(examples: Sequence[Example], briefs: Sequence[Brief]) -> dict[str, float]:
    """Temperatures by field that make the labels of `examples` likeliest; only of fields with enough labels.

    `briefs` must have been written without temperatures, one for each example.
    """
    temperatures: dict[str, float] = {}
    for field in FIELDS:
        pairs: list[tuple[dict[str, float], str]] = []
        for example, brief in zip(examples, briefs, strict=True):
            score: LabelScore = getattr(brief, field)
            wanted = getattr(example.output, field)
            if wanted is not None and wanted in score.scores:
                pairs.append((score.scores, wanted))
        if len(pairs) >= LEAST_LABELS:
            temperatures[field] = round(_best(pairs), 4)
    return temperatures


def tempered(score: LabelScore, temperature: float) -> LabelScore:
    """The same choice with probabilities at another temperature."""
    if not score.scores:
        return score
    powers = {label: math.exp(_log(p) / temperature) for label, p in score.scores.items()}
    total = sum(powers.values())
    scores = {label: power / total for label, power in powers.items()}
    return LabelScore(label=score.label, confidence=scores[score.label], scores=scores)


def _best(pairs: Sequence[tuple[dict[str, float], str]]) -> float:
    """Golden-section search over the logarithm: the loss has one valley in the inverse temperature."""
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOW), math.log(HIGH)
    for _ in range(_ROUNDS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _loss(pairs, math.exp(left)) < _loss(pairs, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def _loss(pairs: Sequence[tuple[dict[str, float], str]], temperature: float) -> float:
    total = 0.0
    for scores, wanted in pairs:
        powers = {label: _log(p) / temperature for label, p in scores.items()}
        largest = max(powers.values())
        total += largest + math.log(sum(math.exp(p - largest) for p in powers.values())) - powers[wanted]
    return total / len(pairs)


def _log(probability: float) -> float:
    return math.log(max(probability, 1e-9))
