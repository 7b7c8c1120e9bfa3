"""The new part of a mail: without quoted history and signature, so that a brief is about today's words.

Line by line, each looked at a fixed number of times, so the time grows with the length and no faster.
When in doubt a line stays: history in a brief is untidy, a customer's lost sentence is a fault.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest.quote_headers import QUOTED, RULE, intro_length, is_forward, is_history, next_text, short, telling
from ingest.signature import signature_start
from ingest.text import tidy

_SIGNATURE = re.compile(r"^-- ?$")
_SENTENCE = re.compile(r"^[^|@•·]*[.?!。？！]$")
# A passage that is cited from elsewhere is short; longer ones are history whose introduction was removed.
_CITED_LINES = 8


class ReplyParts(NamedTuple):
    """What the sender wrote, in its order, and what was left out of it."""

    reply: str
    signature: str = ""
    quoted: str = ""


def new_text(text: str, *, forwarded: bool = False) -> str:
    """The sender's own words in their order; the text untouched when nothing would remain."""
    return split_reply(text, forwarded=forwarded).reply


def split_reply(text: str, *, forwarded: bool = False) -> ReplyParts:
    """A mail's text in parts; all of it, as it is, is the reply when nothing is left out or nothing would remain.

    `forwarded` says that the subject calls it a forward: then the forwarded mail is the content.
    """
    lines = text.split("\n")
    tells = telling(lines)
    parts = _sorted(lines, tells, forwarded=forwarded) if tells else _Sorted(lines[:])
    if not tells or not _ends_in_forward(parts.kept):
        start = signature_start(parts.kept)
        parts.signature = parts.kept[start:] + parts.signature
        del parts.kept[start:]
    if len(parts.kept) == len(lines) and not parts.quoted:
        return ReplyParts(text)
    reply = _tidy(parts.kept)
    return ReplyParts(reply, _tidy(parts.signature), _tidy(parts.quoted)) if reply else ReplyParts(text)


@dataclass(slots=True)
class _Sorted:
    """The lines that are kept, those of a signature, and those of history."""

    kept: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)


def _sorted(lines: list[str], tells: list[int], *, forwarded: bool) -> _Sorted:
    """The lines in parts, but for a signature without a mark. Prose between the lines that tell is kept as it is."""
    parts = _Sorted()
    kept = parts.kept
    cites = forwarded or _only_cites(lines)
    cited = len(lines) if cites else _end_of_cited(lines, tells)
    at = 0
    for told in tells:
        if told < at:
            continue  # it was taken with a line above it
        kept += lines[at:told]
        at = _take(lines, told, parts, cites=told < cited, forwarded=forwarded)
    kept += lines[at:]
    return parts


def _take(lines: list[str], at: int, parts: _Sorted, *, cites: bool, forwarded: bool) -> int:
    """Sort the line at `at`, with those that belong to it. Returns where the next one is."""
    line, kept = lines[at], parts.kept
    if is_forward(line):
        kept += lines[at:]
        return len(lines)
    intro = intro_length(lines, at)
    history = is_history(lines, at) or (intro > 0 and _unmarked(lines, at + intro))
    if history and _is_announced(kept):
        # "The headers are:" or "this is what I got:" makes it something that the sender shows.
        length = max(intro, 1)
        kept += lines[at : at + length]
        return at + length
    if history:
        # History without quote marks: where it ends cannot be seen, so it ends the new part.
        is_content = forwarded or not _has_words(kept)
        (kept if is_content else parts.quoted).extend(lines[at:])
        return len(lines)
    if intro:
        parts.quoted += ["", *lines[at : at + intro]]
        return at + intro
    if QUOTED.match(line) and not cites:
        parts.quoted.append(line)
        kept.append("")
        return at + 1
    if _SIGNATURE.match(line) and _has_words(kept) and not _is_sentence(lines, at + 1):
        end = _signature_end(lines, at)
        parts.signature += lines[at + 1 : end]
        return end
    kept.append(line)
    return at + 1


def _unmarked(lines: list[str], at: int) -> bool:
    follows = next_text(lines, at)
    return follows is not None and not QUOTED.match(lines[follows])


def _is_announced(kept: list[str]) -> bool:
    """Whether the last line that the sender wrote ends in a colon, with little but a rule after it."""
    last = (line.strip() for line in reversed(kept[-5:]))
    return next((line for line in last if line and not RULE.match(short(line))), "").endswith((":", "："))


def _has_words(lines: Iterable[str]) -> bool:
    return any(line.strip() and not RULE.match(short(line)) for line in lines)


def _ends_in_forward(kept: list[str]) -> bool:
    """Whether a forwarded mail is the end: its signature tells who wrote it."""
    return any(is_forward(kept[at]) or is_history(kept, at) for at in telling(kept))


def _only_cites(lines: list[str]) -> bool:
    """Whether "> " marks a passage that the sender cites, in a mail that answers none."""
    if not any(">" in line[:4] for line in lines):
        return False
    written = [line for line in lines if line.strip()]
    marks = [bool(QUOTED.match(line)) for line in written]
    quoted = sum(marks)
    if not quoted or marks[0] or marks[-1]:
        return False
    passages = sum(now and not before for before, now in zip([False, *marks], marks, strict=False))
    if 2 * quoted >= len(written) and (passages > 1 or quoted > _CITED_LINES):
        return False
    # Some programs put the introduction into the quote.
    bare = [line.lstrip("> ") for line in lines]
    return not any(intro_length(bare if QUOTED.match(line) else lines, at) for at, line in enumerate(lines))


def _end_of_cited(lines: list[str], tells: list[int]) -> int:
    """Where the history begins below words that the sender wrote, if it says so: a few quoted lines before that are cited."""
    intro = next((at for at in tells if intro_length(lines, at)), 0)
    marks = [bool(QUOTED.match(line)) for line in lines[:intro]]
    written = [line for line, mark in zip(lines[:intro], marks, strict=True) if line.strip() and not mark]
    return intro if written and not marks[0] and sum(marks) <= _CITED_LINES else 0


def _is_sentence(lines: list[str], at: int) -> bool:
    """Whether the text goes on in whole sentences: two dashes between two thoughts, and no signature."""
    follows = next_text(lines, at)
    line = "" if follows is None else short(lines[follows]).strip()
    return bool(_SENTENCE.match(line)) and (len(line.split()) >= 7 or (not line.isascii() and len(line) > 20))


def _signature_end(lines: list[str], at: int) -> int:
    """A signature ends at the next quoted history: bottom posters have theirs above a quote."""
    for index in range(at + 1, len(lines)):
        if QUOTED.match(lines[index]) or is_forward(lines[index]):
            return index
        if is_history(lines, index) or intro_length(lines, index):
            return index
    return len(lines)


def _tidy(kept: list[str]) -> str:
    lines = kept
    while lines and (not lines[-1].strip() or RULE.match(short(lines[-1].rstrip()))):
        lines = lines[:-1]
    return tidy("\n".join(lines))
