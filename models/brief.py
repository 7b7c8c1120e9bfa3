"""From what a model wrote to the Brief that people read: plain, grounded, and never empty.

The output is untrusted like the email it came from. What the email does not hold is left out, and where nothing
is left the email speaks for itself, marked as a quotation.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from briefbox import language
from briefbox.schemas import (
    Brief,
    BriefField,
    BriefRequest,
    Grounding,
    LabelScore,
    Omission,
    Provenance,
    Sentence,
)
from models.doubt import needs_human
from models.grounding import Evidence
from models.instructions import addresses_assistant
from models.text import one_line, sentence_spans, sentences, shorten

MAX_HEADLINE_WORDS = 12
MAX_HEADLINE_CHARS = 120
MAX_SUMMARY_CHARS = 600
NO_TEXT = "(no text)"

# Markdown and HTML are text here, but nobody should have to read them.
_LINK = re.compile(r"\[([^\]\n]{1,200})\]\((\S{1,300}?)\)")
_TAG = re.compile(r"</?[a-z][^<>\n]{0,200}>", re.IGNORECASE)
_CHAT = re.compile(r"<\|[^|<>\n]{0,40}\|>|<(?:start|end)_of_turn>|\[/?INST\]|</?s>")
_EMPHASIS = re.compile(r"\*\*|__|`{1,3}|^\s{0,3}#{1,6}\s+|^\s{0,3}>\s+|^\s{0,3}[-*]\s+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Draft:
    """What an engine has: raw text, chosen labels, and how it came about."""

    headline: str
    headline_ended: bool  # False: it ran into the limit of tokens
    summary: str
    summary_ended: bool
    priority: LabelScore
    category: LabelScore
    omitted: tuple[Omission, ...]
    provenance: Provenance


def finish(
    draft: Draft, request: BriefRequest, thresholds: Mapping[str, float], evidence: Evidence | None = None
) -> Brief:
    """The brief of a draft. `thresholds` are those of `models.doubt`."""
    evidence = evidence or Evidence(request)
    removed: list[str] = []
    quoted: list[BriefField] = []
    headline = _headline(draft, evidence, removed)
    if not headline:
        quoted.append("headline")
        headline = one_line(request.subject) or "".join(sentences(request.text)[:1]) or NO_TEXT
    kept = _summary(draft, evidence, removed)
    if not kept:
        quoted.append("summary")
        kept = (sentences(request.text) or [one_line(request.subject) or NO_TEXT])[:1]
    summary = shorten(" ".join(kept), MAX_SUMMARY_CHARS)
    labels: dict[BriefField, LabelScore] = {"priority": draft.priority, "category": draft.category}
    seen = (request.subject, request.text, *(email.text for email in request.earlier))
    return Brief(
        headline=_few_words(headline),
        summary=summary,
        priority=draft.priority,
        category=draft.category,
        language=language.detect(request.text) or language.detect(f"{request.subject}\n{request.text}"),
        needs_human=needs_human(labels, thresholds),
        grounding=Grounding(
            removed=tuple(removed),
            sentences=tuple(
                _supported(summary[start:end], evidence) for start, end in sentence_spans(summary)
            ),
            quoted=tuple(quoted),
        ),
        instructions_found=any(addresses_assistant(text) for text in seen),
        cut=bool(draft.omitted),
        omitted=draft.omitted,
        provenance=draft.provenance,
    )


def plain_text(text: str) -> str:
    """One line as a person may see it: no hidden characters, no chat markup, no Markdown or HTML."""
    text = _LINK.sub(r"\1 (\2)", _CHAT.sub(" ", text))
    text = _EMPHASIS.sub("", _TAG.sub(" ", text))
    return one_line(text).strip(" \"'*#")


def _headline(draft: Draft, evidence: Evidence, removed: list[str]) -> str:
    """The model's headline, or "" when there is nothing of use in it."""
    line = plain_text(draft.headline).strip("-–: ")
    if not _says_something(line):
        return ""
    if evidence.missing(line):
        removed.append(line)
        return ""
    return line if draft.headline_ended else line + "…"


def _summary(draft: Draft, evidence: Evidence, removed: list[str]) -> list[str]:
    """The sentences of the model's summary that the email bears out."""
    line = plain_text(draft.summary)
    if not _says_something(line):
        return []
    spans = sentence_spans(line)
    if not draft.summary_ended and not re.search(r"[.!?。！？][\"'”’»)\]]{0,3}$", line):
        # Cut back to the last whole sentence; a single one that has no end says so.
        spans, line = (spans[:-1], line) if len(spans) > 1 else (spans, line + "…")
        spans = spans if len(spans) > 1 or not line.endswith("…") else [(0, len(line))]
    kept: list[str] = []
    for start, end in spans:
        sentence = line[start:end]
        if evidence.missing(sentence):
            removed.append(sentence)
        elif _says_something(sentence) and sentence not in kept:
            kept.append(sentence)
    return kept


def _supported(sentence: str, evidence: Evidence) -> Sentence:
    start, end = evidence.support(sentence) or (None, None)
    return Sentence(text=sentence, start=start, end=end)


def _few_words(line: str) -> str:
    words = line.split()
    if len(words) > MAX_HEADLINE_WORDS:
        line = " ".join(words[:MAX_HEADLINE_WORDS]).rstrip(" ,;:.…") + "…"
    return shorten(line, MAX_HEADLINE_CHARS)


def _says_something(line: str) -> bool:
    return sum(char.isalnum() for char in line) >= 3
