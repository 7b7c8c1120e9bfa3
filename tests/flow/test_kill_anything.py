"""(d): kill -9 of poller and worker in mid-flight, Redis gone or flushed; then nothing lost, nothing twice."""

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
import redis
from sqlmodel import select

from briefbox.cli.checks import run_audit
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.tables import SearchPending
from tests.conftest import make_email
from tests.flow.conftest import Stack, wait_for

MakeStack = Callable[..., Stack]
NUM_EMAILS = 120


def all_accounted_for(stack: Stack, num_emails: int = NUM_EMAILS) -> None:
    wait_for(lambda: stack.num_briefs() >= num_emails, f"{num_emails} briefs", seconds=120)
    time.sleep(1)  # anything that would come twice comes now
    counts = Counter(stack.subjects())
    assert len(counts) == num_emails
    assert set(counts.values()) == {1}
    assert stack.num_briefs() == num_emails
    assert stack.ledger_states() == {"queued": num_emails}
    assert run_audit(stack.database, stack.settings)["clean"]


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_of_the_poller_loses_and_doubles_nothing(
    make_stack: MakeStack, imap: EmbeddedIMAP, seed: int
) -> None:
    rng = random.Random(seed)
    stack = make_stack(imap.port, FETCH_BATCH="3", MAILBOX_LEASE_SECONDS="2")
    stack.append(*(make_email(n) for n in range(NUM_EMAILS)))
    stack.start_all()
    kills = 0
    while stack.num_emails() < NUM_EMAILS and kills < 6:
        wanted = min(NUM_EMAILS, stack.num_emails() + rng.randint(1, 25))
        wait_for(lambda wanted=wanted: stack.num_emails() >= wanted, f"{wanted} emails")
        time.sleep(rng.random() * 0.05)
        stack.kill("poll")
        stack.start("poll")
        kills += 1
    assert kills >= 2, "the poller was not killed in mid-flight"
    all_accounted_for(stack)


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_of_the_worker_loses_and_doubles_nothing(
    make_stack: MakeStack, imap: EmbeddedIMAP, seed: int
) -> None:
    rng = random.Random(seed)
    stack = make_stack(imap.port, FAKE_ENGINE_SECONDS="0.02", MAX_ATTEMPTS="10")
    stack.append(*(make_email(n) for n in range(NUM_EMAILS)))
    stack.start_all()
    kills = 0
    while stack.num_briefs() < NUM_EMAILS and kills < 4:
        wanted = min(NUM_EMAILS, stack.num_briefs() + rng.randint(1, 20))
        wait_for(lambda wanted=wanted: stack.num_briefs() >= wanted, f"{wanted} briefs")
        time.sleep(rng.random() * 0.2)
        stack.kill("worker")
        stack.start("worker")
        kills += 1
    assert kills >= 2, "the worker was not killed in mid-flight"
    all_accounted_for(stack)


def test_kill_9_of_the_desk_leaves_nothing_undone(make_stack: MakeStack, imap: EmbeddedIMAP) -> None:
    rng = random.Random(3)
    number = 40
    stack = make_stack(imap.port, FETCH_BATCH="2", FAKE_ENGINE_SECONDS="0.05", DESK_PORT="0")
    stack.append(*(make_email(n) for n in range(number)))
    stack.start_all()
    stack.start("desk")
    kills = 0
    while stack.num_briefs() < number and kills < 3:
        wanted = min(number, stack.num_briefs() + rng.randint(1, 12))
        wait_for(lambda wanted=wanted: stack.num_briefs() >= wanted, f"{wanted} briefs")
        stack.kill("desk")
        stack.start("desk")
        kills += 1
    assert kills >= 2, "the desk was not killed while mail came in"
    all_accounted_for(stack, number)
    # What the desk does on the side is done, once: every mail can be found, by itself and by its brief.
    wait_for(lambda: entries(stack) == ([], number, number), "the search entries")
    assert run_audit(stack.database, stack.settings)["clean"]


def entries(stack: Stack) -> tuple[list[int], int, int]:
    """What waits for its search entry, and how many entries there are of mails and of briefs."""
    with stack.database.read() as session:
        connection = session.connection()
        mails, briefs = (
            connection.exec_driver_sql(f"SELECT count(DISTINCT rowid) FROM {table}").scalar_one()  # noqa: S608 - our own names
            for table in ("email_search", "brief_search")
        )
        return list(session.exec(select(SearchPending.email_id))), mails, briefs


def test_redis_gone_costs_only_delay(make_stack: MakeStack, imap: EmbeddedIMAP) -> None:
    stack = make_stack(imap.port)
    stack.start_all()
    stack.append(*(make_email(n) for n in range(10)))
    wait_for(lambda: stack.num_briefs() == 10, "ten briefs")
    stack.kill("valkey")
    stack.append(*(make_email(n) for n in range(10, 20)))
    wait_for(lambda: stack.num_emails() == 20, "emails stored without Redis")
    stack.start("valkey")
    all_accounted_for(stack, 20)


def test_a_flushed_redis_costs_only_delay(make_stack: MakeStack, imap: EmbeddedIMAP) -> None:
    stack = make_stack(imap.port)
    for name in ("valkey", "poll"):
        stack.start(name)
    stack.append(*(make_email(n) for n in range(20)))
    wait_for(lambda: stack.num_emails() == 20, "twenty emails")
    with redis.Redis(unix_socket_path=str(stack.settings.valkey_socket)) as client:
        wait_for(lambda: client.llen("briefs") > 0, "hints in Redis")
        client.flushall()
    stack.start("worker")
    stack.start("beat")
    all_accounted_for(stack, 20)
