"""What an OpenAI-compatible server is asked, and how its answer is read. Knows no network.

Such a server tokenises chat text itself, and in many of them a chat marker inside an email (`<|im_end|>`,
`[INST]`) would become a control token: the email could end its own turn and write one of the system's. So
every such marker in data is broken by a visible space before it is sent (`< |im_end| >`).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from briefbox import language
from briefbox.schemas import BRIEF_FIELDS, BriefField, BriefRequest, Omission
from models.prompt import (
    ANSWER_ORDER,
    FIELD_PREFIXES,
    HEAD_SHARE,
    INSTRUCTIONS,
    MIN_PART_TOKENS,
    NO_CATEGORIES,
    RULES,
)
from models.text import compact, one_line

# The server's tokenizer is not known here: a token is about this many characters.
CHARS_PER_TOKEN = 4
MAX_SUBJECT_CHARS = 240
MAX_SENDER_CHARS = 120
MAX_DESCRIPTION_CHARS = 160
GAP = "\n[...]\n"

JSON_RULE = "\nAnswer with one JSON object with the keys category, priority, headline and summary, in this order, and with nothing else."

# `lines` is the form in which adapters are trained: `Priority: high` and so on, one field a line.
AnswerForm = Literal["json", "lines"]

_DELIMITER = re.compile(r"<\s*/?\s*email\s*/?\s*>", re.IGNORECASE)
# Where a space is put in. The wide forms of brackets are here because some tokenizers normalise text first.
_MARKERS = re.compile(
    r"""
    (?<=[<＜﹤])(?=\S)  # <|im_end|>  <s>  </s>  <bos>  <<SYS>>  <start_of_turn>
    | (?<=[\[［])(?=[/|｜]?[A-Za-z_][^\[\]［］\s]{0,64}[\]］])  # [INST]  [/INST]  [gMASK]  [|user|]
    | (?<=\])(?=[~!]) | (?<=~)(?=\[)  # ]~b]  ]~!b[  [e~[
    | (?<=[|｜])(?=[|｜>＞\]])  # |>  |||EMAIL|||  |]
    """,
    re.VERBOSE,
)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_LINES = re.compile(
    rf"^[ \t]*({'|'.join(map(re.escape, FIELD_PREFIXES.values()))})[ \t]*(.*?)[ \t]*$", re.MULTILINE
)
_FIELD_OF: dict[str, BriefField] = {prefix: field for field, prefix in FIELD_PREFIXES.items()}


# --- the question


@dataclass(frozen=True, slots=True)
class Question:
    """Chat text for one email: one customer's conversation, and what of it was left out."""

    system: str
    user: str
    omitted: tuple[Omission, ...]

    def because(self, reason: str) -> "Question":
        """The same question with a sentence behind the email, for a second try."""
        return replace(self, user=f"{self.user}\n{reason}")


def ask(request: BriefRequest, max_email_tokens: int, form: AnswerForm = "json") -> Question:
    """The question about an email, in the words of models.prompt.

    All email text together takes about `max_email_tokens`, counted as 4 characters each: the newest email first,
    then the original request, then the others from the newest back.
    """
    room = max_email_tokens * CHARS_PER_TOKEN
    newest, left_out = _fit(request.text, room)
    omitted = [Omission(part="newest", emails=1, tokens=left_out)] if left_out else []
    earlier, skipped = _earlier(request, room - len(newest))
    user = (
        f"From: {_value(request.sender, MAX_SENDER_CHARS)}\nSubject: {_value(request.subject, MAX_SUBJECT_CHARS)}"
        f"{earlier}\n<email>\n{newest}\n</email>\nWrite the brief of this email{_in_language(request)}."
    )
    system = f"{INSTRUCTIONS}{_categories(request)}{RULES}{JSON_RULE if form == 'json' else ''}"
    return Question(system, user, (*omitted, *skipped))


def break_markers(text: str) -> str:
    """`text` in which no chat marker of a known family is whole: a space stands inside each."""
    return _MARKERS.sub(" ", text)


def schema(labels: Mapping[BriefField, tuple[str, ...]]) -> dict[str, Any]:
    """The JSON schema of an answer; `labels` holds the allowed labels of priority and category."""
    fields: dict[str, Any] = {
        name: {"type": "string", "enum": list(labels[name])} if name in labels else {"type": "string"}
        for name in ANSWER_ORDER
    }
    return {
        "type": "object",
        "properties": fields,
        "required": list(ANSWER_ORDER),
        "additionalProperties": False,
    }


def escape(text: str) -> str:
    """Email text that can neither end itself nor speak as somebody else."""
    return break_markers(_DELIMITER.sub("[email]", compact(text)))


def _value(text: str, limit: int) -> str:
    return escape(one_line(text[: 4 * limit]))[:limit]


def _categories(request: BriefRequest) -> str:
    lines = []
    for category in request.categories or NO_CATEGORIES:
        description = _value(category.description, MAX_DESCRIPTION_CHARS)
        # A label is never cut: it is also in the schema, and both must be the same for the model.
        name = escape(one_line(category.name))
        lines.append(f"- {name}: {description}\n" if description else f"- {name}\n")
    return "".join(lines)


def _fit(text: str, room: int) -> tuple[str, int]:
    """Email text of at most `room` characters, and about how many tokens were left out: the middle."""
    if len(text) <= 4 * room:
        head = tail = escape(text)
        if len(head) <= room:
            return head, 0
        unread = len(head) - room
    else:
        # An email can have megabytes, of which only both ends are looked at.
        head, tail = escape(text[: 2 * room]), escape(text[-2 * room :])
        unread = len(text) - room
    num_head = min(int(room * HEAD_SHARE), len(head))
    num_tail = max(room - num_head - len(GAP), 0)
    kept = head[:num_head] + GAP + tail[len(tail) - min(num_tail, len(tail)) :]
    return kept, max(unread // CHARS_PER_TOKEN, 1)


def _earlier(request: BriefRequest, room: int) -> tuple[str, list[Omission]]:
    """Earlier emails in their order, and what was left out."""
    earlier, parts, omitted = request.earlier, dict[int, str](), list[Omission]()
    skipped = skipped_tokens = 0
    for number in (0, *range(len(earlier) - 1, 0, -1)) if earlier else ():
        text = earlier[number].text
        frame = f"\nEarlier, from {_value(earlier[number].sender, MAX_SENDER_CHARS)}:\n<email>\n"
        free = room - len(frame) - len("\n</email>")
        if free < min(MIN_PART_TOKENS * CHARS_PER_TOKEN, max(len(text), 1)):
            skipped, skipped_tokens = skipped + 1, skipped_tokens + max(len(text) // CHARS_PER_TOKEN, 1)
            continue
        fitted, left_out = _fit(text, free)
        if left_out:
            omitted.append(Omission(part="earlier" if number else "original", emails=1, tokens=left_out))
        parts[number] = f"{frame}{fitted}\n</email>"
        room -= len(parts[number])
    if skipped:
        omitted.append(Omission(part="earlier", emails=skipped, tokens=skipped_tokens))
    return "".join(parts[number] for number in sorted(parts)), omitted


def _in_language(request: BriefRequest) -> str:
    code = request.written_in or language.detect(request.text)
    name = language.english_name(code)
    return f" in {name}" if name and code != "en" else ""


# --- the answer


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields of an answer as the model wrote them; `ended` names those that were not cut off."""

    values: Mapping[BriefField, str]
    ended: frozenset[BriefField]


def read_answer(content: str, form: AnswerForm, *, cut_off: bool = False) -> Answer | None:
    """The fields of an answer, or None where there is none to be found.

    Text around a JSON object is passed over. An answer that ran into the token limit (`cut_off`) counts
    as far as it goes.
    """
    content = _THOUGHT.sub("", content)
    return _read_lines(content, cut_off=cut_off) if form == "lines" else _read_json(content, cut_off=cut_off)


def match_label(value: str, allowed: tuple[str, ...]) -> str | None:
    """The allowed label that `value` names; only case may differ, and only where that leaves one label."""
    value = one_line(value)
    if value in allowed:
        return value
    alike = [label for label in allowed if label.casefold() == value.casefold()]
    return alike[0] if len(alike) == 1 else None


def _read_json(content: str, *, cut_off: bool) -> Answer | None:
    found, at = None, content.find("{")
    while at >= 0:
        try:
            value, end = json.JSONDecoder(object_pairs_hook=_pairs).raw_decode(content, at)
        except (ValueError, RecursionError):
            # Text with braces of its own, or an answer that was cut off.
            found, end = found or (_salvage(content[at:]) if cut_off else None), at + 1
        else:
            if isinstance(value, dict) and value.keys() >= {"priority", "category"}:
                found = Answer(_strings(value), frozenset(BRIEF_FIELDS))
        at = content.find("{", end)
    return found


def _salvage(text: str) -> Answer | None:
    """What a JSON object held when it was cut off, its last string as far as it goes."""
    text = re.sub(r"\\(u[0-9a-fA-F]{0,3})?$", "", text)
    for end in ('"}', "}"):
        try:
            value = json.loads(text + end, object_pairs_hook=_pairs)
        except (ValueError, RecursionError):
            continue
        values = _strings(value)
        last = list(value)[-1] if value else ""
        return Answer(values, frozenset(name for name in ANSWER_ORDER if name in values and name != last))
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that comes twice makes the answer ambiguous."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _strings(value: Mapping[str, Any]) -> dict[BriefField, str]:
    return {name: value[name] for name in ANSWER_ORDER if isinstance(value.get(name), str)}


def _read_lines(content: str, *, cut_off: bool) -> Answer | None:
    values: dict[BriefField, str] = {}
    for match in _LINES.finditer(content):
        values.setdefault(_FIELD_OF[match[1]], match[2])
    last = list(values)[-1] if values and cut_off else ""
    return Answer(values, frozenset(name for name in values if name != last)) if values else None
