"""What an adapter may hold: a plain LoRA of finite, moderate numbers, and a card whose numbers make sense.

Each check raises AdapterError with one sentence that names the adapter and what was found. Knows no files.
"""

import json
import math
import re
from typing import TYPE_CHECKING, Any

from briefbox.errors import AdapterError
from briefbox.schemas import PRIORITIES, AdapterCard

if TYPE_CHECKING:
    from torch import Tensor

# A weight's name as peft writes it.
LORA_KEY = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")

MAX_RANK = 1024
# Trained LoRA weights stay below 10; one this large drowns the base model in every answer.
MAX_WEIGHT = 1e4
MAX_ALPHA = 1e4
# A temperature beyond these makes every confidence 0 or 1, or all of them equal.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3

# What peft may be told by an adapter. Everything else (modules_to_save, auto_mapping, layer replication,
# other base models ...) stays at peft's default, and a value that differs from it is refused.
_CONFIG_KEYS = frozenset({"r", "lora_alpha", "target_modules", "use_rslora"})
_CONFIG_MUST_BE_EMPTY = (
    "auto_mapping",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "layer_replication",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "lora_bias",
)
_LABELLED = ("priority", "category")


def check_card(card: AdapterCard) -> None:
    """Temperatures and thresholds are for fields that are scored, and in their ranges."""
    for key, value in card.temperatures.items():
        if key not in _LABELLED:
            raise AdapterError(
                f"The card of adapter {card.name} has a temperature for {key[:80]!r}; expected {' or '.join(_LABELLED)}."
            )
        if not MIN_TEMPERATURE <= value <= MAX_TEMPERATURE:
            raise AdapterError(
                f"The card of adapter {card.name} says temperature {value} for {key}; expected {MIN_TEMPERATURE} to {MAX_TEMPERATURE:g}."
            )
    for key, value in card.thresholds.items():
        field, _, label = key.partition("/")
        known = field in _LABELLED and (label in PRIORITIES if field == "priority" else bool(label))
        if not (known or key in _LABELLED):
            raise AdapterError(
                f"The card of adapter {card.name} has a threshold for {key[:80]!r}; expected priority, category, priority/LABEL or category/LABEL."
            )
        if not 0 <= value <= 1:
            raise AdapterError(
                f"The card of adapter {card.name} says threshold {value} for {key}; expected 0 to 1."
            )


def check_config(name: str, content: bytes) -> dict[str, Any]:
    """What peft may know of the configuration: sizes and the names of linear layers."""
    try:
        config = json.loads(content)
        modules = config["target_modules"]
        valid = (
            config["peft_type"] == "LORA"
            and config.get("bias", "none") == "none"
            and type(config["r"]) is int
            and 1 <= config["r"] <= MAX_RANK
            and type(config["lora_alpha"]) in (int, float)
            and math.isfinite(config["lora_alpha"])
            and 0 < config["lora_alpha"] <= MAX_ALPHA
            and isinstance(config.get("use_rslora", False), bool)
            and isinstance(modules, list)
            and all(isinstance(module, str) and re.fullmatch(r"\w+", module) for module in modules)
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise AdapterError(f"The adapter {name} has an unreadable configuration ({error!r}).") from error
    if not valid:
        raise AdapterError(f"The adapter {name} is no plain LoRA by its configuration.")
    for key in _CONFIG_MUST_BE_EMPTY:
        if config.get(key):
            raise AdapterError(f"The adapter {name} sets {key} in its configuration, which is not allowed.")
    return {key: config[key] for key in _CONFIG_KEYS if key in config}


def check_weights(name: str, content: bytes, rank: int) -> "dict[str, Tensor]":
    """Only pairs of A [rank, in] and B [out, rank] matrices of finite numbers no larger than MAX_WEIGHT."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(f"The weights of adapter {name} are no readable safetensors ({error}).") from error
    sides: dict[str, set[str]] = {}
    for key, tensor in weights.items():
        match = LORA_KEY.fullmatch(key)
        if match is None:
            raise AdapterError(
                f"The adapter {name} holds the weight {key[:80]!r}; expected only lora_A and lora_B."
            )
        if tensor.ndim != 2 or tensor.shape[0 if match["side"] == "A" else 1] != rank:
            raise AdapterError(
                f"The weight {key} of adapter {name} has shape {list(tensor.shape)}, which does not fit rank {rank}."
            )
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise AdapterError(
                f"The weight {key} of adapter {name} has type {tensor.dtype}; expected float32, float16 or bfloat16."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f"The weight {key} of adapter {name} holds values that are not finite numbers."
            )
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if largest > MAX_WEIGHT:
            raise AdapterError(
                f"The weight {key} of adapter {name} holds {largest:.3g}; no trained adapter has values above {MAX_WEIGHT:g}, so this one is broken."
            )
        sides.setdefault(match["module"], set()).add(match["side"])
    if not sides or any(found != {"A", "B"} for found in sides.values()):
        raise AdapterError(f"The adapter {name} lacks half of a pair of lora_A and lora_B weights.")
    return weights
