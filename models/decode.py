"""Write one line of text per row, greedily, all rows of the batch at once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from briefbox.errors import ModelError
from models.session import Session

# Small models fall into loops. A run of this many tokens is written at most once per field (the
# no-repeat rule of Paulus et al. 2017, arXiv:1705.04304, section 2.5, who use 3).
NO_REPEAT = 3


class Rule(Protocol):
    """What one row may not write next."""

    def forbidden(self, ids: Sequence[int]) -> Tensor:
        """Bool [vocabulary]: the tokens that may not follow `ids`, the line so far."""
        ...


@dataclass(slots=True)
class Line:
    """What a row wrote. `ended` says that the model ended it itself; else it ran into the limit."""

    ids: list[int] = field(default_factory=list)
    ended: bool = False
    # The newest id is not yet in the session: the next piece that is appended must begin with it.
    pending: list[int] = field(default_factory=list)


def decode_line(
    session: Session,
    logits: Tensor,
    *,
    stop: Tensor,
    limit: int,
    least: int = 0,
    deadline: float = float("inf"),
    rules: Mapping[int, Rule] | None = None,
) -> dict[int, Line]:
    """Decode until a `stop` id (a bool mask [vocabulary]), `limit` tokens or `deadline` (time.monotonic()).

    No row ends before it has `least` tokens: a small model often ends at once, and nothing is no answer. `logits` [rows, vocabulary] belong to `session.rows`, which are the same afterwards, possibly in another
    order. A row that has ended costs nothing more. Raises ModelError when the model's numbers are not finite.
    """
    rows = session.rows
    lines = {row: Line() for row in rows}
    for number in range(limit):
        open_rows = session.rows
        if number < least:
            logits[:, stop] = -torch.inf
        _pick([lines[row] for row in open_rows], logits, stop, [(rules or {}).get(row) for row in open_rows])
        still = [row for row in open_rows if not lines[row].ended]
        if not still or len(lines[still[0]].ids) == limit or time.monotonic() > deadline:
            break
        if len(still) < len(open_rows):
            session.focus(still)
        logits = session.append([lines[row].pending for row in session.rows])
    session.focus(rows)
    return lines


def _pick(lines: Sequence[Line], logits: Tensor, stop: Tensor, rules: Sequence[Rule | None]) -> None:
    """Take each row's best token, or end the row. Changes `logits`."""
    if bool(torch.isnan(logits).any()):
        raise ModelError(
            "The model's logits are not finite numbers; the weights or the adapter are damaged, or BRIEFBOX_DEVICE computes wrongly (try cpu)."
        )
    pairs = [(row, token) for row, line in enumerate(lines) for token in repeats(line.ids)]
    if pairs:
        places = torch.tensor(pairs, device=logits.device)
        logits[places[:, 0], places[:, 1]] = -torch.inf
    for row, (line, rule) in enumerate(zip(lines, rules, strict=True)):
        if rule is not None:
            logits[row, rule.forbidden(line.ids).to(logits.device)] = -torch.inf
    best = logits.argmax(dim=1)
    for line, token, stops in zip(lines, best.tolist(), stop[best].tolist(), strict=True):
        line.ended = stops
        line.pending = [] if stops else [token]
        line.ids += line.pending


def repeats(ids: Sequence[int]) -> set[int]:
    """The tokens that would complete a run of NO_REPEAT tokens for the second time."""
    last = tuple(ids[-(NO_REPEAT - 1) :])
    starts = range(len(ids) - NO_REPEAT + 1)
    return {
        ids[start + NO_REPEAT - 1] for start in starts if tuple(ids[start : start + NO_REPEAT - 1]) == last
    }
