"""From what the model wrote to what people read: plain text that is never empty.

The output is untrusted like the email it came from: no hidden characters, one line, bounded length,
and no number that the email does not hold.
"""

import re

from briefbox.schemas import BriefRequest
from models.grounding import is_grounded
from models.text import one_line, sentences, shorten

MAX_HEADLINE_CHARS = 120
MAX_SUMMARY_CHARS = 600
NO_TEXT = "(no text)"

_SENTENCE_GAP = re.compile(r"(?<=[.!?])\s+")


def compose_headline(text: str, request: BriefRequest, *, ended: bool) -> str:
    """One line for the queue; the subject where the model wrote nothing of use."""
    line = one_line(text).strip(" \"'*#-")
    if not _says_something(line) or not is_grounded(line, request):
        line = one_line(request.subject) or "".join(sentences(request.text)[:1]) or NO_TEXT
        ended = True
    return shorten(line if ended else line + "…", MAX_HEADLINE_CHARS)


def compose_summary(text: str, request: BriefRequest, *, ended: bool) -> str:
    """A short block; the email's first sentences where the model wrote nothing of use.

    A summary that ran into the token limit is cut back to its last whole sentence, and a sentence with a
    number that the email does not hold is left out.
    """
    line = one_line(text).strip(" \"'*#")
    if not ended:
        end = max(line.rfind(mark) for mark in (". ", "! ", "? "))
        line = line[: end + 1] if end > 0 else line + "…"
    line = " ".join(part for part in _SENTENCE_GAP.split(line) if is_grounded(part, request))
    if not _says_something(line):
        line = " ".join(sentences(request.text)[:2]) or one_line(request.subject) or NO_TEXT
    return shorten(line, MAX_SUMMARY_CHARS)


def _says_something(line: str) -> bool:
    return sum(char.isalnum() for char in line) >= 3
