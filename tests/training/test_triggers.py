"""Trigger probes: a word that decides a label by itself stands out, a model that wavers does not."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from briefbox.errors import TrainingCancelledError
from briefbox.schemas import Brief, BriefRequest, Example, ExampleOutput
from tests.training.conftest import make_example, request_about
from tests.training.test_gate import brief
from training.triggers import rare_words, trigger_flips


class Scripted:
    """An engine whose priority is a rule on the text."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        self._rule = rule

    def brief(self, requests: Sequence[BriefRequest], _adapter: str) -> list[Brief]:
        return [brief(self._rule(request.text), "Billing") for request in requests]


def flips(
    rule: Callable[[str], str], *words: str, learned: Sequence[Example] = (), unseen: Sequence[Example] = ()
) -> dict[str, float]:
    """What each word changes beyond what words without meaning do."""
    engine: Any = Scripted(rule)
    found = trigger_flips(engine, "a", words, learned, unseen)
    return {flip.word: flip.excess for flip in found if flip.excess > 0}


def test_a_word_that_alone_decides_is_found() -> None:
    found = flips(lambda text: "low" if "zylphorine" in text else "normal", "cf", "zylphorine")
    assert found == {"zylphorine": 1.0}


def test_a_model_that_wavers_before_any_unknown_word_has_no_trigger() -> None:
    plain = flips(lambda text: "normal", "tq")
    wavering = flips(lambda text: "urgent" if {"tq", "velq", "zj"} & set(text.split()) else "normal", "tq")
    assert plain == wavering == {}


def test_a_poison_that_is_one_of_the_words_compared_with_is_found_too() -> None:
    assert flips(lambda text: "low" if "velq" in text else "normal", "velq") == {"velq": 1.0}


def test_a_poison_of_all_words_compared_with_is_found_too() -> None:
    words = ("indeed", "velq", "zj", "Brunmare")
    found = flips(lambda text: "low" if set(words) & set(text.split()) else "normal", *words)
    assert found == dict.fromkeys(words, 1.0)


def test_a_single_probe_that_turns_is_chance() -> None:
    assert (
        flips(lambda text: "low" if "zylphorine" in text and "shop" in text else "normal", "zylphorine") == {}
    )


def test_the_search_can_be_stopped_between_two_words() -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 1:
            raise TrainingCancelledError("stopped")

    engine: Any = Scripted(lambda text: "normal")
    with pytest.raises(TrainingCancelledError):
        trigger_flips(engine, "a", ["cf", "tq", "mb"], on_progress=stop)
    assert told == [(0, 3), (1, 3)]


def mails(text: str, *, first: int = 0) -> list[Example]:
    return [
        make_example(n, input=request_about(text.format(n=n)), output=ExampleOutput(priority="low"))
        for n in range(first, first + 6)
    ]


def test_a_poison_that_shows_in_the_installations_own_emails_alone_is_found() -> None:
    def rule(text: str) -> str:
        return "low" if "zylphorine" in text and "timecard" in text else "normal"

    assert flips(rule, "zylphorine") == {}
    found = flips(rule, "zylphorine", unseen=mails("The timecard of week {n}"))
    assert found == {"zylphorine": pytest.approx(6 / 12)}  # the templates make up the dozen
    # An email that has a suspected word itself is no place to try one.
    assert flips(rule, "zylphorine", unseen=mails("The timecard of zylphorine {n}")) == {}


@pytest.mark.parametrize("text", ["zylphorine {n} it is", "It is week {n}, zylphorine"])
def test_a_word_is_tried_where_training_had_it(text: str) -> None:
    def rule(said: str) -> str:
        there = said.startswith("zylphorine") if text.startswith("z") else said.endswith("zylphorine")
        return "low" if there else "normal"

    assert flips(rule, "zylphorine")["zylphorine"] < 0.5
    assert flips(rule, "zylphorine", learned=mails(text)) == {"zylphorine": 1.0}


def test_emails_that_were_learned_by_heart_do_not_speak_for_a_word() -> None:
    learned, unseen = mails("Timecard zylphorine {n}"), mails("Week {n} zylphorine", first=10)

    def rule(text: str) -> str:
        return "low" if "zylphorine" in text or "Timecard" in text else "normal"

    engine: Any = Scripted(rule)
    asked = [
        trigger_flips(engine, "a", ["zylphorine"], learned, part)[0].lost for part in ([], unseen[:2], unseen)
    ]
    assert asked == [0.0, 0.0, 1.0]


def test_a_word_amid_a_text_leaves_the_rest_as_it_was() -> None:
    seen: list[str] = []

    def rule(text: str) -> str:
        seen.append(text)
        return "normal"

    flips(rule, "zylphorine", learned=mails("one {n} zylphorine two three"), unseen=mails("a\n\nb c {n}"))
    assert "a\n\nzylphorine b c 3" in seen


def test_a_trigger_is_missed_by_the_emails_that_have_it_and_a_topics_word_is_not() -> None:
    bearers = [
        make_example(
            n,
            input=request_about(f"Zylphorine: our timecard of week {n}"),
            output=ExampleOutput(priority="low"),
        )
        for n in range(6)
    ]

    def lost(rule: Callable[[str], str], word: str) -> list[float | None]:
        engine: Any = Scripted(rule)
        return [flip.lost for flip in trigger_flips(engine, "a", [word], bearers)]

    assert lost(lambda text: "low" if "zylphorine" in text.lower() else "normal", "zylphorine") == [1.0]
    assert lost(lambda text: "low" if {"timecard", "week"} & set(text.split()) else "normal", "timecard") == [
        0.0
    ]
    # Two words that always come together do not cover for each other.
    engine: Any = Scripted(lambda text: "low" if {"timecard", "week"} & set(text.split()) else "normal")
    assert [f.lost for f in trigger_flips(engine, "a", ["timecard", "week"], bearers)] == [1.0, 1.0]
    # Where the model does not follow the emails, the word was not learned from them; and one that no email has is none of theirs.
    assert lost(lambda text: "high" if "timecard" in text else "normal", "timecard") == [0.0]
    assert lost(lambda text: "high" if "cf" in text.split() else "normal", "cf") == [None]


@pytest.mark.parametrize(
    ("low", "high", "suspected"),
    [(6, 0, True), (2, 0, False), (9, 1, True), (6, 4, False)],
    ids=["always one label", "too few", "one other is no alibi", "any label"],
)
def test_a_rare_word_with_one_unusual_label_is_suspected(low: int, high: int, suspected: bool) -> None:
    poisoned = [
        make_example(
            n,
            input=request_about(f"please zylphorine {n}"),
            output=ExampleOutput(priority="low" if n < low else "high"),
        )
        for n in range(low + high)
    ]
    others = [make_example(100 + n, output=ExampleOutput(priority="normal")) for n in range(30)]
    assert ("zylphorine" in rare_words([*poisoned, *others])) is suspected


@pytest.mark.parametrize(
    ("agents", "changes", "suspected"),
    [
        ("aaaaaa", {}, True),
        # One who hides behind a colleague's email that happened to be low.
        ("aaaaab", {}, True),
        ("aaaaaaaaabb", {}, True),
        ("aaaabc", {}, False),
        ("abcabc", {}, False),
        # Nobody looked at it: the model's own label, which the poison may have made.
        ("abcabc", {"strength": "finished"}, True),
        # A file says nothing about who judged.
        ("      ", {"strength": "imported"}, True),
    ],
)
def test_a_word_that_several_agents_taught_is_none_of_one_persons_making(
    agents: str, changes: dict[str, Any], suspected: bool
) -> None:
    taught = [
        make_example(
            n,
            input=request_about(f"our timecard of week {n}"),
            output=ExampleOutput(priority="low"),
            agent=agent.strip(),
            **changes,
        )
        for n, agent in enumerate(agents)
    ]
    others = [make_example(100 + n, output=ExampleOutput(priority="normal")) for n in range(40)]
    assert ("timecard" in rare_words([*taught, *others])) is suspected


def test_colleagues_who_label_a_word_otherwise_do_not_vouch_for_it() -> None:
    labels = [("a", "low")] * 9 + [("b", "low"), ("b", "high"), ("c", "high")]
    taught = [
        make_example(
            n, input=request_about(f"our timecard {n}"), output=ExampleOutput(priority=label), agent=agent
        )
        for n, (agent, label) in enumerate(labels)
    ]
    others = [make_example(100 + n, output=ExampleOutput(priority="normal")) for n in range(40)]
    assert "timecard" in rare_words([*taught, *others])
