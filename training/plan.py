"""How a step of training is cut into packs: from what the model takes for a token, and the memory that is free."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from briefbox.errors import OutOfMemoryError
from briefbox.settings import Settings
from training.rows import Row

# On a machine that also serves mail, training takes at most this; and half of what is free in any case.
CPU_BUDGET = 2_400_000_000
FREE_SHARE = 0.5
# Forward and backward of a frozen base are about equal; computing activations again is one forward more.
COST, COST_CHECKPOINTING = 2.0, 3.0
# Values that autograd keeps for each token and layer, in widths of the hidden and of the inner layer (measured
# on the default model with LoRA on all linear layers: docs/training-log.md).
KEPT_HIDDEN, KEPT_INNER = 14, 5
# Logits, their softmax and their gradient.
KEPT_LOGITS = 3
# A small dataset is learned in smaller steps, so that an epoch has so many: a few large ones teach hardly anything
# (docs/training-log.md). But a step holds at least as much of its own as of the common prefix.
STEPS_PER_EPOCH = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """`pack_tokens` are computed at once, `packs_per_step` times before the weights change."""

    pack_tokens: int
    packs_per_step: int
    checkpointing: bool


def make_plan(model: Any, rows: Sequence[Row], settings: Settings, device: torch.device) -> Plan:
    """The fastest plan that fits. Raises OutOfMemoryError when not even the longest row does."""
    config = model.config.get_text_config()
    return choose(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        value_bytes=next(model.parameters()).element_size(),
        rows=rows,
        step_tokens=settings.train_tokens,
        budget=_budget(device, _optimizer_bytes(model)),
    )


def choose(
    *,
    layers: int,
    hidden: int,
    inner: int,
    vocabulary: int,
    value_bytes: int,
    rows: Sequence[Row],
    step_tokens: int,
    budget: float,
) -> Plan:
    """See make_plan; pure. `budget` in bytes, `step_tokens` at most (BRIEFBOX_TRAIN_TOKENS), `value_bytes` of one activation."""
    prefix = max(len(row.prefix) for row in rows)
    longest = max(len(row) for row in rows)
    step_tokens = min(step_tokens, _small_step(rows, prefix))
    answers = sum(row.num_targets for row in rows) / sum(len(row.own) for row in rows)
    best: tuple[float, Plan] | None = None
    for packs, checkpointing in product((1, 2, 3, 4, 6, 8, 12, 16), (False, True)):
        tokens = max(step_tokens // packs, longest)
        own = max(tokens - prefix, 1)
        layer = (KEPT_HIDDEN * hidden + KEPT_INNER * inner) * value_bytes
        kept = layers * hidden * value_bytes + layer if checkpointing else layers * layer
        # Logits are float32 in any case.
        size = tokens * kept + own * answers * vocabulary * 4 * KEPT_LOGITS
        cost = (COST_CHECKPOINTING if checkpointing else COST) * tokens / own
        if size <= budget and (best is None or cost < best[0]):
            best = cost, Plan(tokens, max(1, round(step_tokens / tokens)), checkpointing)
    if best is None:
        raise OutOfMemoryError(
            f"The longest example has {longest} tokens, which do not fit into {budget / 1e9:.1f} GB of memory; lower BRIEFBOX_MAX_EMAIL_TOKENS, or free memory."
        )
    return best[1]


def _small_step(rows: Sequence[Row], prefix: int) -> int:
    """Tokens of a step of which an epoch has STEPS_PER_EPOCH."""
    own = sum(len(row.own) for row in rows) / STEPS_PER_EPOCH
    return round(prefix + max(own, prefix))


def _optimizer_bytes(model: Any) -> float:
    """Gradient and Adam's two moments of what is learned, and the weights themselves: not there yet."""
    learned: int = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return 12.0 * float(learned)


def _budget(device: torch.device, spoken_for: float) -> float:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free) * 0.8 - spoken_for
    return min(CPU_BUDGET, (free_ram() - spoken_for) * FREE_SHARE)


def free_ram(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Bytes that the machine can give without swapping; a great deal where it does not say."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float(CPU_BUDGET) * 4
