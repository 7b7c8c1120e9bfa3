"""(a) and (b): a customer's email arrives over real IMAP and stands as a brief in the agent queue."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from briefbox.cli.checks import run_audit
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.schemas import PRIORITIES
from briefbox.store import conversations, queue, work
from briefbox.store.filters import Filter
from tests.conftest import make_email
from tests.flow.conftest import Stack, wait_for

MakeStack = Callable[..., Stack]


def samples(*numbers: int) -> list[bytes]:
    folder = files("briefbox.demo").joinpath("emails")
    chosen = [
        e
        for e in sorted(folder.iterdir(), key=lambda e: e.name)
        if e.name[:2].isdigit() and int(e.name[:2]) in numbers
    ]
    return [e.read_bytes() for e in chosen]


@pytest.mark.weights
def test_with_the_real_model_on_sqlite(make_stack: MakeStack, imap: EmbeddedIMAP, models_dir: Path) -> None:
    stack = make_stack(imap.port, engine="transformers", MODELS_DIR=str(models_dir), LEASE_SECONDS="60")
    stack.start_all()
    stack.append(*samples(1, 2, 3))
    wait_for(lambda: stack.num_briefs() == 3, "three briefs by the real model", seconds=240)
    with stack.database.read() as session:
        categories = {c.name for c in work.active_categories(session)}
        rows = queue.page(session, Filter()).conversations
    assert len(rows) == 3
    for brief in stack.briefs():
        assert brief.priority in PRIORITIES
        assert brief.category in categories
        assert sum(brief.priority_scores.values()) == pytest.approx(1, abs=1e-3)
        assert brief.headline
        assert brief.summary
        assert brief.base_model == "SmolLM2-135M-Instruct"
        assert brief.tokens_in > 100
        assert brief.tokens_out > 0
    assert run_audit(stack.database, stack.settings)["clean"]


@pytest.mark.postgres
def test_with_the_fake_engine_on_postgres(
    make_stack: MakeStack, imap: EmbeddedIMAP, postgres_url: str
) -> None:
    stack = make_stack(imap.port, database_url=postgres_url)
    stack.start_all()
    stack.append(*(make_email(n) for n in range(1, 31)))
    wait_for(lambda: stack.num_briefs() == 30, "thirty briefs")
    assert run_audit(stack.database, stack.settings)["clean"]


def test_every_sample_ends_where_it_should(make_stack: MakeStack, imap: EmbeddedIMAP) -> None:
    stack = make_stack(imap.port)
    stack.start_all()
    everything = samples(*range(1, 37))
    stack.append(*everything)
    wait_for(lambda: sum(stack.ledger_states().values()) == len(everything), "36 ledger rows")
    assert stack.ledger_states() == {"queued": 32, "skipped": 4}
    wait_for(lambda: stack.num_briefs() == 32, "32 briefs")
    with stack.database.read() as session:
        rows = queue.page(session, Filter(), limit=100).conversations
    assert len(rows) == 32 - 3, "three of the samples answer an earlier one"
    assert run_audit(stack.database, stack.settings)["clean"]


def test_a_mail_that_arrives_later_is_announced_by_the_server(
    make_stack: MakeStack, imap: EmbeddedIMAP
) -> None:
    stack = make_stack(imap.port, RECONCILE_SECONDS="600", MAILBOX_LEASE_SECONDS="600", IDLE_SECONDS="600")
    stack.start_all()
    stack.append(make_email(1))
    wait_for(lambda: stack.num_briefs() == 1, "the first brief")
    stack.append(make_email(2))
    wait_for(
        lambda: stack.num_briefs() == 2, "a brief of a mail that only IDLE can have announced", seconds=20
    )


def test_sigterm_stops_every_process_cleanly(make_stack: MakeStack, imap: EmbeddedIMAP) -> None:
    stack = make_stack(imap.port)
    stack.start_all()
    stack.append(make_email(1))
    wait_for(lambda: stack.num_briefs() == 1, "a brief")
    assert [stack.stop(name) for name in ("beat", "poll", "worker", "valkey")] == [0, 0, 0, 0]
    with stack.database.read() as session:
        assert conversations.counts(session)["open"] == 1
