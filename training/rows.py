"""Examples as numbers: rows of token ids, packed into batches without padding.

All prompts with the same categories begin with the same ids. A pack holds them once,

    prefix | own part of row 1 | own part of row 2 | ...

and `training.attention` lets every row see the prefix and itself. The prefix is computed, and learned
through, once for all rows of a pack instead of once for each: the gradient is the same sum.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from briefbox.schemas import Category, Example
from briefbox.settings import Settings
from models.prompt import allowed_labels, encode_answer, encode_prompt
from training.evaluate import TEXT_FIELDS, is_target

# What a headline or summary that nobody wrote counts in training: the model's own words of that day keep its form, and
# have nothing to teach. In validation they count nothing, or whatever changes least would be best.
UNWRITTEN = 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One example. `weights` is the share in the loss of each id of `own`: 0 for what is given to the model."""

    prefix: tuple[int, ...]
    own: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def num_targets(self) -> int:
        """How many ids count in the loss."""
        return sum(weight > 0 for weight in self.weights)

    def __len__(self) -> int:
        """All of its tokens, as a plain trainer would count them."""
        return len(self.prefix) + len(self.own)


def encode_example(
    tokenizer: Any,
    example: Example,
    settings: Settings,
    field_weights: Mapping[str, float] | None = None,
    unwritten: float = UNWRITTEN,
) -> Row:
    """An example as ids and the weight of each id in the loss.

    Each field weighs the same (or `field_weights`, 1 where missing), whatever its length, but for a text that no person
    wrote: it weighs `unwritten` of that. With a weight for each token, a corrected priority, one token of some
    sixty, would hardly count beside the summary.
    """
    request = example.input
    category = example.output.category
    if category and category not in allowed_labels("category", request):
        # The agent chose a category that was made after the brief. The prompt lists it, as for mail of today.
        request = request.model_copy(update={"categories": (*request.categories, Category(name=category))})
    prompt = encode_prompt(tokenizer, request, settings.max_email_tokens)
    ids = list(prompt.own)
    weights = [0.0] * len(ids)
    for segment in encode_answer(tokenizer, example.output, example.model_output):
        share = (field_weights or {}).get(segment.field, 1.0) / len(segment.ids)
        if segment.field in TEXT_FIELDS and not is_target(example, segment.field):
            share *= unwritten
        ids += segment.ids
        weights += [share if segment.is_target else 0.0] * len(segment.ids)
    return Row(prompt.shared, tuple(ids), tuple(weights))


# --- packs


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch [start, end) of a pack that sees itself, causally, and the prefix [prefix_start, prefix_end)."""

    start: int
    end: int
    prefix_start: int
    prefix_end: int

    @property
    def num_seen(self) -> int:
        """Tokens of the prefix that it sees."""
        return self.prefix_end - self.prefix_start


def pack(rows: Sequence[Row]) -> dict[str, Any]:
    """A batch for `answer_loss`: ids and positions [1, tokens], segments, and the places that count.

    `places` are those at which a target is predicted: the one before it. They are all of which logits are made;
    the vocabulary's matrix at every place of the prompt would cost several times the rest of the memory.
    """
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    places: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    prefixes: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        prefixes.setdefault(row.prefix, []).append(row)
    for prefix, owners in prefixes.items():
        start = len(ids)
        ids += prefix
        positions += range(len(prefix))
        segments.append(Segment(start, len(ids), start, start))
        for row in owners:
            first = len(ids)
            ids += row.own
            positions += range(len(prefix), len(prefix) + len(row.own))
            segments.append(Segment(first, len(ids), start, start + len(prefix)))
            for number, weight in enumerate(row.weights):
                if weight > 0:
                    places.append(first + number - 1)
                    targets.append(row.own[number])
                    weights.append(weight)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "segments": segments,
        "places": torch.tensor(places),
        "targets": torch.tensor(targets),
        "weights": torch.tensor(weights),
    }


def packed_tokens(rows: Sequence[Row]) -> int:
    """How many tokens a pack of these rows computes."""
    return sum(len(row.own) for row in rows) + sum(len(prefix) for prefix in {row.prefix for row in rows})


class Batches(Sampler[list[int]]):
    """Which rows make which pack, anew in each epoch: by tokens, not by rows, and always the same number of packs.

    Rows are dealt in random order, the longest of a few first, each to the pack with most room: so packs are of
    nearly the same length and nothing is padded or left over.
    """

    def __init__(self, rows: Sequence[Row], tokens: int, *, seed: int, shuffled: bool = True) -> None:
        """`tokens` is what a pack computes at most, but for a single row that is longer."""
        self._own = [len(row.own) for row in rows]
        self._prefix = [row.prefix for row in rows]
        self._seed, self._shuffled, self._epoch = seed, shuffled, 0
        by_prefix: dict[tuple[int, ...], list[int]] = {}
        for number, prefix in enumerate(self._prefix):
            by_prefix.setdefault(prefix, []).append(number)
        # Rows of different prefixes are dealt apart: a prefix in two packs is computed twice.
        self._groups = [
            (numbers, _num_packs([self._own[n] for n in numbers], max(1, tokens - len(prefix))))
            for prefix, numbers in by_prefix.items()
        ]

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(packs for _, packs in self._groups)

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self._seed}:{self._epoch if self._shuffled else 0}")
        packs: list[list[int]] = []
        for numbers, count in self._groups:
            order = rng.sample(numbers, len(numbers))
            order.sort(key=lambda n: self._own[n] + rng.random(), reverse=True)
            filled: list[tuple[int, list[int]]] = [(0, []) for _ in range(count)]
            for number in order:
                least = min(range(count), key=lambda p: filled[p][0])
                size, members = filled[least]
                filled[least] = (size + self._own[number], [*members, number])
            packs += [members for _, members in filled if members]
        if self._shuffled:
            rng.shuffle(packs)
        return iter(packs)


def _num_packs(lengths: Sequence[int], room: int) -> int:
    return min(len(lengths), max(1, math.ceil(sum(lengths) / room)))


def num_values(weights: Tensor) -> float:
    """How many fields these weights are shares of."""
    return float(weights.sum())
