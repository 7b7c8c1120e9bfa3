"""A batch of token sequences that grow together behind a shared prefix.

Rows have different lengths. Nothing is padded but the small attention inside a layer: all new tokens are packed
into one sequence, in passes of bounded size. Positions count a row's own tokens behind the prefix.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from models.attention import Step, mask_of
from models.cache import Layer, PackedCache

# Most new tokens in one pass. More are not faster (a layer's activations should stay in the CPU's cache), and less
# memory is needed.
PASS_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of tokens that many batches begin with: per layer, each [1, heads, tokens, size]."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    num_tokens: int


def compute_prefix(model: Any, ids: Sequence[int]) -> Prefix:
    """Run the model once over the shared beginning of the prompts, with its plain causal attention."""
    cache = DynamicCache()
    ours = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        with torch.inference_mode():
            model(
                input_ids=torch.tensor([list(ids)], device=model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    finally:
        model.set_attn_implementation(ours)
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers), len(ids))


class Session:
    """The sequences of one batch. Rows keep their numbers 0, 1, ...; `rows` are those that are worked on."""

    def __init__(self, model: Any, prefix: Prefix, num_rows: int, columns: int = 0) -> None:
        """`columns` is how many own tokens a row is expected to have at most; more are possible."""
        self.model = model
        self.prefix = prefix
        self.device: torch.device = model.device
        self.columns = max(columns, 1)
        with torch.inference_mode():
            self.layers = [Layer(keys, values, num_rows, self.columns) for keys, values in prefix.layers]
        self.lengths = [0] * num_rows  # own tokens of each row
        self._slots = list(range(num_rows))  # the row in each place of the cache
        self._num_active = num_rows

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows that are worked on, in the order of all results."""
        return tuple(self._slots[: self._num_active])

    @torch.inference_mode()
    def focus(self, rows: Iterable[int]) -> None:
        """Work on these rows only. The others keep what they have and can be taken up again."""
        wanted = set(rows)
        self._num_active = len(wanted)
        gaps = [slot for slot in range(len(wanted)) if self._slots[slot] not in wanted]
        behind = [slot for slot in range(len(wanted), len(self._slots)) if self._slots[slot] in wanted]
        for gap, slot in zip(gaps, behind, strict=True):
            for layer in self.layers:
                layer.swap(gap, slot)
            self._slots[gap], self._slots[slot] = self._slots[slot], self._slots[gap]

    def rewind(self, lengths: Mapping[int, int]) -> None:
        """Forget the newest tokens of some rows: row number to its earlier length."""
        for row, length in lengths.items():
            self.lengths[row] = length

    @torch.inference_mode()
    def append(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Append ids to each row of `rows` (at least one id each) and return the logits after the last ones.

        Returns float32 [rows, vocabulary].
        """
        results: list[Tensor] = []
        for first, last in self._passes([len(piece) for piece in pieces]):
            results += self._append_rows(first, pieces[first:last])
        return torch.cat(results)

    @torch.inference_mode()
    def peek(self, ids: Sequence[int], offsets: Sequence[int], among: Tensor) -> Iterable[Tensor]:
        """Logits of the same extra tokens behind every row, which forgets them again.

        `offsets` are the tokens' distances from the row's end; `among` [tokens, tokens] says which of them see
        which. Yields [some rows, tokens, vocabulary] in the model's own type, until all rows had their turn.
        """
        for first, last in self._passes([len(ids)] * self._num_active):
            logits = self._forward(first, [ids] * (last - first), offsets, among, keep=None)
            yield logits.view(last - first, len(ids), -1)

    def _passes(self, sizes: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Ranges of neighbouring rows with at most PASS_TOKENS new tokens each, one row at least."""
        first, used = 0, 0
        for number, size in enumerate(sizes):
            if number > first and used + size > PASS_TOKENS:
                yield first, number
                first, used = number, 0
            used += size
        yield first, len(sizes)

    def _append_rows(self, first: int, pieces: Sequence[Sequence[int]]) -> list[Tensor]:
        """One pass, or several for a single row that is longer than a pass."""
        rows = self.rows[first : first + len(pieces)]
        while len(pieces) == 1 and len(pieces[0]) > PASS_TOKENS:
            part, pieces = pieces[0][:PASS_TOKENS], [pieces[0][PASS_TOKENS:]]
            self._forward(first, [part], None, None, keep=[len(part) - 1])
            self.lengths[rows[0]] += len(part)
        ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0) - 1
        logits = self._forward(first, pieces, None, None, keep=ends.tolist())
        for row, piece in zip(rows, pieces, strict=True):
            self.lengths[row] += len(piece)
        return [logits.float()]

    def _forward(
        self,
        first: int,
        pieces: Sequence[Sequence[int]],
        offsets: Sequence[int] | None,
        among: Tensor | None,
        keep: list[int] | None,
    ) -> Tensor:
        """One pass over the packed pieces of neighbouring rows; logits of the kept tokens (None: all)."""
        step, places = self._step(first, pieces, offsets, among)
        output = self.model(
            input_ids=torch.tensor([[token for piece in pieces for token in piece]], device=self.device),
            position_ids=places,
            past_key_values=PackedCache(self.layers),
            use_cache=True,
            logits_to_keep=0 if keep is None else torch.tensor(keep, device=self.device),
            step=step,
        )
        logits: Tensor = output.logits[0]
        return logits

    def _step(
        self,
        first: int,
        pieces: Sequence[Sequence[int]],
        offsets: Sequence[int] | None,
        among: Tensor | None,
    ) -> tuple[Step, Tensor]:
        sizes = torch.tensor([len(piece) for piece in pieces])
        starts = torch.tensor([self.lengths[row] for row in self.rows[first : first + len(pieces)]])
        width, total = int(sizes.max()), int((starts + sizes).max())
        if total > self.columns:
            for layer in self.layers:
                layer.grow(total)
            self.columns = self.layers[0].keys.shape[2]
        row = torch.repeat_interleave(torch.arange(len(pieces)), sizes)
        place = torch.arange(len(row)) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        column = starts[row] + place
        own = place if offsets is None else torch.tensor(list(offsets)).repeat(len(pieces))
        position = self.prefix.num_tokens + starts[row] + own
        # What a new token sees: all columns before its row's end, and of the new ones those before it, or `among`.
        columns = torch.arange(total)
        before = columns[None, None, :] < starts[:, None, None]
        new = torch.arange(width)
        order = among if among is not None else new[:, None] >= new[None, :]
        distance = columns[None, :] - starts[:, None]  # [rows, total]
        inside = (distance >= 0) & (distance < width)
        sees = order[:, distance.clamp(0, width - 1)].transpose(0, 1) & inside[:, None, :]
        # Padding, which is thrown away, sees column 0: a softmax over nothing would be NaN.
        sees = before | sees
        sees[:, :, 0] |= ~sees.any(dim=2)
        step = Step(
            layers=self.layers,
            first=first,
            num_rows=len(pieces),
            width=width,
            total=total,
            row=row.to(self.device),
            place=place.to(self.device),
            column=column.to(self.device),
            mask=mask_of(sees.to(self.device), self.layers[0].keys.dtype),
        )
        return step, position[None].to(self.device)
