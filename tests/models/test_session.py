"""models/session.py, attention.py and labels.py: packed, yet equal to one plain pass per text."""

from typing import Any

import pytest
import torch
from torch import Tensor

import models.session
from briefbox.errors import ModelError
from models.cache import ROOM
from models.labels import choose, score_labels
from models.session import Session, compute_prefix

PREFIX = [1, 500, 501, 502]
ROWS = [[600, 601, 602, 603, 604], [700], [800, 801, 802]]
# Labels that share first tokens, and one that is the beginning of another. 198 is the line break.
LABELS = [[900, 198], [900, 901, 198], [900, 902, 198], [903, 904, 905, 906, 198]]


def plain_log_probs(model: Any, ids: list[int]) -> Tensor:
    """Reference: no cache, no padding, no mask of ours. [tokens, vocabulary]."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([ids])).logits[0].float()
    return logits.log_softmax(dim=1)


@pytest.fixture
def session(loaded: Any) -> Session:
    return Session(loaded.model, compute_prefix(loaded.model, PREFIX), len(ROWS))


def test_rows_of_different_lengths_get_the_logits_they_would_get_alone(
    session: Session, plain_model: Any
) -> None:
    session.append(ROWS)
    more = [[10, 11], [12], [13, 14, 15]]
    logits = session.append(more).log_softmax(dim=1)
    for row, (first, second) in enumerate(zip(ROWS, more, strict=True)):
        alone = plain_log_probs(plain_model, PREFIX + first + second)[-1]
        torch.testing.assert_close(logits[row], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, 4, 6])
def test_passes_of_any_size_give_the_same(
    session: Session, plain_model: Any, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    monkeypatch.setattr(models.session, "PASS_TOKENS", tokens)
    logits = session.append(ROWS).log_softmax(dim=1)
    for row, ids in enumerate(ROWS):
        torch.testing.assert_close(
            logits[row], plain_log_probs(plain_model, PREFIX + ids)[-1], atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(
        score_labels(session, logits, LABELS), reference_scores(plain_model), atol=1e-3, rtol=1e-4
    )


def test_rows_in_focus_go_on_and_the_others_can_be_taken_up_again(session: Session, plain_model: Any) -> None:
    session.append(ROWS)
    session.focus([2, 1])
    assert set(session.rows) == {1, 2}
    session.append([[10 + row] for row in session.rows])
    session.focus([0, 1, 2])
    logits = session.append([[20 + row, 5] for row in session.rows]).log_softmax(dim=1)
    wholes = {0: [*ROWS[0], 20, 5], 1: [*ROWS[1], 11, 21, 5], 2: [*ROWS[2], 12, 22, 5]}
    for place, row in enumerate(session.rows):
        alone = plain_log_probs(plain_model, PREFIX + wholes[row])[-1]
        torch.testing.assert_close(logits[place], alone, atol=1e-4, rtol=1e-4)


def test_a_rewound_row_has_forgotten(session: Session, plain_model: Any) -> None:
    session.append(ROWS)
    before = session.lengths[1]
    session.append([[30, 31, 32]] * 3)
    session.rewind({1: before})
    logits = session.append([[40]] * 3).log_softmax(dim=1)
    for row, ids in ((0, [*ROWS[0], 30, 31, 32, 40]), (1, [*ROWS[1], 40])):
        alone = plain_log_probs(plain_model, PREFIX + ids)[-1]
        torch.testing.assert_close(logits[row], alone, atol=1e-4, rtol=1e-4)


def test_the_cache_grows_past_its_room(session: Session, plain_model: Any) -> None:
    long = [20 + number % 50 for number in range(2 * ROOM + 10)]
    session.append([long, [9], long])
    logits = session.append([[7]] * 3).log_softmax(dim=1)
    for row, ids in ((0, [*long, 7]), (1, [9, 7])):
        alone = plain_log_probs(plain_model, PREFIX + ids)[-1]
        torch.testing.assert_close(logits[row], alone, atol=1e-4, rtol=1e-4)


def reference_scores(model: Any) -> Tensor:
    """Each label behind each row in a pass of its own, summed over all its tokens."""
    scores = []
    for row in ROWS:
        for label in LABELS:
            start = len(PREFIX) + len(row)
            log_probs = plain_log_probs(model, PREFIX + row + label)
            scores.append(sum(log_probs[start + place - 1, token] for place, token in enumerate(label)))
    return torch.tensor(scores).view(len(ROWS), len(LABELS))


def test_packed_labels_score_as_each_label_alone(session: Session, plain_model: Any) -> None:
    packed = score_labels(session, session.append(ROWS), LABELS)
    torch.testing.assert_close(packed, reference_scores(plain_model), atol=1e-3, rtol=1e-4)


def test_scoring_leaves_the_session_as_it_was(session: Session, plain_model: Any) -> None:
    at = session.append(ROWS)
    first = score_labels(session, at, LABELS)
    assert session.lengths == [len(row) for row in ROWS]
    torch.testing.assert_close(score_labels(session, at, LABELS), first)
    logits = session.append([[7]] * 3).log_softmax(dim=1)
    torch.testing.assert_close(
        logits[0], plain_log_probs(plain_model, [*PREFIX, *ROWS[0], 7])[-1], atol=1e-4, rtol=1e-4
    )


def test_the_temperature_changes_the_confidence_and_never_the_choice() -> None:
    scores = torch.tensor([-1.0, -2.0, -4.0])
    cold, plain, hot = (choose(["a", "b", "c"], scores, t) for t in (0.5, 1.0, 3.0))
    assert cold.label == plain.label == hot.label == "a"
    assert cold.confidence is not None
    assert hot.confidence is not None
    assert cold.confidence > (plain.confidence or 0) > hot.confidence
    assert sum(hot.scores.values()) == pytest.approx(1)


def test_probabilities_cover_the_closed_set(session: Session) -> None:
    score = choose(["a", "b", "c"], torch.tensor([-900.0, -901.0, -1200.0]))
    assert score.label == "a"
    assert score.confidence == pytest.approx(0.731, abs=1e-3)
    assert sum(score.scores.values()) == pytest.approx(1)


def test_scores_that_are_no_numbers_are_an_error(session: Session) -> None:
    at = session.append(ROWS)
    with pytest.raises(ModelError, match="not finite"):
        score_labels(session, at * torch.nan, LABELS)
