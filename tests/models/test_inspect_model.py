"""models/inspect_model.py: each question has its answer, and every failing one says why."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.settings import Settings, load_settings
from models.base import BaseModel
from models.catalog import Place
from models.fetch import add_from_hub
from models.fit import Machine
from models.hub import HubModel
from models.inspect_model import Line, inspect
from models.sums import remember
from tests.hub import REVISION, safetensors, write_model

LARGE = Machine("cpu", "this machine's RAM", 64 * 10**9, "float32")
SMALL = Machine("cuda", "a card", 10**9, "bfloat16")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path, packaged: BaseModel) -> Path:
    """A whole model by its files: the tiny weights and the real tokenizer."""
    path = write_model(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(packaged.path / name, path / name)
    return path


def answers(settings: Settings, path: Path, machine: Machine = LARGE) -> dict[str, Line]:
    return {line.check: line for line in inspect(settings, Place(str(path), path), machine)}


def change(path: Path, **values: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def test_a_whole_model_passes_every_check(settings: Settings, folder: Path) -> None:
    lines = answers(settings, folder)
    assert [line for line in lines.values() if not line.ok] == []
    assert list(lines) == [
        "files",
        "weights",
        "checksums",
        "licence",
        "architecture",
        "chat template",
        "context",
        "memory",
    ]
    assert "4,200 parameters in BF16" in lines["weights"].says
    assert "no card" in lines["checksums"].says


def test_the_packaged_model_passes_every_check(packaged: BaseModel) -> None:
    settings = load_settings(data_dir=packaged.path.parent.parent)
    lines = inspect(settings, Place("packaged", packaged.path), LARGE)
    assert [line for line in lines if not line.ok] == []
    assert lines[0].check == "converted"


@pytest.mark.parametrize(
    ("config", "check", "says"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "architecture", "causal language model"),
        ({"architectures": None}, "architecture", "no architecture"),
        ({"model_type": "of-no-library"}, "architecture", "does not know"),
        ({"model_type": "mistral", "sliding_window": 64}, "architecture", "sliding windows"),
        ({"max_position_embeddings": 1024}, "context", "BRIEFBOX_MAX_EMAIL_TOKENS to 0"),
        ({"auto_map": {}}, "files", "auto_map"),
    ],
)
def test_a_configuration_that_does_not_work_fails_its_check(
    settings: Settings, folder: Path, config: dict[str, Any], check: str, says: str
) -> None:
    change(folder, **config)
    line = answers(settings, folder)[check]
    assert not line.ok
    assert says in line.says


def test_quantized_weights_fail(settings: Settings, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors((100,), dtype="U8", size=1))
    change(folder, quantization_config={"quant_method": "mxfp4"})
    lines = answers(settings, folder)
    assert "packed (U8)" in lines["weights"].says
    assert "quantized" in lines["architecture"].says


def test_a_template_without_a_system_message_fails(settings: Settings, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only user messages') }}")
    assert "only user messages" in answers(settings, folder)["chat template"].says
    (folder / "tokenizer.json").write_text("{")
    assert "cannot be loaded" in answers(settings, folder)["chat template"].says


def test_a_model_that_does_not_fit_says_what_would(settings: Settings, folder: Path) -> None:
    line = answers(settings, folder, SMALL)["memory"]
    assert not line.ok
    assert "No model fits here" in line.says


def test_a_cut_file_ends_the_questions(settings: Settings, folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    [line] = inspect(settings, Place("x", folder), LARGE)
    assert (line.check, line.ok) == ("files", False)
    assert "it was cut" in line.says


def test_other_bytes_behind_the_same_size_and_time_are_found(settings: Settings, folder: Path) -> None:
    weights = folder / "model.safetensors"
    remember({weights: "0" * 64}, settings.models_path)
    assert "the disk may be failing" in answers(settings, folder)["checksums"].says


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_an_altered_file_of_a_fetched_model_is_found(settings: Settings, name: str) -> None:
    def fetch(model: str, revision: str, folder: Path) -> dict[str, str]:
        write_model(folder)
        return {}

    base = add_from_hub(settings, HubModel("owner/name", REVISION), fetch=fetch)
    assert answers(settings, base.path)["checksums"].ok
    file = base.path / name
    times = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"1")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not answers(settings, base.path)["checksums"].ok


def test_the_default_categories_are_those_of_the_migrations() -> None:
    from importlib import import_module

    versions = "briefbox.migrations.versions"
    *first, other = import_module(f"{versions}.0001_first_tables").CATEGORIES
    later = import_module(f"{versions}.0003_learning_loop").CANCELLATION
    assert [(c.name, c.description) for c in DEFAULT_CATEGORIES] == [*first, later, other]
