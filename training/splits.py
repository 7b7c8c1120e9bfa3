"""Train, validation, test: by conversation and customer, the test part newest, and once given never taken back.

What belongs together (one conversation, one customer, nearly the same text) goes to one part. The test part
is frozen by id: a later version may add to it, at its newest end, and takes nothing out of it; what was in a
training part once is never tested on. The gate can compare adapters fairly for as long as this holds.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

from briefbox.schemas import Example, Split
from training.near import Union, clusters

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.12
# From here two emails count as copies of each other where a test must not see what was learned.
SAME_TEXT = 0.6
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def assign(examples: Sequence[Example], remembered: Mapping[str, Split]) -> list[Example]:
    """The examples with their parts. `remembered` are the parts that earlier versions gave, by example id.

    A part that an example came with is kept. None where an example cannot be in any part: it belongs together
    with one that is tested on, and with one that was trained on.
    """
    groups = _groups(examples)
    parts: dict[int, Split | None] = {}
    free: list[list[int]] = []
    for members in groups:
        fixed = {
            number: part
            for number in members
            if (part := remembered.get(examples[number].id) or examples[number].split)
        }
        if not fixed:
            free.append(members)
            continue
        tested = "test" in fixed.values()
        learned = any(part != "test" for part in fixed.values())
        new: Split = "test" if tested else "validation" if set(fixed.values()) == {"validation"} else "train"
        for number in members:
            part = fixed.get(number, new)
            # The test part stays as it is, so it is the other side that gives way.
            together = tested and learned
            parts[number] = None if together and (part != "test" or number not in fixed) else part
    _deal(free, examples, parts)
    return [example.model_copy(update={"split": parts[number]}) for number, example in enumerate(examples)]


def _deal(free: list[list[int]], examples: Sequence[Example], parts: dict[int, Split | None]) -> None:
    """Give the new groups to the parts: the newest to the test until it has its share, then by chance."""

    def age(members: list[int]) -> tuple[datetime, str]:
        newest = max(examples[number].created_at or _LONG_AGO for number in members)
        return newest, _key(members, examples)

    wanted = round(TEST_SHARE * len(examples)) - sum(part == "test" for part in parts.values())
    for members in sorted(free, key=age, reverse=True):
        part: Split
        # A group much larger than what is missing would make the test part one customer's.
        if wanted > 0 and len(members) <= max(2 * wanted, 3):
            part, wanted = "test", wanted - len(members)
        else:
            chance = int(_key(members, examples)[:8], 16) / 2**32
            part = "validation" if chance < VALIDATION_SHARE / (1 - TEST_SHARE) else "train"
        parts.update(dict.fromkeys(members, part))


def _groups(examples: Sequence[Example]) -> list[list[int]]:
    join = Union(len(examples))
    first: dict[tuple[str, str], int] = {}
    texts = clusters([f"{e.input.subject}\n{e.input.text}" for e in examples], least=SAME_TEXT)
    for number, example in enumerate(examples):
        keys = [
            ("text", str(texts[number])),
            ("conversation", example.conversation),
            ("sender", example.sender),
        ]
        for key in keys:
            if key[1]:
                join.unite(first.setdefault(key, number), number)
    groups: dict[int, list[int]] = {}
    for number in range(len(examples)):
        groups.setdefault(join.find(number), []).append(number)
    return list(groups.values())


def _key(members: Sequence[int], examples: Sequence[Example]) -> str:
    """The same for the same group in whichever order; as good as chance."""
    return sha256(min(examples[number].id for number in members).encode()).hexdigest()
