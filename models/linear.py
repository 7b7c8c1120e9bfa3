"""Linear layers whose weights are laid out once for the CPU's matrix product.

torch's own product lays a float32 weight out anew at every call, which costs as much as the product itself when
there are few rows, as in decoding. oneDNN's product takes a weight that was laid out before.
"""

import logging
import time
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# The number of rows for which oneDNN chooses the layout. Tried 1, 32 and 512 (docs/benchmarks.md).
ROWS = 32
# How much faster it must be on this machine to be used.
WORTHWHILE = 1.05


class PackedLinear(torch.nn.Linear):
    """A Linear for inference with a second copy of its weight in oneDNN's layout."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """See torch.nn.Linear."""
        # What torch's own compiler calls for a frozen linear layer on a CPU.
        result: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")
        return result


def pack_linears(model: Any) -> bool:
    """Pack every Linear of a float32 model on the CPU, where that is faster here. Returns whether it was done."""
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear]
    if not layers or model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    try:
        ratio = _gain(max(layers[:16], key=lambda layer: layer.weight.numel()))
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.info("linear layers stay as they are: this torch cannot pack them (%s)", error)
        return False
    if ratio < WORTHWHILE:
        log.info("linear layers stay as they are: packed ones were measured %.2f times as fast", ratio)
        return False
    with torch.inference_mode():
        for layer in layers:
            layer.__class__ = PackedLinear
            layer.packed = _pack(layer.weight)
    log.info("linear layers are packed for this CPU: measured %.1f times as fast", ratio)
    return True


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    return packed


def _gain(layer: torch.nn.Linear) -> float:
    """How many times as fast a packed product is for ROWS rows of this layer."""
    with torch.inference_mode():
        rows = torch.ones(ROWS, layer.in_features)
        weight, packed = layer.weight, _pack(layer.weight)
        plain = packs = float("inf")
        for _ in range(12):
            started = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            between = time.perf_counter()
            torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
            plain, packs = (
                min(plain, between - started),
                min(packs, time.perf_counter() - between),
            )
    return plain / packs
