"""Harvest: what agents corrected and confirmed becomes an immutable dataset version, a JSONL file.

Only finished conversations count. A line holds exactly what the model was asked, what it said, and
what it should have said. The same judgements give the same bytes, and the same bytes are the same
version. Knows no tokenizer and no model, so that `briefbox dataset harvest` is quick.
"""

import hmac
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, func, select

from briefbox.errors import TrainingError
from briefbox.schemas import BRIEF_FIELDS, BriefField, BriefRequest, Example, ExampleOutput
from briefbox.settings import Settings
from briefbox.store import training as store
from briefbox.store.categories import merged_names
from briefbox.tables import Correction, Dataset, User
from training.merged import in_new_names
from training.quality import clean, disagreeing_agents
from training.redact import redact_example
from training.splits import assign
from training.tabular import Imported

FOLDER = "datasets"
SALT_FILE = "salt"
# So many bad lines are named; a file with more has a cause that these show already.
MAX_BAD_LINES = 5


@dataclass(frozen=True, slots=True)
class HarvestResult:
    """What a harvest found. `dataset` is None when there is nothing to learn from; `new` says whether it was written now."""

    dataset: Dataset | None
    num_examples: int
    num_corrected: int
    num_confirmed: int
    num_unfinished: int  # corrected conversations that are not done yet, and so are left out
    new: bool
    report: dict[str, Any] = field(default_factory=dict)  # what was left out and why


def harvest(session: Session, settings: Settings, *, actor: str) -> HarvestResult:
    """Write what agents judged as a dataset version, inside the caller's writing transaction.

    Raises TrainingError when the data folder cannot be written.
    """
    found = gather(session, settings)
    if not found.examples:
        return HarvestResult(None, 0, 0, 0, found.num_unfinished, new=False, report=found.report)
    dataset, new = write_version(
        session, settings, found.examples, source="corrections", report=found.report, actor=actor
    )
    store.remember_splits(session, {e.id: e.split for e in found.examples if e.split}, dataset.id)
    strengths = Counter(example.strength for example in found.examples)
    return HarvestResult(
        dataset,
        len(found.examples),
        strengths["corrected"],
        strengths["confirmed"],
        found.num_unfinished,
        new=new,
        report=dataset.report,
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a harvest would write."""

    examples: Sequence[Example]
    report: dict[str, Any]
    num_unfinished: int

    def facts(self) -> dict[str, Any]:
        """For people who ask before anything is written."""
        return {
            "examples": len(self.examples),
            "unfinished": self.num_unfinished,
            "counts": _counts(self.examples),
            "report": self.report,
        }


def gather(session: Session, settings: Settings) -> Gathered:
    """What agents judged, in its parts, and what was left out and why. Nothing is written but the salt.

    Raises TrainingError when the data folder cannot be written.
    """
    keys = _Keys(settings.data_dir / FOLDER)
    unfinished = store.num_unfinished(session)
    # 1. What agents judged, without what is not worth learning or must not be learned.
    remembered = store.remembered_splits(session)
    redacted: Counter[str] = Counter()
    judged: list[Example] = []
    for example in _examples(session, keys):
        harmless, counts = redact_example(example, names=settings.redact_names)
        judged.append(harmless)
        redacted += counts
    cleaned = clean(judged, settings, remembered)
    # 2. Its parts, for ever.
    examples = [example for example in assign(cleaned.examples, remembered) if example.split is not None]
    if straddling := len(cleaned.examples) - len(examples):
        cleaned.left_out["belongs to what is tested and to what was trained on"] = straddling
    report = cleaned.report()
    if examples:
        report |= {
            "disagreeing_agents": _named_standings(session, examples, keys),
            "redacted": dict(redacted),
        }
    return Gathered(examples, report, unfinished)


def import_version(
    session: Session, settings: Settings, found: Imported, *, name: str, actor: str
) -> tuple[Dataset, bool]:
    """What a file held (training.tabular) as a dataset version, inside the caller's writing transaction.

    Redacted, without copies and contradictions, and in parts that last, like a harvest. Raises TrainingError when
    nothing is left, or the data folder cannot be written.
    """
    keys = _Keys(settings.data_dir / FOLDER)
    remembered = store.remembered_splits(session)
    redacted: Counter[str] = Counter()
    harmless: list[Example] = []
    for example in found.examples:
        sender = keys.make("sender", example.input.sender.strip().lower())
        keyed = example.model_copy(update={"sender": sender})
        redacted_one, counts = redact_example(keyed, names=settings.redact_names)
        harmless.append(redacted_one)
        redacted += counts
    cleaned = clean(harmless, settings, remembered)
    examples = [e for e in assign(cleaned.examples, remembered) if e.split is not None]
    if straddling := len(cleaned.examples) - len(examples):
        cleaned.left_out["belongs to what is tested and to what was trained on"] = straddling
    if found.repeated:
        cleaned.left_out["the same row again"] = found.repeated
    if not examples:
        raise TrainingError(
            f"{name} has no row to learn from: of {found.num_rows} rows {len(found.bad)} are bad and the others contradict each other. See the reasons with: briefbox dataset import --dry-run"
        )
    report = cleaned.report() | {
        "redacted": dict(redacted),
        "file": name,
        "rows": found.num_rows,
        "bad_rows": [[row.line, row.reason] for row in found.bad],
        "columns": found.columns,
        "encoding": found.encoding,
        "categories": list(found.categories),
    }
    dataset, new = write_version(session, settings, examples, source="import", report=report, actor=actor)
    store.remember_splits(session, {e.id: e.split for e in examples if e.split}, dataset.id)
    return dataset, new


def write_version(
    session: Session,
    settings: Settings,
    examples: Sequence[Example],
    *,
    source: str,
    report: dict[str, Any],
    actor: str,
) -> tuple[Dataset, bool]:
    """The dataset version with this content, and whether it was written now. Raises TrainingError as `harvest` does."""
    content = write_lines(examples)
    digest = sha256(content).hexdigest()
    dataset = session.exec(select(Dataset).where(Dataset.content_hash == digest)).first()
    new = dataset is None
    if dataset is None:
        number = (session.exec(select(func.max(Dataset.id))).one() or 0) + 1
        name = f"dataset-{number:04}-{digest[:8]}"
        dataset = Dataset(
            name=name,
            content_hash=digest,
            path=f"{FOLDER}/{name}.jsonl",
            num_examples=len(examples),
            counts=_counts(examples),
            source=source,
            report=report,
        )
    path = settings.data_dir / dataset.path
    if new or not path.exists():
        # The file first: a row without its file would be a promise broken, a file without its row is only litter.
        _write_file(path, content)
    return store.add_dataset(session, dataset, actor=actor), new


def write_lines(examples: Sequence[Example]) -> bytes:
    """The examples as JSONL: one order of keys, fields without a value left out, so that equal content is equal bytes."""
    return b"".join(example.model_dump_json(exclude_none=True).encode() + b"\n" for example in examples)


def read_dataset(path: Path, *, content_hash: str | None = None) -> list[Example]:
    """The examples of a JSONL file.

    Raises TrainingError when the file cannot be read, does not have `content_hash`, or has lines that are
    no examples: these are named by their numbers.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(
            f"The dataset {path} cannot be read ({error.strerror}). Restore the file, or make a new version with: briefbox dataset harvest"
        ) from error
    found = sha256(content).hexdigest()
    if content_hash is not None and found != content_hash:
        raise TrainingError(
            f"The dataset {path} has sha256 {found[:12]}, but the database says {content_hash[:12]}: the file was changed after it was written. Restore it, or make a new version with: briefbox dataset harvest"
        )
    examples: list[Example] = []
    bad: list[str] = []
    # Not splitlines(): a JSON string may hold other line separators of Unicode as they are.
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                examples.append(Example.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                bad.append(f"line {number}: {where + ': ' if where else ''}{first['msg']}")
    if bad:
        more = f"; and {len(bad) - MAX_BAD_LINES} more" if len(bad) > MAX_BAD_LINES else ""
        raise TrainingError(
            f"The dataset {path} has {len(bad)} bad {'line' if len(bad) == 1 else 'lines'} ({'; '.join(bad[:MAX_BAD_LINES])}{more}). Expected one example of schema 1 on each line."
        )
    return examples


# --- from judgements to examples


def _examples(session: Session, keys: "_Keys") -> list[Example]:
    history: dict[int, list[Correction]] = {}
    given = select(Correction).where(col(Correction.undone_at).is_(None))
    for correction in session.exec(given.order_by(col(Correction.id))):
        history.setdefault(correction.conversation_id, []).append(correction)
    names = merged_names(session)
    examples = [
        in_new_names(_example(judged, history.get(judged.conversation.id, []), keys), names)
        for judged in store.judged_briefs(session)
    ]
    # An example without any value to learn would only swell the count.
    return [example for example in examples if example.output != ExampleOutput()]


def _example(judged: store.Judged, history: Sequence[Correction], keys: "_Keys") -> Example:
    """One line. `history` are all corrections of the conversation, on whichever brief they were made."""
    brief, conversation = judged.brief, judged.conversation
    said = {field: str(getattr(brief, field)) for field in BRIEF_FIELDS}
    last = {correction.field: correction for correction in judged.corrections}
    # A correction that was taken back leaves no trace.
    changes = {
        field: last[field] for field in BRIEF_FIELDS if field in last and last[field].after != said[field]
    }
    strong = [c for c in judged.confirmations if c.strength == "strong"]
    confirmations = strong or list(judged.confirmations)
    times = [c.created_at for c in judged.corrections] + [c.created_at for c in judged.confirmations]
    when = max(times)
    unseen = _unseen(history, brief.id, before=when) - last.keys()
    output = {
        field: changes[field].after if field in changes else value
        for field, value in said.items()
        if field not in unseen
    }
    return Example(
        id=f"brief-{brief.id}",
        input=BriefRequest.model_validate(brief.request),
        output=ExampleOutput(**output),
        model_output=ExampleOutput(**said),
        changed=tuple(changes),
        strength="corrected" if changes else "confirmed" if strong else "finished",
        conversation=keys.make("conversation", str(conversation.id)),
        sender=keys.make("sender", conversation.customer_address.strip().lower()),
        agent=keys.make("agent", str(_last_judge(judged))),
        corrections=tuple(sorted(c.id for c in changes.values())),
        confirmations=tuple(c.id for c in confirmations),
        adapter=brief.adapter,
        prompt_version=brief.prompt_version,
        created_at=when,
    )


def _last_judge(judged: store.Judged) -> int:
    """Who judged last: a correction speaks louder than a confirmation."""
    if judged.corrections:
        return max(judged.corrections, key=lambda row: row.created_at).user_id
    return max(judged.confirmations, key=lambda row: row.created_at).user_id


def _named_standings(session: Session, examples: Sequence[Example], keys: "_Keys") -> list[dict[str, Any]]:
    """Agents who stand alone, by their addresses: the report is for a person, unlike the file."""
    standings = disagreeing_agents(examples)
    if not standings:
        return []
    users = {keys.make("agent", str(user.id)): user.email for user in session.exec(select(User))}
    return [
        {
            "agent": users.get(found.agent, found.agent),
            "field": found.field,
            "comparisons": found.comparisons,
            "disagreements": found.disagreements,
            "others": round(found.others, 3),
        }
        for found in standings
    ]


def _unseen(history: Sequence[Correction], brief_id: int, *, before: datetime) -> set[str]:
    """Fields whose value the agents did not see when they judged this brief.

    A field that was corrected on an earlier brief keeps the agent's value on the desk, so what a later brief
    says there is approved by nobody and must not be learned.
    """
    return {c.field for c in history if c.brief_id != brief_id and c.created_at <= before}


def _counts(examples: Sequence[Example]) -> dict[str, Any]:
    """How many examples of each kind there are, for people who judge a dataset."""
    changed: Counter[BriefField] = Counter(field for example in examples for field in example.changed)
    return {
        "split": dict(sorted(Counter(e.split for e in examples if e.split).items())),
        "strength": dict(sorted(Counter(example.strength for example in examples).items())),
        "changed": {field: changed[field] for field in BRIEF_FIELDS if changed[field]},
        "priority": dict(sorted(Counter(e.output.priority for e in examples if e.output.priority).items())),
        "category": dict(sorted(Counter(e.output.category for e in examples if e.output.category).items())),
        "labels_by_split": _by_split(examples),
    }


def _by_split(examples: Sequence[Example]) -> dict[str, dict[str, dict[str, int]]]:
    """Field -> label -> part -> how many: whether each label has enough to learn from and to be tested on."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for example in examples:
        for name in ("priority", "category"):
            label = getattr(example.output, name)
            if label is not None and example.split:
                parts = found.setdefault(name, {}).setdefault(label, {})
                parts[example.split] = parts.get(example.split, 0) + 1
    return {name: dict(sorted(labels.items())) for name, labels in found.items()}


# --- keys: the same customer is recognised in every version, and the file names nobody


class _Keys:
    """Pseudonyms by HMAC with a salt that never leaves this installation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._salt = b""

    def make(self, kind: str, value: str) -> str:
        """The same 32 hex digits for the same value; nothing for nothing."""
        if not value:
            return ""
        self._salt = self._salt or _read_salt(self._folder)
        return hmac.new(self._salt, f"{kind}:{value}".encode(), sha256).hexdigest()[:32]


def _read_salt(folder: Path) -> bytes:
    """The salt of this installation; made (mode 0600) at first use."""
    path = folder / SALT_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = path.with_name(f".{SALT_FILE}.{os.getpid()}")
            # Linked, not renamed: of two processes that start together one wins, and both use its salt.
            with _written_aside(temporary, token_bytes(32)), suppress(FileExistsError):
                os.link(temporary, path)
        return path.read_bytes()
    except OSError as error:
        raise _not_written(path, error) from error


# --- files


def _write_file(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, flushed at each step: whole or not there, a power cut included."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with _written_aside(temporary, content):
            temporary.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error


@contextmanager
def _written_aside(temporary: Path, content: bytes) -> Iterator[None]:
    """Write and flush a private file, let the caller put it in place, flush the folder."""
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(temporary.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _not_written(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path} cannot be written ({error.strerror}). Make room and make the folder writable for this user, or set BRIEFBOX_DATA_DIR to another."
    )
