"""briefbox adapters evaluate, with the engine that needs no weights."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from briefbox.cli import app
from briefbox.db import Database, migrate
from briefbox.errors import NotFoundError, TrainingError
from briefbox.settings import Settings, load_settings
from models.engine import FakeEngine
from tests.training.conftest import make_example, request_about
from training.dataset import write_lines
from training.evaluate import Answers, changed, predict, score
from training.report import write_page


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


def test_a_page_and_plots_are_written(file: Path, tmp_path: Path) -> None:
    page, svg, png = tmp_path / "e.html", tmp_path / "e.svg", tmp_path / "e.png"
    told = run("base", "--dataset", str(file), "--page", str(page), "--plot", str(svg))
    assert str(page) in told
    run("base", "--dataset", str(file), "--plot", str(png))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")  # noqa: S314  # our own file
    html = page.read_text()
    assert "<svg" in html
    assert "priority accuracy" in html
    assert "<script" not in html
    with pytest.raises(TrainingError, match=r"ends in \.pdf; a plot is written as \.svg or \.png"):
        run("base", "--dataset", str(file), "--plot", str(tmp_path / "e.pdf"))


def test_each_changed_email_stands_on_the_page_and_is_only_text(tmp_path: Path) -> None:
    examples = [make_example(1, input=request_about("<script>alert(1)</script> money is lost"))]
    engine = FakeEngine(load_settings(engine="fake"))
    one = predict(engine, examples, "", batch_size=1)
    better = one.briefs[0].model_copy(update={"headline": "Matter 1"})
    two = Answers("new", one.ids, (better,), one.seconds, one.memory)
    found = [score(examples, two), score(examples, one)]
    write_page(tmp_path / "p.html", ["new", "old"], found, changed(examples, one, two), title="new and old")
    html = (tmp_path / "p.html").read_text()
    assert "1 emails with different answers" in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html
    assert "Matter 1" in html
