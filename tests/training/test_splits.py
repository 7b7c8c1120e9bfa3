"""Parts of a dataset: what belongs together stays together, the test is newest, and nothing ever changes sides."""

import random
from collections import Counter
from datetime import timedelta

from briefbox.schemas import Example, Split
from tests.training.conftest import NOON, make_example, request_about
from training.splits import TEST_SHARE, assign

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdgklmnrst"]


def emails(count: int, *, first: int = 0, **changes: object) -> list[Example]:
    """Emails of different customers in words of their own, one a minute."""
    rng = random.Random(first)
    return [
        make_example(
            n,
            **{
                "input": request_about(" ".join(rng.choices(WORDS, k=30))),
                "conversation": f"c{n}",
                "sender": f"s{n}",
                "created_at": NOON + timedelta(minutes=n),
            }
            | changes,
        )
        for n in range(first, first + count)
    ]


def parts(examples: list[Example]) -> dict[str, Split]:
    return {e.id: e.split for e in examples if e.split is not None}


def test_the_newest_fifth_is_the_test() -> None:
    split = assign(emails(100), {})
    tested = [e for e in split if e.split == "test"]
    assert len(tested) == TEST_SHARE * 100
    newest_learned = max(e.created_at for e in split if e.split == "train" and e.created_at)
    assert all(e.created_at is not None and e.created_at > newest_learned for e in tested)
    assert 5 <= sum(e.split == "validation" for e in split) <= 20


def test_a_conversation_and_a_customer_never_cross() -> None:
    rng = random.Random(7)
    mixed = [
        e.model_copy(update={"conversation": f"c{rng.randrange(40)}", "sender": f"s{rng.randrange(30)}"})
        for e in emails(60)
    ]
    split = assign(mixed, {})
    for key in ("conversation", "sender"):
        seen: dict[str, set[str | None]] = {}
        for example in split:
            seen.setdefault(getattr(example, key), set()).add(example.split)
        assert all(len(found) == 1 for found in seen.values())


def test_a_copy_of_a_tested_email_is_not_learned() -> None:
    first = emails(50)
    text = first[-1].input.text
    copy = make_example(
        0,
        input=request_about(text + " regards"),
        conversation="c0",
        sender="s0",
        created_at=NOON - timedelta(days=3),
    )
    split = {e.id: e.split for e in assign([copy, *first[1:]], {})}
    assert split["brief-49"] == split["brief-0"] == "test"


def test_the_test_part_is_frozen_and_grows_at_its_end() -> None:
    first = assign(emails(50), {})
    remembered = parts(first)
    second = assign([*emails(50), *emails(50, first=50)], remembered)
    now = parts(second)
    assert remembered.items() <= now.items()
    tested = [e for e in second if e.split == "test"]
    assert len(tested) == TEST_SHARE * 100
    old = {i for i, part in remembered.items() if part == "test"}
    added = [e for e in tested if e.id not in old]
    newest_learned = max(e.created_at for e in second if e.split == "train" and e.created_at)
    assert all(e.created_at is not None and e.created_at > newest_learned for e in added)


def test_what_was_trained_on_once_is_never_tested_on() -> None:
    remembered: dict[str, Split] = {}
    for count in (20, 45, 80, 120):
        now = parts(assign(emails(count), remembered))
        for example, part in remembered.items():
            assert (now[example] == "test") == (part == "test")
        remembered |= now


def test_an_email_that_joins_a_tested_and_a_learned_customer_is_in_no_part() -> None:
    first = assign(emails(50), {})
    tested = next(e for e in first if e.split == "test")
    learned = next(e for e in first if e.split == "train")
    bridge = make_example(
        99, conversation=tested.conversation, sender=learned.sender, created_at=NOON + timedelta(days=1)
    )
    split = {e.id: e.split for e in assign([*emails(50), bridge], parts(first))}
    assert split[bridge.id] is None
    assert split[tested.id] == "test"
    assert split[learned.id] is None  # it would show what is tested


def test_the_parts_that_a_file_brings_are_kept() -> None:
    given = [e.model_copy(update={"split": "test" if n < 5 else "train"}) for n, e in enumerate(emails(20))]
    assert Counter(e.split for e in assign(given, {})) == {"test": 5, "train": 15}


def test_one_customer_alone_cannot_be_the_whole_test() -> None:
    whale = [
        e.model_copy(update={"sender": "whale", "created_at": NOON + timedelta(days=2)}) for e in emails(30)
    ]
    split = assign([*emails(30, first=30), *whale], {})
    assert all(e.split != "test" for e in split if e.sender == "whale")
    assert sum(e.split == "test" for e in split) == 12
