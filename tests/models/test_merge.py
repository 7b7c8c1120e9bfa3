"""models/merge.py: one whole model that answers as base and adapter did, or none at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models.merge
from briefbox.errors import AdapterError, ModelError
from briefbox.settings import Settings
from models.base import BaseModel, resolve_base_model
from models.merge import compare, merge, refuse_packed, write_merged
from models.registry import VerifiedAdapter, read_card, verify_adapter, write_card
from models.transformers_engine import TransformersEngine
from tests.models.conftest import make_request
from tests.models.test_registry import train

REQUESTS = [
    make_request(text, subject=text[:8])
    for text in ("My parcel 4711 is late.", "Please refund 20 EUR.", "Thank you!", "It is broken again.")
]


@pytest.fixture
def on_tiny(settings: Settings, tiny: BaseModel) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny.path)})


@pytest.fixture
def adapter(on_tiny: Settings, tmp_path: Path) -> Path:
    """A trained one, with a temperature, so that its answers differ from the bare base's."""
    path = tmp_path / "adapters" / "a1"
    train(resolve_base_model(on_tiny), path)
    write_card(path, read_card(path).model_copy(update={"temperatures": {"priority": 3.0, "category": 2.0}}))
    return path


def run(settings: Settings, adapter: Path, out: Path, **options: Any) -> models.merge.Comparison:
    return merge(settings, adapter, None, out, REQUESTS, **{"tolerance": 0.02} | options)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_merged_model_answers_as_base_and_adapter_did_and_loads_as_a_base_model(
    on_tiny: Settings, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "merged"
    found = run(on_tiny, adapter, out)
    assert (found.of, found.changed, found.text_share) == (4, "", 1.0)
    assert found.largest < 1e-3
    assert files(out.parent) == ["merged"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "card.json"} <= set(files(out))
    # The same through the settings, as an operator would use it: also its confidences are the adapter's.
    both = TransformersEngine(on_tiny, dtype=torch.float32)
    both.load_adapter(adapter, "a1")
    merged = TransformersEngine(on_tiny.model_copy(update={"base_model": str(out)}), dtype=torch.float32)
    for one, other in zip(both.brief(REQUESTS, "a1"), merged.brief(REQUESTS), strict=True):
        assert one.priority.scores == pytest.approx(other.priority.scores, abs=1e-3)
        assert (one.headline, one.category.label) == (other.headline, other.category.label)
    bare = both.brief(REQUESTS)
    assert any(
        a.priority.scores != pytest.approx(b.priority.scores, abs=0.02)
        for a, b in zip(bare, merged.brief(REQUESTS), strict=True)
    )
    card = read_card(out)
    assert (card.name, card.method, card.settings["merged_from"]) == ("merged", "merged", "a1")


def damaging(change: float) -> Any:
    """`write_merged`, and then other weights."""

    def write(base: BaseModel, adapter: VerifiedAdapter, folder: Path, name: str) -> BaseModel:
        made = write_merged(base, adapter, folder, name)
        weights = load_file(folder / "model.safetensors")
        torch.manual_seed(3)
        weights = {key: w + change * torch.randn_like(w) for key, w in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return made

    return write


@pytest.mark.parametrize(
    ("change", "tolerance", "why"), [(0.02, 1e-5, "--tolerance"), (1.0, 1.0, "in place of")]
)
def test_changed_answers_are_refused_and_leave_nothing_behind(
    on_tiny: Settings,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: float,
    tolerance: float,
    why: str,
) -> None:
    """A changed label is refused whatever the tolerance."""
    monkeypatch.setattr(models.merge, "write_merged", damaging(change))
    out = tmp_path / "out" / "merged"
    with pytest.raises(AdapterError, match=why) as caught:
        run(on_tiny, adapter, out, tolerance=tolerance)
    assert any(f"“{request.subject}”" in str(caught.value) for request in REQUESTS)
    assert files(out.parent) == []


def test_an_adapter_left_out_of_the_merge_is_found(
    on_tiny: Settings, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole and loads: only its answers tell that it is the bare base."""

    def write_without(base: BaseModel, verified: VerifiedAdapter, folder: Path, name: str) -> BaseModel:
        nothing = {key: torch.zeros_like(weight) for key, weight in verified.weights.items()}
        return write_merged(base, replace(verified, weights=nothing), folder, name)

    monkeypatch.setattr(models.merge, "write_merged", write_without)
    with pytest.raises(AdapterError, match="does not answer as the adapter a1"):
        run(on_tiny, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_label_that_turned_is_worse_than_any_other_difference(on_tiny: Settings, adapter: Path) -> None:
    before = TransformersEngine(on_tiny).brief(REQUESTS)
    scores = before[1].priority.scores
    other = next(label for label in scores if label != before[1].priority.label)
    turned = before[1].model_copy(update={"priority": before[1].priority.model_copy(update={"label": other})})
    far = before[2].priority.model_copy(update={"scores": dict.fromkeys(scores, 0.9)})
    after = [before[0], turned, before[2].model_copy(update={"priority": far, "headline": "x"}), before[3]]
    found = compare(REQUESTS, before, after)
    assert found.worst == REQUESTS[1].subject
    assert found.changed.startswith(f"its priority is {other} in place of")
    assert found.equal_texts == 3


def test_nothing_is_overwritten(on_tiny: Settings, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="never overwritten"):
        run(on_tiny, adapter, tmp_path)


def test_an_altered_adapter_is_not_merged(on_tiny: Settings, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="altered"):
        merge(on_tiny, adapter, "f" * 64, tmp_path / "merged", REQUESTS, tolerance=0.02)


@pytest.mark.parametrize("kind", ["gguf", "config", "int8"])
def test_a_quantised_base_is_refused_in_words(
    settings: Settings, tiny: BaseModel, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    config = json.loads((tiny.path / "config.json").read_text())
    if kind == "gguf":
        (folder / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    else:
        kept = torch.int8 if kind == "int8" else torch.float16
        save_file({"w": torch.zeros(2, 2, dtype=kept)}, folder / "model.safetensors")
    if kind == "config":
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="quantised") as caught:
        refuse_packed(settings.model_copy(update={"base_model": str(folder)}))
    assert "side by side" in str(caught.value)


def test_a_model_trained_with_another_prompt_is_no_base_model(
    on_tiny: Settings, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    write_merged_into(on_tiny, adapter, out)
    write_card(out, read_card(out).model_copy(update={"prompt_version": "brief-0"}))
    with pytest.raises(AdapterError, match="prompt brief-0"):
        TransformersEngine(on_tiny.model_copy(update={"base_model": str(out)}))


def write_merged_into(settings: Settings, adapter: Path, out: Path) -> None:
    base = resolve_base_model(settings)
    out.mkdir()
    write_merged(base, verify_adapter(adapter, base), out, out.name)
