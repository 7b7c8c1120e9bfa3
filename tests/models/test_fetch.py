"""models/fetch.py: a hub's model at one commit, with the real huggingface_hub against a hub on this machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from briefbox.errors import ModelError
from briefbox.settings import Settings, load_settings
from models.base import resolve_base_model
from models.fetch import add_from_hub, fetch_snapshot, is_wanted
from models.folders import CARD_FILE
from models.hub import HubModel, hub_folder
from tests.hub import REVISION, Hub, safetensors, serve, write_model

MODEL = HubModel("owner/name", REVISION)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_model(tmp_path / "upstream")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    unwanted = {
        "pytorch_model.bin": b"pickle",
        "modeling_own.py": b"code",
        "consolidated.safetensors": b"twice",
    }
    return files | {"tokenizer.json": b"{}", "original/model.safetensors": b"twice"} | unwanted


@pytest.fixture
def hub(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve(Hub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data", base_model=MODEL.name, base_revision=REVISION)


def test_a_hub_model_is_fetched_once_and_then_resolved_without_the_hub(settings: Settings, hub: Hub) -> None:
    base = add_from_hub(settings, MODEL)
    assert (base.name, base.revision) == ("owner/name", REVISION)
    assert base.path == hub_folder(settings.models_path, MODEL).resolve()
    assert sorted(p.name for p in base.path.iterdir()) == [
        "README.md",
        CARD_FILE,
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    card = json.loads((base.path / CARD_FILE).read_text())
    assert (card["revision"], card["weights_sha256"]) == (REVISION, base.sha256)
    hub.asked.clear()
    assert resolve_base_model(settings) == base
    assert add_from_hub(settings, MODEL) == base
    assert hub.asked == []


def test_without_being_fetched_the_sentence_names_the_command(settings: Settings) -> None:
    with pytest.raises(ModelError, match=f"briefbox models add owner/name --revision {REVISION}"):
        resolve_base_model(settings)


@pytest.mark.parametrize("revision", ["", "main", REVISION[:12], REVISION.upper()])
def test_a_hub_name_without_a_whole_commit_is_refused(settings: Settings, revision: str) -> None:
    with pytest.raises(ModelError, match="BRIEFBOX_BASE_REVISION"):
        resolve_base_model(settings.model_copy(update={"base_revision": revision}))


def test_bytes_that_the_hub_did_not_list_are_refused_and_nothing_stays(settings: Settings, hub: Hub) -> None:
    hub.lies["model.safetensors"] = safetensors((100, 32), (1000,)).replace(b"t0", b"t9")
    with pytest.raises(ModelError, match="the hub states"):
        add_from_hub(settings, MODEL)
    assert [p.name for p in (settings.models_path / "hub").iterdir()] == [".convert.lock"]


def test_a_model_with_code_of_its_own_is_refused(settings: Settings, hub: Hub) -> None:
    hub.files["config.json"] = b'{"auto_map": {"AutoModel": "modeling_own.Own"}}'
    with pytest.raises(ModelError, match=r"auto_map in config\.json"):
        add_from_hub(settings, MODEL)


def test_a_model_without_safetensors_is_refused_before_the_download(settings: Settings, hub: Hub) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(ModelError, match="no safetensors weights"):
        add_from_hub(settings, MODEL)
    assert not any("/resolve/" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (404, "RepoNotFound", "has no model owner/name"),
        (404, "RevisionNotFound", "has no commit"),
        (403, "GatedRepo", "accepted its terms"),
        (400, "", "could not be fetched"),
    ],
)
def test_what_a_hub_refuses_is_one_sentence(
    settings: Settings, hub: Hub, status: int, error: str, says: str
) -> None:
    hub.status, hub.error = status, error
    with pytest.raises(ModelError, match=says):
        add_from_hub(settings, MODEL)


def test_the_files_of_a_broken_download_are_kept_for_the_next_call(settings: Settings) -> None:
    def breaks(name: str, revision: str, folder: Path) -> dict[str, str]:
        (folder / "half").write_bytes(b"1")
        raise ModelError("the line is cut")

    def goes_on(name: str, revision: str, folder: Path) -> dict[str, str]:
        assert (folder / "half").exists()
        (folder / "half").unlink()
        write_model(folder)
        return {}

    with pytest.raises(ModelError, match="the line is cut"):
        add_from_hub(settings, MODEL, fetch=breaks)
    assert add_from_hub(settings, MODEL, fetch=goes_on).revision == REVISION


def test_altered_weights_of_a_fetched_model_are_refused(settings: Settings) -> None:
    def fetch(name: str, revision: str, folder: Path) -> dict[str, str]:
        write_model(folder)
        return {}

    base = add_from_hub(settings, MODEL, fetch=fetch)
    (base.path / "model.safetensors").write_bytes(safetensors((100, 32), (999,)))
    with pytest.raises(ModelError, match="do not match the card"):
        resolve_base_model(settings)


def test_the_process_that_loads_models_is_offline_and_a_broken_child_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ModelError, match="ended with code 1"):
        fetch_snapshot("owner/name", REVISION, tmp_path)


def test_only_what_a_model_needs_is_wanted() -> None:
    wanted = "config.json tokenizer.model model-00001-of-2.safetensors model.safetensors.index.json chat_template.jinja LICENSE"
    unwanted = "a.py model.bin onnx/model.safetensors consolidated.safetensors training_args.bin tokenizer.py tokenizer.pt"
    assert [name for name in wanted.split() if not is_wanted(name)] == []
    assert [name for name in unwanted.split() if is_wanted(name)] == []
