"""`briefbox models add`: the only place that asks a model hub, and only when a person says so.

    list the commit's files, with sizes and sums -> download what a model needs into a hidden folder
      -> check it (safetensors only, no code, sums as the hub says) -> write its card -> rename

The download runs in a process of its own (`python -m models.fetch`), the only one in which huggingface_hub is
online. A broken download is taken up again by the next call.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from briefbox.errors import ModelError
from briefbox.settings import Settings
from models.base import BaseModel, check_folder, resolve_base_model
from models.folders import locked, publish_folder, write_card
from models.hub import HubModel, hub_folder
from models.sums import file_sha256, remember, weights_sha256

ALLOWED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "*.safetensors",
    "*.safetensors.index.json",
    # A licence asks to be kept with what it covers, and the model card's first lines name it.
    "README.md",
    "LICENSE*",
    "NOTICE*",
)
# Subfolders and `consolidated` hold the same weights once more, in forms that transformers does not read.
IGNORED = ("*/*", "consolidated*.safetensors", "*.py", "*.bin", "*.pt", "*.pth")
# Beside the model itself, so that the database on the same disk does not run out of room.
SPARE_BYTES = 1_000_000_000

# (owner/name, commit, folder to fill) -> for each file the sha256 that the hub states, "" where it states none.
Fetch = Callable[[str, str, Path], dict[str, str]]


def add_from_hub(settings: Settings, model: HubModel, fetch: Fetch | None = None) -> BaseModel:
    """Fetch one commit of a hub model into the models folder; nothing is fetched when it is there already.

    Raises ModelError when the hub cannot be reached, refuses, or has something else than a safe, whole model.
    """
    target = hub_folder(settings.models_path, model)
    chosen = settings.model_copy(update={"base_model": model.name, "base_revision": model.revision})
    if target.is_dir():
        return resolve_base_model(chosen)
    with locked(target.parent):
        if target.is_dir():
            return resolve_base_model(chosen)
        partial = target.parent / f".{target.name}.partial"
        partial.mkdir(exist_ok=True)
        stated = (fetch or fetch_snapshot)(model.name, model.revision, partial)
        try:
            sums = _verify(partial, model, stated)
        except ModelError:
            shutil.rmtree(partial, ignore_errors=True)  # downloading the same again would not help
            raise
        publish_folder(partial, target)
    remember({target / name: value for name, value in sums.items()}, settings.models_path)
    return resolve_base_model(chosen)


def _verify(folder: Path, model: HubModel, stated: dict[str, str]) -> dict[str, str]:
    """Check what was downloaded and write its card. Returns the sums of its files."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes on the download
    weights = check_folder(folder, f"The model {model.name} at {model.revision[:12]}")
    sums = {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    for name, value in stated.items():
        if value and sums.get(name) != value:
            raise ModelError(
                f"{name} of {model.name} has sha256 {sums.get(name, 'none')[:12]}, but the hub states {value[:12]}; the download was altered or cut, run the command again."
            )
    write_card(
        folder,
        name=model.name,
        source="hub",
        revision=model.revision,
        weights_sha256=weights_sha256([(name, sums[name]) for name in weights]),
        files=sums,
    )
    return sums


def fetch_snapshot(name: str, revision: str, folder: Path) -> dict[str, str]:
    """See Fetch. Downloads with huggingface_hub, in another process, which shows its progress."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("TRANSFORMERS_OFFLINE", None)
    words = [sys.executable, "-m", "models.fetch", name, revision, str(folder)]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ModelError(
            f"The download of {name} ended with code {done.returncode}; run the command again to go on with it."
        ) from None
    if "error" in answer:
        raise ModelError(answer["error"])
    return {str(file): str(value) for file, value in answer["files"].items()}


# --- the process that is online


def download(name: str, revision: str, folder: Path) -> dict[str, str]:
    """Download the files of a commit that a model needs. Raises ModelError in one sentence."""
    import httpx2
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoSuchRevision
    from huggingface_hub.hf_api import RepoFile

    hub = constants.ENDPOINT
    try:
        listed = {
            f.path: f for f in HfApi().list_repo_tree(name, revision=revision) if isinstance(f, RepoFile)
        }
        wanted = [path for path in listed if is_wanted(path)]
        _check_list(name, wanted, sum(listed[path].size for path in wanted), folder)
        snapshot_download(
            name,
            revision=revision,
            local_dir=folder,
            allow_patterns=list(ALLOWED),
            ignore_patterns=list(IGNORED),
        )
    except GatedRepoError:
        raise ModelError(
            f"{hub} gives {name} only to people who accepted its terms; accept them there, set HF_TOKEN and run the command again."
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{hub} has no model {name}, or it is private; check the name (or set HF_TOKEN)."
        ) from None
    except NoSuchRevision:
        raise ModelError(
            f"{name} has no commit {revision} at {hub}; copy the whole commit from its page."
        ) from None
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise ModelError(
            f"{name} could not be fetched from {hub} ({type(error).__name__}: {_first_line(error)}); check the network and run the command again to go on with it."
        ) from None
    return {path: _lfs_sum(listed[path]) for path in wanted}


def is_wanted(path: str) -> bool:
    """Whether a file of a hub model is fetched, by the rules that huggingface_hub gets too."""
    return any(fnmatch(path, pattern) for pattern in ALLOWED) and not any(
        fnmatch(path, pattern) for pattern in IGNORED
    )


def _check_list(name: str, wanted: list[str], size: int, folder: Path) -> None:
    """Refuse before the download what would be refused after it."""
    if not any(path.endswith(".safetensors") for path in wanted):
        raise ModelError(
            f"{name} has no safetensors weights at this commit, and no other form is loaded; choose another model."
        )
    room = shutil.disk_usage(folder).free - SPARE_BYTES
    have = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size - have > room:
        raise ModelError(
            f"{name} takes {size / 1e9:.1f} GB, but {folder.parent} has room for {max(room, 0) / 1e9:.1f} GB; make room or set BRIEFBOX_MODELS_DIR to a larger disk."
        )


def _lfs_sum(file: Any) -> str:
    return str(file.lfs.sha256) if file.lfs is not None else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no reason given"


def main() -> None:
    """Download and print the answer as JSON."""
    name, revision, folder = sys.argv[1:]
    try:
        answer: dict[str, Any] = {"files": download(name, revision, Path(folder))}
    except ModelError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
