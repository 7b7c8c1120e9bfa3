"""models/decode.py: each row writes and stops for itself."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from briefbox.errors import ModelError
from models.decode import decode_line, repeats
from models.session import Session

STOP = torch.tensor([False] * 9 + [True])


class Script:
    """Stands in for a session: says which token each row prefers at each step, whatever it was given."""

    def __init__(self, steps: list[list[int]]) -> None:
        self.steps = iter(steps)
        self.num_rows = len(steps[0])
        self.given: list[list[list[int]]] = []
        self.kept: list[list[int]] = []

    def next_logits(self) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(self.steps)), 10).float()

    def keep(self, rows: list[int]) -> None:
        self.kept.append(rows)

    def append(self, rows: list[list[int]]) -> Tensor:
        self.given.append(rows)
        return self.next_logits()


def run(steps: list[list[int]], limit: int) -> tuple[list[tuple[list[int], bool, list[int]]], Script]:
    script = Script(steps)
    lines = decode_line(cast(Session, script), script.next_logits(), stop=STOP, limit=limit)
    return [(line.ids, line.ended, line.pending) for line in lines], script


def test_rows_stop_individually_and_a_stopped_row_is_given_nothing() -> None:
    lines, script = run([[1, 9], [2, 5], [9, 5]], limit=8)
    assert lines == [([1, 2], True, []), ([], True, [])]
    assert script.given == [[[1], []], [[2], []]]


def test_in_the_last_line_a_row_that_ended_leaves_the_session() -> None:
    script = Script([[9, 1, 1], [1, 9], [2]])
    lines = decode_line(cast(Session, script), script.next_logits(), stop=STOP, limit=2, last=True)
    assert [line.ids for line in lines] == [[], [1, 1], [1]]
    assert script.kept == [[1, 2]]


def test_a_row_at_its_limit_keeps_its_newest_token_for_the_next_piece() -> None:
    lines, _ = run([[1, 1], [2, 9]], limit=2)
    assert lines == [([1, 2], False, [2]), ([1], True, [])]


def test_no_run_of_three_tokens_is_written_twice() -> None:
    assert repeats([1, 2, 3, 1, 2]) == {3}
    assert repeats([1, 1]) == repeats([]) == set()


def test_logits_that_are_no_numbers_are_an_error_only_in_open_rows() -> None:
    script = Script([[1, 9], [1, 1]])
    logits = script.next_logits()
    logits[0, 0] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        decode_line(cast(Session, script), logits, stop=STOP, limit=2)


def test_the_batch_writes_what_plain_greedy_decoding_writes(loaded: Any) -> None:
    from models.session import compute_prefix

    prefix, row = [1, 500, 501], [600, 601]
    session = Session(loaded.model, compute_prefix(loaded.model, prefix), 2)
    stop = torch.zeros(49152, dtype=torch.bool)
    lines = decode_line(session, session.append([row, [700]]), stop=stop, limit=6)
    ids = prefix + row
    for _ in range(6):
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].clone()
        logits[list(repeats(ids[len(prefix + row) :]))] = -torch.inf
        ids.append(int(logits.argmax()))
    assert lines[0].ids == ids[len(prefix + row) :]
