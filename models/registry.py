"""Adapters on disk: a folder with LoRA weights, their configuration and a card that explains them.

    adapter_model.safetensors   LoRA A and B matrices, nothing else
    adapter_config.json         peft's configuration
    card.json                   AdapterCard: base model, dataset, settings, scores, checksums

An adapter is data from a training run, but its folder may have been touched by anyone who can write
there, so everything is checked before it reaches the model, and the bytes checked are the bytes loaded.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import ValidationError

from briefbox.errors import AdapterError
from briefbox.schemas import AdapterCard
from models.adapter_checks import LORA_KEY, check_card, check_config, check_weights
from models.base import BaseModel, publish_folder
from models.prompt import PROMPT_VERSION

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
CARD_FILE = "card.json"
ALLOWED_FILES = frozenset({WEIGHTS_FILE, CONFIG_FILE, CARD_FILE})

# A rank-256 adapter on all linear layers of a 70B model stays below this.
MAX_WEIGHTS_BYTES = 8_000_000_000
MAX_JSON_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class VerifiedAdapter:
    """An adapter that passed every check, already read: `weights` is what was checked."""

    path: Path
    card: AdapterCard
    config: Mapping[str, Any]
    weights: "Mapping[str, Tensor]"


# --- write


def write_adapter(
    folder: Path, *, weights: "Mapping[str, Tensor]", config: Mapping[str, Any], card: AdapterCard
) -> AdapterCard:
    """Write an adapter under a temporary name and rename it; returns the card with its weights' sha256.

    `weights` and `config` are those of `adapter_parts`. Raises AdapterError when `folder` exists already.
    """
    from safetensors.torch import save

    if folder.exists():
        raise AdapterError(f"{folder} exists already; an adapter is never overwritten, choose another name.")
    content = save({key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()})
    card = card.model_copy(update={"weights_sha256": sha256(content).hexdigest()})
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (temporary / WEIGHTS_FILE).write_bytes(content)
        (temporary / CONFIG_FILE).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
        write_card(temporary, card)
        publish_folder(temporary, folder)
    except OSError as error:
        raise AdapterError(
            f"The adapter could not be written to {folder} ({error.strerror}); make room in BRIEFBOX_DATA_DIR."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def adapter_parts(model: Any, adapter_name: str = "default") -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Weights and configuration of a trained peft model, in the form that `write_adapter` takes."""
    from peft import get_peft_model_state_dict

    # peft looks for new embeddings on a hub unless told not to.
    weights = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    full = model.peft_config[adapter_name]
    matches = [LORA_KEY.fullmatch(key) for key in weights]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": full.r,
        "lora_alpha": full.lora_alpha,
        # By their names in the weights: peft's own value may be a pattern or a word such as all-linear.
        "target_modules": sorted({match["module"].rpartition(".")[2] for match in matches if match}),
        "use_rslora": bool(full.use_rslora),
        "bias": full.bias,
    }
    return dict(weights), config


def write_card(path: Path, card: AdapterCard) -> None:
    """Write the card into an adapter's folder: whole or not at all."""
    temporary = path / f".{CARD_FILE}"
    temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path / CARD_FILE)


def delete_adapter(path: Path) -> None:
    """Delete an adapter's folder: moved aside first, so that nobody meets half of it. Nothing happens without one.

    Raises AdapterError when it cannot be deleted.
    """
    aside = path.with_name(f".removed-{path.name}-{uuid4().hex[:8]}")
    try:
        path.rename(aside)
        if aside.is_symlink():
            aside.unlink()  # a link to another folder: that one is not ours
        else:
            shutil.rmtree(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AdapterError(
            f"The folder of the adapter {path.name} cannot be deleted ({error.strerror}); delete {error.filename} by hand."
        ) from error


# --- read and check


def read_card(path: Path) -> AdapterCard:
    """The card of the adapter in `path`.

    Raises AdapterError when there is none or it is of another format.
    """
    try:
        return AdapterCard.model_validate_json(_read(path / CARD_FILE, MAX_JSON_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise AdapterError(
            f"{path / CARD_FILE} is no card of this version of briefbox ({'.'.join(map(str, first['loc']))}: {first['msg']}); train the adapter again."
        ) from error


def card_of_model(path: Path) -> AdapterCard | None:
    """The card of a whole model that was trained or merged here; None for any other base model.

    Raises AdapterError when it is not of this version.
    """
    if not (path / CARD_FILE).is_file():
        return None
    card = read_card(path)
    check_card(card)
    if card.prompt_version != PROMPT_VERSION:
        raise AdapterError(
            f"The model in {path} was trained with prompt {card.prompt_version}, but this version of briefbox asks with {PROMPT_VERSION}; train again, or set BRIEFBOX_BASE_MODEL to another."
        )
    return card


def verify_adapter(path: Path, base: BaseModel, expected_sha256: str | None = None) -> VerifiedAdapter:
    """Read an adapter and check that it is whole, harmless and made for `base`.

    `expected_sha256` is the weights' sum that the database holds. Raises AdapterError with the reason.
    """
    _check_files(path)
    card = read_card(path)
    if (card.base_model, card.base_sha256) != (base.name, base.sha256):
        raise AdapterError(
            f"The adapter {card.name} was trained on {card.base_model} ({card.base_sha256[:12]}), but the base model in use is {base.name} ({base.sha256[:12]}); set BRIEFBOX_BASE_MODEL back or train again."
        )
    if card.prompt_version != PROMPT_VERSION:
        raise AdapterError(
            f"The adapter {card.name} was trained with prompt {card.prompt_version}, but this version of briefbox asks with {PROMPT_VERSION}; train again."
        )
    check_card(card)
    content = _read(path / WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    found = sha256(content).hexdigest()
    for source, wanted in (("its card", card.weights_sha256), ("the database", expected_sha256)):
        if wanted is not None and found != wanted:
            raise AdapterError(
                f"The weights of adapter {card.name} have sha256 {found[:12]}, but {source} says {wanted[:12]}; they were altered: restore the folder or train again."
            )
    config = check_config(card.name, _read(path / CONFIG_FILE, MAX_JSON_BYTES))
    weights = check_weights(card.name, content, int(config["r"]))
    return VerifiedAdapter(path, card, config, weights)


def _check_files(path: Path) -> None:
    if path.is_symlink():
        raise AdapterError(f"{path} is a link to another folder; expected the adapter's own folder.")
    if not path.is_dir():
        raise AdapterError(f"{path} is no folder with an adapter; was it removed? Promote another one.")
    names = {file.name for file in path.iterdir()}
    if extra := sorted(names - ALLOWED_FILES):
        raise AdapterError(
            f"{path} holds {extra[0]}, which no adapter of ours has; expected only {', '.join(sorted(ALLOWED_FILES))}."
        )
    for name in sorted(ALLOWED_FILES):
        if (path / name).is_symlink():
            raise AdapterError(f"{path / name} is a link; expected a file of the adapter's own.")
        if not (path / name).is_file():
            raise AdapterError(f"{path} lacks the file {name}; restore the folder or train again.")


def _read(file: Path, limit: int) -> bytes:
    try:
        # Not through a link, even one that was put there after the check above.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if os.fstat(descriptor).st_size > limit:
                raise AdapterError(f"{file} is larger than {limit} bytes, which no adapter of ours is.")
            return opened.read(limit)
    except OSError as error:
        raise AdapterError(f"{file} cannot be read ({error.strerror}).") from error
