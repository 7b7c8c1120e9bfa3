"""briefbox adapters evaluate, with the engine that needs no weights."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from briefbox.cli import app
from briefbox.db import Database, migrate
from briefbox.errors import NotFoundError, TrainingError
from briefbox.settings import Settings
from tests.training.conftest import make_example
from training.dataset import write_lines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "set.jsonl"
    path.write_bytes(write_lines([make_example(number) for number in range(1, 7)]))
    return path


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["adapters", "evaluate", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("BRIEFBOX_ENGINE", "fake")
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(settings.data_dir))
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    database.close()


def test_the_bare_base_is_scored_on_a_file(file: Path) -> None:
    found = json.loads(run("base", "--dataset", str(file), "--json"))["base"]
    assert found["n"] == 6
    assert 0 <= found["labels"]["priority"]["accuracy"] <= 1
    assert sum(sum(row.values()) for row in found["labels"]["category"]["confusion"].values()) == 6


def test_two_models_stand_side_by_side(file: Path) -> None:
    found = json.loads(run("base", "--dataset", str(file), "--against", "base", "--json"))
    assert found["changed"] == []
    assert "priority accuracy" in run("base", "--dataset", str(file), "--against", "base")


def test_what_is_not_there_is_a_sentence(file: Path) -> None:
    with pytest.raises(TrainingError, match="The part dev is not known"):
        run("base", "--dataset", str(file), "--split", "dev")
    with pytest.raises(NotFoundError, match="No adapter is in use"):
        run("champion", "--dataset", str(file))
    with pytest.raises(NotFoundError, match="There is no adapter named lora-9"):
        run("lora-9", "--dataset", str(file))
