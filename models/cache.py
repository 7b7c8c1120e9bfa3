"""The keys and values of a batch: one prefix for all rows, and each row's own tokens.

A row's tokens lie from column 0 on, in the order in which they came. Forgetting the newest ones costs nothing:
their columns are written over. Rows change places by swapping, so that those still in use lie side by side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ROOM = 128  # columns added when the cache is full


class Layer:
    """One layer's prefix [1, heads, tokens, size] and own keys and values [rows, heads, columns, size]."""

    def __init__(self, prefix_keys: Tensor, prefix_values: Tensor, num_rows: int, columns: int) -> None:
        self.prefix_keys, self.prefix_values = prefix_keys, prefix_values
        shape = (num_rows, prefix_keys.shape[1], columns, prefix_keys.shape[3])
        # Zeros: a column that was never written is masked, but a NaN in it would survive the mask.
        self.keys, self.values = prefix_keys.new_zeros(shape), prefix_values.new_zeros(shape)

    def write(self, rows: Tensor, columns: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store new tokens; `keys` and `values` are [tokens, heads, size]."""
        self.keys[rows, :, columns] = keys
        self.values[rows, :, columns] = values

    def read(self, first: int, num_rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Views of some rows' first columns."""
        rows = slice(first, first + num_rows)
        return self.keys[rows, :, :columns], self.values[rows, :, :columns]

    def grow(self, columns: int) -> None:
        """Make room for at least `columns`."""
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros(old.shape[0], old.shape[1], columns + ROOM, old.shape[3])
            new[:, :, : old.shape[2]] = old
            setattr(self, name, new)

    def swap(self, one: int, other: int) -> None:
        """Let two rows change places."""
        pair, back = torch.tensor([one, other]), torch.tensor([other, one])
        for buffer in (self.keys, self.values):
            buffer[pair] = buffer[back]


class PackedCache:
    """What transformers' layers see: new keys and values pass through, attention stores and reads them itself."""

    is_compileable = False

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object) -> tuple[Tensor, Tensor]:
        """Called by each layer before its attention."""
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Asked for default positions; ours are always given."""
        return 0
