"""Live changes: one watcher for each process looks into the database while somebody listens, and tells all pages.

    database --poll--> watcher --one event--> a queue for each open page --text/event-stream--> browser

Commits may become visible out of order, so that each look goes back OVERLAP and leaves out what it has
sent before. A page may get a row twice all the same (at its start and after a reconnect): it compares
stamps and takes the newer one.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from sqlmodel import Session

from briefbox.db import Database, now
from briefbox.errors import BriefboxError
from briefbox.store import conversations
from briefbox.tables import Conversation

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
POLL_SECONDS_AFTER_ERROR = 3.0
# Longer than any of our transactions takes between writing a row and its commit.
OVERLAP = timedelta(seconds=10)
# More changed rows than this are told as "stale": the page fetches itself again.
MAX_ROWS = 300
# Events that a slow browser may be behind before it is dropped; it comes back with its Last-Event-ID.
MAX_BEHIND = 100
PING_SECONDS = 15.0
# How soon a page of somebody who was signed out elsewhere falls silent.
CHECK_SECONDS = 30.0

Render = Callable[[Session, Sequence[Conversation]], list[dict[str, Any]]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamp(moment: datetime) -> int:
    """A moment as whole microseconds: the id of events, and what pages compare."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(stamp: int) -> datetime:
    """The opposite of `stamp`. Raises OverflowError beyond the year 9999."""
    return _EPOCH + timedelta(microseconds=stamp)


def event(name: str, data: dict[str, Any], *, id: int | None = None) -> str:
    """One server-sent event. JSON has no raw line breaks, so that one data line is enough."""
    first = "" if id is None else f"id: {id}\n"
    return f"{first}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


class Live:
    """Fans changes out to the open pages of this process. Lives in one event loop."""

    def __init__(self, database: Database, render: Render) -> None:
        """`render` makes what pages show of changed rows; it runs once for all pages."""
        self._database = database
        self._render = render
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def num_listeners(self) -> int:
        """How many pages listen now."""
        return len(self._listeners)

    async def listen(self, since: datetime, *, still_allowed: Callable[[], bool]) -> AsyncIterator[str]:
        """What changed after `since`, then what changes from now on, as text of an event stream."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(MAX_BEHIND)
        self._listeners.add(queue)
        try:
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch())
            yield "retry: 2000\n\n"
            # 1. Subscribed before looking back: nothing falls between the two.
            yield await asyncio.to_thread(self._catch_up, since)
            # 2. From here on what the watcher finds.
            checked = monotonic()
            while not self._closed:
                try:
                    text = await asyncio.wait_for(queue.get(), PING_SECONDS)
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
            self._listeners.discard(queue)
            if not self._listeners and self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None

    def close(self) -> None:
        """End all streams, so that the server can stop. To be called in the event loop."""
        self._closed = True
        for queue in self._listeners:
            _end(queue)

    async def _watch(self) -> None:
        start: datetime | None = None
        sent: dict[int, int] = {}
        while True:
            wait = POLL_SECONDS
            try:
                start, text = await asyncio.to_thread(self._look, start, sent)
                if text is not None:
                    self._tell(text)
            except BriefboxError as error:
                log.warning("Live changes wait: %s", error)
                wait = POLL_SECONDS_AFTER_ERROR
            except Exception:
                log.exception("Live changes failed; trying again")
                wait = POLL_SECONDS_AFTER_ERROR
            await asyncio.sleep(wait)

    def _look(self, start: datetime | None, sent: dict[int, int]) -> tuple[datetime, str | None]:
        """What changed after `start` and was not `sent` (which is brought up to date), and where to look next."""
        with self._database.read() as session:
            moment = now(session)
            start = start or moment - OVERLAP
            changed = conversations.changed_since(session, start, limit=MAX_ROWS)
            fresh = [c for c in changed if sent.get(c.id) != stamp(c.updated_at)]
            sent.update({c.id: stamp(c.updated_at) for c in fresh})
            for id_ in [id_ for id_, at in sent.items() if at < stamp(start)]:
                del sent[id_]
            text = self._event(session, fresh, full=len(changed) == MAX_ROWS) if fresh else None
        return moment - OVERLAP, text

    def _catch_up(self, since: datetime) -> str:
        with self._database.read() as session:
            changed = conversations.changed_since(session, since - OVERLAP, limit=MAX_ROWS)
            return self._event(session, changed, full=len(changed) == MAX_ROWS)

    def _event(self, session: Session, changed: Sequence[Conversation], *, full: bool) -> str:
        last = stamp(now(session)) if full else max((stamp(c.updated_at) for c in changed), default=None)
        counts = conversations.counts(session)
        if full:
            return event("stale", {"counts": counts}, id=last)
        return event("rows", {"rows": self._render(session, changed), "counts": counts}, id=last)

    def _tell(self, text: str) -> None:
        for queue in self._listeners:
            try:
                queue.put_nowait(text)
            except asyncio.QueueFull:
                _end(queue)


def _end(queue: asyncio.Queue[str | None]) -> None:
    """Make the listener's loop return after nothing more than this."""
    with suppress(asyncio.QueueEmpty):
        while True:
            queue.get_nowait()
    queue.put_nowait(None)
