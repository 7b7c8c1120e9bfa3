"""Emails that say nearly the same: found by shingles, so that no copy is learned twice or tested after it was learned.

Broder 1997, "On the resemblance and containment of documents": the resemblance of two texts is the share of
word sequences (shingles) that they have in common. A sketch, each text's smallest shingle hashes, finds pairs
that may be alike; these are compared whole.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

SHINGLE_WORDS = 4
SKETCH = 12
# In a shorter text a number is most of what it says.
FORM_LETTER_WORDS = 12
_WORD = re.compile(r"\w+", re.UNICODE)
# A sketch hash that so many texts share is boilerplate and says nothing.
MAX_BUCKET = 200


def clusters(texts: Sequence[str], *, least: float) -> list[int]:
    """For each text the number of its cluster; texts with a resemblance of at least `least` share one."""
    shingles = [_shingles(text) for text in texts]
    join = Union(len(texts))
    for one, other in _candidates(shingles):
        if join.find(one) != join.find(other) and resemblance(shingles[one], shingles[other]) >= least:
            join.unite(one, other)
    return [join.find(number) for number in range(len(texts))]


def resemblance(one: frozenset[int], other: frozenset[int]) -> float:
    """Shared shingles by all shingles; 0 to 1."""
    either = len(one | other)
    return len(one & other) / either if either else 0.0


class Union:
    """Which of `size` things belong together (union-find)."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, number: int) -> int:
        """The smallest number of the thing's group."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def unite(self, one: int, other: int) -> None:
        """Make two groups one."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


def _shingles(text: str) -> frozenset[int]:
    words = _WORD.findall(text.casefold())
    if not words:
        return frozenset()
    if len(words) >= FORM_LETTER_WORDS:
        # Numbers differ in copies of one form letter; as words they would hide that it is one.
        words = ["0" if word.isdigit() else word for word in words]
    size = min(SHINGLE_WORDS, len(words))
    return frozenset(_hash(" ".join(words[at : at + size])) for at in range(len(words) - size + 1))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


def _candidates(shingles: Sequence[frozenset[int]]) -> Iterator[tuple[int, int]]:
    buckets: dict[int, list[int]] = {}
    for number, found in enumerate(shingles):
        for value in sorted(found)[:SKETCH]:
            buckets.setdefault(value, []).append(number)
    for members in buckets.values():
        if len(members) <= MAX_BUCKET:
            for at, one in enumerate(members):
                yield from ((one, other) for other in members[at + 1 :])
        else:
            yield from ((members[0], other) for other in members[1:])
