"""Live changes: what each page is told, and what it is not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from briefbox.db import Database
from briefbox.errors import DatabaseError
from briefbox.settings import Settings
from briefbox.store import actions, conversations, presence
from briefbox.store.filters import Filter
from briefbox.store.sight import ALL, Sight
from briefbox.tables import Conversation, User
from desk import live
from desk.agents.shown import ShownQueue
from desk.live import Audience, Live
from desk.pages import load_pages
from tests.desk.conftest import Inbox


class Page:
    """An open page: its events one after the other."""

    def __init__(self, live: Live, audience: Audience, *, since: datetime | None = None) -> None:
        self.events: list[tuple[str, dict[str, Any], int]] = []
        self.ended = False
        self._stream = live.listen(since or datetime.now(UTC), audience, still_allowed=lambda: True)
        self._task = asyncio.create_task(self._read(self._stream))

    async def _read(self, stream: AsyncIterator[str]) -> None:
        async for text in stream:
            for block in text.split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
                if "event" in fields:
                    self.events.append(
                        (fields["event"], json.loads(fields["data"]), int(fields.get("id", 0)))
                    )
        self.ended = True

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return [row for name, data, _ in self.events if name == "rows" for row in data["rows"]]

    async def wait(self, found: Callable[[], Any], seconds: float = 5.0) -> float:
        """Until something is so. Returns how long it took."""
        started = monotonic()
        while not found():
            assert monotonic() - started < seconds, self.events
            await asyncio.sleep(0.005)
        return monotonic() - started

    async def started(self) -> "Page":
        """Once it has looked back, and the watcher has looked once."""
        await self.wait(lambda: self.events)
        await asyncio.sleep(0.3)
        return self

    async def close(self) -> None:
        """Leave."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
def shown(settings: Settings) -> ShownQueue:
    """What pages show."""
    return ShownQueue(load_pages(), "UTC")


@pytest.fixture
def desk(database: Database, shown: ShownQueue) -> Live:
    """The live part of one web process."""
    return Live(database, shown)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In an event loop of its own."""
    asyncio.run(work())


def test_each_page_is_told_what_belongs_to_its_list(desk: Live, inbox: Inbox) -> None:
    async def work() -> None:
        open_ = await Page(desk, Audience()).started()
        refunds = await Page(desk, Audience(wanted=Filter(categories=("refund",)))).started()
        found = await Page(desk, Audience(wanted=Filter(text="lamp", state=""))).started()
        bare = await Page(desk, Audience(wanted=None)).started()
        number = await asyncio.to_thread(inbox.receive, "A lamp", brief={"category": "order"})
        for page in (open_, refunds, found, bare):
            await page.wait(lambda page=page: [r for r in page.rows() if r["id"] == number])
        assert open_.rows()[-1]["here"] is True
        assert "A lamp" in open_.rows()[0]["html"] or "Customer asks" in open_.rows()[-1]["html"]
        assert (refunds.rows()[-1]["here"], refunds.rows()[-1]["html"]) == (False, "")
        assert (found.rows()[-1]["here"], found.rows()[-1]["order"]) == (None, "")
        assert set(bare.rows()[-1]) == {"id", "stamp", "state"}
        assert [name for name, _, _ in bare.events if name != "rows"] == []
        for page in (open_, refunds, found, bare):
            await page.close()
        assert desk.num_listeners == 0

    run(work)


def test_nothing_of_a_mailbox_that_the_reader_does_not_see(
    desk: Live, inbox: Inbox, database: Database, ada: User
) -> None:
    async def work() -> None:
        blind = await Page(desk, Audience(Sight(frozenset()))).started()
        seeing = await Page(desk, Audience(Sight(frozenset((inbox.mailbox.id,))))).started()
        number = await asyncio.to_thread(inbox.receive, "secret")
        with database.write() as session:
            presence.here(session, number, session.get_one(User, ada.id), "", 1)
        await seeing.wait(seeing.rows)
        await seeing.wait(
            lambda: [
                data
                for name, data, _ in seeing.events
                if name == "presence" and ["Ada"] in {**data.get("all", {}), **data.get("now", {})}.values()
            ]
        )
        late = await Page(
            desk, Audience(Sight(frozenset())), since=datetime.now(UTC) - timedelta(minutes=1)
        ).started()
        for page in (blind, late):
            assert page.rows() == []
            assert "Ada" not in json.dumps(page.events)
            assert {data["tabs"]["open"] for name, data, _ in page.events if name == "counts"} == {"0"}
            await page.close()
        await seeing.close()

    run(work)


def test_a_commit_is_told_far_within_a_second(
    desk: Live, inbox: Inbox, database: Database, ana: User
) -> None:
    async def work() -> None:
        number = await asyncio.to_thread(inbox.receive)
        page = await Page(desk, Audience()).started()
        waits = []
        for to in (ana.id, None, ana.id):
            with database.write() as session:
                actions.assign(session, number, to, user=ana)
                stamp = live.stamp(conversations.get(session, number).updated_at)
            waits.append(await page.wait(lambda stamp=stamp: [r for r in page.rows() if r["stamp"] == stamp]))
        assert max(waits) < 0.8, waits
        await page.close()

    run(work)


def test_two_processes_on_one_database(database: Database, shown: ShownQueue, inbox: Inbox) -> None:
    async def work() -> None:
        pages = [await Page(Live(database, shown), Audience()).started() for _ in range(2)]
        number = await asyncio.to_thread(inbox.receive)
        for page in pages:
            await page.wait(lambda page=page: page.rows())
            assert {row["id"] for row in page.rows()} == {number}
            await page.close()

    run(work)


def test_counts_come_along_and_only_when_they_change(
    desk: Live, inbox: Inbox, database: Database, ana: User
) -> None:
    async def work() -> None:
        number = await asyncio.to_thread(inbox.receive, brief={})
        page = await Page(desk, Audience()).started()

        def counts() -> list[dict[str, Any]]:
            return [data for name, data, _ in page.events if name == "counts"]

        assert [data["tabs"]["open"] for data in counts()] == ["1"]
        with database.write() as session:
            conversations.finish(session, number, user=ana)
        await page.wait(lambda: counts()[-1]["tabs"]["done"] == "1")
        assert counts()[-1]["here"] == "0"
        known = len(counts())
        with database.write() as session:
            actions.assign(session, number, ana.id, user=ana)
        await asyncio.sleep(1.5)
        assert len(counts()) == known
        await page.close()

    run(work)


def test_a_page_that_comes_back_misses_nothing(desk: Live, inbox: Inbox) -> None:
    async def work() -> None:
        page = await Page(desk, Audience()).started()
        first = await asyncio.to_thread(inbox.receive, "one")
        await page.wait(page.rows)
        last = max(id_ for _, _, id_ in page.events)
        await page.close()
        second = await asyncio.to_thread(inbox.receive, "two")
        again = await Page(desk, Audience(), since=live.moment_of(last)).started()
        assert {row["id"] for row in again.rows()} == {first, second}
        await again.close()

    run(work)


def test_very_many_changes_are_told_as_one(
    desk: Live, inbox: Inbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_ROWS", 3)

    async def work() -> None:
        numbers = [await asyncio.to_thread(inbox.receive, f"mail {n}") for n in range(5)]
        page = await Page(desk, Audience()).started()
        assert page.events[0][0] == "stale"
        await asyncio.sleep(0.2)
        page.events.clear()
        with database.write() as session:
            for number in numbers:
                conversations.changed(session, session.get_one(Conversation, number))
        await page.wait(lambda: page.events)
        assert page.events[0][0] == "stale"
        assert page.events[0][2] > 0
        await page.close()

    run(work)


def test_a_slow_reader_is_dropped(desk: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_BEHIND", 3)

    async def work() -> None:
        stream = desk.listen(datetime.now(UTC), Audience(), still_allowed=lambda: True)
        await anext(stream)  # it has subscribed, and reads no more
        for _ in range(10):
            desk.tell({Audience(): "event: rows\ndata: {}\n\n"})
        assert [text async for text in stream][-1] != "event: rows\ndata: {}\n\n"
        assert desk.num_listeners == 0

    run(work)


def test_who_may_not_see_it_any_more_hears_nothing_more(desk: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(live, "PING_SECONDS", 0.05)

    async def work() -> None:
        stream = desk.listen(datetime.now(UTC), Audience(ALL), still_allowed=lambda: False)
        texts = [text async for text in stream]
        assert len(texts) == 2  # the beginning and the look back

    run(work)


def test_the_watcher_outlives_a_failure(
    desk: Live, inbox: Inbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS_AFTER_ERROR", 0.05)

    async def work() -> None:
        page = await Page(desk, Audience()).started()
        with monkeypatch.context() as broken:
            broken.setattr(Database, "read", _refuse)
            await asyncio.sleep(0.3)
        await asyncio.to_thread(inbox.receive)
        await page.wait(page.rows)
        await page.close()

    run(work)


def _refuse(_database: Database) -> None:
    raise DatabaseError("The database is away.")
