"""training.checks: what would make a set of examples unfair or useless."""

from tests.training.conftest import make_example, request_about
from training.checks import check_examples


def texts(*examples: object) -> list[str]:
    return [f"{f.severity}: {f.text}" for f in check_examples(examples)]  # type: ignore[arg-type]


def test_what_is_learned_and_tested_at_once_is_an_error() -> None:
    one = make_example(
        1,
        split="train",
        sender="",
        input=request_about("my washing machine leaks at the front door since Monday"),
    )
    copy = make_example(
        2,
        split="test",
        sender="",
        input=request_about("my washing machine leaks at the front door since Monday!"),
    )
    assert "error: 1 emails that say nearly the same are in the test part and in what is trained on" in texts(
        one, copy
    )
    friend = make_example(3, split="test", sender="k", conversation="c1")
    found = texts(make_example(1, split="train", sender="k"), friend)
    assert "error: 1 conversations are in the test part and in what is trained on" in found
    assert "error: 1 senders are in the test part and in what is trained on" in found


def test_personal_data_empty_answers_and_repeated_ids_are_errors() -> None:
    leaking = make_example(1, input=request_about("Write to kim@example.org"))
    nothing = make_example(2, output={})
    found = texts(leaking, nothing, make_example(4), make_example(4))
    assert any(f.startswith("error: ") and "card numbers" in f for f in found)
    assert "error: 1 examples have nothing to learn" in found
    assert "error: 1 ids occur more than once" in found


def test_few_of_a_label_is_a_warning() -> None:
    found = texts(*(make_example(n, split="train", sender="") for n in range(1, 12)))
    assert "warning: the part test is empty" in found
    assert "warning: train has fewer than 8 of priority low (5), urgent (6)" in found
