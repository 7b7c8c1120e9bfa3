"""The labelled replies in tests/ingest/replies: mails as clients write them, and what is new in each.

A case is "=== id | plain or html" (and "| forward" where the subject says that it is one), the body, "--- reply" and
the new part. Lines of it that begin with "? " may be in the reply or not: a closing formula and a name harm nobody.
Every third case of a language is held out: nothing in the product is fitted to it. The mails in by_another_hand/ were
written by somebody who knew the form of a case and nothing of the rules.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "replies"
BY_ANOTHER_HAND = FOLDER / "by_another_hand"


@dataclass(frozen=True, slots=True)
class Case:
    """One mail, and the lines that are new in it; the `optional` ones after them may be there."""

    id: str
    language: str
    html: bool
    forward: bool
    held_out: bool
    body: str
    needed: tuple[str, ...]
    optional: tuple[str, ...]

    def is_met(self, reply: str) -> bool:
        """Whether a reply is the labelled one, white space aside."""
        whole = [*self.needed, *self.optional]
        return any(
            fold(reply) == fold("\n".join(whole[:count])) for count in range(len(self.needed), len(whole) + 1)
        )

    def lost(self, reply: str) -> bool:
        """Whether a line that the customer wrote is missing."""
        found = fold(reply)
        return any(fold(line) not in found for line in self.needed)


def fold(text: str) -> str:
    """The text without white space and marks of markup, for comparing what different readers make of HTML."""
    return re.sub(r"[\s\u200b\ufeff]+", "", text)


def read_cases(folder: Path = FOLDER) -> list[Case]:
    """All labelled mails, language by language."""
    return [case for file in sorted(folder.glob("*.txt")) for case in _read(file)]


def _read(file: Path) -> Iterator[Case]:
    sections = re.split(r"^=== ", file.read_text(encoding="utf-8"), flags=re.M)[1:]
    for number, section in enumerate(sections, start=1):
        head, _, rest = section.partition("\n")
        name, form, *more = (part.strip() for part in head.split("|"))
        body, _, reply = rest.partition("\n--- reply\n")
        lines = reply.rstrip("\n").split("\n")
        yield Case(
            id=name,
            language=file.stem,
            html=form == "html",
            forward="forward" in more,
            held_out=number % 3 == 0,
            body=body,
            needed=tuple(line for line in lines if not line.startswith("?")),
            optional=tuple(line[2:] for line in lines if line.startswith("?")),
        )
