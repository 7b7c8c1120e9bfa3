"""Names of hub models and where they lie on this machine. Asks no hub: models.fetch does, on request only."""

import re
from dataclasses import dataclass
from pathlib import Path

from briefbox.errors import ModelError

HUB_FOLDER = "hub"
REVISION = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95})/([A-Za-z0-9][\w.-]{0,95})", re.ASCII)
_FOLDER_NAME = re.compile(r"([A-Za-z0-9][\w.-]*?)--([A-Za-z0-9][\w.-]*)@([0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubModel:
    """One commit of one model: `name` is owner/name, `revision` 40 hex digits."""

    name: str
    revision: str


def hub_model(name: str, revision: str) -> HubModel | None:
    """The hub model that these two name, or None where `name` is a local folder.

    A folder of that name on this machine counts only when no revision is given. Raises ModelError for a hub
    id without a whole commit.
    """
    if not is_hub_id(name) or (not revision and Path(name).is_dir()):
        return None
    if not REVISION.fullmatch(revision):
        found = f"the revision {revision!r} is no commit" if revision else "no commit is given"
        raise ModelError(
            f"{name} is no folder here, and as a model of a hub it may change under its name: {found}; set BRIEFBOX_BASE_REVISION (for `models add`: --revision) to the 40 hex digits of the commit."
        )
    return HubModel(name, revision)


def is_hub_id(name: str) -> bool:
    """Whether this could be a hub's name of a model: owner/name."""
    return _HUB_ID.fullmatch(name) is not None


def hub_folder(models_path: Path, model: HubModel) -> Path:
    """Where a hub model lies once it is fetched."""
    return models_path / HUB_FOLDER / f"{model.name.replace('/', '--')}@{model.revision}"


def fetched(models_path: Path) -> list[tuple[HubModel, Path]]:
    """The hub models on this machine, sorted by name."""
    found: list[tuple[HubModel, Path]] = []
    for path in sorted((models_path / HUB_FOLDER).glob("*@*")):
        match = _FOLDER_NAME.fullmatch(path.name)
        if match and path.is_dir():
            found.append((HubModel(f"{match[1]}/{match[2]}", match[3]), path))
    return found
