"""Checksums of weights, remembered: hashing 60 GB at every start would take minutes.

A sum is remembered under the file's path, size and time of change, in one small file in the models folder
(never in the folder of the model). `briefbox models check` hashes again all the same.
"""

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp

log = logging.getLogger(__name__)

SUMS_FILE = "sums.json"
# Smaller files are hashed faster than it takes to be careful about them.
WORTH_REMEMBERING = 1_000_000


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex, read in pieces."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def remembered(path: Path, folder: Path) -> str | None:
    """The sum of a file that was not changed since, from the models folder; None when it is not known."""
    entry = _read(folder).get(str(path.resolve()))
    return str(entry["sha256"]) if entry and entry["state"] == _state(path) else None


def sha256_of(path: Path, folder: Path) -> str:
    """The sum of a file, from the models folder's memory where it is known."""
    if found := remembered(path, folder):
        return found
    state = _state(path)
    found = file_sha256(path)
    # Hashing takes long: a file that changed meanwhile must not be remembered.
    if path.stat().st_size >= WORTH_REMEMBERING and state == _state(path):
        remember({path: found}, folder)
    return found


def remember(sums: dict[Path, str], folder: Path) -> None:
    """Write sums down. Where the folder cannot be written nothing is lost but time."""
    entries = {name: entry for name, entry in _read(folder).items() if Path(name).is_file()}
    for path, value in sums.items():
        entries[str(path.resolve())] = {"state": _state(path), "sha256": value}
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = mkstemp(prefix=f".{SUMS_FILE}.", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)
        # Two processes at once: one loses its entry and hashes again another time.
        Path(temporary).replace(folder / SUMS_FILE)
    except OSError as error:
        log.debug("checksums are not remembered in %s: %s", folder, error)
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()


def weights_sha256(sums: Sequence[tuple[str, str]]) -> str:
    """The sum that stands for a model, of (file name, sum): one file's own, or the sha256 over the lines of several."""
    if len(sums) == 1:
        return sums[0][1]
    return sha256("".join(f"{part} {name}\n" for name, part in sums).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _read(folder: Path) -> dict[str, dict[str, str | list[int]]]:
    try:
        entries = json.loads((folder / SUMS_FILE).read_text(encoding="utf-8"))
        return {
            name: entry
            for name, entry in entries.items()
            if isinstance(entry, dict) and {"state", "sha256"} <= set(entry)
        }
    except (OSError, ValueError, AttributeError):
        return {}
