"""Several verified LoRA adapters in one loaded model, used one at a time, or none. Knows no files.

peft replaces linear layers inside the model, so the model object stays the same throughout. Each adapter
sits in a slot of its own; the slots' names are ours, so that an adapter can be replaced by its namesake:
the new one is whole before the old one goes. Who stays resident is the caller's business.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor

from briefbox.errors import AdapterError
from models.quiet import quiet_peft
from models.registry import VerifiedAdapter

PEFT_PREFIX = "base_model.model."


class Adapters:
    """The adapters that are resident in a model. Outside of `use` the model is the bare base."""

    def __init__(self, model: Any) -> None:
        """`model` is a transformers model; nothing in it changes until the first `attach`."""
        self.model = model
        self._slots: dict[str, str] = {}  # name -> slot in peft
        self._number = 0
        self._used = ""
        self._peft: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The resident adapters, oldest first."""
        return tuple(self._slots)

    def attach(self, adapter: VerifiedAdapter, name: str) -> None:
        """Make `adapter` resident under `name`; one of the same name is replaced.

        Raises AdapterError, with everything as it was, when it does not fit the model or cannot be loaded.
        """
        if not name:
            raise AdapterError(
                "An adapter needs a name; the empty one stands for the bare base model. Give it another."
            )
        _check_fits(self.model, adapter)
        # 1. Bring the new one in beside the others, under a slot of its own.
        self._number += 1
        slot = f"slot{self._number}"
        try:
            self._inject(adapter, slot)
        except Exception as error:
            self._remove(slot)
            raise AdapterError(f"The adapter {name} could not be loaded ({error}).") from error
        # 2. Give it the name, and only then let go of the one that had it.
        old = self._slots.pop(name, None)
        self._slots[name] = slot
        if old is not None:
            self._remove(old)

    def drop(self, name: str) -> None:
        """Let go of an adapter and its memory; nothing happens when there is none of this name."""
        if (slot := self._slots.pop(name, None)) is not None:
            self._remove(slot)

    def merge(self, name: str) -> Any:
        """Fold an adapter into the weights and return the plain model; this object is of no use afterwards.

        Raises AdapterError when it is not resident or the sums are not finite.
        """
        if name not in self._slots:
            raise AdapterError(f"The adapter {name} is not resident; load it first.")
        try:
            return self._peft.merge_and_unload(safe_merge=True, adapter_names=[self._slots[name]])
        except ValueError as error:
            raise AdapterError(f"The adapter {name} cannot be merged ({error}).") from error

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Inside the block the model computes with this adapter, or with the bare base for "".

        Raises AdapterError when the adapter is not resident.
        """
        if name and name not in self._slots:
            raise AdapterError(
                f"The adapter {name} is not resident ({', '.join(self._slots) or 'none is'}); load it first."
            )
        before = self._used
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before if before in self._slots else "")

    def _switch(self, name: str) -> None:
        if name == self._used:
            return
        # With no slot active, peft's layers return what the layer inside them returns: the bare base, exactly.
        self._peft.base_model.set_adapter([self._slots[name]] if name else [], inference_mode=True)
        self._used = name

    def _inject(self, adapter: VerifiedAdapter, slot: str) -> None:
        config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, lora_dropout=0.0, **adapter.config)
        with quiet_peft():
            # autocast_adapter_dtype=False: the adapter computes in the model's number format, not in float32.
            if self._peft is None:
                self._peft = PeftModel(self.model, config, adapter_name=slot, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(slot, config, autocast_adapter_dtype=False)
        _fill(self._peft, adapter.weights, slot)
        self._peft.requires_grad_(requires_grad=False)
        self._peft.eval()
        self._activate_again()

    def _remove(self, slot: str) -> None:
        """Take a slot out, wherever its injection stopped; without a slot the model is what it was before peft."""
        if not self._slots:
            _strip(self.model)
            self._peft, self._used = None, ""
            return
        if self._used not in self._slots:
            self._used = ""
        self._activate_again()  # peft warns when the active one is deleted
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.delete_adapter(slot)
        self._peft.peft_config.pop(slot, None)

    def _activate_again(self) -> None:
        """Adding or removing a slot may change which one peft has active."""
        slots = [self._slots[self._used]] if self._used else []
        self._peft.base_model.set_adapter(slots, inference_mode=True)


def _strip(model: Any) -> None:
    """Put every layer that peft wrapped back in its place."""
    for parent in list(model.modules()):
        for child, module in list(parent.named_children()):
            if isinstance(module, LoraLayer):
                setattr(parent, child, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _fill(model: Any, weights: Mapping[str, Tensor], slot: str) -> None:
    result = set_peft_model_state_dict(model, dict(weights), adapter_name=slot)
    if result.unexpected_keys:
        raise AdapterError(f"peft knows no weight {result.unexpected_keys[0]}")


def _check_fits(model: Any, adapter: VerifiedAdapter) -> None:
    """Every targeted layer has its pair of weights in the right sizes, and there is no other weight."""
    wanted: dict[str, tuple[int, ...]] = {}
    rank = int(adapter.config["r"])
    for path, module in model.named_modules():
        if ".lora_" in path:
            continue  # the weights of an adapter that is resident already
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
