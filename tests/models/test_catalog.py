"""models/catalog.py: what is on this machine, read from files alone."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from briefbox.errors import ModelError
from briefbox.settings import Settings, load_settings
from models.base import BaseModel
from models.catalog import Place, facts_of, find, header, licence, places, register
from models.hub import HubModel, fetched, hub_folder
from tests.hub import CONFIG, REVISION, safetensors, write_model

OTHER = "f" * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data")


def hub_copy(settings: Settings, revision: str = REVISION, name: str = "owner/name") -> Path:
    return write_model(hub_folder(settings.models_path, HubModel(name, revision)))


def test_facts_are_read_from_the_files(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    facts = facts_of(Place("mine", path))
    assert (facts.parameters, facts.dtypes, facts.licence, facts.context) == (
        4200,
        ("BF16",),
        "apache-2.0",
        2048,
    )
    assert facts.bytes == (path / "model.safetensors").stat().st_size
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.shape is not None
    assert (facts.shape.layers, facts.shape.kv_heads, facts.shape.head_size) == (2, 2, 8)


def test_the_packaged_model_has_its_known_size(packaged: BaseModel) -> None:
    facts = facts_of(Place("packaged", packaged.path))
    assert facts.parameters == 134_515_008
    assert (facts.context, facts.licence) == (8192, "apache-2.0")


def test_shards_are_added_up(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    (path / "model.safetensors").rename(path / "a.safetensors")
    (path / "b.safetensors").write_bytes(safetensors((7,), dtype="F32", size=4))
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    facts = facts_of(Place("mine", path))
    assert (facts.parameters, facts.dtypes) == (4207, ("BF16", "F32"))


@pytest.mark.parametrize(
    "config", [{"text_config": CONFIG, "hidden_size": "?"}, CONFIG, {"max_position_embeddings": "long"}]
)
def test_a_configuration_in_another_form_gives_what_it_tells(tmp_path: Path, config: dict[str, Any]) -> None:
    path = write_model(tmp_path / "model")
    (path / "config.json").write_text(json.dumps(config))
    facts = facts_of(Place("mine", path))
    known = "max_position_embeddings" not in config or config is CONFIG
    assert (facts.context, facts.shape is not None) == ((2048, True) if known else (0, False))


# --- safetensors


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"12",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{x",
        struct.pack("<Q", 9) + b'{"a": 1}\n',
        struct.pack("<Q", 46) + b'{"a":{"data_offsets":[0,1],"shape":["x"]}}    0',
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="no safetensors file"):
        header(tmp_path / "m.safetensors")


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"1"])
def test_a_cut_file_is_refused(tmp_path: Path, change: Any) -> None:
    (tmp_path / "m.safetensors").write_bytes(change(safetensors((10, 10))))
    with pytest.raises(ModelError, match="it was cut"):
        header(tmp_path / "m.safetensors")


# --- licence


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlanguage: en\nlicense: 'mit'\n---\n"}, "mit"),
        ({"README.md": "---\nlanguage: en\n---\nlicense: mit\n"}, "unknown"),
        ({"README.md": "license: mit"}, "unknown"),
        ({"LICENSE": "\n   Apache License\n   Version 2.0, January 2004\n"}, "apache-2.0"),
        ({"LICENSE.txt": "MIT License\n\nCopyright"}, "mit"),
        ({"LICENSE": "Our own community licence"}, "see LICENSE"),
        ({}, "unknown"),
    ],
)
def test_the_licence_is_what_the_files_say(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence(tmp_path, {}) == expected


def test_the_configuration_may_name_the_licence(tmp_path: Path) -> None:
    assert licence(tmp_path, {"license": "mit"}) == "mit"
    assert licence(tmp_path, {"license": 1}) == "unknown"


# --- names


def test_places_are_the_packaged_the_fetched_and_the_registered_models(
    settings: Settings, tmp_path: Path
) -> None:
    hub_copy(settings)
    mine, gone = write_model(tmp_path / "mine"), write_model(tmp_path / "gone")
    for folder in (mine, mine, gone):
        register(settings.models_path, folder)
    (gone / "config.json").unlink()
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    in_use = settings.model_copy(update={"base_model": str(write_model(tmp_path / "used"))})
    assert [place.name for place in places(in_use)] == [
        "packaged",
        "owner/name",
        str(mine),
        str(tmp_path / "used"),
    ]


def test_half_fetched_and_foreign_folders_are_no_models(settings: Settings) -> None:
    hub = hub_copy(settings).parent
    (hub / f".owner--name@{OTHER}.partial").mkdir()
    (hub / "owner--name@main").mkdir()
    assert [model for model, _ in fetched(settings.models_path)] == [HubModel("owner/name", REVISION)]


def test_a_model_is_found_by_name_and_by_commit_where_there_are_two(
    settings: Settings, tmp_path: Path
) -> None:
    path = hub_copy(settings)
    assert find(settings, "owner/name") == Place("owner/name", path, REVISION)
    hub_copy(settings, OTHER)
    with pytest.raises(ModelError, match="at 2 commits"):
        find(settings, "owner/name")
    assert find(settings, f"owner/name@{REVISION[:12]}").path == path
    in_use = settings.model_copy(update={"base_model": "owner/name", "base_revision": REVISION})
    assert find(in_use, "").path == path
    assert find(settings, "").name == "packaged"
    assert find(settings, str(tmp_path)) == Place(str(tmp_path), tmp_path)


def test_an_unknown_name_says_what_there_is(settings: Settings) -> None:
    with pytest.raises(ModelError, match="one of: packaged"):
        find(settings, "smollm")
    with pytest.raises(ModelError, match="briefbox models add owner/name --revision SHA"):
        find(settings, "owner/name")


@pytest.mark.parametrize("text", ["", "{}", "[1, null]"])
def test_a_broken_list_of_folders_is_empty(settings: Settings, text: str) -> None:
    settings.models_path.mkdir(parents=True)
    (settings.models_path / "folders.json").write_text(text)
    assert [place.name for place in places(settings)] == ["packaged"]
