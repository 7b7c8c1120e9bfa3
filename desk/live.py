"""Live changes: one watcher for each process looks into the database while somebody listens, and tells all pages.

    database --poll--> watcher --one text for all who see the same list--> a queue for each page --event-stream--> browser

What a page is told depends on the mailboxes that its reader sees and on what its list is filtered by; pages with
the same of both share each text. Commits may become visible out of order, so that each look goes back OVERLAP and
leaves out what it has sent before. A page may get a row twice all the same (at its start and after a reconnect): it
compares stamps and takes the newer one.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Protocol

from sqlmodel import Session

from briefbox.db import Database, now
from briefbox.errors import BriefboxError
from briefbox.store import changes, queue
from briefbox.store.filters import Filter
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Conversation

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
POLL_SECONDS_AFTER_ERROR = 3.0
# Counts and who looks at what are told at most this often.
SLOW_SECONDS = 1.0
# Longer than any of our transactions takes between writing a row and its commit.
OVERLAP = timedelta(seconds=10)
# Changes that one look can tell apart; they are only ids and times.
MAX_CHANGES = 5000
# More changed rows than this are told as "stale": the page fetches itself again.
MAX_ROWS = 300
# Events that a slow browser may be behind before it is dropped; it comes back with its Last-Event-ID.
MAX_BEHIND = 100
PING_SECONDS = 15.0
# How soon a page of somebody who was signed out elsewhere, or sees other mailboxes now, falls silent.
CHECK_SECONDS = 15.0

OPEN = Filter()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is told the same: what they see, and what their list is of. None: no list, only that a row changed."""

    sight: Sight = ALL
    wanted: Filter | None = OPEN


class Shown(Protocol):
    """What pages show, so that this module knows neither rows nor names."""

    def rows(
        self, session: Session, changed: Sequence[Conversation]
    ) -> Callable[[Audience, Conversation], str]:
        """Gets ready to say each of these rows, as JSON, to each audience."""
        ...

    def counts(self, session: Session, audience: Audience) -> dict[str, Any]:
        """How many there are in the tabs and in the list."""
        ...

    def present(self, session: Session) -> dict[int, list[str]]:
        """Who looks at which conversation now."""
        ...


def stamp(moment: datetime) -> int:
    """A moment as whole microseconds: the id of events, and what pages compare."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(stamp: int) -> datetime:
    """The opposite of `stamp`. Raises OverflowError beyond the year 9999."""
    return _EPOCH + timedelta(microseconds=stamp)


def event(name: str, data: dict[str, Any], *, id: int | None = None) -> str:
    """One server-sent event. JSON has no raw line breaks, so that one data line is enough."""
    return _event(name, json.dumps(data, ensure_ascii=False), id=id)


def _event(name: str, data: str, *, id: int | None = None) -> str:
    first = "" if id is None else f"id: {id}\n"
    return f"{first}event: {name}\ndata: {data}\n\n"


Inbox = asyncio.Queue[str | None]


class Live:
    """Fans changes out to the open pages of this process. Lives in one event loop."""

    def __init__(self, database: Database, shown: Shown) -> None:
        """`shown` makes what pages show; it runs once for all pages with the same list."""
        self._database = database
        self._shown = shown
        self._listeners: dict[Inbox, Audience] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def num_listeners(self) -> int:
        """How many pages listen now."""
        return len(self._listeners)

    async def listen(
        self, since: datetime, audience: Audience = Audience(), *, still_allowed: Callable[[], bool]
    ) -> AsyncIterator[str]:
        """What changed after `since`, then what changes from now on, as text of an event stream."""
        inbox: Inbox = asyncio.Queue(MAX_BEHIND)
        self._listeners[inbox] = audience
        try:
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(_Watcher(self._database, self._shown, self).run())
            yield "retry: 2000\n\n"
            # 1. Subscribed before looking back: nothing falls between the two.
            yield await asyncio.to_thread(self._catch_up, since, audience)
            # 2. From here on what the watcher finds.
            checked = monotonic()
            while not self._closed:
                try:
                    text = await asyncio.wait_for(inbox.get(), PING_SECONDS)
                except TimeoutError:
                    text = ": still here\n\n"
                if text is None:
                    return
                if monotonic() - checked > CHECK_SECONDS:
                    if not await asyncio.to_thread(still_allowed):
                        return
                    checked = monotonic()
                yield text
        finally:
            self._listeners.pop(inbox, None)
            if not self._listeners and self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None

    def close(self) -> None:
        """End all streams, so that the server can stop. To be called in the event loop."""
        self._closed = True
        for inbox in self._listeners:
            _end(inbox)

    def audiences(self) -> set[Audience]:
        """Who listens now. Safe in any thread."""
        return set(tuple(self._listeners.values()))

    def tell(self, texts: dict[Audience, str]) -> None:
        """Give each page its text."""
        for inbox, audience in self._listeners.items():
            if (text := texts.get(audience)) is None:
                continue
            try:
                inbox.put_nowait(text)
            except asyncio.QueueFull:
                _end(inbox)

    def _catch_up(self, since: datetime, audience: Audience) -> str:
        with self._database.read() as session:
            moment = now(session)
            found = changes.since(session, since - OVERLAP, limit=MAX_ROWS + 1)
            if len(found) > MAX_ROWS:
                texts = event("stale", {}, id=stamp(moment))
            else:
                changed = queue.load(session, [id_ for id_, _ in reversed(found)])
                texts = _rows_text(self._shown.rows(session, changed), audience, changed, empty=True)
            if audience.wanted is not None:
                texts += event("counts", self._shown.counts(session, audience))
                texts += event("presence", {"all": _seen(session, audience, self._shown.present(session))})
        return texts


class _Watcher:
    """Looks for changes again and again. What it remembers ends with it, once nobody listens."""

    def __init__(self, database: Database, shown: Shown, live: Live) -> None:
        self._database = database
        self._shown = shown
        self._live = live
        self._start: datetime | None = None
        self._sent: dict[int, int] = {}
        self._uncounted = False  # something changed since the counts were told
        self._slow_at = monotonic()
        self._counts: dict[Audience, str] = {}
        self._present: dict[int, list[str]] | None = None

    async def run(self) -> None:
        while True:
            wait = POLL_SECONDS
            try:
                for texts in await asyncio.to_thread(self._look):
                    self._live.tell(texts)
            except BriefboxError as error:
                log.warning("Live changes wait: %s", error)
                wait = POLL_SECONDS_AFTER_ERROR
            except Exception:
                log.exception("Live changes failed; trying again")
                wait = POLL_SECONDS_AFTER_ERROR
            await asyncio.sleep(wait)

    def _look(self) -> list[dict[Audience, str]]:
        """What there is to tell, in this order."""
        told: list[dict[Audience, str]] = []
        with self._database.read() as session:
            if (rows := self._rows(session)) is not None:
                told.append(rows)
                self._uncounted = True
            if monotonic() - self._slow_at >= SLOW_SECONDS:
                self._slow_at = monotonic()
                told.append(self._presence(session))
                if self._uncounted:
                    self._uncounted = False
                    told.append(self._changed_counts(session))
        return told

    def _rows(self, session: Session) -> dict[Audience, str] | None:
        moment = now(session)
        start = self._start or moment - OVERLAP
        changed = changes.since(session, start, limit=MAX_CHANGES)
        fresh = {id_: at for id_, at in changed if self._sent.get(id_) != stamp(at)}
        self._sent.update({id_: stamp(at) for id_, at in fresh.items()})
        for id_ in [id_ for id_, at in self._sent.items() if at < stamp(start)]:
            del self._sent[id_]
        self._start = moment - OVERLAP
        if not fresh:
            return None
        if len(fresh) > MAX_ROWS:
            stale = event("stale", {}, id=stamp(moment))
            return dict.fromkeys(self._live.audiences(), stale)
        found = queue.load(session, sorted(fresh, key=lambda id_: fresh[id_]))
        say = self._shown.rows(session, found)
        # Asked for after the rows were read: who listens since then looks back by itself, and misses nothing.
        return {
            audience: text
            for audience in self._live.audiences()
            if (text := _rows_text(say, audience, found))
        }

    def _changed_counts(self, session: Session) -> dict[Audience, str]:
        """Counts that are other than those told before."""
        audiences = {audience for audience in self._live.audiences() if audience.wanted is not None}
        texts = {audience: event("counts", self._shown.counts(session, audience)) for audience in audiences}
        other = {audience: text for audience, text in texts.items() if self._counts.get(audience) != text}
        self._counts = texts
        return other

    def _presence(self, session: Session) -> dict[Audience, str]:
        present = self._shown.present(session)
        before, self._present = self._present, present
        if before is None:  # whatever pages were told before the first look
            everything = {
                audience: event("presence", {"all": _seen(session, audience, present)})
                for audience in self._live.audiences()
                if audience.wanted is not None
            }
            return everything
        other = {
            id_: present.get(id_, [])
            for id_ in present.keys() | before.keys()
            if present.get(id_) != before.get(id_)
        }
        if not other:
            return {}
        return {
            audience: event("presence", {"now": seen})
            for audience in self._live.audiences()
            if audience.wanted is not None and (seen := _seen(session, audience, other))
        }


def _rows_text(
    say: Callable[[Audience, Conversation], str],
    audience: Audience,
    changed: Sequence[Conversation],
    *,
    empty: bool = False,
) -> str:
    """One event for those of the rows that the audience sees; "" without any, unless `empty` is told too."""
    seen = [c for c in changed if audience.sight.sees(c.mailbox_id)]
    if not (seen or empty):
        return ""
    data = ", ".join(say(audience, conversation) for conversation in seen)
    last = max((stamp(c.updated_at) for c in seen), default=None)
    return _event("rows", f'{{"rows": [{data}]}}', id=last)


def _seen(session: Session, audience: Audience, present: dict[int, list[str]]) -> dict[str, list[str]]:
    sight = audience.sight
    if sight.mailboxes is None:
        return {str(id_): names for id_, names in present.items()}
    where = changes.mailboxes(session, list(present))
    return {str(id_): names for id_, names in present.items() if id_ in where and sight.sees(where[id_])}


def _end(inbox: Inbox) -> None:
    """Make the listener's loop return after nothing more than this."""
    with suppress(asyncio.QueueEmpty):
        while True:
            inbox.get_nowait()
    inbox.put_nowait(None)
