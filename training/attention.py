"""Attention for training on packs: every row sees the shared prefix and itself, and nothing is padded.

The linear layers, which are most of the work, run over one long sequence. Only attention goes row by row,
so that its cost grows with the rows' lengths and not with the pack's. On a GPU, which waits for work when it is given so
little at once, rows of about the same length go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from briefbox.errors import TrainingError
from training.rows import Segment

NAME = "briefbox_packs"
# Not cuDNN's, which torch would take: it builds a program for every new shape, and nearly every pack has one.
KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that are computed together, padded to the longest: see `group`."""

    queries: Tensor  # int64 [rows, width]: the place in the pack of each of a row's own tokens
    keys: Tensor  # int64 [rows, seen + width]: of what it may see, the prefix first
    may_see: Tensor  # bool [rows, 1, width, seen + width]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a pack is computed on a GPU."""

    groups: tuple[Group, ...]
    order: Tensor  # int64 [tokens]: where in the groups' padded queries, one after the other, a pack's token lies


def group(segments: Sequence[Segment], device: torch.device, window: int | None = None) -> Layout:
    """The segments of a pack sorted by length, those within a factor of two of each other together."""
    by_size: dict[int, list[Segment]] = {}
    for segment in segments:
        by_size.setdefault((segment.end - segment.start - 1).bit_length(), []).append(segment)
    groups: list[Group] = []
    order = torch.empty(max(segment.end for segment in segments), dtype=torch.int64)
    used = 0
    for members in by_size.values():
        width = max(s.end - s.start for s in members)
        seen = max(s.num_seen for s in members)
        own, before = torch.arange(width), torch.arange(seen)
        starts, lengths, prefixes, sizes = torch.tensor(
            [(s.start, s.end - s.start, s.prefix_start, s.num_seen) for s in members]
        ).T[:, :, None]
        queries = starts + torch.minimum(own, lengths - 1)
        keys = torch.cat((prefixes + torch.minimum(before, (sizes - 1).clamp(min=0)), queries), dim=1)
        # Positions count from the beginning of the prefix. A padded query sees what the row's last one does, and is
        # left out; a padded key is after every query.
        at = torch.cat((before.expand(len(members), -1), sizes + own), dim=1)
        there = torch.cat((before < sizes, own < lengths), dim=1)
        mine = sizes + torch.minimum(own, lengths - 1)
        may_see = there[:, None, :] & (at[:, None, :] <= mine[:, :, None])
        if window:
            may_see &= at[:, None, :] > mine[:, :, None] - window
        groups.append(Group(queries.to(device), keys.to(device), may_see[:, None].to(device)))
        for number, segment in enumerate(members):
            order[segment.start : segment.end] = used + number * width + own[: segment.end - segment.start]
        used += len(members) * width
    return Layout(tuple(groups), order.to(device))


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
    layouts: dict[int | None, Layout] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of every layer: see transformers' AttentionInterface.

    `query` is [1, heads, tokens, size], `key` and `value` [1, kv_heads, tokens, size]. Returns [1, tokens, heads,
    size]. `layouts` is an empty dict for each pack, where rows go together: the first layer fills it. Raises TrainingError
    when it is called without a pack's segments.
    """
    if not segments:
        raise TrainingError("This model was loaded for training on packs; call it with a pack's segments.")
    if layouts is not None:
        if sliding_window not in layouts:
            layouts[sliding_window] = group(segments, query.device, sliding_window)
        return _together(query, key, value, layouts[sliding_window], scaling), None
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


def _together(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """Attention of a few padded groups instead of many rows; [1, tokens, heads, size]."""
    heads, size = query.shape[1], query.shape[3]
    # The kernel that takes a mask wants as many key heads as query heads.
    key, value = (t[0].repeat_interleave(heads // t.shape[1], 0) for t in (key, value))
    parts: list[Tensor] = []
    with sdpa_kernel(KERNELS):
        for rows in layout.groups:
            result = torch.nn.functional.scaled_dot_product_attention(
                _take(query[0], rows.queries),
                _take(key, rows.keys),
                _take(value, rows.keys),
                attn_mask=rows.may_see,
                scale=scaling,
            )
            parts.append(result.transpose(1, 2).reshape(-1, heads, size))
    return torch.cat(parts).index_select(0, layout.order).unsqueeze(0)


def _take(whole: Tensor, places: Tensor) -> Tensor:
    """Tokens of [heads, tokens, size] as [rows, heads, places, size]."""
    # index_select, and not an index: its backward adds in place where the other's sorts first.
    taken = whole.index_select(1, places.flatten())
    return taken.view(len(whole), *places.shape, whole.shape[2]).transpose(0, 1)


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
