"""The rows of the queue: what is shown of one conversation, on the page and in live changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment
from sqlmodel import Session

from briefbox.store import assignees, marks, queue, sla
from briefbox.store.filters import Filter
from briefbox.store.marks import Marks
from briefbox.tables import Conversation
from desk.live import stamp


@dataclass(frozen=True, slots=True)
class Row:
    """What the queue shows of one conversation."""

    conversation: Conversation
    marks: Marks
    owner: str  # who has it; "" is nobody
    due: (
        datetime | None
    )  # until when the customer is to have an answer, where somebody waits and there is a target

    @property
    def being_read(self) -> bool:
        """Whether a mail of it has no brief yet."""
        return self.marks.being_read

    @property
    def failed(self) -> bool:
        """Whether a mail of it could not be briefed."""
        return self.marks.failed

    @property
    def instructed(self) -> bool:
        """Whether a mail of it contains text addressed to an assistant."""
        return self.marks.instructed

    @property
    def stamp(self) -> int:
        """Which of two versions of a row is the newer one."""
        return stamp(self.conversation.updated_at)


def rows(
    session: Session, found: Sequence[Conversation], targets: Mapping[str, int] | None = None
) -> list[Row]:
    """Conversations with what stands beside them."""
    if not found:
        return []
    asked = dict(sla.targets(session) if targets is None else targets)
    known = marks.of(session, [c.id for c in found])
    names = assignees.names(session, (c.assigned_to for c in found))
    return [
        Row(
            c,
            marks=known.get(c.id, marks.NONE),
            owner=names.get(c.assigned_to, "") if c.assigned_to is not None else "",
            due=sla.due(c, asked),
        )
        for c in found
    ]


def render(pages: Environment, timezone: str, row: Row) -> str:
    """The row as HTML, the same for everybody who sees it."""
    return pages.get_template("row.html").render(
        row=row, order="", picked=False, present=(), timezone=timezone
    )


def change(
    pages: Environment, timezone: str, row: Row, wanted: Filter, targets: Mapping[str, int]
) -> dict[str, Any]:
    """A row as the page's script takes it (see desk/live.py), for whoever looks at this list."""
    here = belongs(wanted, row.conversation, targets)
    return {
        "id": row.conversation.id,
        "stamp": row.stamp,
        "state": row.conversation.state,
        "order": queue.order_key(row.conversation, wanted),
        "here": here,
        "html": "" if here is False else render(pages, timezone, row),
    }


def belongs(wanted: Filter, conversation: Conversation, targets: Mapping[str, int]) -> bool | None:
    """Whether a row is in a list. None: a question of text can't be asked of a row alone; it stays if it is there."""
    found = queue.matches(wanted, conversation, dict(targets))
    return None if found and wanted.text else found
