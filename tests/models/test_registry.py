"""models/registry.py and models/adapters.py: only a whole, harmless, fitting adapter reaches the model."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from briefbox.errors import AdapterError
from briefbox.schemas import AdapterCard
from models.base import BaseModel, file_sha256
from models.prompt import PROMPT_VERSION
from models.quiet import quiet_peft
from models.registry import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_parts,
    read_card,
    verify_adapter,
    write_adapter,
    write_card,
)


def card_for(base: BaseModel, name: str) -> AdapterCard:
    return AdapterCard(
        name=name,
        base_model=base.name,
        base_sha256=base.sha256,
        weights_sha256="",
        prompt_version=PROMPT_VERSION,
        dataset="d1",
        dataset_hash="h",
        num_examples=3,
        created_at=datetime.now(UTC),
    )


def train(base: BaseModel, folder: Path, seed: int = 1) -> AdapterCard:
    """A LoRA with random weights in both halves, as if trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base.path, local_files_only=True)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet_peft():
        lora = get_peft_model(model, config)
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    weights, settings = adapter_parts(lora)
    return write_adapter(folder, weights=weights, config=settings, card=card_for(base, folder.name))


@pytest.fixture
def adapter(tiny: BaseModel, tmp_path: Path) -> Path:
    train(tiny, tmp_path / "a1")
    return tmp_path / "a1"


def alter_weights(path: Path, **changes: Any) -> None:
    """Change weights and make the card agree, as somebody who can write both would."""
    weights = load_file(path / WEIGHTS_FILE) | changes
    save_file({key: tensor for key, tensor in weights.items() if tensor is not None}, path / WEIGHTS_FILE)
    write_card(path, read_card(path).model_copy(update={"weights_sha256": file_sha256(path / WEIGHTS_FILE)}))


def alter_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / CONFIG_FILE).read_text()) | changes
    (path / CONFIG_FILE).write_text(json.dumps(config))


# --- writing and reading


def test_an_adapter_is_written_whole_and_reads_back(tiny: BaseModel, adapter: Path) -> None:
    assert sorted(p.name for p in adapter.iterdir()) == sorted([CARD_FILE, CONFIG_FILE, WEIGHTS_FILE])
    assert [p.name for p in adapter.parent.iterdir()] == ["a1"]
    found = verify_adapter(adapter, tiny, file_sha256(adapter / WEIGHTS_FILE))
    assert (found.card.name, found.config["r"], len(found.weights)) == ("a1", 4, 2 * 7 * 2)


def test_an_adapter_is_never_overwritten(tiny: BaseModel, adapter: Path) -> None:
    with pytest.raises(AdapterError, match="exists already"):
        train(tiny, adapter)


def test_a_card_of_another_format_is_refused(adapter: Path) -> None:
    (adapter / CARD_FILE).write_text('{"format": "briefbox-adapter-9"}')
    with pytest.raises(AdapterError, match="no card of this version"):
        read_card(adapter)


# --- checks


def test_another_base_model_is_refused(adapter: Path, other_base: BaseModel) -> None:
    with pytest.raises(AdapterError, match="was trained on tiny-random"):
        verify_adapter(adapter, other_base)


def test_another_sum_than_the_database_holds_is_refused(adapter: Path, tiny: BaseModel) -> None:
    with pytest.raises(AdapterError, match="the database says"):
        verify_adapter(adapter, tiny, "0" * 64)


def test_altered_weights_are_refused(adapter: Path, tiny: BaseModel) -> None:
    content = bytearray((adapter / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (adapter / WEIGHTS_FILE).write_bytes(bytes(content))
    with pytest.raises(AdapterError, match="its card says"):
        verify_adapter(adapter, tiny)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "adapter_model.bin", "chat_template.jinja", "modeling_x.py"]
)
def test_any_other_file_in_the_folder_is_refused(adapter: Path, tiny: BaseModel, name: str) -> None:
    (adapter / name).write_text("")
    with pytest.raises(AdapterError, match=name):
        verify_adapter(adapter, tiny)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE, CARD_FILE])
def test_a_missing_file_is_refused(adapter: Path, tiny: BaseModel, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(AdapterError, match=f"lacks the file {name}"):
        verify_adapter(adapter, tiny)


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.embed_tokens.weight": torch.zeros(2, 2)}, "expected only lora_A and lora_B"),
        ({f"{Q}.lora_A.weight": torch.full((4, 32), torch.nan)}, "not finite"),
        ({f"{Q}.lora_A.weight": torch.zeros(5, 32)}, "does not fit rank 4"),
        ({f"{Q}.lora_A.weight": None}, "lacks half of a pair"),
    ],
)
def test_weights_that_are_no_plain_lora_are_refused(
    adapter: Path, tiny: BaseModel, changes: dict[str, Any], reason: str
) -> None:
    alter_weights(adapter, **changes)
    with pytest.raises(AdapterError, match=reason):
        verify_adapter(adapter, tiny)


@pytest.mark.parametrize(
    "changes",
    [
        {"modules_to_save": ["lm_head"]},
        {"auto_mapping": {"base_model_class": "x"}},
        {"peft_type": "PROMPT_TUNING"},
        {"bias": "all"},
        {"r": 0},
        {"target_modules": ".*"},
        {"use_dora": True},
    ],
)
def test_a_configuration_that_asks_for_more_is_refused(
    adapter: Path, tiny: BaseModel, changes: dict[str, Any]
) -> None:
    alter_config(adapter, **changes)
    with pytest.raises(AdapterError):
        verify_adapter(adapter, tiny)


# --- in the engine


def scores(engine: Any, request: Any) -> dict[str, float]:
    """Log-probabilities, rounded: the tiny model is sure of itself, so that plain ones would all be 0 or 1."""
    (brief,) = engine.brief([request])
    return {name: round(math.log(share + 1e-300), 2) for name, share in brief.category.scores.items()}


def test_an_adapter_changes_the_answers_and_taking_it_out_restores_them(
    engine: Any, adapter: Path, request_for: Any
) -> None:
    bare = scores(engine, request_for())
    engine.load_adapter(adapter, "champion")
    assert engine.adapter == "champion"
    assert scores(engine, request_for()) != bare
    engine.load_adapter(None)
    assert engine.adapter == ""
    assert scores(engine, request_for()) == bare


def test_the_engine_computes_what_peft_computes(engine: Any, adapter: Path, tiny: BaseModel) -> None:
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet_peft():
        plain = PeftModel(AutoModelForCausalLM.from_pretrained(tiny.path, local_files_only=True), config)
    set_peft_model_state_dict(plain, load_file(adapter / WEIGHTS_FILE))
    engine.load_adapter(adapter)
    ids = torch.tensor([[1, 500, 501]])
    with torch.inference_mode():
        torch.testing.assert_close(engine.model(ids).logits, plain.eval()(input_ids=ids).logits)


def test_one_adapter_replaces_another(engine: Any, adapter: Path, tiny: BaseModel, request_for: Any) -> None:
    train(tiny, adapter.parent / "a2", seed=2)
    engine.load_adapter(adapter.parent / "a2")
    second = scores(engine, request_for())
    engine.load_adapter(adapter)
    first = scores(engine, request_for())
    engine.load_adapter(adapter.parent / "a2")
    assert (engine.adapter, scores(engine, request_for())) == ("a2", second)
    assert first != second


def test_a_refused_adapter_leaves_the_one_in_use(
    engine: Any, adapter: Path, tiny: BaseModel, request_for: Any
) -> None:
    engine.load_adapter(adapter)
    before = scores(engine, request_for())
    train(tiny, adapter.parent / "bad")
    # One layer's weights are gone: every check of the files passes, the model does not fit.
    alter_weights(adapter.parent / "bad", **{f"{Q}.lora_{side}.weight": None for side in "AB"})
    with pytest.raises(AdapterError, match="does not fit"):
        engine.load_adapter(adapter.parent / "bad")
    assert (engine.adapter, scores(engine, request_for())) == ("a1", before)


def test_a_failure_inside_peft_leaves_the_one_in_use(
    engine: Any, adapter: Path, tiny: BaseModel, request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.adapters

    bare = scores(engine, request_for())

    def fail(*_: Any) -> None:
        raise RuntimeError("disk on fire")

    with monkeypatch.context() as patch, pytest.raises(AdapterError, match="disk on fire"):
        patch.setattr(models.adapters, "_fill", fail)
        engine.load_adapter(adapter)
    assert (engine.adapter, scores(engine, request_for())) == ("", bare)
    engine.load_adapter(adapter)
    first = scores(engine, request_for())
    train(tiny, adapter.parent / "a2", seed=2)
    with monkeypatch.context() as patch, pytest.raises(AdapterError, match="disk on fire"):
        patch.setattr(models.adapters, "_fill", fail)
        engine.load_adapter(adapter.parent / "a2")
    assert (engine.adapter, scores(engine, request_for())) == ("a1", first)


def test_an_adapter_of_another_prompt_is_refused(engine: Any, adapter: Path) -> None:
    write_card(adapter, read_card(adapter).model_copy(update={"prompt_version": "brief-0"}))
    with pytest.raises(AdapterError, match="trained with prompt brief-0"):
        engine.load_adapter(adapter)
