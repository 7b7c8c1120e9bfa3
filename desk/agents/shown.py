"""What live pages are told of the queue: rows as HTML, counts in words, and who looks at what."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jinja2 import Environment
from sqlmodel import Session

from briefbox.store import conversations, presence, queue, sla
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight
from briefbox.tables import Conversation
from desk.agents.rows import belongs, render, rows
from desk.live import Audience, stamp

# A list's own number is counted no further.
MAX_COUNTED = 1000


class ShownQueue:
    """What `Live` asks of the queue page. The HTML of a row is made once for everybody."""

    def __init__(self, pages: Environment, timezone: str) -> None:
        self._pages = pages
        self._timezone = timezone

    def rows(
        self, session: Session, changed: Sequence[Conversation]
    ) -> Callable[[Audience, Conversation], str]:
        """Gets ready to say each of these rows, as JSON, to each audience."""
        targets = sla.targets(session)
        ready = {row.conversation.id: row for row in rows(session, changed, targets)}
        made: dict[int, str] = {}

        def html(id_: int) -> str:
            if id_ not in made:
                made[id_] = json.dumps(render(self._pages, self._timezone, ready[id_]), ensure_ascii=False)
            return made[id_]

        def say(audience: Audience, c: Conversation) -> str:
            first = f'"id": {c.id}, "stamp": {stamp(c.updated_at)}, "state": {json.dumps(c.state)}'
            if audience.wanted is None:
                return f"{{{first}}}"
            here = belongs(audience.wanted, c, targets)
            order = queue.order_key(c, audience.wanted)
            shown = '""' if here is False else html(c.id)
            return f'{{{first}, "order": "{order}", "here": {json.dumps(here)}, "html": {shown}}}'

        return say

    def counts(self, session: Session, audience: Audience) -> dict[str, Any]:
        """How many there are in the tabs and in the list."""
        return counted(session, audience.wanted or Filter(), audience.sight)

    def present(self, session: Session) -> dict[int, list[str]]:
        """Who looks at which conversation now."""
        return presence.all_now(session)


def counted(session: Session, wanted: Filter, sight: Sight, *, number: int | None = None) -> dict[str, Any]:
    """The numbers of the tabs and of the list itself, in words. `number` is the list's own where it is known."""
    tabs = queue.counts(session, sight)
    said = {state: say_number(number, conversations.MAX_COUNTED) for state, number in tabs.items()}
    if wanted == replace(Filter(), state=wanted.state) and wanted.state:
        return {"tabs": said, "here": said[wanted.state]}
    if number is None:
        number = queue.count(session, wanted, sight=sight, cap=MAX_COUNTED)
    return {"tabs": said, "here": say_number(number, MAX_COUNTED)}


def say_number(number: int, cap: int) -> str:
    """A count for people, where `cap` means "or more"."""
    return f"{cap:,}+" if number >= cap else f"{number:,}"
