"""The starter adapter that comes with briefbox: in use on a new installation, until corrections make a better one."""

import logging
import shutil
from pathlib import Path
from tempfile import mkdtemp

from briefbox.db import Database
from briefbox.errors import AdapterError
from briefbox.schemas import AdapterCard
from briefbox.settings import PACKAGED_MODEL, Settings
from briefbox.store import adapters
from briefbox.tables import Adapter

log = logging.getLogger(__name__)

STARTER = Path(__file__).with_name("starter_adapter")
FOLDER = "adapters"
ACTOR = "installation"


def shipped(settings: Settings) -> Path | None:
    """The starter's folder, where it goes with these settings: the packaged base, an engine that loads adapters."""
    fits = settings.engine == "transformers" and settings.base_model == PACKAGED_MODEL
    return STARTER if fits and settings.starter_adapter and (STARTER / "card.json").exists() else None


def install_starter(database: Database, settings: Settings, source: Path = STARTER) -> str:
    """Put the starter in use where nothing was ever trained or promoted. Returns its name, or "".

    Only for the packaged base model, which it was made for, and the engine that loads adapters. Whoever rolled
    back to the bare base keeps that: this happens once. Raises AdapterError when it cannot be written.
    """
    if (
        settings.engine != "transformers"
        or settings.base_model != PACKAGED_MODEL
        or not settings.starter_adapter
    ):
        return ""
    if not (source / "card.json").exists():
        return ""
    with database.read() as session:
        if adapters.all_of(session, removed=True) or adapters.promotions(session):
            return ""
    card = AdapterCard.model_validate_json((source / "card.json").read_text(encoding="utf-8"))
    _copy(source, settings.ensure_data_dir() / FOLDER / card.name)
    with database.write() as session:
        # Again, now that nobody else writes: two services may start at the same moment.
        if adapters.all_of(session, removed=True) or adapters.promotions(session):
            return ""
        session.add(
            Adapter(
                name=card.name,
                path=f"{FOLDER}/{card.name}",
                base_model=card.base_model,
                weights_sha256=card.weights_sha256,
                card=card.model_dump(mode="json"),
                created_at=card.created_at,
            )
        )
        session.flush()
        adapters.promote(session, card.name, actor=ACTOR, four_eyes=False)
    log.info("the adapter %s that comes with briefbox is in use", card.name)
    return card.name


def _copy(source: Path, target: Path) -> None:
    """Whole or not there; one that is there already is the same, since it can only have come from here."""
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(prefix=".starter.", dir=target.parent))
        try:
            for name in ("adapter_model.safetensors", "adapter_config.json", "card.json"):
                shutil.copyfile(source / name, temporary / name)
            temporary.rename(target)
        except OSError:
            if not target.exists():  # another process was quicker
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise AdapterError(
            f"The starter adapter could not be written to {target} ({error.strerror}); make room in BRIEFBOX_DATA_DIR, or do without it: BRIEFBOX_STARTER_ADAPTER=false"
        ) from error
