"""`briefbox adapters`: which adapter briefs what, and that a broken one is refused before a worker meets it."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from briefbox.cli import app
from briefbox.db import Database, migrate
from briefbox.errors import AdapterError, BriefboxError, ConflictError, NotFoundError
from briefbox.schemas import AdapterCard
from briefbox.settings import get_settings
from briefbox.store import mailboxes, training
from briefbox.tables import Adapter, Mailbox
from models.base import resolve_base_model
from models.prompt import PROMPT_VERSION
from models.registry import CARD_FILE, write_adapter

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command on a database with one mailbox and the adapters a, b (whole), broken and rejected."""
    base_folder = tmp_path / "base"
    base_folder.mkdir()
    (base_folder / "config.json").write_text("{}")
    save_file({"weight": torch.ones(2, 2)}, base_folder / "model.safetensors")
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BRIEFBOX_BASE_MODEL", str(base_folder))
    get_settings.cache_clear()  # a process of its own would read them anew
    settings = get_settings()
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    base = resolve_base_model(settings)
    with database.write() as session:
        row = Mailbox(name="sales", address="s@x.example", host="h", port=1, username="u", folders=["INBOX"])
        mailboxes.add(session, row, actor="test")
        for name in ("a", "b", "broken", "rejected"):
            card = AdapterCard(
                name=name,
                base_model=base.name,
                base_sha256=base.sha256,
                weights_sha256="",
                prompt_version=PROMPT_VERSION,
                dataset="d",
                dataset_hash="h",
                num_examples=3,
                created_at=datetime.now(UTC),
            )
            card = write_adapter(
                settings.data_dir / "adapters" / name,
                weights={
                    f"base_model.model.layer.lora_{side}.weight": torch.ones(2, 2) for side in ("A", "B")
                },
                config={"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["layer"]},
                card=card,
            )
            session.add(
                Adapter(
                    name=name,
                    path=f"adapters/{name}",
                    base_model=base.name,
                    weights_sha256=card.weights_sha256,
                    card={"num_examples": 3, "verdict": {"decision": "promoted"}},
                    state="rejected" if name == "rejected" else "candidate",
                    created_at=training.now(session),
                )
            )
    (settings.data_dir / "adapters" / "broken" / CARD_FILE).unlink()
    database.close()

    def run(*words: str, fails: type[BriefboxError] | None = None) -> Result:
        result = CliRunner().invoke(app, ["adapters", *words])
        assert type(result.exception) is (fails or type(None)), result.exception
        return result

    handlers, level = logging.root.handlers[:], logging.root.level
    yield run
    logging.root.handlers[:], logging.root.level = handlers, level
    get_settings.cache_clear()


def listed(run: Run) -> dict[str, tuple[str, list[str]]]:
    rows = json.loads(run("list", "--json").output)
    return {row["name"]: (row["state"], row["mailboxes"]) for row in rows}


def test_one_adapter_at_a_time_is_on_trial(run: Run) -> None:
    run("shadow", "a")
    assert "unseen" in run("shadow", "b").output
    assert {name: state for name, (state, _) in listed(run).items()} == {
        "a": "candidate",
        "b": "shadow",
        "broken": "candidate",
        "rejected": "rejected",
    }
    assert "shadow" in run("list").output
    run("shadow", "--none")
    assert listed(run)["b"] == ("candidate", [])


def test_a_mailbox_has_an_adapter_of_its_own_until_it_is_taken_back(run: Run) -> None:
    assert "sales is briefed with a" in run("assign", "a", "--mailbox", "sales").output
    assert listed(run)["a"] == ("candidate", ["sales"])
    assert "the champion" in run("assign", "--none", "--mailbox", "sales").output
    assert listed(run)["a"] == ("candidate", [])


def test_the_one_on_trial_can_be_promoted_but_the_champion_cannot_be_on_trial(run: Run) -> None:
    run("shadow", "a")
    run("promote", "a")
    assert listed(run)["a"][0] == "champion"
    assert "is in use already" in str(run("shadow", "a", fails=ConflictError).exception)


@pytest.mark.parametrize("words", [("promote",), ("shadow",), ("assign", "--mailbox", "sales")])
def test_what_a_worker_would_refuse_is_refused_here(run: Run, words: tuple[str, ...]) -> None:
    assert "lacks the file" in str(run(*words, "broken", fails=AdapterError).exception)
    assert "was rejected" in str(run(*words, "rejected", fails=ConflictError).exception)
    assert "no adapter named none" in str(run(*words, "none", fails=NotFoundError).exception)
    assert {state for state, _ in listed(run).values()} == {"candidate", "rejected"}


def test_a_mailbox_that_does_not_exist_is_named(run: Run) -> None:
    found = run("assign", "a", "--mailbox", "support", fails=NotFoundError)
    assert "Mailboxes: sales" in str(found.exception)


@pytest.mark.parametrize(
    "words", [("shadow",), ("shadow", "a", "--none"), ("assign", "--mailbox", "sales"), ("assign", "a")]
)
def test_a_command_that_says_too_little_or_too_much_is_explained(run: Run, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["adapters", *words])
    assert result.exit_code == 2
    assert "NAME" in result.output or "--mailbox" in result.output
