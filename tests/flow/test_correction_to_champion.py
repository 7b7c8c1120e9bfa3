"""(c): what an agent corrects is harvested, trained on, and promoted; the worker follows between batches."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.store import conversations, users
from briefbox.tables import Adapter, Conversation
from tests.conftest import make_email
from tests.flow.conftest import Stack, wait_for

MakeStack = Callable[..., Stack]


def command(stack: Stack, *words: str) -> dict:  # type: ignore[type-arg]
    done = subprocess.run(
        [sys.executable, "-m", "briefbox", *words, "--json"],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.weights
@pytest.mark.timeout(600)
def test_a_correction_becomes_the_adapter_in_use(
    make_stack: MakeStack, imap: EmbeddedIMAP, models_dir: Path
) -> None:
    stack = make_stack(
        imap.port,
        engine="transformers",
        MODELS_DIR=str(models_dir),
        LEASE_SECONDS="60",
        EPOCHS="1",
        LORA_RANK="4",
        MAX_SUMMARY_TOKENS="16",
        REPLAY_EXAMPLES="0",
    )
    stack.start_all()
    stack.start("training", "worker", "--queue", "training")
    # Two different letters: copies of one would collapse in the harvest.
    stack.append(
        make_email(1), make_email(2, body="Thanks, the lamp came today and looks lovely in our hall.\n")
    )
    wait_for(lambda: stack.num_briefs() == 2, "two briefs", seconds=240)

    with stack.database.write() as session:
        ana, _ = users.create(session, email="ana@larkspur.example", name="Ana", actor="test")
        for conversation in session.exec(select(Conversation)).all():
            value = "low" if conversation.priority != "low" else "high"
            conversations.correct(session, conversation.id, "priority", value, user=ana)
            conversations.finish(session, conversation.id, user=ana)

    harvested = command(stack, "dataset", "harvest")
    assert harvested["examples"] == 2
    lines = [json.loads(line) for line in Path(harvested["path"]).read_text().splitlines()]
    assert all("priority" in line["changed"] for line in lines)
    assert command(stack, "dataset", "harvest")["new"] is False

    run = command(stack, "train", "--wait")
    assert run["state"] == "done"
    with stack.database.read() as session:
        adapter = session.exec(select(Adapter)).one()
    assert adapter.state == "candidate"
    assert (stack.settings.data_dir / adapter.path / "adapter_model.safetensors").stat().st_size > 10_000

    command(
        stack, "adapters", "promote", adapter.name, "--force", "--reason", "two emails are too few to judge"
    )
    stack.append(make_email(3))
    wait_for(lambda: stack.num_briefs() == 3, "a brief with the new adapter", seconds=120)
    assert [brief.adapter for brief in stack.briefs()] == ["", "", adapter.name]
