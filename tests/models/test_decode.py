"""models/decode.py: each row writes and stops for itself."""

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from briefbox.errors import ModelError
from models.decode import decode_line, repeats
from models.session import Session, compute_prefix

STOP = torch.tensor([False] * 9 + [True])


class Script:
    """Stands in for a session: says which token each row prefers at each step, whatever it was given."""

    def __init__(self, steps: list[dict[int, int]]) -> None:
        self.steps = iter(steps)
        self.rows = tuple(steps[0])
        self.given: list[dict[int, list[int]]] = []

    def next_logits(self) -> Tensor:
        step = next(self.steps)
        return torch.nn.functional.one_hot(torch.tensor([step[row] for row in self.rows]), 10).float()

    def focus(self, rows: Sequence[int]) -> None:
        self.rows = tuple(rows)

    def append(self, pieces: list[list[int]]) -> Tensor:
        self.given.append(dict(zip(self.rows, pieces, strict=True)))
        return self.next_logits()


def run(
    steps: list[dict[int, int]], limit: int, **options: Any
) -> tuple[dict[int, tuple[list[int], bool, list[int]]], Script]:
    script = Script(steps)
    lines = decode_line(cast(Session, script), script.next_logits(), stop=STOP, limit=limit, **options)
    return {row: (line.ids, line.ended, line.pending) for row, line in lines.items()}, script


def test_rows_stop_individually_and_a_stopped_row_costs_nothing_more() -> None:
    lines, script = run([{0: 1, 1: 9, 2: 3}, {0: 2, 2: 4}, {0: 9, 2: 9}], limit=8)
    assert lines == {0: ([1, 2], True, []), 1: ([], True, []), 2: ([3, 4], True, [])}
    assert script.given == [{0: [1], 2: [3]}, {0: [2], 2: [4]}]
    assert script.rows == (0, 1, 2)


def test_a_row_at_its_limit_keeps_its_newest_token_for_the_next_piece() -> None:
    lines, _ = run([{0: 1, 1: 1}, {0: 2, 1: 9}], limit=2)
    assert lines == {0: ([1, 2], False, [2]), 1: ([1], True, [])}


def test_writing_stops_at_the_deadline_with_what_there_is() -> None:
    lines, _ = run([{0: 1}, {0: 2}], limit=8, deadline=time.monotonic() - 1)
    assert lines == {0: ([1], False, [1])}


def test_nothing_ends_before_it_has_said_something() -> None:
    lines, _ = run([{0: 9}, {0: 9}, {0: 9}], limit=8, least=2)
    assert len(lines[0][0]) == 2
    assert lines[0][1]


class Never:
    """A rule that forbids one token."""

    def __init__(self, token: int) -> None:
        self.token = token

    def forbidden(self, ids: Sequence[int]) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(self.token), 10).bool()


def test_a_rule_holds_for_its_row_only() -> None:
    lines, _ = run([{0: 5, 1: 5}, {0: 9, 1: 9}], limit=4, rules={1: Never(5)})
    assert lines[0][0] == [5]
    assert 5 not in lines[1][0]


def test_no_run_of_three_tokens_is_written_twice() -> None:
    assert repeats([1, 2, 3, 1, 2]) == {3}
    assert repeats([1, 1]) == repeats([]) == set()


def test_logits_that_are_no_numbers_are_an_error() -> None:
    script = Script([{0: 1, 1: 9}, {0: 1, 1: 1}])
    logits = script.next_logits()
    logits[0, 0] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        decode_line(cast(Session, script), logits, stop=STOP, limit=2)


def test_the_batch_writes_what_plain_greedy_decoding_writes(loaded: Any, plain_model: Any) -> None:
    prefix, row = [1, 500, 501], [600, 601]
    session = Session(loaded.model, compute_prefix(loaded.model, prefix), 2)
    stop = torch.zeros(49152, dtype=torch.bool)
    lines = decode_line(session, session.append([row, [700]]), stop=stop, limit=6)
    ids = prefix + row
    for _ in range(6):
        with torch.no_grad():
            logits = plain_model(input_ids=torch.tensor([ids])).logits[0, -1].clone()
        logits[list(repeats(ids[len(prefix + row) :]))] = -torch.inf
        ids.append(int(logits.argmax()))
    assert lines[0].ids == ids[len(prefix + row) :]
