"""Take a bare model's habit out of its label scores: contextual calibration.

Zhao et al. 2021, "Calibrate Before Use" (arXiv:2102.09690), section 5: what a model answers to an input
without content is its prior for these labels and this prompt, and is divided out. Kept because of a
trial on 8 emails (2026-11-23): the packaged model put all of them into the first category (2 right by
chance) and gave the prior's priority to 6; calibrated, 5 categories were right and outage, blocked
customer and thanks were told apart. An adapter has learned the labels and is not calibrated.
"""

import math

import torch
from torch import Tensor

from briefbox.schemas import BriefRequest

# The paper averages over several inputs without content; one alone tilts the result.
_CONTENT_FREE = ("N/A", "")

# The category is written behind a priority. Its prior is taken behind this one, whichever was chosen.
PRIOR_PRIORITY = "normal"


def content_free(request: BriefRequest) -> list[BriefRequest]:
    """Requests that ask the same of an email that says nothing."""
    return [
        request.model_copy(update={"subject": text, "sender": text, "text": text}) for text in _CONTENT_FREE
    ]


def prior(scores: Tensor) -> Tensor:
    """Log of the average probability of each label. `scores` [inputs, labels] to [labels]."""
    return torch.log_softmax(scores, dim=1).logsumexp(dim=0) - math.log(len(scores))
