"""Write one line of text per row, greedily, all rows of the batch at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from briefbox.errors import ModelError
from models.session import Session

# Small models fall into loops. A run of this many tokens is written at most once per field (the
# no-repeat rule of Paulus et al. 2017, arXiv:1705.04304, section 2.5, who use 3).
NO_REPEAT = 3


@dataclass(slots=True)
class Line:
    """What a row wrote. `ended` says that the model ended it itself; else it ran into the limit."""

    ids: list[int] = field(default_factory=list)
    ended: bool = False
    # The newest id is not yet in the session: the next piece that is appended must begin with it.
    pending: list[int] = field(default_factory=list)


def decode_line(
    session: Session, logits: Tensor, *, stop: Tensor, limit: int, last: bool = False
) -> list[Line]:
    """Decode until a `stop` id (a bool mask [vocabulary]) or `limit` tokens, each row for itself.

    `last` says that nothing is appended afterwards: rows that have ended then leave the session, so that they
    cost nothing more. Raises ModelError when the model's numbers are not finite.
    """
    lines = [Line() for _ in range(session.num_rows)]
    active = lines
    for _ in range(limit):
        _pick(active, logits, stop)
        still = [row for row, line in enumerate(active) if not line.ended]
        if not still or len(active[still[0]].ids) == limit:
            break
        if last and len(still) < len(active):
            session.keep(still)
            active = [active[row] for row in still]
        logits = session.append([line.pending for line in active])
    return lines


def _pick(lines: Sequence[Line], logits: Tensor, stop: Tensor) -> None:
    """Take each open row's best token, or end the row."""
    finite = torch.isfinite(logits.sum(dim=1)).tolist()
    if not all(fine or line.ended for fine, line in zip(finite, lines, strict=True)):
        raise ModelError(
            "The model's logits are not finite numbers; the weights or the adapter are damaged, or BRIEFBOX_DEVICE computes wrongly (try cpu)."
        )
    for row, line in enumerate(lines):
        for token in repeats(line.ids):
            logits[row, token] = -torch.inf
    best = logits.argmax(dim=1)
    for line, token, stops in zip(lines, best.tolist(), stop[best].tolist(), strict=True):
        line.pending = []
        line.ended = line.ended or stops
        if not line.ended:
            line.ids.append(token)
            line.pending = [token]


def repeats(ids: Sequence[int]) -> set[int]:
    """The tokens that would complete a run of NO_REPEAT tokens for the second time."""
    last = tuple(ids[-(NO_REPEAT - 1) :])
    starts = range(len(ids) - NO_REPEAT + 1)
    return {
        ids[start + NO_REPEAT - 1] for start in starts if tuple(ids[start : start + NO_REPEAT - 1]) == last
    }
