"""`briefbox models`: what is here, is it well, and how is it used; by people and as JSON."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import models.fit
from briefbox.cli import app, output
from briefbox.errors import ModelError
from briefbox.settings import get_settings, load_settings
from models.base import resolve_base_model
from models.fetch import add_from_hub
from models.fit import Machine
from models.hub import HubModel
from tests.hub import REVISION, Hub, serve, write_model

Models = Callable[..., Result]


@pytest.fixture
def models_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """`models_command("list", "--json", BASE_MODEL="/x")` in this process, with a data folder of its own."""
    for name in [
        name for name in os.environ if name.startswith("BRIEFBOX_") and name != "BRIEFBOX_TEST_MODELS"
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BRIEFBOX_DEVICE", "cpu")
    monkeypatch.setenv("BRIEFBOX_PRECISION", "float32")
    monkeypatch.setattr(output.console, "_width", 300)

    def run(*words: str | Path, **settings: str) -> Result:
        with monkeypatch.context() as changed:
            for name, value in settings.items():
                changed.setenv(f"BRIEFBOX_{name}", value)
            get_settings.cache_clear()
            try:
                return CliRunner().invoke(app, ["models", *map(str, words)])
            finally:
                get_settings.cache_clear()

    return run


@pytest.fixture
def hub_model(tmp_path: Path, models_command: Models) -> Path:
    """A fetched owner/name."""

    def fetch(name: str, revision: str, folder: Path) -> dict[str, str]:
        write_model(folder)
        return {}

    settings = load_settings(data_dir=tmp_path / "data")
    return add_from_hub(settings, HubModel("owner/name", REVISION), fetch=fetch).path


def facts(result: Result) -> Any:
    return json.loads(result.stdout)


def refused(result: Result, *says: str) -> None:
    assert isinstance(result.exception, ModelError), result.output
    for words in says:
        assert words in str(result.exception)


def test_the_list_tells_sizes_licences_and_what_fits(models_command: Models, hub_model: Path) -> None:
    listed = facts(models_command("list", "--json"))
    assert (listed["precision"], listed["device"]) == ("float32", "this machine's RAM")
    packaged, hub = listed["models"]
    assert (packaged["model"], packaged["in_use"]) == ("packaged", True)
    assert packaged["problem"] == "converted at its first use"
    assert (hub["model"], hub["revision"], hub["in_use"]) == ("owner/name", REVISION, False)
    assert (hub["parameters"], hub["licence"], hub["context"]) == (4200, "apache-2.0", 2048)
    assert hub["fits"] is True
    assert hub["needs_gb"] > 0


def test_the_list_for_people_marks_the_one_in_use(models_command: Models, hub_model: Path) -> None:
    shown = models_command("list", BASE_MODEL="owner/name", BASE_REVISION=REVISION).stdout
    assert f"owner/name@{REVISION[:12]} (in use)" in shown
    assert "apache-2.0" in shown


def test_the_list_shows_broken_models_with_the_reason(models_command: Models, tmp_path: Path) -> None:
    path = write_model(tmp_path / "mine")
    assert models_command("add", path).exit_code == 1  # it has no tokenizer
    (path / "model.safetensors").write_bytes(b"cut")
    row = facts(models_command("list", "--json"))["models"][1]
    assert (row["model"], row["fits"]) == (str(path), None)
    assert "no safetensors file" in row["problem"]


def test_check_says_each_thing_in_a_line_and_fails_as_a_whole(
    models_command: Models, hub_model: Path
) -> None:
    result = models_command("check", "owner/name", "--json")
    assert result.exit_code == 1
    found = facts(result)
    assert found["ok"] is False
    assert [line["check"] for line in found["checks"] if not line["ok"]] == ["chat template"]
    shown = models_command("check", "owner/name").stdout
    assert shown.count("FAIL") == 1


def test_check_passes_the_packaged_model(models_command: Models) -> None:
    folder = os.environ.get("BRIEFBOX_TEST_MODELS") or f"/tmp/briefbox-test-models-{os.getuid()}"
    resolve_base_model(load_settings(data_dir=Path(folder)))
    result = models_command("check", "--json", MODELS_DIR=f"{folder}/models")
    assert result.exit_code == 0, result.output
    assert {line["check"] for line in facts(result)["checks"]} >= {"checksums", "chat template", "memory"}


def test_use_prints_the_settings(models_command: Models, hub_model: Path, tmp_path: Path) -> None:
    found = facts(models_command("use", "owner/name", "--json"))
    assert found["settings"] == {"BRIEFBOX_BASE_MODEL": "owner/name", "BRIEFBOX_BASE_REVISION": REVISION}
    assert f"BRIEFBOX_BASE_REVISION={REVISION}" in models_command("use", "owner/name").stdout
    mine = write_model(tmp_path / "mine")
    assert f"BRIEFBOX_BASE_MODEL={mine}" in models_command("use", mine).stdout
    assert "BRIEFBOX_BASE_MODEL=packaged" in models_command("use", "packaged").stdout
    with_settings = load_settings(data_dir=tmp_path / "data", base_model="owner/name", base_revision=REVISION)
    assert resolve_base_model(with_settings).path == hub_model


def test_use_refuses_what_does_not_fit_and_says_what_would(
    models_command: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "wide", num_hidden_layers=40, num_key_value_heads=32, head_dim=128)
    machine = Machine("cpu", "this machine's RAM", 9 * 10**9, "float32")
    monkeypatch.setattr(models.fit, "this_machine", lambda settings: machine)
    refused(models_command("use", path), "in float32 for a full batch", "BRIEFBOX_BATCH_SIZE=")


def test_use_of_something_unknown(models_command: Models) -> None:
    refused(models_command("use", "nothing"), "one of: packaged")
    refused(models_command("use", "owner/other"), "briefbox models add owner/other --revision SHA")


def test_add_of_a_folder_keeps_it_in_the_list_and_writes_nothing_into_it(
    models_command: Models, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "mine")
    before = sorted(path.iterdir())
    found = facts(models_command("add", path, "--json"))
    assert found["settings"] == {"BRIEFBOX_BASE_MODEL": str(path)}
    assert sorted(path.iterdir()) == before
    assert str(path) in [row["model"] for row in facts(models_command("list", "--json"))["models"]]


def test_add_refuses_what_is_no_model(models_command: Models, tmp_path: Path) -> None:
    refused(models_command("add", tmp_path / "nowhere"), "is no folder here")
    refused(models_command("add", tmp_path), "no config.json")
    refused(models_command("add", "owner/name"), "--revision", "40 hex digits")
    refused(models_command("add", write_model(tmp_path / "m", auto_map={})), "auto_map")
    assert len(facts(models_command("list", "--json"))["models"]) == 1


def test_add_fetches_from_a_hub(
    models_command: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in write_model(tmp_path / "upstream").iterdir()}
    with serve(Hub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        result = models_command("add", "owner/name", "--revision", REVISION, "--json")
    found = facts(result)
    assert (found["model"], found["revision"]) == ("owner/name", REVISION)
    assert {line["check"]: line["ok"] for line in found["checks"]}["checksums"] is True
    assert result.exit_code == 1  # it has no tokenizer
