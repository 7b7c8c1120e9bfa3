"""Numbers that the model wrote must occur in the email: an invented amount is worse than none.

Only numbers are checked (amounts, dates in figures, ids, phone numbers); names and claims are not.
"""

import re

from briefbox.schemas import BriefRequest

# Figures with the separators that may stand between them: 1,200.50  2026-11-23  14:05
_NUMBER = re.compile(r"\d+(?:[.,:/\u00a0-]\d+)*")


def is_grounded(text: str, request: BriefRequest) -> bool:
    """Whether every number of `text` occurs in the email's subject, sender or text."""
    known: set[str] = set()
    for number in _NUMBER.findall(f"{request.subject}\n{request.sender}\n{request.text}"):
        known |= {_joined(number), *_figures(number)}
    return all(
        _joined(number) in known or known.issuperset(_figures(number)) for number in _NUMBER.findall(text)
    )


def _joined(number: str) -> str:
    """All figures without separators: 5,000 and 5000 are the same."""
    return "".join(re.findall(r"\d+", number)).lstrip("0")


def _figures(number: str) -> list[str]:
    """The figures between separators: 2026-03-01 holds what `1.3.2026` needs."""
    return [figure.lstrip("0") for figure in re.findall(r"\d+", number)]
