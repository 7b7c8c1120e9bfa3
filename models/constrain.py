"""The second try of a line that held facts which the email does not: only the email's own numbers, not these words.

Forbidding the wrong number alone would invite the next wrong one. So figures are written along the figures of the
email: after `48` only what continues one of its numbers may follow, and a number must be written to its end.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from briefbox.schemas import BriefRequest
from models.prompt import encode_data

# Figures, also with the separators that may stand inside a number.
_NUMBER = re.compile(r"\d+(?:[.,'\u00a0\u202f ]\d{3})*")
_FIGURES = re.compile(r"\d+")


class Figures:
    """How a vocabulary writes figures. Made once for a tokenizer."""

    def __init__(self, tokenizer: Any, num_tokens: int) -> None:
        """`num_tokens` is the width of the model's logits."""
        self.tokenizer = tokenizer
        self.any = torch.zeros(num_tokens, dtype=torch.bool)  # tokens that hold a figure
        self.pure: dict[int, tuple[bool, str]] = {}  # token: whether it begins a word, its figures
        for token in range(min(num_tokens, len(tokenizer))):
            text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
            if any(char.isdigit() for char in text):
                self.any[token] = True
                if text.strip().isascii() and text.strip().isdigit():
                    self.pure[token] = (text != text.lstrip(), text.strip())


class OnlyFacts:
    """A Rule (see models.decode): figures of the email only, and none of the phrases that were wrong."""

    def __init__(self, figures: Figures, request: BriefRequest, wrong: Iterable[str]) -> None:
        """`wrong` are facts as the model wrote them in its first try."""
        self.figures = figures
        self.numbers = _numbers(request)
        self.starts = {number[:n] for number in self.numbers for n in range(1, len(number) + 1)}
        self.phrases = [
            encode_data(figures.tokenizer, lead + fact)
            for fact in wrong
            if not fact.strip().isdigit()
            for lead in ("", " ")
        ]

    def forbidden(self, ids: Sequence[int]) -> Tensor:
        """See Rule."""
        pure = self.figures.pure
        run = ""  # the figures at the end of the line
        for token in reversed(ids):
            if token not in pure:
                break
            begins, text = pure[token]
            run = text + run
            if begins:
                break
        going_on = {t for t, (begins, text) in pure.items() if not begins and run + text in self.starts}
        if run and run not in self.numbers:
            mask = torch.ones_like(self.figures.any)
            mask[list(going_on)] = not going_on
            return mask
        anew = {t for t, (begins, text) in pure.items() if (begins or not run) and text in self.starts}
        mask = self.figures.any.clone()
        mask[list(going_on | anew)] = False
        for phrase in self.phrases:
            if phrase and tuple(ids[len(ids) - len(phrase) + 1 :]) == phrase[:-1]:
                mask[phrase[-1]] = True
        return mask


def _numbers(request: BriefRequest) -> frozenset[str]:
    """Every run of figures a person sees in the email, and numbers without their separators."""
    parts = [request.subject, request.sender, request.text, *(e.text for e in request.earlier)]
    text = unicodedata.normalize("NFKC", "\n".join(parts))
    joined = ("".join(_FIGURES.findall(number)) for number in _NUMBER.findall(text))
    return frozenset(_FIGURES.findall(text)) | frozenset(joined)
