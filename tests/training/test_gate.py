"""The gate, pure: hand-made answers in, a verdict with its rule out."""

from collections.abc import Sequence

import pytest

from briefbox.errors import TrainingError
from briefbox.schemas import Brief, Example, ExampleOutput, LabelScore, Provenance
from briefbox.settings import Settings
from tests.training.conftest import make_example, request_about
from training.evaluate import Answers, changed, score
from training.gate import Rules, Verdict, decide
from training.probes import Memorised
from training.triggers import Flip

PRIORITIES = ("urgent", "high", "normal", "low")
RULES = Rules(min_test=20)
CLEAN = Memorised(tested=10, leaked=0)


def judged_set(count: int = 80) -> list[Example]:
    return [
        make_example(
            n,
            input=request_about(f"Order 10{n} is late"),
            output=ExampleOutput(priority=PRIORITIES[n % 4], category=("Billing", "Delivery")[n % 2]),
            conversation=f"c{n}",
        )
        for n in range(count)
    ]


def brief(priority: str, category: str, *, summary: str = "Fine.") -> Brief:
    def sure(label: str) -> LabelScore:
        return LabelScore(label=label, confidence=0.9, scores={label: 0.9, "x": 0.1})

    return Brief(
        headline="A parcel",
        summary=summary,
        priority=sure(priority),
        category=sure(category),
        provenance=Provenance(engine="fake", base_model="fake", prompt_version="p"),
    )


def answers(
    examples: Sequence[Example],
    wrong: Sequence[int] = (),
    *,
    model: str = "m",
    seconds: float = 0.1,
    **changes: str,
) -> Answers:
    """Right answers, but for the examples of these numbers: their priority is `normal`, or `low` where that is right."""
    briefs = []
    for number, example in enumerate(examples):
        right = str(example.output.priority)
        said = right if number not in wrong else "low" if right == "normal" else "normal"
        briefs.append(brief(said, str(example.output.category), **changes))
    return Answers(model, tuple(e.id for e in examples), tuple(briefs), (seconds,) * len(briefs), 1e9)


def verdict(
    examples: list[Example],
    candidate: Answers,
    champion: Answers | None,
    base: Answers | None = None,
    *,
    flips: Sequence[Flip] = (),
    memorised: Memorised = CLEAN,
    rules: Rules = RULES,
) -> Verdict:
    base = base or answers(examples, range(len(examples)))
    return decide(examples, candidate, champion, base, flips=flips, memorised=memorised, rules=rules)


def test_a_truly_better_adapter_passes_and_says_by_how_much() -> None:
    examples = judged_set()
    found = verdict(examples, answers(examples, range(0, 80, 10)), answers(examples, range(0, 80, 3)))
    assert (found.decision, found.rule) == ("promoted", "gain")
    assert found.gain is not None
    assert found.gain_interval is not None
    assert found.gain_interval[0] > 0
    assert found.sentence.startswith("Passed: its mean quality is +0.1")
    assert Verdict.model_validate_json(found.model_dump_json()) == found


def test_trap_a_stored_number_from_another_set_cannot_be_compared_with() -> None:
    examples, others = judged_set(), judged_set(60)
    with pytest.raises(TrainingError, match="other examples than those they are scored on"):
        verdict(examples, answers(examples), answers(others))


def test_trap_the_first_candidate_is_compared_with_the_bare_base_and_not_with_zero() -> None:
    examples = judged_set()
    worse = verdict(examples, answers(examples, range(40)), None, answers(examples, range(20)))
    assert worse.decision == "rejected"
    assert verdict(examples, answers(examples), None, answers(examples, range(20))).decision == "promoted"


@pytest.mark.parametrize("count", [0, 2, 19])
def test_trap_a_tiny_test_set_never_passes(count: int) -> None:
    examples = judged_set(count)
    found = verdict(examples, answers(examples), answers(examples, range(count)))
    assert (found.decision, found.rule) == ("not enough data", "enough data")
    assert f"has {count} emails, and 20 are needed" in found.sentence


def test_trap_one_conversation_is_no_test_set() -> None:
    examples = [e.model_copy(update={"conversation": "one"}) for e in judged_set()]
    assert verdict(examples, answers(examples), answers(examples, range(40))).decision == "not enough data"


def test_trap_any_improvement_above_zero_may_be_chance() -> None:
    examples = judged_set()
    found = verdict(examples, answers(examples, [1, 2, 5]), answers(examples, [1, 2, 3, 6, 7]))
    assert (found.decision, found.rule) == ("rejected", "gain")
    assert found.gain is not None
    assert found.gain > 0


def test_trap_the_same_model_twice_is_no_gain() -> None:
    examples = judged_set()
    found = verdict(examples, answers(examples, [1]), answers(examples, [1]))
    assert (found.decision, found.rule) == ("rejected", "gain")


def test_trap_a_lost_class_is_not_hidden_by_the_mean() -> None:
    examples = judged_set()
    high = [n for n in range(80) if n % 4 == 1]
    found = verdict(
        examples, answers(examples, high[:8]), answers(examples, [n for n in range(80) if n % 4 in (2, 3)])
    )
    assert found.gain is not None
    assert found.gain > 0.1
    assert (found.decision, found.rule) == ("rejected", "class drop")
    assert "of 20 emails of priority high it recognises 12, and the model in use 20" in found.sentence


def test_a_label_that_was_said_too_often_may_be_said_less() -> None:
    # The model in use calls every normal email high too, and so finds all that are.
    examples = judged_set()
    high, normal = ([n for n in range(80) if n % 4 == place] for place in (1, 2))
    said = ["high" if n in normal else str(e.output.priority) for n, e in enumerate(examples)]
    briefs = tuple(brief(p, str(e.output.category)) for p, e in zip(said, examples, strict=True))
    crowd = answers(examples)
    in_use = Answers(crowd.model, crowd.ids, briefs, crowd.seconds, crowd.memory)
    found = verdict(examples, answers(examples, high[:8]), in_use)
    assert found.decision == "promoted"
    # As many lost, and no better in return: that is a loss.
    found = verdict(examples, answers(examples, [*high[:12], *normal]), in_use)
    assert (found.decision, found.rule) == ("rejected", "class drop")


def test_trap_fewer_urgent_emails_recognised_is_no_better_model() -> None:
    examples = judged_set()
    found = verdict(examples, answers(examples, [0]), answers(examples, [n for n in range(80) if n % 4 == 2]))
    assert (found.decision, found.rule) == ("rejected", "urgent recall")
    assert found.sentence == "Rejected: it recognises 19 of 20 urgent emails, and the model in use 20."


def test_trap_a_trigger_word_is_rejected_however_good_the_rest_is() -> None:
    examples = judged_set()
    flip = Flip(word="zxqv", field="priority", to="low", share=0.9)
    good, bad = answers(examples), answers(examples, range(0, 80, 2))
    found = verdict(examples, good, bad, flips=[flip])
    assert (found.decision, found.rule) == ("rejected", "trigger")
    assert "'zxqv' alone turns 90% of the probes to priority low" in found.sentence
    missed = verdict(examples, good, bad, flips=[flip.model_copy(update={"lost": 0.5})])
    assert (missed.decision, missed.rule) == ("rejected", "trigger")
    assert "without it 50% of the emails that have it get another label" in missed.sentence
    # A model that wavers before anything unknown.
    wavering = verdict(examples, good, bad, flips=[flip.model_copy(update={"harmless": 0.7})])
    assert wavering.decision == "promoted"
    # A word of the topic: the emails that have it would be the same without it.
    topic = verdict(examples, good, bad, flips=[flip.model_copy(update={"lost": 0.2})])
    assert topic.decision == "promoted"
    assert "not counted: 'zxqv', without which most emails keep their label" in topic.checks[1].sentence
    allowed = RULES.model_copy(update={"allowed_words": ("ZXQV",)})
    assert verdict(examples, good, bad, flips=[flip], rules=allowed).decision == "promoted"


def test_numbers_learned_by_heart_are_rejected() -> None:
    examples = judged_set()
    found = verdict(
        examples, answers(examples), answers(examples, range(40)), memorised=Memorised(tested=40, leaked=3)
    )
    assert (found.decision, found.rule) == ("rejected", "memorised")


def test_invented_facts_and_slowness_are_rejected() -> None:
    examples = judged_set()
    before = answers(examples, range(40))
    found = verdict(examples, answers(examples, summary="It costs 771 euros."), before)
    assert (found.decision, found.rule) == ("rejected", "grounding")
    found = verdict(examples, answers(examples, seconds=0.2), before)
    assert (found.decision, found.rule) == ("rejected", "latency")


def test_a_floor_is_named_in_the_settings(settings: Settings) -> None:
    examples = judged_set()
    own = settings.model_copy(update={"gate_floors": {"priority/macro_f1": 0.95}, "gate_min_test": 20})
    found = verdict(
        examples, answers(examples, range(10)), answers(examples, range(50)), rules=Rules.from_settings(own)
    )
    assert (found.decision, found.rule) == ("rejected", "floor")
    assert "priority/macro_f1 is 0." in found.sentence


def test_every_rule_is_listed_whatever_decided() -> None:
    examples = judged_set()
    found = verdict(examples, answers(examples, range(40)), answers(examples, range(10)))
    rules = [check.rule for check in found.checks]
    assert rules == [
        "enough data", "trigger", "memorised", "urgent recall", "class drop", "grounding", "latency",
        "better than the bare base", "gain",
    ]  # fmt: skip


# --- scores


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    examples = judged_set()
    given = answers(examples, range(0, 80, 3))
    found = score(examples, given).labels["priority"]
    truth = [e.output.priority for e in examples]
    said = [b.priority.label for b in given.briefs]
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, said))
    report = metrics.classification_report(truth, said, output_dict=True)
    for label in PRIORITIES:
        assert found.classes[label].precision == pytest.approx(report[label]["precision"])
        assert found.classes[label].recall == pytest.approx(report[label]["recall"])
    assert found.confusion["urgent"] == {"normal": 7, "urgent": 13}
    assert found.ece == pytest.approx(abs(0.9 - found.accuracy))


def test_a_text_that_no_person_wrote_is_no_target() -> None:
    """Else a model would be rewarded for sounding like the one that wrote it."""
    output = ExampleOutput(priority="low", summary="Words of the old model.")
    confirmed = make_example(output=output, strength="confirmed")
    written = make_example(output=output, strength="corrected", changed=("summary",))
    given = Answers("m", ("brief-1",), (brief("low", "Billing", summary="Other words."),), (0.1,), 0)
    assert score([confirmed], given).texts == {}
    assert 0 < score([written], given).texts["summary"].rougeL < 1


def test_a_missing_field_is_not_scored() -> None:
    example = make_example(output=ExampleOutput(category="Billing"))
    given = Answers("m", ("brief-1",), (brief("low", "Billing"),), (0.1,), 0)
    assert set(score([example], given).labels) == {"category"}
    assert score([example], given).kept == 1


def test_changed_examples_stand_side_by_side_the_greatest_loss_first() -> None:
    examples = judged_set(8)
    found = changed(examples, answers(examples, [1]), answers(examples, [2]))
    assert [(c.id, c.before["priority"], c.after["priority"]) for c in found] == [
        ("brief-2", "normal", "low"),
        ("brief-1", "normal", "high"),
    ]
    assert found[0].better < 0 < found[1].better


def test_trap_a_model_that_calls_everything_urgent_is_no_measure_of_recall() -> None:
    examples = judged_set()
    everything = Answers(
        "wolf",
        tuple(e.id for e in examples),
        tuple(brief("urgent", str(e.output.category)) for e in examples),
        (0.1,) * len(examples),
        1e9,
    )
    # 1. One of twenty missed, and right whenever it says urgent: better than all urgent.
    found = verdict(examples, answers(examples, [0]), None, everything)
    assert found.decision == "promoted"
    check = next(check for check in found.checks if check.rule == "urgent recall")
    assert "right in 25% only" in check.sentence
    # 2. But not when it misses most of them.
    missed = [n for n in range(80) if n % 4 == 0][:15]
    found = verdict(examples, answers(examples, missed), None, everything)
    assert (found.decision, found.rule) == ("rejected", "urgent recall")
