"""How soon agents see a change: `python -m bench.desk_live`. 50 open event streams on one desk process, 20 changes a second.

Every change is of another conversation and committed by this process; its time runs from just after the commit to
when an agent's stream has brought it. The desk runs in a process of its own. `--keep FOLDER` takes the database that
bench.desk made with the same option. What an idle desk costs, with the same streams open, is told too.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlmodel import Session, col, select

from bench.common import print_table
from bench.desk import databases
from briefbox.db import Database
from briefbox.settings import load_settings
from briefbox.store import actions, login_sessions
from briefbox.tables import Conversation, User
from desk.server import serve

SETTLE_SECONDS = 4.0
IDLE_SECONDS = 10.0
Seen = dict[int, tuple[int, float]]  # conversation: stamp of the newest version, and when it came


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--per-second", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="briefbox-bench-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with databases([args.number], folder, postgres=args.postgres) as made:
            database = made[args.number]
            with _desk(database.address) as (address, pid):
                _measure(database, address, pid, args)


def _measure(database: Database, address: str, pid: int, args: argparse.Namespace) -> None:
    with database.write() as session:
        user = session.exec(select(User).where(User.email == "agent1@example.org")).one()
        token = login_sessions.open_session(session, user, hours=9)
        session.expunge(user)
    number = args.per_second * args.seconds
    changes, agents, idle, used = asyncio.run(
        _run(database, address, pid, user, token, args.agents, number, args.per_second)
    )
    times, missed = [], 0
    for agent in agents:
        for id_, (stamp, at) in changes.items():
            seen_stamp, seen_at = agent.get(id_, (0, 0.0))
            if seen_stamp < stamp:
                missed += 1
            else:
                times.append((seen_at - at) * 1000)
    times.sort()
    p95 = times[round(0.95 * len(times)) - 1]
    rows = [
        ("changes, each told to every agent", f"{len(changes):,} x {len(agents)}"),
        ("missed", missed),
        ("milliseconds from commit to agent, median", f"{statistics.median(times):.0f}"),
        ("p95 (aim: 250)", f"{p95:.0f}"),
        ("longest", f"{times[-1]:.0f}"),
        ("processor, one core, nothing changes", f"{idle:.1%}"),
        ("processor, one core, meanwhile", f"{used:.1%}"),
    ]
    kind = "PostgreSQL" if args.postgres else "SQLite"
    print_table(
        f"{args.agents} agents, {args.per_second} changes a second for {args.seconds} s, {kind}, {args.number:,} conversations",
        ["", "figure"],
        rows,
    )


async def _run(
    database: Database,
    address: str,
    pid: int,
    user: User,
    token: str,
    num_agents: int,
    number: int,
    per_second: int,
) -> tuple[Seen, list[Seen], float, float]:
    agents: list[Seen] = [{} for _ in range(num_agents)]
    limits = httpx.Limits(max_connections=num_agents)
    async with httpx.AsyncClient(
        base_url=address, cookies={"briefbox": token}, limits=limits, timeout=3600
    ) as client:
        tasks = [asyncio.create_task(_listen(client, agent)) for agent in agents]
        await asyncio.sleep(SETTLE_SECONDS)
        started, before = time.time(), _processor_seconds(pid)
        await asyncio.sleep(IDLE_SECONDS)
        idle = (_processor_seconds(pid) - before) / (time.time() - started)
        started, before = time.time(), _processor_seconds(pid)
        changes = await asyncio.to_thread(_change, database, user, number, per_second)
        used = (_processor_seconds(pid) - before) / (time.time() - started)
        await asyncio.sleep(SETTLE_SECONDS)
        for task in tasks:
            if task.done():
                await task  # a stream that ended before its time says why
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return changes, agents, idle, used


async def _listen(client: httpx.AsyncClient, seen: Seen) -> None:
    async with client.stream("GET", "/events") as response:
        response.raise_for_status()
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: ") and name == "rows":
                at = time.time()
                for row in json.loads(line.removeprefix("data: "))["rows"]:
                    # The first time that this version, or a newer one, came.
                    if row["stamp"] > seen.get(row["id"], (0, 0.0))[0]:
                        seen[row["id"]] = (row["stamp"], at)


def _change(database: Database, user: User, number: int, per_second: int) -> Seen:
    """Give one conversation after the other to somebody else, at even distances."""
    with database.read() as session:
        ids = _open_ids(session, number)
    changes: Seen = {}
    started = time.time()
    for n, id_ in enumerate(ids):
        time.sleep(max(0.0, started + n / per_second - time.time()))
        with database.write() as session:
            row = session.get_one(Conversation, id_)
            row = actions.assign(session, id_, 2 if row.assigned_to == 1 else 1, user=user)
            stamp = round(row.updated_at.timestamp() * 1_000_000)
        changes[id_] = (stamp, time.time())
    return changes


def _open_ids(session: Session, number: int) -> list[int]:
    query = select(Conversation.id).order_by(col(Conversation.id).desc()).limit(number)
    return list(session.exec(query))


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _desk(database_address: str) -> Iterator[tuple[str, int]]:
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    process = context.Process(target=_serve, args=(database_address, told))
    process.start()
    try:
        yield told.get(), process.pid or 0
    finally:
        process.terminate()
        process.join(20)


def _serve(database_address: str, told: "multiprocessing.SimpleQueue[str]") -> None:
    with tempfile.TemporaryDirectory(prefix="briefbox-bench-") as folder:
        settings = load_settings(data_dir=Path(folder), engine="fake", desk_host="127.0.0.1", desk_port=0)
        database = Database(database_address)
        serve(database, settings, ready=told.put)
        database.close()


if __name__ == "__main__":
    main()
