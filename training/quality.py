"""What of the judged briefs is worth learning: caps, copies, contradictions, and agents who stand alone.

Nothing disappears silently: what is left out is counted in the dataset's report with its reason, and
contradictions are listed for a person to settle.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from briefbox.schemas import Example, Split
from briefbox.settings import Settings
from training.near import clusters

# From here two emails are the same question, so that two answers to it contradict each other.
SAME_QUESTION = 0.85
LABELS = ("priority", "category")
# Examples of other agents that an agent's are compared with: so many nearest, at least this alike.
NEIGHBOURS = 5
LEAST_SIMILARITY = 0.25
# An agent is named from so many comparisons on, and when chance explains the disagreement less often than this.
LEAST_COMPARISONS = 10
CHANCE = 0.01
_STRENGTH = {"corrected": 3, "imported": 2, "confirmed": 2, "finished": 1}
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Cleaned:
    """What stays, in the order given, and what was left out and why."""

    examples: list[Example]
    left_out: Counter[str] = field(default_factory=Counter)
    contradictions: list[dict[str, Any]] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """As stored with the dataset."""
        return {"left_out": dict(self.left_out), "contradictions": self.contradictions}


def clean(examples: Sequence[Example], settings: Settings, remembered: Mapping[str, Split]) -> Cleaned:
    """Apply every rule. `remembered`, the parts of earlier versions, decides which of two copies stays."""
    result = Cleaned(list(examples))
    _settle_copies(result, remembered)
    _cap(result, "more than cap_per_sender", settings.cap_per_sender, lambda e: e.sender or None)
    _cap(
        result,
        "more than cap_per_agent_per_day",
        settings.cap_per_agent_per_day,
        lambda e: (e.agent, e.created_at.date()) if e.agent and e.created_at else None,
    )
    return result


def _settle_copies(result: Cleaned, remembered: Mapping[str, Split]) -> None:
    """One of several copies stays; copies that agents labelled differently are set aside."""
    groups: dict[int, list[Example]] = {}
    texts = [f"{e.input.subject}\n{e.input.text}" for e in result.examples]
    for number, example in zip(clusters(texts, least=SAME_QUESTION), result.examples, strict=True):
        groups.setdefault(number, []).append(example)
    keep: set[str] = set()
    for group in groups.values():
        differing = {
            label: values
            for label in LABELS
            if len(values := {v for e in group if (v := getattr(e.output, label)) is not None}) > 1
        }
        if differing:
            result.left_out["contradicts another"] += len(group)
            result.contradictions.append(
                {
                    "subject": group[0].input.subject,
                    "fields": sorted(differing),
                    "examples": [
                        {"id": e.id, "agent": e.agent} | {label: getattr(e.output, label) for label in LABELS}
                        for e in group
                    ],
                }
            )
            continue
        best = max(
            group,
            key=lambda e: (e.id in remembered, _STRENGTH[e.strength], e.created_at or _LONG_AGO, e.id),
        )
        keep.add(best.id)
        if len(group) > 1:
            result.left_out["copy of another"] += len(group) - 1
    result.examples = [e for e in result.examples if e.id in keep]


def _cap(result: Cleaned, reason: str, most: int, key: Callable[[Example], Hashable | None]) -> None:
    seen: Counter[Hashable] = Counter()
    keep: set[str] = set()
    for example in sorted(result.examples, key=lambda e: (e.created_at or _LONG_AGO, e.id), reverse=True):
        whose = key(example)
        if whose is None or seen[whose] < most:
            keep.add(example.id)
            seen[whose] += 1
    result.left_out[reason] += len(result.examples) - len(keep)
    result.left_out += Counter()  # only what did happen
    result.examples = [e for e in result.examples if e.id in keep]


# --- agents who stand alone


@dataclass(frozen=True, slots=True)
class Standing:
    """How an agent's labels compare with what others gave to similar emails."""

    agent: str
    field: str
    comparisons: int
    disagreements: int
    others: float  # the rate at which all the others disagree with each other

    @property
    def rate(self) -> float:
        """Disagreements by comparisons."""
        return self.disagreements / self.comparisons


def disagreeing_agents(examples: Sequence[Example]) -> list[Standing]:
    """Agents who label similar emails differently from everyone else, more often than chance explains.

    Each example is compared with its nearest ones by other agents (cosine of TF-IDF words). One-sided binomial
    test against the rate of all the others.
    """
    named = [e for e in examples if e.agent]
    if len({e.agent for e in named}) < 2:
        return []
    near = _neighbours(named)
    found: list[Standing] = []
    for label in LABELS:
        told: dict[str, list[bool]] = {}
        for number, others in enumerate(near):
            mine = getattr(named[number].output, label)
            theirs = Counter(v for other in others if (v := getattr(named[other].output, label)) is not None)
            if mine is not None and theirs:
                value, votes = theirs.most_common(1)[0]
                if votes * 2 > theirs.total():  # without a majority there is nothing to stand against
                    told.setdefault(named[number].agent, []).append(value != mine)
        for agent, differs in told.items():
            rest = [d for other, ds in told.items() if other != agent for d in ds]
            if len(differs) < LEAST_COMPARISONS or not rest:
                continue
            # An agent alone would make any rate look large: one success and one failure are added.
            rate = (sum(rest) + 1) / (len(rest) + 2)
            if sum(differs) > rate * len(differs) and _tail(sum(differs), len(differs), rate) < CHANCE:
                found.append(Standing(agent, label, len(differs), sum(differs), rate))
    return found


def _tail(successes: int, trials: int, rate: float) -> float:
    """Probability of so many successes or more."""
    return sum(
        math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(successes, trials + 1)
    )


def _neighbours(examples: Sequence[Example]) -> list[list[int]]:
    import numpy as np

    words = [_words(f"{e.input.subject} {e.input.text}") for e in examples]
    seen_in = Counter(word for found in words for word in set(found))
    useful = [word for word, number in seen_in.items() if 1 < number <= len(examples) / 2]
    columns = {word: at for at, word in enumerate(useful)}
    matrix = np.zeros((len(examples), max(1, len(columns))), dtype=np.float32)
    for row, found in enumerate(words):
        for word, count in Counter(found).items():
            if (at := columns.get(word)) is not None:
                matrix[row, at] = (1 + math.log(count)) * math.log(len(examples) / seen_in[word])
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    agents = np.array([e.agent for e in examples])
    near: list[list[int]] = []
    for row in range(len(examples)):
        alike = matrix @ matrix[row]
        alike[agents == agents[row]] = 0
        order = np.argsort(-alike)[:NEIGHBOURS]
        near.append([int(at) for at in order if alike[at] >= LEAST_SIMILARITY])
    return near


def _words(text: str) -> list[str]:
    return [
        word for word in "".join(c if c.isalnum() else " " for c in text.casefold()).split() if len(word) > 2
    ]
