"""What is worth learning: caps, copies, contradictions, and agents who stand alone."""

import random
from datetime import timedelta

from briefbox.schemas import Example, ExampleOutput
from briefbox.settings import Settings
from tests.training.conftest import NOON, make_example, request_about
from tests.training.test_splits import WORDS, emails
from training.near import clusters
from training.quality import clean, disagreeing_agents

LETTER = "Dear team, the invoice for my subscription of this month arrived twice and I would like one of them back please"


def labelled(number: int, text: str, **output: str) -> Example:
    return make_example(
        number,
        input=request_about(text),
        output=ExampleOutput(**output),
        sender=f"s{number}",
        created_at=NOON + timedelta(minutes=number),
    )


def test_copies_with_other_numbers_are_found_and_different_letters_are_not() -> None:
    texts = [
        f"{LETTER}. Order 1234",
        f"{LETTER}. Order 99",
        "Something else, quite short",
        "My cat likes the box",
    ]
    found = clusters(texts, least=0.85)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_copies_collapse_and_the_count_says_so(settings: Settings) -> None:
    copies = [labelled(n, LETTER, priority="high") for n in range(5)]
    other = labelled(9, "The parcel came early, thank you", priority="low")
    result = clean([*copies, other], settings, {})
    assert [e.id for e in result.examples] == ["brief-4", "brief-9"]
    assert result.left_out == {"copy of another": 4}


def test_the_copy_that_has_a_part_already_stays(settings: Settings) -> None:
    copies = [labelled(n, LETTER, priority="high") for n in range(3)]
    assert [e.id for e in clean(copies, settings, {"brief-0": "test"}).examples] == ["brief-0"]


def test_contradictions_go_to_a_person_and_not_into_training(settings: Settings) -> None:
    two = [labelled(1, LETTER, priority="high"), labelled(2, LETTER, priority="low")]
    result = clean([*two, labelled(3, "The parcel came early", priority="low")], settings, {})
    assert [e.id for e in result.examples] == ["brief-3"]
    (shown,) = result.contradictions
    assert shown["fields"] == ["priority"]
    assert [(e["id"], e["priority"]) for e in shown["examples"]] == [("brief-1", "high"), ("brief-2", "low")]
    assert result.report()["left_out"] == {"contradicts another": 2}


def test_one_customer_and_one_agent_have_a_cap_and_the_newest_stay(settings: Settings) -> None:
    own = settings.model_copy(update={"cap_per_sender": 3, "cap_per_agent_per_day": 12})
    talker = [e.model_copy(update={"sender": "one", "agent": "a"}) for e in emails(10)]
    busy = [e.model_copy(update={"agent": "a"}) for e in emails(20, first=10)]
    result = clean([*talker, *busy], own, {})
    assert result.left_out == {"more than cap_per_sender": 7, "more than cap_per_agent_per_day": 11}
    assert [e.id for e in result.examples] == [f"brief-{n}" for n in range(18, 30)]


def rooms(rng: random.Random, agent: str, number: int, topic: int, label: str) -> Example:
    words = WORDS[topic * 40 : topic * 40 + 40]
    return labelled(number, " ".join(rng.choices(words, k=25)), category=label).model_copy(
        update={"agent": agent}
    )


def test_an_agent_who_labels_against_everyone_else_is_listed() -> None:
    rng = random.Random(3)
    examples = []
    for n in range(120):
        topic = n % 4
        agent = ("ana", "ben", "eve")[n // 4 % 3]
        label = f"topic {(topic + 1) % 4 if agent == 'eve' else topic}"
        examples.append(rooms(rng, agent, n, topic, label))
    (found,) = disagreeing_agents(examples)
    assert (found.agent, found.field) == ("eve", "category")
    assert found.rate > 0.8
    assert found.others < 0.6


def test_agents_who_agree_are_not_listed_and_one_alone_neither() -> None:
    rng = random.Random(4)
    examples = [rooms(rng, ("ana", "ben")[n // 4 % 2], n, n % 4, f"topic {n % 4}") for n in range(80)]
    assert disagreeing_agents(examples) == []
    assert disagreeing_agents([e for e in examples if e.agent == "ana"]) == []
