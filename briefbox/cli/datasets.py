"""briefbox dataset: what a model learns from. Harvest, import, look at, compare, check, exclude."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.db import Database
from briefbox.errors import InvalidValueError, TrainingError
from briefbox.schemas import BRIEF_FIELDS, Example
from briefbox.settings import Settings
from briefbox.store import training as store
from briefbox.store import users
from briefbox.tables import Dataset

if TYPE_CHECKING:
    from training.tabular import Imported

app = typer.Typer(help="What a model learns from, as versions in JSONL.", no_args_is_help=True)
# Of bad rows and differences so many are printed; --json has all.
SHOWN = 20

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[str | None, typer.Argument(help="Dataset version. Default: the newest.")]
Column = Annotated[
    str | None, typer.Option(help="Column of it. Default: one of this name, where there is one.")
]


@app.command("harvest")
def harvest(as_json: JSON = False) -> None:
    """Write the corrections and confirmations of finished conversations as a dataset version."""
    from training import dataset

    database, settings = database_for()
    with database.write() as session:
        result = dataset.harvest(session, settings, actor=actor())
    if as_json:
        made = result.dataset
        print_json(
            {
                "examples": result.num_examples,
                "corrected": result.num_corrected,
                "confirmed": result.num_confirmed,
                "unfinished": result.num_unfinished,
                "new": result.new,
                "report": result.report,
                "dataset": made.name if made else None,
                "path": str(settings.data_dir / made.path) if made else None,
                "hash": made.content_hash if made else None,
            }
        )
        return
    waiting = (
        f" {result.num_unfinished} corrected conversations are not done yet and are left out until they are."
        if result.num_unfinished
        else ""
    )
    if result.dataset is None:
        console.print(f"Nothing to harvest: no finished conversation was corrected or confirmed.{waiting}")
    else:
        state = "written" if result.new else "exists already with the same content"
        console.print(
            f"{result.dataset.name} {state}: {result.num_examples} examples ({result.num_corrected} corrected, {result.num_confirmed} confirmed)."
            f"{waiting}\n{settings.data_dir / result.dataset.path}",
            soft_wrap=True,
        )
    _print_report(result.report)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A CSV file, or JSONL (by its ending .jsonl).")],
    input_: Annotated[str, typer.Option("--input", help="Column of the email's text.")] = "input",
    output: Annotated[
        str | None, typer.Option(help="Column of the summary. Default: output or summary.")
    ] = None,
    subject: Column = None,
    sender: Column = None,
    headline: Column = None,
    priority: Column = None,
    category: Column = None,
    split: Column = None,
    encoding: Annotated[str | None, typer.Option(help="Of the file. Default: found out.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of the cells. Default: found out.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read; write nothing.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Make a dataset version of labelled emails from elsewhere. Bad rows are listed, the others are taken."""
    from training import dataset
    from training.tabular import Columns, read_file

    database, settings = database_for()
    columns = Columns(input_, output, subject, sender, headline, priority, category, split)
    with Progress(console=console, disable=as_json, transient=True) as bar:
        task = bar.add_task(f"reading {file.name}")
        found = read_file(
            file,
            columns,
            encoding=encoding,
            delimiter="\t" if delimiter in ("tab", "\\t") else delimiter,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        bar.update(task, description="looking for personal data, copies and contradictions", total=None)
        made: Dataset | None = None
        new = False
        if not dry_run:
            with database.write() as session:
                made, new = dataset.import_version(session, settings, found, name=file.name, actor=actor())
    if as_json:
        print_json(_import_facts(found, made, new))
        return
    _print_import(file, found)
    if made is not None:
        console.print(
            f"{made.name} {'written' if new else 'exists already with the same content'}: {made.num_examples} examples "
            f"({_counts(made.counts.get('split', {}))}). Train on it with: briefbox train --dataset {made.name}",
            soft_wrap=True,
        )
        _print_report(made.report)


@app.command("list")
def list_(as_json: JSON = False) -> None:
    """All versions, newest first."""
    database, _ = database_for()
    with database.read() as session:
        rows = store.datasets(session)
    if as_json:
        print_json([row.model_dump() for row in rows])
        return
    print_table(
        "Datasets",
        ["version", "from", "examples", "train/validation/test", "written"],
        [
            (
                r.name,
                r.report.get("file", r.source),
                r.num_examples,
                "/".join(
                    str(r.counts.get("split", {}).get(part, 0)) for part in ("train", "validation", "test")
                ),
                age(r.created_at),
            )
            for r in rows
        ],
        empty="none yet; make one with: briefbox dataset harvest",
    )


@app.command("show")
def show(version: Version = None, as_json: JSON = False) -> None:
    """What is in a version, what was left out and why, and contradictions to settle."""
    database, settings = database_for()
    with database.read() as session:
        row = store.get_dataset(session, version)
    if as_json:
        print_json(row.model_dump())
        return
    console.print(
        f"[bold]{row.name}[/bold]  from {row.report.get('file', row.source)}, {age(row.created_at)}\n{settings.data_dir / row.path}\nsha256 {row.content_hash}",
        soft_wrap=True,
    )
    print_table(
        f"{row.num_examples} examples",
        ["", "counts"],
        [(kind, _counts(counts)) for kind, counts in row.counts.items() if counts],
    )
    _print_report(row.report)


@app.command("export")
def export(
    version: Version = None,
    to: Annotated[Path, typer.Option("--to", help="The file; `-` is standard output.")] = Path("-"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write a version as JSONL, one example a line; `briefbox dataset import` reads it back."""
    from training.dataset import read_dataset, write_lines

    database, settings = database_for()
    with database.read() as session:
        row = store.get_dataset(session, version)
    content = write_lines(read_dataset(settings.data_dir / row.path, content_hash=row.content_hash))
    if str(to) == "-":
        typer.echo(content.decode(), nl=False)
        return
    try:
        with to.open("wb" if force else "xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise TrainingError(
            f"{to} exists already; choose another file, or write over it with --force."
        ) from error
    except OSError as error:
        raise TrainingError(f"{to} cannot be written ({error.strerror}).") from error
    console.print(f"{row.num_examples} examples of {row.name} written to {to}.", soft_wrap=True)


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="The older version.")],
    after: Version = None,
    as_json: JSON = False,
) -> None:
    """What came, went and changed between two versions."""
    database, settings = database_for()
    old = {e.id: e for e in _read(database, settings, before)}
    new = {e.id: e for e in _read(database, settings, after)}
    added = [e for key, e in new.items() if key not in old]
    removed = [e for key, e in old.items() if key not in new]
    changed = [
        {
            "id": key,
            "subject": e.input.subject,
            "fields": {
                f: [getattr(old[key].output, f), getattr(e.output, f)]
                for f in BRIEF_FIELDS
                if getattr(old[key].output, f) != getattr(e.output, f)
            },
        }
        for key, e in new.items()
        if key in old and old[key].output != e.output
    ]
    if as_json:
        print_json({"added": [e.id for e in added], "removed": [e.id for e in removed], "changed": changed})
        return
    console.print(
        f"{len(added)} added, {len(removed)} removed, {len(changed)} with another answer, {len(new) - len(added) - len(changed)} the same."
    )
    rows: list[tuple[object, ...]] = []
    for field in ("split", "priority", "category"):
        for label in sorted({*_labels(old.values(), field), *_labels(new.values(), field)}):
            one, two = (_labels(side.values(), field)[label] for side in (old, new))
            if one != two:
                rows.append((f"{field} {label}", one, two, f"{two - one:+d}"))
    print_table("Counts that differ", ["", "before", "after", ""], rows, empty="none")
    for change in changed[:SHOWN]:
        told = ", ".join(f"{f}: {a!r} -> {b!r}" for f, (a, b) in change["fields"].items())  # type: ignore[attr-defined]
        console.print(f"{change['subject'] or '(no subject)'}: {told}", markup=False)


@app.command("check")
def check(
    dataset: Annotated[
        str | None, typer.Argument(help="A version or a JSONL file. Default: the newest version.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Look for what would make training on it unfair or useless; exit code 1 when there is something."""
    from training.checks import check_examples

    database, settings = database_for()
    findings = check_examples(_read(database, settings, dataset))
    if as_json:
        print_json([{"severity": f.severity, "text": f.text, "examples": list(f.examples)} for f in findings])
    elif not findings:
        console.print("Nothing found: parts do not cross, no personal data, enough of each label.")
    else:
        for finding in findings:
            some = f" ({', '.join(finding.examples[:3])}{', ...' if len(finding.examples) > 3 else ''})"
            console.print(
                f"{finding.severity}: {finding.text}{some if finding.examples else ''}",
                markup=False,
                soft_wrap=True,
            )
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


@app.command("exclude")
def exclude(
    agent: Annotated[str | None, typer.Option(help="Address of the agent. Default: everybody.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From this time on (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Up to this time (UTC).")] = None,
    reason: Annotated[str, typer.Option(help="Why; it stays in the audit log.")] = "",
) -> None:
    """Keep what an agent judged in a range of time out of the next harvests. Take it back with `lift`."""
    if not reason.strip():
        raise InvalidValueError(
            "An exclusion needs a reason that others can read later; give it with --reason."
        )
    database, _ = database_for()
    with database.write() as session:
        user = users.get(session, agent) if agent else None
        row = store.exclude(
            session,
            user=user,
            since=since.replace(tzinfo=UTC) if since else None,
            until=until.replace(tzinfo=UTC) if until else None,
            reason=reason.strip(),
            actor=actor(),
        )
    console.print(
        f"Exclusion {row.id} is in force. Make the dataset without it with: briefbox dataset harvest",
        soft_wrap=True,
    )


@app.command("exclusions")
def exclusions(as_json: JSON = False) -> None:
    """Those in force."""
    database, _ = database_for()
    with database.read() as session:
        rows = store.exclusions(session)
        names = {user.id: user.email for user in users.all_of(session)}
    if as_json:
        print_json([row.model_dump() | {"agent": names.get(row.user_id or 0)} for row in rows])
        return
    print_table(
        "Exclusions",
        ["number", "agent", "since", "until", "reason", "by"],
        [
            (r.id, names.get(r.user_id or 0, "everybody"), r.since, r.until, r.reason, r.created_by)
            for r in rows
        ],
        empty="none",
    )


@app.command("lift")
def lift(number: Annotated[int, typer.Argument(help="Of the exclusion.")]) -> None:
    """End an exclusion: the judgements count again in the next harvest."""
    database, _ = database_for()
    with database.write() as session:
        store.lift_exclusion(session, number, actor=actor())
    console.print(f"Exclusion {number} is lifted.")


# --- helpers


def _read(database: Database, settings: Settings, name: str | None) -> list[Example]:
    from training.dataset import read_dataset

    if name is not None and Path(name).is_file():
        return read_dataset(Path(name))
    with database.read() as session:
        row = store.get_dataset(session, name)
    return read_dataset(settings.data_dir / row.path, content_hash=row.content_hash)


def _labels(examples: Any, field: str) -> Counter[str]:
    values = (e.split if field == "split" else getattr(e.output, field) for e in examples)
    return Counter(str(value) for value in values if value)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _import_facts(found: "Imported", made: Dataset | None, new: bool) -> dict[str, Any]:
    return {
        "dataset": made.name if made else None,
        "new": new,
        "rows": found.num_rows,
        "examples": made.num_examples if made else len(found.examples),
        "bad_rows": [{"line": row.line, "reason": row.reason} for row in found.bad],
        "repeated": found.repeated,
        "encoding": found.encoding,
        "delimiter": found.delimiter,
        "columns": found.columns,
        "categories": list(found.categories),
        "report": made.report if made else {},
    }


def _print_import(file: Path, found: "Imported") -> None:
    columns = ", ".join(f"{name} from {column!r}" for name, column in found.columns.items())
    console.print(
        f"{file.name}: {found.num_rows} rows, {found.encoding}"
        + (f", delimiter {found.delimiter!r}" if found.delimiter else "")
        + (f"; {columns}" if columns else "")
        + f". Categories: {', '.join(found.categories)}.",
        markup=False,
        soft_wrap=True,
    )
    if found.bad:
        console.print(f"{len(found.bad)} bad {'row is' if len(found.bad) == 1 else 'rows are'} left out:")
        for row in found.bad[:SHOWN]:
            console.print(f"  line {row.line}: {row.reason}", markup=False, soft_wrap=True)
        if len(found.bad) > SHOWN:
            console.print(f"  and {len(found.bad) - SHOWN} more; --json has all.")


def _print_report(report: dict[str, Any]) -> None:
    """What was left out, taken out and is to be settled."""
    if left_out := report.get("left_out"):
        console.print("Left out: " + "; ".join(f"{n} ({why})" for why, n in left_out.items()) + ".")
    if redacted := report.get("redacted"):
        console.print(f"Replaced by placeholders: {_counts(redacted)}.")
    contradictions: Sequence[dict[str, Any]] = report.get("contradictions", ())
    if contradictions:
        console.print(
            f"{len(contradictions)} {'email has' if len(contradictions) == 1 else 'emails have'} different answers, and none of them is learned. Correct the wrong ones and harvest again:"
        )
        for found in contradictions[:SHOWN]:
            told = " / ".join(
                ", ".join(str(example[field]) for field in found["fields"]) for example in found["examples"]
            )
            console.print(f"  {found['subject'] or '(no subject)'}: {told}", markup=False, soft_wrap=True)
    for standing in report.get("disagreeing_agents", ()):
        console.print(
            f"{standing['agent']} gives another {standing['field']} than everyone else to similar emails: {standing['disagreements']} of {standing['comparisons']}. "
            "Look at it with them, or leave it out with: briefbox dataset exclude --agent ADDRESS",
            markup=False,
            soft_wrap=True,
        )
