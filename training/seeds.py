"""The starter set: support emails written for this project, with their briefs, in training/seed/*.jsonl.

The starter adapter was trained on its training part, and every later run sees some of it again (replay), so
that what nobody corrects lately is not forgotten. Its held-out part is fixed by hash and never trained on.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.errors import TrainingError
from briefbox.schemas import BRIEF_FIELDS, BriefRequest, EarlierEmail, Example, ExampleOutput, Split

FOLDER = Path(__file__).with_name("seed")
NAME = "starter"
# Of a hundred groups so many are held out, and so many of the others stop the training and calibrate.
HELD_OUT, VALIDATION = 20, 10
# From so many of an installation's own examples of a category on, their priorities are its rule.
HOUSE_RULE = 5


def part_of(group: str) -> Split:
    """The part of a group of emails, by its name alone."""
    place = int(sha256(group.encode()).hexdigest()[:8], 16) % 100
    return "test" if place < HELD_OUT else "validation" if place < HELD_OUT + VALIDATION else "train"


def read_seeds(folder: Path = FOLDER) -> list[Example]:
    """All of them, in a fixed order, each with its part. Raises TrainingError when a line cannot be read."""
    examples: list[Example] = []
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                examples.append(_example(json.loads(line), file.stem))
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(
                    f"{file.name}, line {number} is no starter example ({error}); see training/seed/RULES.md."
                ) from error
    return examples


def replay(count: int, own: Sequence[Example] = ()) -> list[Example]:
    """About `count` examples of the training part, spread over it, always the same.

    Where agents label a category by a house rule, a starter example that says otherwise must not argue with them:
    its priority is left out when `own` has that category several times and never with this priority.
    """
    learned = [example for example in read_seeds() if example.split == "train"]
    learned.sort(key=lambda example: sha256(example.id.encode()).hexdigest())
    told: dict[str, Counter[str]] = {}
    for example in own:
        if example.output.category and example.output.priority:
            told.setdefault(example.output.category, Counter())[example.output.priority] += 1
    return [_without_contradiction(example, told) for example in learned[:count]]


def _without_contradiction(example: Example, told: Mapping[str, Counter[str]]) -> Example:
    house = told.get(example.output.category or "", Counter[str]())
    if house.total() < HOUSE_RULE or house[example.output.priority or ""]:
        return example
    return example.model_copy(update={"output": example.output.model_copy(update={"priority": None})})


def _example(line: dict[str, object], business: str) -> Example:
    group = str(line["group"])
    return Example(
        id=f"seed-{line['id']}",
        split=part_of(group),
        input=BriefRequest.model_validate(
            {
                "subject": line["subject"],
                "sender": line["sender"],
                "text": line["text"],
                "earlier": [EarlierEmail.model_validate(email) for email in line.get("earlier") or ()],  # type: ignore[attr-defined]
                "categories": DEFAULT_CATEGORIES,
            }
        ),
        output=ExampleOutput.model_validate({field: line[field] for field in BRIEF_FIELDS}),
        strength="imported",
        conversation=f"seed-{group}",
        tags=(business, *map(str, line.get("tags") or ())),  # type: ignore[call-overload]
    )
