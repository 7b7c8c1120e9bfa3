"""Examples from elsewhere: a CSV export of any encoding and delimiter, or JSONL, with every bad row named.

A row is good or it is listed with the number of its line and a reason; none disappears. The categories are those
of the file, not of this installation, and go with its examples into the prompt.
"""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from charset_normalizer import from_bytes
from pydantic import ValidationError

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.errors import TrainingError
from briefbox.schemas import (
    PRIORITIES,
    BriefRequest,
    Category,
    EarlierEmail,
    Example,
    ExampleOutput,
    Frozen,
    Split,
)

DELIMITERS = (",", ";", "\t", "|")
# More different values than this are free text, and would not fit into a prompt.
MAX_CATEGORIES = 60
MAX_CATEGORY_CHARS = 60
# A cell beyond this is no email: the csv module's own limit of 131,072 would stop at long threads.
MAX_CELL = 5_000_000
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "held-out": "test",
}
# Byte order marks, longest first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# A record of more lines than this is a quote that was never closed: else each such quote would read the file again.
MAX_RECORD_LINES = 5_000
# What most of the bytes of a file without a mark are judged by.
_SAMPLE = 500_000
_PROGRESS_EVERY = 500


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns (of the keys, in JSONL). Where one but `input` is None, a column of its own name is used if there is one."""

    input: str = "input"
    output: str | None = None
    subject: str | None = None
    sender: str | None = None
    headline: str | None = None
    priority: str | None = None
    category: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no example, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class Imported:
    """What a file held."""

    examples: list[Example]
    bad: list[BadRow]
    num_rows: int
    repeated: int  # rows equal to an earlier one
    encoding: str
    delimiter: str  # "" in JSONL
    columns: dict[str, str]  # which column gave which field
    categories: tuple[str, ...]


class _Row(Frozen):
    line: int
    subject: str = ""
    sender: str = ""
    text: str = ""
    output: ExampleOutput = ExampleOutput()
    split: Split | None = None
    earlier: tuple[EarlierEmail, ...] = ()


OnProgress = Callable[[int, int], None]


def read_file(
    path: Path,
    columns: Columns,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    on_progress: OnProgress | None = None,
) -> Imported:
    """All examples of a CSV or JSONL file; JSONL by the ending .jsonl, .ndjson or .json.

    `on_progress` is called with lines read and lines in all. Raises TrainingError when the file cannot
    be read, has no such columns, or its categories are free text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read ({error.strerror}); expected a CSV or JSONL file."
        ) from error
    text, used = _decode(path, content, encoding)
    if not text.strip():
        raise TrainingError(f"{path} is empty; expected a header line and rows, or JSON objects.")
    bad: list[BadRow] = []
    lines = list(io.StringIO(text, newline=""))
    tell = on_progress or (lambda _done, _total: None)
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        found = ""
        chosen: dict[str, str] = {}
        rows = list(_json_rows(lines, columns, bad, tell))
    else:
        found, header = _header(path, lines, columns, delimiter)
        chosen = _choose(path, header, columns)
        rows = list(_csv_rows(lines, found, header, chosen, bad, tell))
    categories = _categories(path, rows)
    examples, repeated = _examples(rows, categories)
    return Imported(
        examples,
        sorted(bad, key=lambda row: row.line),
        len(rows) + len(bad),
        repeated,
        used,
        found,
        chosen,
        tuple(c.name for c in categories),
    )


# --- bytes to text


def _decode(path: Path, content: bytes, encoding: str | None) -> tuple[str, str]:
    if encoding is None:
        encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None:
        try:
            return content.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            best = from_bytes(content[:_SAMPLE]).best()
            encoding = best.encoding if best else "cp1252"
    try:
        return content.decode(encoding), encoding
    except LookupError as error:
        raise TrainingError(
            f"The encoding {encoding} is not known; expected one such as utf-8, cp1252 or utf-16."
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TrainingError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not {encoding}; name the encoding with --encoding (utf-8, cp1252, utf-16)."
        ) from error


# --- CSV


def _header(
    path: Path, lines: Sequence[str], columns: Columns, delimiter: str | None
) -> tuple[str, list[str]]:
    """The delimiter with which the first line has the column of the input, and the names in that line."""
    tried = [delimiter] if delimiter else DELIMITERS
    best: list[str] = []
    for each in tried:
        try:
            names = [name.strip() for name in next(_records(lines, each))[1] or []]
        except (TypeError, csv.Error) as error:
            raise TrainingError(f"The delimiter {each!r} is not one character.") from error
        if _find(names, columns.input) is not None:
            return each, names
        best = max(best, names, key=len)
    raise TrainingError(
        f"{path} has no column {columns.input!r} in its first line; found: {', '.join(map(repr, best[:20]))}. Name the one with the emails with --input."
    )


def _find(names: Sequence[str], wanted: str) -> int | None:
    """Exactly, else whatever the case."""
    if wanted in names:
        return names.index(wanted)
    folded = [name.casefold() for name in names]
    return folded.index(wanted.casefold()) if wanted.casefold() in folded else None


def _choose(path: Path, header: Sequence[str], columns: Columns) -> dict[str, str]:
    """Field to column."""
    chosen: dict[str, str] = {}
    for name in columns.__slots__:
        wanted = getattr(columns, name)
        at = _find(header, wanted or name)
        if at is None and name == "output" and not wanted:
            at = _find(header, "summary")
        if at is not None:
            chosen[name] = header[at]
        elif wanted:
            raise TrainingError(
                f"{path} has no column {wanted!r} (given with --{name}); found: {', '.join(map(repr, header[:20]))}."
            )
    repeated = [name for name, count in Counter(header).items() if count > 1 and name in chosen.values()]
    if repeated:
        raise TrainingError(
            f"{path} has the column {repeated[0]!r} more than once; rename one, so that it is clear which is meant."
        )
    if not chosen.keys() & {"output", "headline", "priority", "category"}:
        raise TrainingError(
            f"{path} has nothing to learn besides {columns.input!r}; name a column with --output, --headline, --priority or --category. Found: {', '.join(map(repr, header[:20]))}."
        )
    return chosen


def _csv_rows(
    lines: Sequence[str],
    delimiter: str,
    header: Sequence[str],
    chosen: Mapping[str, str],
    bad: list[BadRow],
    tell: OnProgress,
) -> Iterator[_Row]:
    places = {name: list(header).index(column) for name, column in chosen.items()}
    total = len(lines)
    for number, (line, cells, problem) in enumerate(_records(lines, delimiter)):
        if number % _PROGRESS_EVERY == 0:
            tell(line, total)
        if number == 0 or (cells is not None and not any(cell.strip() for cell in cells)):
            continue  # the header; an empty line
        if cells is None:
            bad.append(BadRow(line, problem))
        elif len(cells) != len(header):
            bad.append(BadRow(line, f"{len(cells)} cells where the first line has {len(header)}"))
        else:
            try:
                yield _row(line, {name: cells[at].strip() for name, at in places.items()})
            except ValueError as error:
                bad.append(BadRow(line, str(error)))
    tell(total, total)


def _records(lines: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str] | None, str]]:
    """Records with the number of the line they begin in; None instead of cells for one that is malformed.

    After a malformed record (a quote that never closes swallows the rest of a file) reading goes on at the line
    after the one in which it began, so that one bad quote costs one row.
    """
    csv.field_size_limit(MAX_CELL)
    begin = 0
    while begin < len(lines):
        feed = _Feed(lines, begin)
        reader = csv.reader(feed, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                yield feed.begin + 1, cells, ""
                feed.begin = feed.next
            return
        except csv.Error as error:
            reason = (
                "a quote opens here and never closes"
                if "unexpected end" in str(error)
                else f"not readable as CSV ({error})"
            )
            yield feed.begin + 1, None, reason
            begin = feed.begin + 1


class _Feed(Iterator[str]):
    """Lines for the csv reader, with an end to a record that does not end by itself."""

    def __init__(self, lines: Sequence[str], begin: int) -> None:
        self._lines = lines
        self.begin = self.next = begin  # of the record; of what is read next

    def __next__(self) -> str:
        if self.next >= len(self._lines) or self.next - self.begin > MAX_RECORD_LINES:
            raise StopIteration
        self.next += 1
        return self._lines[self.next - 1]


# --- JSONL


def _json_rows(lines: Sequence[str], columns: Columns, bad: list[BadRow], tell: OnProgress) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        if number % _PROGRESS_EVERY == 1:
            tell(number, len(lines))
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f"expected a JSON object, found {type(value).__name__}")
            yield _json_row(number, value, columns)
        except json.JSONDecodeError as error:
            bad.append(BadRow(number, f"not JSON ({error.msg} at column {error.colno})"))
        except ValueError as error:
            bad.append(BadRow(number, str(error)))
    tell(len(lines), len(lines))


def _json_row(number: int, value: Mapping[str, Any], columns: Columns) -> _Row:
    given = value.get(columns.input)
    found: dict[str, str] = {}
    earlier: tuple[EarlierEmail, ...] = ()
    if isinstance(given, dict):
        found["input"] = _text(given, "body") or _text(given, "text")
        found |= {name: _text(given, name) for name in ("subject", "sender")}
        earlier = _earlier(given)
    elif given is not None and not isinstance(given, str):
        raise ValueError(
            f"`{columns.input}` is {type(given).__name__}; expected a text or an object with subject and body"
        )
    else:
        found["input"] = given or ""
    output = value.get(columns.output or "output")
    if isinstance(output, dict):
        found["output"] = _text(output, "summary")
        found |= {name: _text(output, name) for name in ("headline", "priority", "category")}
    elif output is not None and not isinstance(output, str):
        raise ValueError(
            f"`{columns.output or 'output'}` is {type(output).__name__}; expected a text or an object with headline, summary, priority, category"
        )
    elif output:
        found["output"] = output
    for name in ("subject", "sender", "headline", "priority", "category", "split"):
        if not found.get(name):
            found[name] = _text(value, getattr(columns, name) or name)
    return _row(number, found, earlier)


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"`{key}` is {type(found).__name__}; expected a text")
    return found.strip()


def _earlier(given: Mapping[str, Any]) -> tuple[EarlierEmail, ...]:
    try:
        return tuple(EarlierEmail.model_validate(email) for email in given.get("earlier") or ())
    except (ValidationError, TypeError):
        raise ValueError("`earlier` is no list of objects with sender and text") from None


# --- rows to examples


def _row(line: int, found: Mapping[str, str], earlier: tuple[EarlierEmail, ...] = ()) -> _Row:
    """Raises ValueError with the reason why it is no example."""
    if not found.get("input"):
        raise ValueError("the email is empty")
    priority = found.get("priority", "").casefold() or None
    if priority is not None and priority not in PRIORITIES:
        raise ValueError(f"the priority {found['priority']!r} is not one of {', '.join(PRIORITIES)}")
    category = " ".join(found.get("category", "").split()) or None
    if category is not None and len(category) > MAX_CATEGORY_CHARS:
        raise ValueError(
            f"the category has {len(category)} characters; expected at most {MAX_CATEGORY_CHARS}"
        )
    split = found.get("split", "").casefold()
    if split and split not in SPLIT_NAMES:
        raise ValueError(f"the split {found['split']!r} is not one of train, validation, test")
    output = ExampleOutput(
        priority=priority,
        category=category,
        headline=found.get("headline") or None,
        summary=found.get("output") or None,
    )
    if output == ExampleOutput():
        raise ValueError("nothing to learn: summary, headline, priority and category are empty")
    return _Row(
        line=line,
        subject=found.get("subject", ""),
        sender=found.get("sender", ""),
        text=found["input"],
        output=output,
        split=SPLIT_NAMES.get(split),
        earlier=earlier,
    )


def _categories(path: Path, rows: Sequence[_Row]) -> tuple[Category, ...]:
    """Those of the file, the commonest first; the default ones where it has none, since a prompt must list some."""
    counts = Counter(row.output.category for row in rows if row.output.category)
    if len(counts) > MAX_CATEGORIES:
        raise TrainingError(
            f"{path} has {len(counts)} different categories, which is free text rather than a set of categories; expected at most {MAX_CATEGORIES}. Choose another column with --category."
        )
    if not counts:
        return DEFAULT_CATEGORIES
    return tuple(Category(name=name) for name, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0])))


def _examples(rows: Sequence[_Row], categories: tuple[Category, ...]) -> tuple[list[Example], int]:
    examples: dict[str, Example] = {}
    for row in rows:
        # By its content, so that the same row of a later export is the same example and keeps its part.
        told = row.model_dump_json(exclude={"line", "split"}, exclude_none=True)
        key = f"import-{sha256(told.encode()).hexdigest()[:24]}"
        if key in examples:
            continue
        examples[key] = Example(
            id=key,
            split=row.split,
            input=BriefRequest(
                subject=row.subject,
                sender=row.sender,
                text=row.text,
                earlier=row.earlier,
                categories=categories,
            ),
            output=row.output,
            strength="imported",
            conversation=key,
        )
    return list(examples.values()), len(rows) - len(examples)
