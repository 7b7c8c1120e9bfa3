"""What agents said of a category that was merged away counts for the one that took its place.

The list in the example is translated with the labels: the model is taught to choose from what it will be offered.
"""

from collections.abc import Mapping

from briefbox.schemas import Category, Example, ExampleOutput


def in_new_names(example: Example, names: Mapping[str, str]) -> Example:
    """The example with `names` (old to new) instead of the old ones. Unchanged where it has none of them."""
    offered = example.input.categories
    if not names.keys() & {
        *(category.name for category in offered),
        example.output.category,
        example.model_output.category,
    }:
        return example
    changed = example.changed
    output, said = _renamed(example.output, names), _renamed(example.model_output, names)
    if output.category is not None and output.category == said.category:
        # From one to the other, and the two are one now: nothing was changed, but a person stands behind it.
        changed = tuple(field for field in changed if field != "category")
    strength = "confirmed" if example.strength == "corrected" and not changed else example.strength
    return example.model_copy(
        update={
            "input": example.input.model_copy(update={"categories": _list(offered, names)}),
            "output": output,
            "model_output": said,
            "changed": changed,
            "strength": strength,
        }
    )


def _renamed(output: ExampleOutput, names: Mapping[str, str]) -> ExampleOutput:
    if output.category is None or output.category not in names:
        return output
    return output.model_copy(update={"category": names[output.category]})


def _list(offered: tuple[Category, ...], names: Mapping[str, str]) -> tuple[Category, ...]:
    """The list of that moment: an old name goes where the new one is there already, and becomes it where it is not."""
    there = {category.name for category in offered}
    found: dict[str, Category] = {}
    for category in offered:
        new = names.get(category.name, category.name)
        if new != category.name and new in there:
            continue
        found.setdefault(new, category.model_copy(update={"name": new}))
    return tuple(found.values())
