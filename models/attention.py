"""Attention of many rows that share a prefix, without padding in the linear layers.

transformers runs the layers over one sequence of packed tokens: the new tokens of all rows, one after the
other. Only attention must know which token belongs to which row. For each token it is computed in two parts,

    over the prefix, which is stored once and read by all rows together, and
    over the row's own tokens, in a padded view of the cache,

and the two are joined by their log-sum-exp (the split of Juravsky et al. 2024, "Hydragen", arXiv:2402.05099,
section 3.1). A row's result does not depend on its neighbours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from briefbox.errors import ModelError
from models.cache import Layer

NAME = "briefbox_rows"
# Up to so many queries for each key head, plain products are faster on the CPU than the attention kernel.
FEW_QUERIES = 16


@dataclass(frozen=True, slots=True)
class Step:
    """Which rows the packed tokens of one forward pass belong to, and what each token sees.

    The pass covers the rows `first` .. `first + num_rows - 1` of the cache.
    """

    layers: Sequence[Layer]
    first: int
    num_rows: int
    width: int  # most new tokens of a row
    total: int  # columns of the cache that any of these rows uses, new tokens included
    row: Tensor  # int64 [tokens]: the row of each packed token, counted from `first`
    place: Tensor  # int64 [tokens]: its number among its row's new tokens
    column: Tensor  # int64 [tokens]: its column in the cache
    mask: Tensor  # float [rows, 1, width, total]: 0 where a new token sees a column, else -inf

    @property
    def one_each(self) -> bool:
        """Whether the tokens are one of each row, in order: packed and padded are then the same."""
        return self.width == 1 and len(self.row) == self.num_rows


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    step: Step | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of every layer: see transformers' AttentionInterface.

    `query` is [1, heads, tokens, size], `key` and `value` [1, kv_heads, tokens, size], all of new tokens only.
    Returns [1, tokens, heads, size]. Raises ModelError outside a Session.
    """
    if step is None:
        raise ModelError("This model was loaded for models.session.Session and can only run there.")
    scale = scaling or query.shape[-1] ** -0.5
    # 1. New keys and values go to their rows' places in the cache.
    layer = step.layers[module.layer_idx]
    layer.write(step.first + step.row, step.column, key[0].transpose(0, 1), value[0].transpose(0, 1))
    # 2. Query heads that share a key-value head stand beside each other as more queries of that head.
    heads, tokens, size = query.shape[1:]
    groups = heads // key.shape[1]
    packed = query.view(-1, groups, tokens, size)  # [kv_heads, groups, tokens, size]
    own, own_weight = _own(packed, layer, step, scale)
    prefix, prefix_weight = _softmax_part(
        packed.reshape(1, -1, groups * tokens, size), layer.prefix_keys, layer.prefix_values, None, scale
    )
    # 3. Each part is right up to its share of the whole softmax, which the log-sum-exps tell.
    share = torch.sigmoid(prefix_weight.view(packed.shape[:3]) - own_weight).unsqueeze(-1).to(query.dtype)
    joined = torch.lerp(own, prefix.view(packed.shape), share)
    return joined.reshape(heads, tokens, size).transpose(0, 1).unsqueeze(0), None


def _own(packed: Tensor, layer: Layer, step: Step, scale: float) -> tuple[Tensor, Tensor]:
    """Attention over the rows' own tokens; like `packed` [kv_heads, groups, tokens, size], and log-sum-exps."""
    kv_heads, groups, _, size = packed.shape
    keys, values = layer.read(step.first, step.num_rows, step.total)
    if step.one_each:
        padded = packed.permute(2, 0, 1, 3)  # [rows, kv_heads, groups, size]
        result, weight = _softmax_part(padded, keys, values, step.mask, scale)
        return result.permute(1, 2, 0, 3), weight.permute(1, 2, 0)
    padded = packed.new_zeros(step.num_rows, step.width, kv_heads, groups, size)
    padded[step.row, step.place] = packed.permute(2, 0, 1, 3)
    wide = padded.permute(0, 2, 3, 1, 4).reshape(step.num_rows, kv_heads, groups * step.width, size)
    result, weight = _softmax_part(wide, keys, values, step.mask.repeat(1, 1, groups, 1), scale)
    shape = (step.num_rows, kv_heads, groups, step.width)
    # Advanced indices on both sides of slices come first: [tokens, kv_heads, groups(, size)].
    result = result.view(*shape, size)[step.row, :, :, step.place]
    weight = weight.reshape(shape)[step.row, :, :, step.place]
    return result.permute(1, 2, 0, 3), weight.permute(1, 2, 0)


def _softmax_part(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Plain attention [rows, heads, queries, size] and the log-sum-exp of its scores [rows, heads, queries]."""
    if query.device.type == "cpu" and query.shape[2] > FEW_QUERIES:
        # The kernel behind scaled_dot_product_attention on the CPU, called by its own name for the second result.
        result, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query,
            key,
            value,
            dropout_p=0.0,
            is_causal=False,
            attn_mask=mask,
            scale=scale,
        )
        return result, weight.float()
    scores = ((query * scale) @ key.transpose(2, 3)).float()
    if mask is not None:
        scores = scores + mask
    weight = scores.logsumexp(dim=-1)
    return (scores - weight.unsqueeze(-1)).exp().to(value.dtype) @ value, weight


def check_supported(config: Any, num_tokens: int) -> None:
    """Raise ModelError when the model's attention is another than the plain causal one over `num_tokens`."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = set(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None)
    if window and getattr(text, "use_sliding_window", True) and window < num_tokens:
        found = f"sliding windows of {window} tokens, fewer than the {num_tokens} of a prompt"
    elif getattr(text, "attn_logit_softcapping", None):
        found = "soft-capped attention scores"
    elif other := kinds - {"full_attention", "sliding_attention"}:
        found = f"layers of the kind {min(other)}"
    else:
        return
    raise ModelError(
        f"The base model {getattr(text, 'model_type', 'in use')} has {found}, which the engine `transformers` does not compute; choose another model (docs/models.md), or serve this one with vLLM and BRIEFBOX_ENGINE=openai."
    )


def mask_of(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask [rows, width, total] as an additive one [rows, 1, width, total]."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -math.inf)[:, None]


AttentionInterface.register(NAME, attend)
