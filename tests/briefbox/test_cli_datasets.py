"""`briefbox dataset`, as the owner of retraining types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from briefbox.cli import app, output
from briefbox.db import Database, migrate
from briefbox.errors import BriefboxError, InvalidValueError, NotFoundError, TrainingError
from briefbox.settings import get_settings
from briefbox.store import users

Run = Callable[..., Result]
ROWS = [
    f"Order {n} is missing since day {n * 3} of month {n * 5},Order {n} is missing,Delivery"
    for n in range(30)
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(output.console, "_width", 200)
    settings = get_settings()
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    with database.write() as session:
        users.create(session, email="ana@desk.example", name="Ana", actor="test")

    def run(*words: str) -> Result:
        result = CliRunner().invoke(app, words)
        if isinstance(result.exception, BriefboxError):
            raise result.exception
        return result

    return run


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "export.csv"
    path.write_text("\n".join(["email,summary,topic", *ROWS, "bad row"]))
    return path


def words(export: Path) -> list[str]:
    return ["import", str(export), "--input", "email", "--output", "summary", "--category", "topic"]


def test_import_list_show_export_diff_check(run: Run, export: Path, tmp_path: Path) -> None:
    # 1. A dry run writes nothing.
    told = run("dataset", *words(export), "--dry-run").stdout
    assert "31 rows, utf-8, delimiter ','" in told
    assert "line 32: 1 cells where the first line has 3" in told
    assert "none yet" in run("dataset", "list").stdout
    # 2. Import, in words and as JSON: the same content is the same version.
    told = run("dataset", *words(export)).stdout
    assert "30 examples" in told
    facts = json.loads(run("dataset", *words(export), "--json").stdout)
    assert facts["new"] is False
    assert facts["bad_rows"] == [{"line": 32, "reason": "1 cells where the first line has 3"}]
    assert facts["categories"] == ["Delivery"]
    name = facts["dataset"]
    assert name in told
    # 3. Looked at.
    assert "export.csv" in run("dataset", "list").stdout
    assert "Delivery 30" in run("dataset", "show", name).stdout
    # 4. Out and in again.
    to = tmp_path / "out.jsonl"
    run("dataset", "export", name, "--to", str(to))
    assert len(to.read_text().splitlines()) == 30
    with pytest.raises(TrainingError, match=r"exists already.*--force"):
        run("dataset", "export", name, "--to", str(to))
    # 5. A later export has one row more and one answer changed: another example, since its content is another.
    export.write_text(
        "\n".join(["email,summary,topic", *ROWS[1:], "One more email about a lamp,Lamp,Lighting"])
    )
    later = json.loads(run("dataset", *words(export), "--json").stdout)["dataset"]
    told = run("dataset", "diff", name, later).stdout
    assert "1 added, 1 removed, 0 with another answer, 29 the same." in told
    assert "category Lighting" in told
    # 6. Checked: few of each label is a warning, no error.
    result = run("dataset", "check", later)
    assert result.exit_code == 0
    assert "has fewer than 8 of category" in result.stdout
    assert "Lighting (1)" in result.stdout
    bad = to.read_text().replace("Order 3 ", "kim@example.org ")
    to.write_text(bad)
    result = run("dataset", "check", str(to))
    assert result.exit_code == 1
    assert "hold card numbers, addresses, phones or secrets" in result.stdout


def test_an_unknown_version_is_one_sentence(run: Run) -> None:
    with pytest.raises(NotFoundError, match="There is no dataset named nothing"):
        run("dataset", "show", "nothing")


def test_exclusions_come_and_go(run: Run) -> None:
    with pytest.raises(InvalidValueError, match="needs a reason"):
        run("dataset", "exclude", "--agent", "ana@desk.example")
    told = run(
        "dataset", "exclude", "--agent", "ana@desk.example", "--since", "2026-11-01", "--reason", "trial day"
    )
    assert "Exclusion 1 is in force" in told.stdout
    rows = json.loads(run("dataset", "exclusions", "--json").stdout)
    assert [(r["agent"], r["reason"]) for r in rows] == [("ana@desk.example", "trial day")]
    run("dataset", "lift", "1")
    assert "none" in run("dataset", "exclusions").stdout
    with pytest.raises(NotFoundError, match="no exclusion 1 in force"):
        run("dataset", "lift", "1")
