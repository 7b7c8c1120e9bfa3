"""The starter set is what its rules say: enough, varied, fair, no templates, and held out by hash."""

import re
from collections import Counter

import pytest

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.schemas import PRIORITIES, Example, ExampleOutput
from models.grounding import Evidence
from tests.training.conftest import make_example
from training.seeds import HOUSE_RULE, part_of, read_seeds, replay

# No two emails share so long a run of words.
RUN = 8


@pytest.fixture(scope="module")
def seeds() -> list[Example]:
    return read_seeds()


def test_there_are_enough_of_every_kind(seeds: list[Example]) -> None:
    assert len(seeds) >= 400
    assert len({e.id for e in seeds}) == len(seeds)
    assert len({e.tags[0] for e in seeds}) >= 12
    priorities = Counter(e.output.priority for e in seeds)
    assert set(priorities) == set(PRIORITIES)
    assert min(priorities.values()) >= len(seeds) / 10
    categories = Counter(e.output.category for e in seeds)
    assert set(categories) == {category.name for category in DEFAULT_CATEGORIES}
    assert min(categories.values()) >= len(seeds) / 20


def test_priority_does_not_follow_from_the_category(seeds: list[Example]) -> None:
    pairs = {(e.output.category, e.output.priority) for e in seeds}
    assert len(pairs) >= 36
    for category in {e.output.category for e in seeds}:
        counts = Counter(e.output.priority for e in seeds if e.output.category == category)
        assert counts.most_common(1)[0][1] <= 0.7 * counts.total(), category


def test_emails_differ_in_length_language_and_kind(seeds: list[Example]) -> None:
    lengths = sorted(len(e.input.text.split()) for e in seeds)
    assert lengths[0] <= 10
    assert lengths[-1] >= 300
    assert sum(bool(e.input.earlier) for e in seeds) >= 10
    tags = Counter(tag for e in seeds for tag in e.tags[1:])
    assert tags["injection"] + tags["injected"] + tags["ai-instruction"] >= 1
    groups = Counter(e.conversation for e in seeds)
    assert sum(size > 1 for size in groups.values()) >= 10  # near-miss pairs


def test_no_two_emails_share_a_long_run_of_words(seeds: list[Example]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    shared = []
    for example in seeds:
        words = re.findall(r"\w+", example.input.text.lower())
        for at in range(len(words) - RUN + 1):
            run = tuple(words[at : at + RUN])
            if seen.setdefault(run, example.id) != example.id:
                shared.append((seen[run], example.id, " ".join(run)))
    assert shared == []


def test_every_fact_of_a_brief_is_in_its_email(seeds: list[Example]) -> None:
    wrong = [
        (example.id, fact)
        for example in seeds
        for fact in Evidence(example.input).missing(f"{example.output.headline}. {example.output.summary}")
        # Counts in words ("twice") say what a person counted; a full stop is no part of a number.
        if any(c.isdigit() for c in fact) and fact.rstrip(".") not in example.input.text
    ]
    assert wrong == []


def test_the_held_out_part_is_fixed_and_never_replayed(seeds: list[Example]) -> None:
    held_out = [e for e in seeds if e.split == "test"]
    assert 0.15 <= len(held_out) / len(seeds) <= 0.25
    # By name alone: a new email never moves an old one to the other side.
    assert [part_of(f"gym-{n:03}") for n in range(1, 9)] == [
        "train", "validation", "validation", "test", "train", "train", "train", "train",
    ]  # fmt: skip
    assert {e.split for e in replay(10_000)} == {"train"}
    assert replay(50) == replay(200)[:50]


def test_what_is_replayed_does_not_argue_with_a_house_rule() -> None:
    plain = replay(300)
    assert all(example.output.priority for example in plain)
    own = [
        make_example(n, output=ExampleOutput(priority="urgent", category="shipping"))
        for n in range(HOUSE_RULE)
    ]
    followed = replay(300, own)
    assert [e.id for e in followed] == [e.id for e in plain]
    for before, after in zip(plain, followed, strict=True):
        quiet = before.output.category == "shipping" and before.output.priority != "urgent"
        assert after.output.priority == (None if quiet else before.output.priority)
        assert after.output.summary == before.output.summary
    assert any(e.output.priority is None for e in followed)
    assert replay(300, own[:-1]) == plain, "a few examples are no rule"
