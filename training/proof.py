"""The proof of a roll-back: what is returned to answers the probe set as it did when it was judged.

The adapter's answers were recorded in its card; those of the bare base are kept in a file beside the adapters.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from briefbox.settings import Settings
from briefbox.tables import Adapter
from models.engine import Engine
from training.probes import fingerprint, same_fingerprint

BASE_FILE = Path("adapters") / "base-fingerprint.json"
MOST_DIFFERENCES = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """How many of the answers equal the recorded ones. `proven` is None where none were recorded."""

    proven: bool | None
    equal: int
    of: int
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.proven is None:
            return f"no probe answers were recorded to compare its {self.of} with"
        return f"{self.equal} of {self.of} probe answers equal the recorded fingerprint"

    def facts(self) -> dict[str, Any]:
        """For the history."""
        return asdict(self) | {"differences": list(self.differences)}


def prove(settings: Settings, engine: Engine, adapter: Adapter | None) -> Proof:
    """Load the adapter, ask it the probe set anew and compare. None is the bare base, whose first answers are recorded.

    Raises AdapterError when the adapter is altered or broken, ModelError when the engine cannot answer.
    """
    if adapter is None:
        return _prove_base(settings, engine)
    engine.load_adapter(settings.data_dir / adapter.path, adapter.name, adapter.weights_sha256)
    return _compare(adapter.card.get("fingerprint") or None, fingerprint(engine, adapter.name))


def _prove_base(settings: Settings, engine: Engine) -> Proof:
    now = fingerprint(engine, "")
    file = settings.data_dir / BASE_FILE
    maker = {"engine": engine.name, "base_model": engine.base_model}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    if isinstance(kept, dict) and all(kept.get(key) == value for key, value in maker.items()):
        return _compare(kept.get("fingerprint"), now)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(json.dumps(maker | {"fingerprint": now}) + "\n", encoding="utf-8")
    temporary.replace(file)
    return _compare(None, now)


def _compare(recorded: dict[str, Any] | None, now: dict[str, Any]) -> Proof:
    answers = now["answers"]
    if not recorded:
        return Proof(None, 0, len(answers))
    same, differences = same_fingerprint(recorded, now)
    pairs = zip(recorded.get("answers", ()), answers, strict=False)
    equal = len(answers) if same else sum(before == after for before, after in pairs)
    return Proof(same, equal, len(answers), tuple(differences[:MOST_DIFFERENCES]))
