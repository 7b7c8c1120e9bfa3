"""Folders of models: written whole or not at all, one writer at a time, with a card that says what they hold."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from briefbox.errors import ModelError

CARD_FILE = "briefbox-base.json"
CARD_FORMAT = "briefbox-base-1"


def read_card(path: Path) -> dict[str, Any]:
    """The card that briefbox wrote beside a converted or fetched model; empty where there is none."""
    try:
        card = json.loads((path / CARD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and card.get("format") == CARD_FORMAT else {}


def write_card(path: Path, **facts: Any) -> None:
    """Write the card of a converted or fetched model into its folder."""
    text = json.dumps({"format": CARD_FORMAT, **facts}, indent=2)
    (path / CARD_FILE).write_text(text + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The right to write models, held by one process at a time; the kernel frees it when that process dies."""
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
