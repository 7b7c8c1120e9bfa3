"""models/registry.py and models/adapter_checks.py: only a whole, harmless adapter for this base is read."""

import json
import math
import pickle
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


def train(
    base: BaseModel,
    folder: Path,
    seed: int = 1,
    *,
    target_modules: str | list[str] = "all-linear",
    r: int = 4,
) -> AdapterCard:
    """A LoRA with random weights in both halves, as if trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base.path, local_files_only=True)
    config = LoraConfig(r=r, lora_alpha=8, target_modules=target_modules, task_type="CAUSAL_LM")
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
    "name", ["tokenizer.json", "adapter_model.bin", "chat_template.jinja", "modeling_x.py", ".hidden"]
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


def test_a_pickle_under_the_weights_name_is_never_unpickled(
    adapter: Path, tiny: BaseModel, tmp_path: Path
) -> None:
    trace = tmp_path / "was-run"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trace,)

    (adapter / WEIGHTS_FILE).write_bytes(pickle.dumps(Payload()))
    sum_ = file_sha256(adapter / WEIGHTS_FILE)
    write_card(adapter, read_card(adapter).model_copy(update={"weights_sha256": sum_}))
    with pytest.raises(AdapterError, match="no readable safetensors"):
        verify_adapter(adapter, tiny)
    assert not trace.exists()


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE, CARD_FILE])
def test_a_link_in_the_folder_is_refused(adapter: Path, tiny: BaseModel, tmp_path: Path, name: str) -> None:
    (adapter / name).rename(tmp_path / name)
    (adapter / name).symlink_to(tmp_path / name)
    with pytest.raises(AdapterError, match=f"{name} is a link"):
        verify_adapter(adapter, tiny)


def test_a_link_in_place_of_the_folder_is_refused(adapter: Path, tiny: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(adapter)
    with pytest.raises(AdapterError, match="is a link to another folder"):
        verify_adapter(tmp_path / "link", tiny)


def test_a_file_that_is_far_too_large_is_not_read(
    adapter: Path, tiny: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.registry.MAX_WEIGHTS_BYTES", 100)
    with pytest.raises(AdapterError, match="larger than 100 bytes"):
        verify_adapter(adapter, tiny)


def test_an_adapter_of_another_prompt_is_refused(adapter: Path, tiny: BaseModel) -> None:
    write_card(adapter, read_card(adapter).model_copy(update={"prompt_version": "brief-0"}))
    with pytest.raises(AdapterError, match="trained with prompt brief-0"):
        verify_adapter(adapter, tiny)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"temperatures": {"priority": 0.0}}, "temperature 0.0 for priority; expected 0.001 to 1000"),
        ({"temperatures": {"priority": -1.0}}, "temperature -1.0"),
        ({"temperatures": {"category": math.inf}}, "temperature inf"),
        ({"temperatures": {"category": math.nan}}, "temperature nan"),
        ({"temperatures": {"headline": 1.0}}, "temperature for 'headline'; expected priority or category"),
        ({"thresholds": {"priority": 1.5}}, "threshold 1.5 for priority; expected 0 to 1"),
        ({"thresholds": {"priority": math.nan}}, "threshold nan"),
        ({"thresholds": {"priority/soon": 0.5}}, "threshold for 'priority/soon'"),
        ({"thresholds": {"category/": 0.5}}, "threshold for 'category/'"),
        ({"thresholds": {"summary": 0.5}}, "threshold for 'summary'"),
    ],
)
def test_a_card_whose_numbers_make_no_sense_is_refused(
    adapter: Path, tiny: BaseModel, changes: dict[str, Any], reason: str
) -> None:
    card = json.loads((adapter / CARD_FILE).read_text()) | changes
    (adapter / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(AdapterError) as refused:
        verify_adapter(adapter, tiny)
    assert reason in str(refused.value)


def test_a_card_with_fitted_numbers_is_taken(adapter: Path, tiny: BaseModel) -> None:
    fitted = {
        "temperatures": {"priority": 1.4, "category": 0.8},
        "thresholds": {"priority": 0.5, "priority/urgent": 0.3, "category/Billing": 0.6, "category": 0.0},
    }
    write_card(adapter, read_card(adapter).model_copy(update=fitted))
    assert verify_adapter(adapter, tiny).card.thresholds["priority/urgent"] == 0.3


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.embed_tokens.weight": torch.zeros(2, 2)}, "expected only lora_A and lora_B"),
        ({f"{Q}.lora_A.weight": torch.full((4, 32), torch.nan)}, "not finite"),
        ({f"{Q}.lora_A.weight": torch.zeros(5, 32)}, "does not fit rank 4"),
        ({f"{Q}.lora_A.weight": None}, "lacks half of a pair"),
        ({f"{Q}.lora_B.weight": torch.full((32, 4), torch.inf)}, "not finite"),
        ({f"{Q}.lora_B.weight": torch.full((32, 4), -2e4)}, "holds 2e\\+04; no trained adapter"),
        ({f"{Q}.lora_B.weight": torch.ones(32, 4, dtype=torch.int32)}, "has type torch.int32"),
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
        {"r": True},
        {"lora_alpha": math.inf},
        {"lora_alpha": 1e9},
        {"lora_alpha": 0},
        {"use_rslora": "yes"},
    ],
)
def test_a_configuration_that_asks_for_more_is_refused(
    adapter: Path, tiny: BaseModel, changes: dict[str, Any]
) -> None:
    alter_config(adapter, **changes)
    with pytest.raises(AdapterError):
        verify_adapter(adapter, tiny)
