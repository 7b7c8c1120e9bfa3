"""Choose one label of a closed set: never generated, always scored.

A label's score is the log-probability of its whole text with its terminator, so labels that begin
alike, or of which one is the beginning of another, are told apart. All labels are read in one pass:
packed side by side behind the prompt, each seeing the prompt and itself only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from briefbox.errors import ModelError
from briefbox.schemas import LabelScore
from models.session import Session

# Most logits held at once: rows x packed tokens x vocabulary; 2**27 of them are 512 MB in float32.
MAX_LOGITS = 2**27


def score_labels(session: Session, logits: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Log-probability of each label's ids behind each row; float32 [rows, labels].

    `logits` [rows, vocabulary] are those at the place where the label begins. The session is left as it was.
    Raises ModelError when the model's numbers are not finite.
    """
    parts: list[Tensor] = []
    room = MAX_LOGITS // (logits.shape[0] * logits.shape[1])
    for group in _groups(labels, room):
        parts.append(_score_group(session, logits, group))
    scores = torch.cat(parts, dim=1)
    if not bool(torch.isfinite(scores).all()):
        raise ModelError(
            "The model's label scores are not finite numbers; the weights or the adapter are damaged, or BRIEFBOX_DEVICE computes wrongly (try cpu)."
        )
    return scores


def choose(labels: Sequence[str], scores: Tensor) -> LabelScore:
    """The best label with probabilities over the whole set. `scores` [labels] are log-probabilities."""
    shares = torch.softmax(scores.double(), dim=0).tolist()
    best = max(range(len(labels)), key=shares.__getitem__)
    return LabelScore(
        label=labels[best], confidence=shares[best], scores=dict(zip(labels, shares, strict=True))
    )


def _groups(labels: Sequence[Sequence[int]], room: int) -> list[list[Sequence[int]]]:
    """Labels in order, in groups of at most `room` tokens (a longer label is a group of its own)."""
    groups: list[list[Sequence[int]]] = []
    used = 0
    for label in labels:
        used += len(label)
        if not groups or used > room:
            groups.append([])
            used = len(label)
        groups[-1].append(label)
    return groups


def _score_group(session: Session, logits: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    # 1. Pack every token but each label's last: the last one is predicted, never read.
    inputs = [token for label in labels for token in label[:-1]]
    offsets = [place for label in labels for place in range(len(label) - 1)]
    owner = torch.tensor([number for number, label in enumerate(labels) for _ in label[:-1]])
    target = torch.tensor([token for label in labels for token in label[1:]], device=logits.device)
    # 2. The first token of each label is predicted by the prompt alone.
    first = torch.tensor([label[0] for label in labels], device=logits.device)
    total = logits[:, first] - logits.logsumexp(dim=1, keepdim=True)
    if not inputs:
        return total
    # 3. All other tokens by one pass in which each label sees the prompt and itself.
    among = (owner[:, None] == owner[None, :]).tril()
    behind = session.peek(inputs, offsets, among).float()
    chosen = behind.gather(2, target.expand(len(behind), -1)[:, :, None])[:, :, 0] - behind.logsumexp(dim=2)
    return total.index_add(1, owner.to(logits.device), chosen)
