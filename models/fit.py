"""How much memory a base model needs, and whether this machine has it. Arithmetic on shapes; nothing is loaded.

needed = weights + cache of one full batch + what a pass computes with + the libraries themselves
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from briefbox.settings import Settings

# As models.transformers_engine and models.session have them (a test compares); importing those takes seconds.
RESERVED_TOKENS = 1000
PASS_TOKENS = 1024
# Shared beginnings of prompts that are held at once: the categories' own, one for the adapter in use, one on trial.
PREFIXES = 3
# torch, transformers and peft: 0.4 GB measured on a CPU; the rest is left for CUDA's context and workspaces.
LIBRARY_BYTES = 900_000_000
# What the system, a display or other processes keep for themselves.
USABLE_SHARE = 0.9

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a model's memory. `hidden`, `intermediate` and `vocabulary` are widths; of experts, those of one token."""

    parameters: int
    layers: int
    kv_heads: int
    head_size: int
    hidden: int
    intermediate: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a model needs for one full batch."""

    weights: int
    cache: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.overhead


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the model would run: its memory in bytes, and the number format that the settings give there."""

    device: str
    name: str
    total: int
    precision: str

    @property
    def usable(self) -> int:
        """Bytes that a model may take."""
        return int(self.total * USABLE_SHARE)


# One for each size of machine; docs/models.md says why. Shapes by their published configurations.
RECOMMENDED: dict[str, Shape] = {
    "Qwen/Qwen3-30B-A3B-Instruct-2507": Shape(30_500_000_000, 48, 4, 128, 2048, 6144, 151_936),
    "ibm-granite/granite-3.3-8b-instruct": Shape(8_170_000_000, 40, 8, 128, 4096, 12_800, 49_159),
    "ibm-granite/granite-3.3-2b-instruct": Shape(2_530_000_000, 40, 8, 64, 2048, 8192, 49_159),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(1_540_000_000, 28, 2, 128, 1536, 8960, 151_936),
    "packaged": Shape(134_515_008, 30, 3, 64, 576, 1536, 49_152),
}


def shape_of(config: dict[str, Any], parameters: int) -> Shape | None:
    """The shape that a config.json tells; None where it lacks what is needed."""
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config

    def first(*names: str) -> int:
        return next((int(text[name]) for name in names if isinstance(text.get(name), int)), 0)

    layers, heads = first("num_hidden_layers", "n_layer"), first("num_attention_heads", "n_head")
    hidden = first("hidden_size", "n_embd")
    if not (layers and heads and hidden):
        return None
    experts = first("num_experts_per_tok") * first("moe_intermediate_size", "intermediate_size")
    return Shape(
        parameters=parameters,
        layers=layers,
        kv_heads=first("num_key_value_heads") or heads,
        head_size=first("head_dim") or hidden // heads,
        hidden=hidden,
        intermediate=experts or first("intermediate_size", "n_inner") or 4 * hidden,
        vocabulary=first("vocab_size"),
    )


def row_tokens(settings: Settings) -> int:
    """Most tokens of one email's prompt and answer, instructions and categories included."""
    return (
        settings.max_email_tokens
        + RESERVED_TOKENS
        + settings.max_headline_tokens
        + settings.max_summary_tokens
    )


def memory(shape: Shape, settings: Settings, precision: str) -> Memory:
    """What the model needs in this number format for one full batch of these settings."""
    size = BYTES[precision]
    row = row_tokens(settings)
    # A batch is bounded by emails and by tokens; one email is always allowed.
    rows = min(settings.batch_size * row, max(settings.max_batch_tokens, row))
    token = 2 * shape.layers * shape.kv_heads * shape.head_size * size  # keys and values
    # The widest moments of a pass: the logits (kept once more in float32), and one layer's gate and up.
    logits = PASS_TOKENS * shape.vocabulary * (size + 4)
    layer = PASS_TOKENS * (3 * shape.intermediate + 8 * shape.hidden) * size
    return Memory(
        weights=shape.parameters * size,
        cache=(rows + PREFIXES * RESERVED_TOKENS) * token,
        overhead=logits + layer + LIBRARY_BYTES,
    )


def this_machine(settings: Settings) -> Machine:
    """The device that the settings choose. Imports torch. Raises ModelError when CUDA is asked for and absent."""
    import torch

    from models.device import choose_device, choose_dtype, describe

    device = choose_device(settings)
    precision = str(choose_dtype(device, settings)).removeprefix("torch.")
    if device.type == "cuda":
        total = int(torch.cuda.get_device_properties(device).total_memory)
        return Machine("cuda", describe(device), total, precision)
    return Machine("cpu", "this machine's RAM", ram_bytes(), precision)


def ram_bytes(limit_file: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of RAM that this process may use: the machine's, or its container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(limit_file.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def what_fits(shape: Shape, settings: Settings, machine: Machine) -> str:
    """What a person may change so that something fits, as one sentence."""
    ways: list[str] = []
    if machine.precision == "float32" and memory(shape, settings, "bfloat16").total <= machine.usable:
        ways.append("BRIEFBOX_PRECISION=bfloat16")
    size = settings.batch_size
    while (size := size // 2) >= 1:
        smaller = settings.model_copy(update={"batch_size": size})
        if memory(shape, smaller, machine.precision).total <= machine.usable:
            ways.append(f"BRIEFBOX_BATCH_SIZE={size}")
            break
    for name, other in RECOMMENDED.items():
        if other.parameters < shape.parameters and fits(other, settings, machine):
            ways.append(f"the model {name} (docs/models.md)")
            break
    return f"What would fit: {', or '.join(ways)}." if ways else "No model fits here with these settings."


def fits(shape: Shape, settings: Settings, machine: Machine) -> bool:
    """Whether the model has room for one full batch."""
    return memory(shape, settings, machine.precision).total <= machine.usable
