"""Base model and adapter become one whole model, which must answer as the two did. Knows no database.

    refuse packed weights -> merge in float32 into a hidden folder -> ask both the same -> compare -> rename

A server that knows no adapters can serve the result, and BRIEFBOX_BASE_MODEL takes its folder.
"""

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from briefbox.errors import AdapterError, ModelError
from briefbox.schemas import Brief, BriefField, BriefRequest, LabelScore
from briefbox.settings import Settings
from models.base import BaseModel, publish_folder, read_json, resolve_base_model, weight_names
from models.catalog import facts_of, find
from models.inspect_model import PLAIN
from models.registry import VerifiedAdapter, verify_adapter, write_card
from models.sums import file_sha256, weights_sha256

LABELS: tuple[BriefField, ...] = ("priority", "category")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers before and after, of `of` emails. `largest` is the greatest difference of a label's probability."""

    of: int
    largest: float
    equal_texts: int
    worst: str  # the subject of the email with the worst difference
    changed: str  # its label, where one is another than before, in words

    @property
    def text_share(self) -> float:
        """In how many of them headline and summary are the same to the letter."""
        return self.equal_texts / self.of if self.of else 1.0


def merge(
    settings: Settings,
    path: Path,
    expected_sha256: str | None,
    out: Path,
    requests: Sequence[BriefRequest],
    *,
    tolerance: float,
) -> Comparison:
    """Write the base model with the adapter in `path` merged into it to the folder `out`, and prove it on `requests`.

    Every label must be the same and every probability within `tolerance`; otherwise nothing is left behind. Raises
    AdapterError, ModelError, OutOfMemoryError.
    """
    out = out.absolute()
    if out.exists():
        raise ModelError(f"{out} exists already; a model is never overwritten, choose another folder.")
    refuse_packed(settings)
    base = resolve_base_model(settings)
    adapter = verify_adapter(path, base, expected_sha256)
    hidden: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        merged = write_merged(base, adapter, hidden, out.name)
        before = _answers(settings, base, requests, adapter)
        found = compare(requests, before, _answers(settings, merged, requests))
        _refuse_changed(adapter.card.name, found, tolerance)
        publish_folder(hidden, out)
    except OSError as error:
        raise ModelError(
            f"The merged model could not be written to {out} ({error.strerror}); make room there or choose another folder."
        ) from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
    return found


def refuse_packed(settings: Settings) -> None:
    """Raise ModelError for a base model in a quantised format: a sum in it would round the adapter away."""
    place = find(settings, "")
    instead = "merge into the model's unquantised form, or serve base and adapter side by side"
    if any(place.path.glob("*.gguf")) and not weight_names(place.path):
        raise ModelError(f"The base model {place.name} is a GGUF file, which is quantised; {instead}.")
    resolved = resolve_base_model(settings)
    if read_json(resolved.path / "config.json", place.name).get("quantization_config"):
        raise ModelError(
            f"The base model {place.name} is quantised (quantization_config in config.json); {instead}."
        )
    if packed := sorted(set(facts_of(place).dtypes) - PLAIN):
        raise ModelError(f"The base model {place.name} is quantised ({', '.join(packed)}); {instead}.")


def write_merged(base: BaseModel, adapter: VerifiedAdapter, folder: Path, name: str) -> BaseModel:
    """Add the adapter to the base's weights, in float32, and save the whole with its tokenizer and its card.

    Raises AdapterError when they do not fit, ModelError when the base cannot be loaded.
    """
    from transformers import AutoTokenizer

    from models.adapters import Adapters
    from models.quiet import quiet_transformers

    adapters = Adapters(_load(base))
    adapters.attach(adapter, adapter.card.name)
    model = adapters.merge(adapter.card.name)
    with quiet_transformers():
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base.path, local_files_only=True).save_pretrained(folder)
    found = weights_sha256([(part, file_sha256(folder / part)) for part in weight_names(folder)])
    # With the adapter's temperatures and thresholds: they belong to its answers, wherever those are computed.
    card = adapter.card.model_copy(
        update={
            "name": name,
            "method": "merged",
            "weights_sha256": found,
            "settings": {**adapter.card.settings, "merged_from": adapter.card.name},
        }
    )
    write_card(folder, card)
    return BaseModel(name, folder, found, found[:12])


def compare(requests: Sequence[BriefRequest], before: Sequence[Brief], after: Sequence[Brief]) -> Comparison:
    """How far the answers lie apart."""
    largest, worst, changed, equal_texts = -1.0, "", "", 0
    for request, old, new in zip(requests, before, after, strict=True):
        equal_texts += (old.headline, old.summary) == (new.headline, new.summary)
        for field in LABELS:
            one: LabelScore = getattr(old, field)
            other: LabelScore = getattr(new, field)
            apart = max(abs(one.scores[label] - other.scores[label]) for label in one.scores)
            turned = one.label != other.label
            # Another label is worse than any difference that leaves it.
            if (turned, apart) > (bool(changed), largest):
                largest, worst = apart, request.subject
                changed = f"its {field} is {other.label} in place of {one.label}" if turned else ""
    return Comparison(len(requests), max(largest, 0.0), equal_texts, worst, changed)


def _refuse_changed(name: str, found: Comparison, tolerance: float) -> None:
    if not found.changed and found.largest <= tolerance:
        return
    what = found.changed or f"a probability differs by {found.largest:.3f} (allowed: {tolerance:g})"
    more = "" if found.changed else ", or allow more with --tolerance"
    raise AdapterError(
        f"The merged model does not answer as the adapter {name} does, so it was not kept: for the probe “{found.worst}” {what}. Serve base and adapter side by side{more}."
    )


def _answers(
    settings: Settings,
    base: BaseModel,
    requests: Sequence[BriefRequest],
    adapter: VerifiedAdapter | None = None,
) -> list[Brief]:
    """In float32, so that only the merging can differ. The model is let go of before the next one is loaded."""
    import torch

    from models.transformers_engine import TransformersEngine

    engine = TransformersEngine(settings, base=base, dtype=torch.float32)
    try:
        name = ""
        if adapter is not None:
            name = engine.load_adapter(
                adapter.path, adapter.card.name, expected_sha256=adapter.card.weights_sha256
            )
        return engine.brief(requests, name)
    finally:
        del engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _load(base: BaseModel) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from models.quiet import quiet_transformers

    try:
        with quiet_transformers():
            # On the CPU: merging is one sum for each weight, and the device may be briefing mail.
            return AutoModelForCausalLM.from_pretrained(
                base.path,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            ).eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"The base model in {base.path} cannot be loaded ({error}); check it with: briefbox models check"
        ) from error
