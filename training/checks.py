"""What would make training on a set of examples unfair or useless."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from briefbox.schemas import Example, ExampleOutput
from training.gate import MIN_CLASS_SUPPORT
from training.near import clusters
from training.quality import LABELS
from training.redact import redact_example
from training.splits import SAME_TEXT

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """An error makes a verdict worthless; a warning is for a person to weigh."""

    severity: Severity
    text: str
    examples: tuple[str, ...] = ()


def check_examples(examples: Sequence[Example]) -> list[Finding]:
    """Everything found, errors first."""
    found: list[Finding] = []
    repeated = tuple(key for key, count in Counter(e.id for e in examples).items() if count > 1)
    if repeated:
        found.append(Finding("error", f"{len(repeated)} ids occur more than once", repeated))
    empty = tuple(e.id for e in examples if e.output == ExampleOutput())
    if empty:
        found.append(Finding("error", f"{len(empty)} examples have nothing to learn", empty))
    found += _crossing(examples)
    personal = tuple(e.id for e in examples if redact_example(e)[1])
    if personal:
        found.append(
            Finding(
                "error", f"{len(personal)} examples hold card numbers, addresses, phones or secrets", personal
            )
        )
    if any(e.split for e in examples):
        unsplit = tuple(e.id for e in examples if e.split is None)
        if unsplit:
            found.append(
                Finding("error", f"{len(unsplit)} examples are in no part while others are", unsplit)
            )
        for part in ("train", "validation", "test"):
            if not any(e.split == part for e in examples):
                found.append(Finding("warning", f"the part {part} is empty"))
    for label in LABELS:
        for part in ("train", "test"):
            counts = Counter(
                str(value)
                for e in examples
                if e.split == part and (value := getattr(e.output, label)) is not None
            )
            few = [f"{name} ({count})" for name, count in sorted(counts.items()) if count < MIN_CLASS_SUPPORT]
            if few:
                found.append(
                    Finding(
                        "warning", f"{part} has fewer than {MIN_CLASS_SUPPORT} of {label} {', '.join(few)}"
                    )
                )
    return sorted(found, key=lambda finding: finding.severity)


def _crossing(examples: Sequence[Example]) -> list[Finding]:
    """What is learned and tested at once."""
    texts = clusters([f"{e.input.subject}\n{e.input.text}" for e in examples], least=SAME_TEXT)
    keys = {
        "conversations": [e.conversation for e in examples],
        "senders": [e.sender for e in examples],
        "emails that say nearly the same": [str(cluster) for cluster in texts],
    }
    found: list[Finding] = []
    for what, values in keys.items():
        members: defaultdict[str, list[Example]] = defaultdict(list)
        for value, example in zip(values, examples, strict=True):
            if value and example.split:
                members[value].append(example)
        crossing = [group for group in members.values() if len({e.split == "test" for e in group}) == 2]
        if crossing:
            ids = tuple(e.id for group in crossing for e in group)
            found.append(
                Finding(
                    "error", f"{len(crossing)} {what} are in the test part and in what is trained on", ids
                )
            )
    return found
