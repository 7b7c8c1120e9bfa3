"""A key-value cache that grows in steps.

transformers' own DynamicCache copies all keys and values for every token it decodes. This one
copies them once in a few hundred tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 256  # columns added whenever the cache is full


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """Keys and values of one layer as views [rows, heads, tokens, size] into larger buffers."""

    def __init__(self, keys: Tensor, values: Tensor, num_rows: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._buffers = [self._allocate(t, num_rows, t.shape[2] + ROOM) for t in (keys, values)]
        self._view(keys.shape[2])

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add the new tokens' keys and values and return all of them."""
        old, new = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if new > self._buffers[0].shape[2]:
            self._buffers = [
                self._allocate(buffer[:, :, :old], buffer.shape[0], new + ROOM) for buffer in self._buffers
            ]
        self._buffers[0][:, :, old:new] = key_states
        self._buffers[1][:, :, old:new] = value_states
        self._view(new)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._view(self.keys.shape[2])

    def _view(self, num_tokens: int) -> None:
        self.keys, self.values = (buffer[:, :, :num_tokens] for buffer in self._buffers)

    @staticmethod
    def _allocate(old: Tensor, num_rows: int, room: int) -> Tensor:
        buffer = old.new_empty(num_rows, old.shape[1], room, old.shape[3])
        buffer[:, :, : old.shape[2]] = old
        return buffer


class RoomyCache(DynamicCache):  # type: ignore[misc]  # transformers is untyped here
    """Starts as `num_rows` copies of a prefix; `crop(-n)` forgets the newest n tokens."""

    def __init__(self, prefix: Sequence[tuple[Tensor, Tensor]], num_rows: int) -> None:
        super().__init__()
        with torch.inference_mode():
            self.layers = [RoomyLayer(keys, values, num_rows) for keys, values in prefix]
