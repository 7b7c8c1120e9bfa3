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


def score_labels(session: Session, logits: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Log-probability of each label's ids behind each row; float32 [rows, labels].

    `logits` [rows, vocabulary] are those at the place where the label begins. The session is left as it was.
    Raises ModelError when the model's numbers are not finite.
    """
    # 1. The first token of each label is predicted by the prompt alone.
    first = torch.tensor([label[0] for label in labels], device=logits.device)
    scores = logits[:, first] - logits.logsumexp(dim=1, keepdim=True)
    # 2. All other tokens by one pass in which each label sees the prompt and itself. Every token is packed but
    #    each label's last: that one is predicted, never read.
    inputs = [token for label in labels for token in label[:-1]]
    if inputs:
        offsets = [place for label in labels for place in range(len(label) - 1)]
        owner = torch.tensor([number for number, label in enumerate(labels) for _ in label[:-1]])
        target = torch.tensor([token for label in labels for token in label[1:]], device=logits.device)
        among = (owner[:, None] == owner[None, :]).tril()
        parts: list[Tensor] = []
        for behind in session.peek(inputs, offsets, among):
            chosen = behind.gather(2, target.expand(len(behind), -1)[:, :, None])[:, :, 0].float()
            parts.append(chosen - behind.float().logsumexp(dim=2))
        scores = scores.index_add(1, owner.to(logits.device), torch.cat(parts))
    if not bool(torch.isfinite(scores).all()):
        raise ModelError(
            "The model's label scores are not finite numbers; the weights or the adapter are damaged, or BRIEFBOX_DEVICE computes wrongly (try cpu)."
        )
    return scores


def choose(labels: Sequence[str], scores: Tensor, temperature: float = 1.0) -> LabelScore:
    """The best label with probabilities over the whole set. `scores` [labels] are log-probabilities.

    `temperature` makes the probabilities honest (Guo et al. 2017, arXiv:1706.04599, section 4.2); it changes no
    choice.
    """
    shares = torch.softmax(scores.double() / temperature, dim=0).tolist()
    best = max(range(len(labels)), key=shares.__getitem__)
    return LabelScore(
        label=labels[best], confidence=shares[best], scores=dict(zip(labels, shares, strict=True))
    )
