"""models/adapters.py: several adapters in one model, each computing as if it were alone."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import models.adapters
from briefbox.errors import AdapterError
from models.adapters import Adapters
from models.base import BaseModel
from models.quiet import quiet_peft
from models.registry import WEIGHTS_FILE, VerifiedAdapter, verify_adapter
from tests.models.test_registry import alter_weights, train

IDS = torch.tensor([[1, 500, 501, 502], [7, 8, 9, 10]])
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def load_model(base: BaseModel) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base.path, local_files_only=True).eval()


@pytest.fixture(scope="module")
def folder(tiny: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters a, b and c, the last one on two kinds of layers only."""
    path = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("a", "b"), start=1):
        train(tiny, path / name, seed)
    train(tiny, path / "c", 3, target_modules=["q_proj", "v_proj"], r=2)
    return path


@pytest.fixture
def verified(tiny: BaseModel, folder: Path) -> dict[str, VerifiedAdapter]:
    return {name: verify_adapter(folder / name, tiny) for name in ("a", "b", "c")}


@pytest.fixture
def adapters(tiny: BaseModel) -> Adapters:
    return Adapters(load_model(tiny))


def logits(adapters: Adapters, name: str) -> torch.Tensor:
    """Logits [2, 4, vocabulary] under an adapter."""
    with adapters.use(name), torch.inference_mode():
        result: torch.Tensor = adapters.model(IDS).logits
    return result


@pytest.fixture
def alone(tiny: BaseModel, verified: dict[str, VerifiedAdapter]) -> dict[str, torch.Tensor]:
    """What models that only ever had one adapter, or never saw peft, compute."""
    with torch.inference_mode():
        found: dict[str, torch.Tensor] = {"": load_model(tiny)(IDS).logits}
    for name, adapter in verified.items():
        only = Adapters(load_model(tiny))
        only.attach(adapter, name)
        found[name] = logits(only, name)
    return found


def test_each_adapter_computes_as_if_it_were_alone(
    adapters: Adapters, verified: dict[str, VerifiedAdapter], alone: dict[str, torch.Tensor]
) -> None:
    for name, adapter in verified.items():
        adapters.attach(adapter, name)
    assert adapters.names == ("a", "b", "c")
    for name in ("a", "", "b", "c", "a", "b", ""):
        assert torch.equal(logits(adapters, name), alone[name]), name
    assert not torch.equal(alone["a"], alone["b"])


def test_what_it_computes_is_what_peft_computes(
    tiny: BaseModel, folder: Path, alone: dict[str, torch.Tensor]
) -> None:
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet_peft():
        plain = PeftModel(load_model(tiny), config)
    set_peft_model_state_dict(plain, load_file(folder / "a" / WEIGHTS_FILE))
    with torch.inference_mode():
        torch.testing.assert_close(alone["a"], plain.eval()(input_ids=IDS).logits)


def test_outside_of_use_the_model_is_the_bare_base(
    adapters: Adapters, verified: dict[str, VerifiedAdapter], alone: dict[str, torch.Tensor]
) -> None:
    adapters.attach(verified["a"], "a")
    with torch.inference_mode():
        assert torch.equal(adapters.model(IDS).logits, alone[""])
        with pytest.raises(KeyError), adapters.use("a"):
            raise KeyError("a batch failed")
        assert torch.equal(adapters.model(IDS).logits, alone[""])


def test_one_use_inside_another_comes_back_to_the_outer_one(
    adapters: Adapters, verified: dict[str, VerifiedAdapter], alone: dict[str, torch.Tensor]
) -> None:
    adapters.attach(verified["a"], "a")
    with adapters.use("a"), torch.inference_mode():
        assert torch.equal(logits(adapters, ""), alone[""])
        assert torch.equal(adapters.model(IDS).logits, alone["a"])


def test_dropping_one_leaves_the_others_and_dropping_all_leaves_no_trace(
    adapters: Adapters, verified: dict[str, VerifiedAdapter], alone: dict[str, torch.Tensor]
) -> None:
    before = [type(module) for module in adapters.model.modules()]
    for name in ("a", "c", "b"):
        adapters.attach(verified[name], name)
    adapters.drop("c")
    adapters.drop("never there")
    assert adapters.names == ("a", "b")
    assert torch.equal(logits(adapters, "a"), alone["a"])
    with pytest.raises(AdapterError, match=r"c is not resident \(a, b\)"), adapters.use("c"):
        pass
    adapters.drop("a")
    adapters.drop("b")
    assert [type(module) for module in adapters.model.modules()] == before
    assert not hasattr(adapters.model, "peft_config")
    assert torch.equal(logits(adapters, ""), alone[""])
    adapters.attach(verified["b"], "b")
    assert torch.equal(logits(adapters, "b"), alone["b"])


def test_one_of_the_same_name_is_replaced(
    adapters: Adapters, verified: dict[str, VerifiedAdapter], alone: dict[str, torch.Tensor]
) -> None:
    adapters.attach(verified["a"], "champion")
    adapters.attach(verified["c"], "other")
    adapters.attach(verified["b"], "champion")
    assert sorted(adapters.names) == ["champion", "other"]
    assert torch.equal(logits(adapters, "champion"), alone["b"])
    assert torch.equal(logits(adapters, "other"), alone["c"])
    parts = [key for key, _ in adapters.model.named_parameters() if "lora_" in key]
    assert not [key for key in parts if "slot1." in key], "the replaced one still takes memory"


def test_one_that_does_not_fit_changes_nothing(
    adapters: Adapters,
    verified: dict[str, VerifiedAdapter],
    alone: dict[str, torch.Tensor],
    tiny: BaseModel,
    tmp_path: Path,
) -> None:
    adapters.attach(verified["a"], "a")
    train(tiny, tmp_path / "bad")
    # One layer's weights are gone: every check of the files passes, the model does not fit.
    alter_weights(tmp_path / "bad", **{f"{Q}.lora_{side}.weight": None for side in "AB"})
    for name in ("a", "bad"):
        with pytest.raises(AdapterError, match="does not fit the base model"):
            adapters.attach(verify_adapter(tmp_path / "bad", tiny), name)
    assert adapters.names == ("a",)
    assert torch.equal(logits(adapters, "a"), alone["a"])
    with pytest.raises(AdapterError, match="needs a name"):
        adapters.attach(verified["b"], "")


@pytest.mark.parametrize("where", ["_fill", "LoraConfig", "PeftModel"])
def test_a_failure_inside_peft_changes_nothing(
    adapters: Adapters,
    verified: dict[str, VerifiedAdapter],
    alone: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(models.adapters, where, fail)
        with pytest.raises(AdapterError, match="no memory left"):
            adapters.attach(verified["a"], "a")
    assert adapters.names == ()
    assert torch.equal(logits(adapters, ""), alone[""])
    adapters.attach(verified["a"], "a")
    if where == "PeftModel":
        monkeypatch.setattr(adapters._peft, "add_adapter", fail)
    else:
        monkeypatch.setattr(models.adapters, where, fail)
    for name in ("a", "b"):
        with pytest.raises(AdapterError, match="no memory left"):
            adapters.attach(verified["b"], name)
    assert adapters.names == ("a",)
    assert torch.equal(logits(adapters, "a"), alone["a"])
    assert torch.equal(logits(adapters, ""), alone[""])


def test_switching_costs_little(adapters: Adapters, verified: dict[str, VerifiedAdapter]) -> None:
    for name, adapter in verified.items():
        adapters.attach(adapter, name)
    started = time.perf_counter()
    for _ in range(20):
        with adapters.use("a"):
            pass
        with adapters.use("b"):
            pass
    # A switch touches no weight: about 0.2 ms on this model of 14 layers with adapters.
    assert (time.perf_counter() - started) / 40 < 0.02


def test_nothing_asks_for_gradients(adapters: Adapters, verified: dict[str, VerifiedAdapter]) -> None:
    for name, adapter in verified.items():
        adapters.attach(adapter, name)
    with adapters.use("b"):
        assert not any(p.requires_grad for key, p in adapters.model.named_parameters() if "lora_" in key)


# --- in the engine


def test_the_engine_writes_with_each_adapter_as_if_it_were_alone(
    engine: Any, folder: Path, request_for: Any
) -> None:
    requests = [request_for(), request_for("The shop is down since 9:00. Please call 555 0100.")]

    def said(name: str) -> list[tuple[Any, ...]]:
        briefs = engine.brief(requests, name)
        assert {brief.provenance.adapter for brief in briefs} == {name}
        return [(b.priority.scores, b.category.scores, b.headline, b.summary) for b in briefs]

    bare = said("")
    alone = {}
    for name in ("a", "b"):
        assert engine.load_adapter(folder / name) == name
        alone[name] = said(name)
        engine.drop_adapter(name)
    for name in ("a", "b"):
        engine.load_adapter(folder / name)
    assert engine.adapters == ("a", "b")
    assert [said(name) for name in ("b", "", "a", "b")] == [alone["b"], bare, alone["a"], alone["b"]]
    assert alone["a"] != bare != alone["b"]


def test_the_engine_forgets_what_it_prepared_with_a_replaced_adapter(
    engine: Any, folder: Path, request_for: Any
) -> None:
    engine.load_adapter(folder / "a", "champion")
    first = engine.brief([request_for()], "champion")[0]
    engine.load_adapter(folder / "b", "champion")
    second = engine.brief([request_for()], "champion")[0]
    engine.load_adapter(folder / "b", "plain")
    assert second.category.scores == engine.brief([request_for()], "plain")[0].category.scores
    assert second.category.scores != first.category.scores
