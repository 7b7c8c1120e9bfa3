"""models/session.py and models/labels.py: packed and padded, yet equal to one plain pass per text."""

from typing import Any

import pytest
import torch
from torch import Tensor

from briefbox.errors import ModelError
from models import labels as labels_module
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


def test_rows_of_different_lengths_get_the_logits_they_would_get_alone(session: Session, loaded: Any) -> None:
    session.append(ROWS)
    more = [[10, 11], [12], [13, 14, 15]]
    logits = session.append(more).log_softmax(dim=1)
    for row, (first, second) in enumerate(zip(ROWS, more, strict=True)):
        alone = plain_log_probs(loaded.model, PREFIX + first + second)[-1]
        torch.testing.assert_close(logits[row], alone, atol=1e-4, rtol=1e-4)


def test_a_row_that_gets_nothing_is_not_changed(session: Session, loaded: Any) -> None:
    session.append(ROWS)
    session.append([[10], [], [11]])
    logits = session.append([[12], [13], [14]]).log_softmax(dim=1)
    alone = plain_log_probs(loaded.model, [*PREFIX, *ROWS[1], 13])[-1]
    torch.testing.assert_close(logits[1], alone, atol=1e-4, rtol=1e-4)


def test_rows_that_are_kept_go_on_as_if_nothing_had_happened(session: Session, loaded: Any) -> None:
    session.append(ROWS)
    session.keep([2, 0])
    logits = session.append([[12], [13, 14]]).log_softmax(dim=1)
    alone = plain_log_probs(loaded.model, [*PREFIX, *ROWS[0], 13, 14])[-1]
    torch.testing.assert_close(logits[1], alone, atol=1e-4, rtol=1e-4)


def test_the_cache_grows_past_its_room(session: Session, loaded: Any) -> None:
    long = [20 + number % 50 for number in range(ROOM + 10)]
    logits = session.append([long] * 3).log_softmax(dim=1)
    logits = session.append([[7]] * 3).log_softmax(dim=1)
    alone = plain_log_probs(loaded.model, [*PREFIX, *long, 7])[-1]
    torch.testing.assert_close(logits[0], alone, atol=1e-4, rtol=1e-4)


def reference_scores(model: Any) -> Tensor:
    """Each label behind each row in a pass of its own, summed over all its tokens."""
    scores = []
    for row in ROWS:
        for label in LABELS:
            start = len(PREFIX) + len(row)
            log_probs = plain_log_probs(model, PREFIX + row + label)
            scores.append(sum(log_probs[start + place - 1, token] for place, token in enumerate(label)))
    return torch.tensor(scores).view(len(ROWS), len(LABELS))


def test_packed_labels_score_as_each_label_alone(session: Session, loaded: Any) -> None:
    packed = score_labels(session, session.append(ROWS), LABELS)
    torch.testing.assert_close(packed, reference_scores(loaded.model), atol=1e-3, rtol=1e-4)


def test_many_labels_are_scored_in_groups_with_the_same_result(
    session: Session, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "MAX_LOGITS", 4 * len(ROWS) * 49152)
    packed = score_labels(session, session.append(ROWS), LABELS)
    torch.testing.assert_close(packed, reference_scores(loaded.model), atol=1e-3, rtol=1e-4)


def test_scoring_leaves_the_session_as_it_was(session: Session) -> None:
    at = session.append(ROWS)
    first = score_labels(session, at, LABELS)
    assert session.cache.get_seq_length() == session.valid.shape[1]
    torch.testing.assert_close(score_labels(session, at, LABELS), first)


def test_probabilities_cover_the_closed_set(session: Session) -> None:
    score = choose(["a", "b", "c"], torch.tensor([-900.0, -901.0, -1200.0]))
    assert score.label == "a"
    assert score.confidence == pytest.approx(0.731, abs=1e-3)
    assert sum(score.scores.values()) == pytest.approx(1)


def test_scores_that_are_no_numbers_are_an_error(session: Session) -> None:
    at = session.append(ROWS)
    with pytest.raises(ModelError, match="not finite"):
        score_labels(session, at * torch.nan, LABELS)
