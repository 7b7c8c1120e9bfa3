"""Emails from files and standard input, as requests for the model: no database, no mailbox.

a folder          its *.eml files, sorted by name
.eml              one email
.jsonl            {"id", "subject", "body"} a line, "from" where it is known; read line by line
- or other files  JSONL where the first character is {, else one email
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

from briefbox.cli.output import printable
from briefbox.errors import InvalidValueError, ParseError
from briefbox.schemas import Address, BriefRequest, Category, EarlierEmail, ParsedEmail
from briefbox.store.requests import MAX_CHARS, QUOTED_HISTORY, quoted_history
from ingest.parse import parse_email
from ingest.reply import ReplyParts, split_reply
from models.text import one_line, visible

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Found:
    """An email, or why there is none. `name` is a file's path or a line's id; `where` names it in a sentence."""

    key: Literal["file", "id"]
    name: str
    where: str
    request: BriefRequest | None = None
    problem: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads emails and makes requests with these categories, to be answered in this language ("" is their own)."""

    categories: tuple[Category, ...]
    written_in: str
    max_bytes: int

    def read(self, paths: Sequence[str]) -> Iterator[Found]:
        """All emails of these paths, in order. A bad file or line is a Found with its problem."""
        for name in paths:
            yield from self._path(name)

    def _path(self, name: str) -> Iterator[Found]:
        shown = printable(name)
        try:
            if name == STDIN:
                yield from self._stream(sys.stdin.buffer, "standard input")
                return
            path = Path(name)
            if path.is_dir():
                files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".eml")
                if not files:
                    yield Found("file", shown, shown, problem="The folder holds no .eml file.")
                for file in files:
                    yield from self._path(str(file))
                return
            with path.open("rb") as opened:
                if path.suffix.lower() == ".eml":
                    yield self._eml(opened, shown)
                else:
                    yield from self._stream(opened, shown)
        except OSError as error:
            yield Found("file", shown, shown, problem=f"It cannot be read ({error.strerror or error}).")

    def _stream(self, file: BinaryIO, shown: str) -> Iterator[Found]:
        """JSONL or one email, by the first character that is not blank."""
        head: list[bytes] = []
        while line := file.readline(self.max_bytes + 1):
            head.append(line)
            if line.strip():
                break
        if not head or not head[-1].strip():
            yield Found("file", shown, shown, problem="It is empty.")
        elif head[-1].lstrip().startswith(b"{"):
            yield from self._lines(file, head, shown)
        else:
            rest = file.read(max(self.max_bytes + 1 - sum(map(len, head)), 0))
            yield self._eml(BytesIO(b"".join(head) + rest), shown)

    def _eml(self, file: BinaryIO, shown: str) -> Found:
        raw = file.read(self.max_bytes + 1)
        if len(raw) > self.max_bytes:
            return Found("file", shown, shown, problem=self._too_long())
        try:
            parsed = parse_email(raw)
        except ParseError as error:
            return Found("file", shown, shown, problem=str(error))
        request, cut = self.request(parsed)
        return Found("file", shown, shown, request, cut=cut)

    def _lines(self, file: BinaryIO, head: list[bytes], shown: str) -> Iterator[Found]:
        rest = iter(lambda: file.readline(self.max_bytes + 1), b"")
        number, goes_on = 0, False
        for line in chain(head, rest):
            if goes_on:  # the rest of a line that was too long
                goes_on = not line.endswith(b"\n")
                continue
            number += 1
            where = f"{shown}, line {number}"
            if len(line) > self.max_bytes:
                goes_on = not line.endswith(b"\n")
                yield Found("id", str(number), where, problem=self._too_long())
            elif line.strip():
                yield self._line(line, number, where)

    def _line(self, line: bytes, number: int, where: str) -> Found:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            return Found("id", str(number), where, problem=f"The line is no JSON ({error}).")
        if not isinstance(value, dict):
            return Found("id", str(number), where, problem="The line is no JSON object.")
        name = printable(str(value.get("id", number)))
        texts = {key: value.get(key) or "" for key in ("subject", "body", "from")}
        if wrong := [key for key, text in texts.items() if not isinstance(text, str)]:
            return Found("id", name, where, problem=f'"{wrong[0]}" is no text.')
        if not texts["subject"].strip() and not texts["body"].strip():
            return Found("id", name, where, problem='The line has neither "subject" nor "body".')
        text = visible(texts["body"]).strip()
        sender = Address(name=one_line(texts["from"]))
        parts = split_reply(text) if len(text) <= MAX_CHARS else ReplyParts(text)
        request, cut = self.request(
            ParsedEmail(
                subject=one_line(texts["subject"]),
                sender=sender,
                text=text,
                reply=parts.reply,
                signature=parts.signature,
                quoted=parts.quoted,
            )
        )
        return Found("id", name, where, request, cut=cut)

    def request(self, parsed: ParsedEmail) -> tuple[BriefRequest, bool]:
        """What to ask about an email that stands alone, as for stored mail, and whether it had to be cut."""
        text, history = parsed.reply or parsed.text, quoted_history(parsed)
        earlier = (EarlierEmail(sender=QUOTED_HISTORY, text=history[:MAX_CHARS]),) if history else ()
        request = BriefRequest(
            subject=parsed.subject,
            sender=parsed.sender.name or parsed.sender.address,
            text=text[:MAX_CHARS],
            categories=self.categories,
            earlier=earlier,
            written_in=self.written_in,
        )
        return request, max(len(text), len(history)) > MAX_CHARS

    def _too_long(self) -> str:
        return f"It is longer than {self.max_bytes} bytes (BRIEFBOX_MAX_EMAIL_BYTES)."


def read_categories(path: Path) -> tuple[Category, ...]:
    """Categories from a file: a JSON list of {"name", "description"}, or lines of `name: description`.

    Raises InvalidValueError with the line or entry that cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(
            f"The categories in {path} cannot be read ({error}); expected a text file in UTF-8."
        ) from error
    pairs = _json_pairs(path, text) if text.lstrip().startswith("[") else _line_pairs(path, text)
    categories: dict[str, Category] = {}
    for where, name, description in pairs:
        name = one_line(name)
        if not name or name in categories:
            why = "is there twice" if name else "has no name"
            raise InvalidValueError(f"{path}, {where}: the category {name!r} {why}; expected each name once.")
        categories[name] = Category(name=name, description=one_line(description))
    if not categories:
        raise InvalidValueError(f"{path} holds no category; expected lines of `name: description`.")
    return tuple(categories.values())


def _json_pairs(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"{path} is no JSON ({error}).") from error
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        description = entry.get("description", "") if isinstance(entry, dict) else ""
        if not isinstance(name, str) or not isinstance(description, str):
            raise InvalidValueError(
                f'{path}, entry {number}: expected {{"name": text, "description": text}}, found {entry!r:.80}.'
            )
        yield f"entry {number}", name, description


def _line_pairs(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, _, description = line.partition(":")
            yield f"line {number}", name, description
