"""How sure a server is of a label, read from the log-probabilities of the tokens that it wrote.

A server lists, for each place in its answer, the few tokens that it found likeliest there. The label that it
wrote is walked token by token; at each place the other listed tokens are compared with the allowed labels.
Labels that begin with the same token are told apart where they part.

This is an estimate. A label that leaves the written one at some place is followed no further: all of the token
that leads to it counts as its own, and a token that leads to several labels is shared equally. A label
that no listed token leads to gets its share of the probability that is not listed, at most as much as the
least likely listed token. All is normalised over the allowed labels.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from briefbox.schemas import BriefField, LabelScore
from models.openai_text import AnswerForm
from models.prompt import FIELD_PREFIXES


@dataclass(frozen=True, slots=True)
class Token:
    """A written token and what might have stood in its place. Texts hold one character for each UTF-8 byte."""

    text: str
    options: Mapping[str, float]  # probability by text; holds the written one


def read_tokens(logprobs: object) -> list[Token]:
    """The tokens of a choice's `logprobs`; empty where the server gives none, or in another form."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        return [_token(entry) for entry in content or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def score(
    tokens: Sequence[Token],
    field: BriefField,
    labels: Sequence[str],
    chosen: str,
    form: AnswerForm,
    temperature: float = 1.0,
) -> LabelScore:
    """The chosen label with probabilities over all `labels`; confidence None and no scores where they are unknown.

    `temperature` is the one of an adapter's card: it divides the log-probabilities.
    """
    opener, end = _frame(field, form)
    text = "".join(token.text for token in tokens)
    match = opener.search(text)
    written = {label: _written(label, form) + end for label in labels}
    if match is None or not text.startswith(written[chosen], match.end()):
        # Not given, or not what was read from the answer: the server spells its tokens differently.
        return LabelScore(label=chosen, confidence=None, scores={})
    scores = _walk(tokens, match.end(), written)
    if not scores:
        return LabelScore(label=chosen, confidence=None, scores={})
    scores = _soften(scores, temperature)
    return LabelScore(label=chosen, confidence=scores[chosen], scores=scores)


def _frame(field: BriefField, form: AnswerForm) -> tuple[re.Pattern[str], str]:
    """What stands before a field's value, and the character that ends it."""
    if form == "lines":
        return re.compile(rf"(?:^|\n)[ \t]*{FIELD_PREFIXES[field]}[ \t]*"), "\n"
    # Inside a JSON string the quotes would be escaped, so this finds keys only.
    return re.compile(rf'"{field}"\s*:\s*"'), '"'


def _written(label: str, form: AnswerForm) -> str:
    text = json.dumps(label, ensure_ascii=False)[1:-1] if form == "json" else label
    return _bytes(text)


def _bytes(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _token(entry: Mapping[str, Any]) -> Token:
    options: dict[str, float] = {}
    # The written one comes last: its own entry is the one that counts.
    for option in (*(entry.get("top_logprobs") or ()), entry):
        logprob = float(option["logprob"])
        if math.isnan(logprob):
            raise ValueError("a log-probability is no number")
        options[_text(option)] = math.exp(min(logprob, 0.0))
    return Token(_text(entry), options)


def _text(entry: Mapping[str, Any]) -> str:
    # A token may hold half of a character, which only `bytes` can say.
    return bytes(entry["bytes"]).decode("latin-1") if entry.get("bytes") else _bytes(entry["token"])


def _walk(tokens: Sequence[Token], start: int, written: Mapping[str, str]) -> dict[str, float]:
    """Probabilities of the labels whose `written` form may stand at `start` in the text of `tokens`."""
    number, offset = 0, 0
    while offset + len(tokens[number].text) <= start:
        offset += len(tokens[number].text)
        number += 1
    # The first token may begin before the value, for example with its quote.
    lead = "".join(token.text for token in tokens)[offset:start]
    targets = {label: lead + form for label, form in written.items()}
    scores, share, done, live = dict.fromkeys(written, 0.0), 1.0, "", set(written)
    for token in tokens[number:]:
        if len(live) < 2:
            break
        parts = _parts(token, done, {label: targets[label] for label in live})
        total = math.fsum(parts.values())
        if total <= 0:
            return {}
        for label, part in parts.items():
            if label:
                scores[label] += share * part / total
        share *= parts[""] / total
        done += token.text
        live = set(_fitting(done, {label: targets[label] for label in live}))
    for label in live:
        scores[label] += share / len(live)
    whole = math.fsum(scores.values())
    return {label: part / whole for label, part in scores.items()} if whole > 0 else {}


def _parts(token: Token, done: str, targets: Mapping[str, str]) -> dict[str, float]:
    """Who gets how much at one place: labels that part from the written text here, and "" for the written one."""
    parts = dict.fromkeys(targets, 0.0) | {"": token.options[token.text]}
    known = set(_fitting(done + token.text, targets))
    for text, probability in token.options.items():
        fitting = _fitting(done + text, targets) if text and text != token.text else []
        known.update(fitting)
        if len(fitting) < len(targets):  # a token that fits all labels says nothing about them
            for label in fitting:
                parts[label] += probability / len(fitting)
    if unlisted := [label for label in targets if label not in known]:
        rest = max(1 - math.fsum(token.options.values()), 0.0) / len(unlisted)
        least = min(token.options.values())
        parts |= dict.fromkeys(unlisted, min(rest, least))
    return parts


def _fitting(text: str, targets: Mapping[str, str]) -> list[str]:
    """The labels that an answer which begins with `text` may still become."""
    return [label for label, form in targets.items() if form.startswith(text) or text.startswith(form)]


def _soften(scores: Mapping[str, float], temperature: float) -> dict[str, float]:
    if temperature == 1.0:
        return dict(scores)
    logs = {label: math.log(max(part, 1e-300)) / temperature for label, part in scores.items()}
    highest = max(logs.values())
    powers = {label: math.exp(value - highest) for label, value in logs.items()}
    whole = math.fsum(powers.values())
    return {label: power / whole for label, power in powers.items()}
