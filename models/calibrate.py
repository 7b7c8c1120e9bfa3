"""Take a bare model's habit out of its label scores: contextual calibration.

Zhao et al. 2021, "Calibrate Before Use" (arXiv:2102.09690), section 5: what a model answers to an input
without content is its prior for these labels and this prompt, and is divided out. It also takes out what a long
or rare label loses by its length alone. Tried on 29 demo emails labelled by hand (2026-11-24): the packaged model
stays near chance either way (priority 4 right with it and 6 without, category 3 and 5), but without it 28 of 29
fall into the first category. An adapter has learned the labels and is not calibrated like this.
"""

import math

import torch
from torch import Tensor

from briefbox.schemas import BriefRequest

# The paper averages over several inputs without content; one alone tilts the result.
_CONTENT_FREE = ("N/A", "")


def content_free(request: BriefRequest) -> list[BriefRequest]:
    """Requests that ask the same of an email that says nothing."""
    return [
        request.model_copy(update={"subject": text, "sender": text, "text": text}) for text in _CONTENT_FREE
    ]


def prior(scores: Tensor) -> Tensor:
    """Log of the average probability of each label. `scores` [inputs, labels] to [labels]."""
    return torch.log_softmax(scores, dim=1).logsumexp(dim=0) - math.log(len(scores))
