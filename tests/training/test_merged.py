"""Examples of a merged category in the names of today."""

from briefbox.schemas import Category, ExampleOutput
from tests.training.conftest import make_example
from training.merged import in_new_names


def test_labels_and_the_offered_list_are_translated() -> None:
    example = make_example(1)  # Billing, of Billing and Delivery
    found = in_new_names(example, {"Billing": "Money"})
    assert found.output.category == "Money"
    assert found.model_output.category == "Money"
    assert [c.name for c in found.input.categories] == ["Money", "Delivery"]
    assert found.input.categories[0].description == "invoices and refunds"
    assert in_new_names(example, {"Praise": "Other"}) is example


def test_a_correction_between_two_that_are_one_now_confirms() -> None:
    said = ExampleOutput(priority="urgent", category="Delivery", headline="H", summary="S")
    truth = said.model_copy(update={"category": "Billing"})
    example = make_example(1, output=truth, model_output=said, changed=("category",), strength="corrected")
    found = in_new_names(example, {"Billing": "Delivery"})
    assert (found.changed, found.strength) == ((), "confirmed")
    assert found.input.categories == (Category(name="Delivery"),)
    both = example.model_copy(update={"changed": ("category", "headline")})
    assert in_new_names(both, {"Billing": "Delivery"}).strength == "corrected"
