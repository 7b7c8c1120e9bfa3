"""What is known of the base models on this machine, read from their files: nothing is loaded, no hub is asked."""

import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from briefbox.errors import ModelError
from briefbox.settings import PACKAGED_MODEL, Settings
from models.base import check_folder, read_json
from models.fit import Shape, shape_of
from models.folders import read_card
from models.hub import fetched, is_hub_id
from models.packaged import PACKAGED_NAME

# Local folders that `briefbox models add` was told of.
FOLDERS_FILE = "folders.json"
UNKNOWN = "unknown"
# The header of a model with a million tensors stays below this.
MAX_HEADER_BYTES = 100_000_000
# How licences begin that stand in a file of their own.
_LICENCES = (
    (r"Apache License\s+Version 2\.0", "apache-2.0"),
    (r"MIT License|Permission is hereby granted, free of charge", "mit"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A base model that can be named: `name` as `briefbox models use` takes it. `revision` is the hub's commit."""

    name: str
    path: Path
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """A model's files in numbers. `context` is 0 and `shape` None where its configuration does not tell."""

    place: Place
    bytes: int
    parameters: int
    dtypes: tuple[str, ...]
    licence: str
    context: int
    shape: Shape | None
    architecture: str


def places(settings: Settings) -> list[Place]:
    """All base models on this machine that are known of: packaged, fetched, registered, and the one in the settings."""
    models_path = settings.models_path
    found = [Place(PACKAGED_MODEL, models_path / PACKAGED_NAME)]
    found += [Place(model.name, path, model.revision) for model, path in fetched(models_path)]
    folders = registered(models_path)
    if settings.base_model != PACKAGED_MODEL:
        folders.append(Path(settings.base_model).resolve())  # left out below where it is a hub's name
    found += [Place(str(path), path) for path in dict.fromkeys(folders)]
    return [place for place in found if place.path.is_dir() or place.name == PACKAGED_MODEL]


def find(settings: Settings, name: str) -> Place:
    """The model of this name: `packaged`, a folder, owner/name where one commit is here, or owner/name@commit.

    "" is the one in the settings. Raises ModelError when there is none, or several.
    """
    revision = settings.base_revision if name in ("", settings.base_model) else ""
    name = name or settings.base_model
    if name == PACKAGED_MODEL:
        return Place(PACKAGED_MODEL, settings.models_path / PACKAGED_NAME)
    wanted, _, commit = name.partition("@")
    revision = commit or revision
    here = [
        (m, p)
        for m, p in fetched(settings.models_path)
        if m.name == wanted and m.revision.startswith(revision)
    ]
    if len(here) == 1:
        return Place(here[0][0].name, here[0][1], here[0][0].revision)
    if here:
        raise ModelError(
            f"{wanted} is here at {len(here)} commits; say which: {', '.join(f'{m.name}@{m.revision[:12]}' for m, _ in here)}."
        )
    if Path(name).is_dir():
        return Place(str(Path(name).resolve()), Path(name).resolve())
    if is_hub_id(wanted):
        raise ModelError(
            f"{wanted}{f' at commit {revision[:12]}' if revision else ''} is not on this machine; fetch it with: briefbox models add {wanted} --revision {revision or 'SHA'}"
        )
    known = ", ".join(place.name for place in places(settings))
    raise ModelError(f"{name} is no base model on this machine; expected a folder or one of: {known}.")


def facts_of(place: Place) -> Facts:
    """Read a model's files. Raises ModelError when they are not whole or not safe."""
    names = check_folder(place.path, place.name)
    config = read_json(place.path / "config.json", place.name)
    headers = [header(place.path / name) for name in names]
    tensors = [tensor for found in headers for tensor in found.values()]
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors)
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    context = text.get("max_position_embeddings") or text.get("n_positions")
    architectures = config.get("architectures")
    return Facts(
        place=place,
        bytes=sum((place.path / name).stat().st_size for name in names),
        parameters=parameters,
        dtypes=tuple(sorted({str(tensor["dtype"]) for tensor in tensors})),
        licence=licence(place.path, config),
        context=context if isinstance(context, int) else 0,
        shape=shape_of(config, parameters),
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
    )


def header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file: name to {"dtype", "shape", "data_offsets"}.

    The format: 8 bytes with the header's length (little-endian), the header in JSON, then the tensors' bytes.
    Raises ModelError when it is none or was cut.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"its header of {length} bytes does not fit into {size} bytes")
            found = json.loads(file.read(length))
        found.pop("__metadata__", None)
        end = 8 + length + max((tensor["data_offsets"][1] for tensor in found.values()), default=0)
        if not all(
            isinstance(width, int) and width >= 0 for tensor in found.values() for width in tensor["shape"]
        ):
            raise ValueError("a tensor's shape is no list of numbers")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        struct.error,
        RecursionError,
    ) as error:
        raise ModelError(
            f"{path} is no safetensors file that can be read ({error}); copy the model again."
        ) from error
    if end != size:
        raise ModelError(
            f"{path} has {size} bytes, but its header tells of {end}; it was cut, copy it again."
        )
    return dict(found)


def licence(path: Path, config: dict[str, Any]) -> str:
    """A model's licence: by its card's first lines, by a licence file, or by its configuration; else `unknown`."""
    if read_card(path).get("name") == PACKAGED_NAME:
        return "apache-2.0"  # by its model card; the wheel brings no file that says so
    readme = _text(path / "README.md")
    if readme.startswith("---"):
        front = readme[3:].split("\n---", 1)[0]
        if match := re.search(r"^license:\s*['\"]?([\w.+-]+)", front, re.MULTILINE):
            return match[1]
    for file in sorted(path.glob("LICEN[SC]E*")):
        text = _text(file)
        known = next((name for pattern, name in _LICENCES if re.search(pattern, text)), "")
        return known or f"see {file.name}"
    stated = config.get("license")
    return stated if isinstance(stated, str) and stated else UNKNOWN


def register(models_path: Path, folder: Path) -> None:
    """Remember a local folder, so that `briefbox models list` shows it. Raises ModelError when it cannot be written."""
    known = [str(path) for path in dict.fromkeys([*registered(models_path), folder.resolve()])]
    try:
        models_path.mkdir(parents=True, exist_ok=True)
        temporary = models_path / f".{FOLDERS_FILE}"
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        temporary.replace(models_path / FOLDERS_FILE)
    except OSError as error:
        raise ModelError(
            f"{models_path} cannot be written ({error.strerror}); set BRIEFBOX_DATA_DIR to a writable folder."
        ) from error


def registered(models_path: Path) -> list[Path]:
    """The local folders that were registered and are still there."""
    try:
        names = json.loads((models_path / FOLDERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [Path(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _text(path: Path) -> str:
    """The first part of a text file; "" where there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(20_000)
    except OSError:
        return ""
