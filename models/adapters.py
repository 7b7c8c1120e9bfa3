"""Put a verified LoRA adapter into the loaded model, swap it, take it out again. Knows no files.

peft replaces linear layers inside the model, so the model object stays the same throughout.
"""

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from torch import Tensor

from briefbox.errors import AdapterError
from models.quiet import quiet_peft
from models.registry import VerifiedAdapter

PEFT_PREFIX = "base_model.model."


class AdapterSlot:
    """The one place in a model that holds an adapter, or none."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.name = ""
        self._peft: Any = None
        self._number = 0

    def attach(self, adapter: VerifiedAdapter, name: str) -> None:
        """Use `adapter` from now on.

        Raises AdapterError, with the adapter in use unchanged, when it does not fit the model.
        """
        _check_fits(self.model, adapter)
        # 1. Bring the new one in beside the old one, under a name of its own.
        self._number += 1
        new, old = f"slot{self._number}", self._peft.active_adapter if self._peft else None
        config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, lora_dropout=0.0, **adapter.config)
        with quiet_peft():
            # autocast_adapter_dtype=False: the adapter computes in the model's number format, not in float32.
            if self._peft is None:
                self._peft = PeftModel(self.model, config, adapter_name=new, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(new, config, autocast_adapter_dtype=False)
        try:
            _fill(self._peft, adapter.weights, new)
        except Exception as error:
            self._drop(new, old)
            raise AdapterError(f"The adapter {name} could not be loaded ({error}).") from error
        # 2. Switch, and only then let go of the old one.
        self._peft.set_adapter(new)
        self._peft.requires_grad_(requires_grad=False)
        self._peft.eval()
        if old is not None:
            self._peft.delete_adapter(old)
        self.name = name

    def detach(self) -> None:
        """Go back to the bare base model."""
        if self._peft is not None:
            self._peft.unload()
        self._peft = None
        self.name = ""

    def _drop(self, new: str, old: str | None) -> None:
        if old is None:
            self._peft.unload()
            self._peft = None
        else:
            self._peft.set_adapter(old)
            self._peft.delete_adapter(new)


def _fill(model: Any, weights: Mapping[str, Tensor], slot: str) -> None:
    result = set_peft_model_state_dict(model, dict(weights), adapter_name=slot)
    if result.unexpected_keys:
        raise AdapterError(f"peft knows no weight {result.unexpected_keys[0]}")


def _check_fits(model: Any, adapter: VerifiedAdapter) -> None:
    """Every targeted layer has its pair of weights in the right sizes, and there is no other weight."""
    wanted: dict[str, tuple[int, ...]] = {}
    rank = int(adapter.config["r"])
    for path, module in model.named_modules():
        path = path.replace(".base_layer", "")  # peft's wrapper around a layer that already has an adapter
        if (
            isinstance(module, torch.nn.Linear)
            and path.rpartition(".")[2] in adapter.config["target_modules"]
        ):
            wanted[f"{PEFT_PREFIX}{path}.lora_A.weight"] = (rank, module.in_features)
            wanted[f"{PEFT_PREFIX}{path}.lora_B.weight"] = (module.out_features, rank)
    found = {key: tuple(tensor.shape) for key, tensor in adapter.weights.items()}
    if different := sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)):
        key = different[0]
        raise AdapterError(
            f"The adapter {adapter.card.name} does not fit the base model: {key} has shape {found.get(key)}, expected {wanted.get(key)}."
        )
