"""briefbox adapters evaluate: what an adapter scores on a set of examples, alone or beside another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from briefbox.cli.context import database_for
from briefbox.cli.output import console, print_json, print_table
from briefbox.db import Database
from briefbox.errors import NotFoundError, TrainingError
from briefbox.schemas import SPLITS, Example
from briefbox.settings import Settings
from briefbox.store import adapters as store
from briefbox.store import training

if TYPE_CHECKING:
    from models.engine import Engine
    from training.evaluate import Evaluation

BATCH = 16
BASE = "base"
STARTER = "starter"
# Of the changed examples a table shows so many; JSON has all.
SHOWN = 10


def evaluate(
    name: Annotated[str, typer.Argument(help="The adapter, or `base` for the bare base model.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="A JSONL file, a dataset version, or `starter`. Default: the newest version."),
    ] = None,
    split: Annotated[str, typer.Option(help="Part of it: train, validation, test or all.")] = "test",
    against: Annotated[
        str | None, typer.Option(help="Compare with this adapter, `base` or `champion`, in the same run.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many examples.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page (HTML) with plots and every changed example.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the plots alone, as .svg or .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score an adapter on a set of examples: labels, confidences, summaries, grounding, speed."""
    from models.engine import make_engine
    from training.evaluate import changed, predict, score
    from training.report import PLOT_SUFFIXES, write_page, write_plot

    if plot is not None and plot.suffix.lower() not in PLOT_SUFFIXES:  # before minutes of work
        raise TrainingError(f"{plot} ends in {plot.suffix or 'nothing'}; a plot is written as .svg or .png.")
    database, settings = database_for()
    examples = _examples(database, settings, dataset, split)[:limit]
    names = [name] if against is None else [name, against]
    engine = make_engine(settings)
    residents = [_load(database, settings, engine, wanted) for wanted in names]
    with Progress(console=console, disable=as_json) as bar:
        answers = []
        for wanted, resident in zip(names, residents, strict=True):
            task = bar.add_task(wanted, total=len(examples))
            answers.append(
                predict(
                    engine,
                    examples,
                    resident,
                    batch_size=BATCH,
                    on_progress=lambda done, _, task=task: bar.update(task, completed=done),  # type: ignore[misc]
                )
            )
    found = [score(examples, each) for each in answers]
    differing = changed(examples, answers[1], answers[0]) if len(answers) == 2 else ()
    if page is not None:
        what = f"{' and '.join(names)} on {dataset or 'the newest version'} ({split})"
        write_page(page, names, found, differing, title=what)
    if plot is not None:
        write_plot(plot, names, found)
    if as_json:
        facts: dict[str, Any] = {
            wanted: each.model_dump(mode="json") for wanted, each in zip(names, found, strict=True)
        }
        print_json(facts | {"changed": [c.model_dump(mode="json") for c in differing]})
        return
    _print(names, found)
    for change in differing[:SHOWN]:
        console.print(
            f"\n[bold]{change.subject or '(no subject)'}[/bold]  {change.better:+.2f}", highlight=False
        )
        for field, before in change.before.items():
            if before != change.after[field]:
                wanted = change.truth.get(field, "")
                console.print(
                    f"  {field}: {before!r} -> {change.after[field]!r}  (right: {wanted!r})", highlight=False
                )
    if len(differing) > SHOWN:
        console.print(f"\nand {len(differing) - SHOWN} more; --json and --page have all.")
    for written in (page, plot):
        if written is not None:
            console.print(f"Written: {written}", soft_wrap=True)


def _examples(database: Database, settings: Settings, dataset: str | None, split: str) -> list[Example]:
    from training.dataset import read_dataset
    from training.seeds import read_seeds

    if split not in (*SPLITS, "all"):
        raise TrainingError(f"The part {split} is not known; expected {', '.join(SPLITS)} or all.")
    if dataset == STARTER:
        examples = read_seeds()
    elif dataset is not None and Path(dataset).is_file():
        examples = read_dataset(Path(dataset))
    else:
        with database.read() as session:
            row = training.get_dataset(session, dataset)
        examples = read_dataset(settings.data_dir / row.path, content_hash=row.content_hash)
    chosen = [e for e in examples if split == "all" or e.split == split]
    # A file that was never split is meant whole.
    if not chosen and all(e.split is None for e in examples):
        chosen = examples
    if not chosen:
        raise TrainingError(
            f"The part {split} of this set is empty; choose another with --split ({', '.join(SPLITS)}, all)."
        )
    return chosen


def _load(database: Database, settings: Settings, engine: "Engine", name: str) -> str:
    """Make an adapter resident; "" for the bare base model."""
    if name == BASE:
        return ""
    with database.read() as session:
        row = store.champion(session) if name == "champion" else store.get(session, name)
    if row is None:
        raise NotFoundError("No adapter is in use; compare with the bare base model: --against base")
    return engine.load_adapter(settings.data_dir / row.path, row.name, row.weights_sha256)


def _print(names: list[str], found: "list[Evaluation]") -> None:
    from training.report import table

    rows = [(title, *map(_cell, values)) for title, values in table(found)]
    print_table(f"{found[0].n} examples", ["", *names], rows)
    for name, each in zip(names, found, strict=True):
        print_table(
            name,
            ["label", "emails", "precision", "recall", "F1"],
            [
                (f"{field} {label}", c.support, f"{c.precision:.2f}", f"{c.recall:.2f}", f"{c.f1:.2f}")
                for field, scores in each.labels.items()
                for label, c in scores.classes.items()
            ],
        )


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
