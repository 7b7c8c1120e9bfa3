"""A batch of token sequences that grow together in one key-value cache.

Rows have different lengths, so every appended piece is padded on its left: the last column always
holds each row's newest token, whose logits are all that is asked for. Padding is never attended to,
and positions count real tokens only, so a row's result does not depend on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from models.cache import RoomyCache


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of tokens that many batches begin with: per layer, each [1, heads, tokens, size]."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    num_tokens: int


def compute_prefix(model: Any, ids: Sequence[int]) -> Prefix:
    """Run the model once over the shared beginning of the prompts."""
    cache = DynamicCache()
    with torch.inference_mode():
        model(
            input_ids=torch.tensor([list(ids)], device=model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers), len(ids))


class Session:
    """The sequences of one batch."""

    def __init__(self, model: Any, prefix: Prefix, num_rows: int) -> None:
        self.model = model
        self.num_rows = num_rows
        self.device: torch.device = model.device
        self.cache = RoomyCache(prefix.layers, num_rows)
        self.valid = torch.ones(num_rows, prefix.num_tokens, dtype=torch.bool, device=self.device)
        self.length = torch.full((num_rows, 1), prefix.num_tokens, device=self.device)

    @torch.inference_mode()
    def append(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Append ids to each row (none to some rows is fine) and return the logits after the last ones.

        Returns float32 [rows, vocabulary]; a row that got no ids has meaningless logits.
        """
        width = max(len(row) for row in rows)
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=self.device)
        real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.device)
        places = self.length + real.cumsum(dim=1) - 1
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        # A padding token sees itself, or its softmax would be over nothing.
        among = (causal & real.bool()[:, None, :]) | torch.eye(width, dtype=torch.bool, device=self.device)
        logits = self._forward(ids, places.clamp(min=0), among, keep=1)
        self.valid = torch.cat([self.valid, real.bool()], dim=1)
        self.length = self.length + real.sum(dim=1, keepdim=True)
        return logits[:, -1].float()

    @torch.inference_mode()
    def peek(self, ids: Sequence[int], offsets: Sequence[int], among: Tensor) -> Tensor:
        """Logits of the same extra tokens behind every row, which forgets them again.

        `offsets` are the tokens' distances from the row's end; `among` [tokens, tokens] says which of them see
        which. Returns [rows, tokens, vocabulary] in the model's own type.
        """
        width = len(ids)
        tokens = torch.tensor([list(ids)], device=self.device).expand(self.num_rows, width)
        places = self.length + torch.tensor([list(offsets)], device=self.device)
        mask = among.to(self.device).expand(self.num_rows, width, width)
        logits = self._forward(tokens, places, mask, keep=0)
        self.cache.crop(-width)
        return logits

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        chosen = torch.tensor(list(rows), device=self.device)
        self.cache.batch_select_indices(chosen)
        self.valid, self.length = self.valid[chosen], self.length[chosen]
        self.num_rows = len(rows)

    def _forward(self, ids: Tensor, places: Tensor, among: Tensor, keep: int) -> Tensor:
        """One pass over new tokens. `among` [rows, new, new]: which new tokens see which; all see the cache."""
        before = self.valid[:, None, :].expand(-1, ids.shape[1], -1)
        output = self.model(
            input_ids=ids,
            position_ids=places,
            attention_mask=torch.cat([before, among], dim=2)[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits
