"""Attention for training on packs: every row sees the shared prefix and itself, and nothing is padded.

The linear layers, which are most of the work, run over one long sequence. Only attention goes row by row,
so that its cost grows with the rows' lengths and not with the pack's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from briefbox.errors import TrainingError
from training.rows import Segment

NAME = "briefbox_packs"


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: Sequence[Segment] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of every layer: see transformers' AttentionInterface.

    `query` is [1, heads, tokens, size], `key` and `value` [1, kv_heads, tokens, size]. Returns [1, tokens, heads,
    size]. Raises TrainingError when it is called without a pack's segments.
    """
    if not segments:
        raise TrainingError("This model was loaded for training on packs; call it with a pack's segments.")
    parts: list[Tensor] = []
    for segment in segments:
        own = slice(segment.start, segment.end)
        keys, values = key[:, :, own], value[:, :, own]
        if segment.num_seen:
            seen = slice(segment.prefix_start, segment.prefix_end)
            keys, values = torch.cat((key[:, :, seen], keys), 2), torch.cat((value[:, :, seen], values), 2)
        simple = not segment.num_seen and not sliding_window
        mask = None if simple else _mask(segment, sliding_window, query)
        parts.append(
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, own],
                keys,
                values,
                attn_mask=mask,
                is_causal=simple,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    # Segments cover the pack from its first token to its last, in order.
    return torch.cat(parts, 2).transpose(1, 2), None


def _mask(segment: Segment, window: int | None, like: Tensor) -> Tensor:
    """What each of the segment's tokens may see: float [own, seen + own], 0 or -inf."""
    own, seen = segment.end - segment.start, segment.num_seen
    mine = torch.arange(seen, seen + own, device=like.device).unsqueeze(1)
    other = torch.arange(seen + own, device=like.device).unsqueeze(0)
    hidden = other > mine
    if window:
        hidden = hidden | (other <= mine - window)
    return torch.zeros(own, seen + own, dtype=like.dtype, device=like.device).masked_fill(
        hidden, float("-inf")
    )


def _no_mask(*_: Any, **__: Any) -> None:
    """transformers need not build a mask over the whole pack: `attend` knows better."""


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _no_mask)
