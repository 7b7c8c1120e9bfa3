"""briefbox train: start a run, see how it goes, cancel it."""

import time
from typing import Annotated, Any

import typer
from rich.progress import Progress

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, errors, print_json, print_table
from briefbox.db import Database
from briefbox.errors import TrainingError
from briefbox.queue import hints_for
from briefbox.settings import Settings
from briefbox.store import adapters, retraining
from briefbox.store import training as store
from briefbox.tables import TrainingRun

# As training.finetune has them, which is not imported here: it takes seconds.
METHODS = ("lora", "full", "scratch")

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def train(
    dataset: Annotated[str | None, typer.Option(help="Dataset version. Default: the newest.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="What is trained: lora (an adapter), full (every weight) or scratch (from random weights)."
        ),
    ] = "lora",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Stay and show progress until the run ends.")
    ] = True,
    status: Annotated[
        bool, typer.Option("--status", help="Show the latest runs and when the next one begins; start none.")
    ] = False,
    cancel: Annotated[
        int | None, typer.Option(help="Cancel the run of this number; a running one stops after its step.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Train on corrections, through the queue `training`. What is made is judged by the gate, and not in use by itself."""
    database, settings = database_for()
    if status:
        _print_runs(database, settings, as_json=as_json)
        return
    if cancel is not None:
        with database.write() as session:
            run = store.cancel_run(session, cancel, actor=actor())
        if as_json:
            print_json(_facts(run))
        else:
            console.print(
                f"Run {run.id} {'is cancelled' if run.state == 'cancelled' else 'stops after its step'}."
            )
        return
    if method not in METHODS:
        raise TrainingError(f"The method {method} is not known; expected one of: {', '.join(METHODS)}.")
    with database.write() as session:
        chosen = store.get_dataset(session, dataset)
        run = store.add_run(
            session,
            TrainingRun(dataset_id=chosen.id, base_model=settings.base_model, method=method),
            actor=actor(),
        )
    if not hints_for(settings).train(run.id):
        errors.print(
            f"Redis cannot be reached now; run {run.id} waits in the database and is taken up when it is back.",
            style="yellow",
        )
    if wait:
        run = _wait(database, settings, run, quiet=as_json)
    with database.read() as session:
        adapter = next((a for a in adapters.all_of(session) if a.id == run.adapter_id), None)
    if as_json:
        print_json(_facts(run) | {"adapter": adapter.name if adapter else None})
    elif adapter is not None:
        console.print(
            f"{adapter.name} is made ({adapter.state}). {run.verdict.get('sentence', '')}", soft_wrap=True
        )
        if run.verdict.get("decision") == "promoted" and adapter.state == "candidate":
            console.print(f"Put it in use with: briefbox adapters promote {adapter.name}")
    elif run.state == "cancelled":
        console.print(f"Run {run.id} was cancelled.")
    elif "model" in run.verdict:
        console.print(
            f"A whole model is made: {run.verdict['model']}. {run.verdict.get('sentence', '')} Use it with BRIEFBOX_BASE_MODEL.",
            soft_wrap=True,
        )
    elif not wait:
        console.print(f"Run {run.id} is asked for. See how it goes with: briefbox train --status")
    if run.state == "failed":
        raise TrainingError(f"Training run {run.id} failed: {run.error}")


def _wait(database: Database, settings: Settings, run: TrainingRun, *, quiet: bool) -> TrainingRun:
    asked = time.monotonic()
    with Progress(console=console, disable=quiet) as bar:
        task = bar.add_task(f"run {run.id}: waiting for a training worker", total=None)
        while run.state in ("waiting", "running"):
            time.sleep(0.5)
            with database.read() as session:
                run = store.get_run(session, run.id)
            if run.state == "waiting" and time.monotonic() - asked > 30:
                bar.update(
                    task,
                    description=f"run {run.id}: no training worker took it yet; is `briefbox up` (or `briefbox worker --queue training`) running?",
                )
            if run.total_steps:
                loss = "" if run.loss is None else f", loss {run.loss:.3f}"
                left = (
                    "" if run.seconds_left is None else f", {max(run.seconds_left / 60, 0):.0f} minutes left"
                )
                doing = f"step {run.step} of {run.total_steps}{loss}{left}"
                bar.update(
                    task,
                    description=f"run {run.id}: {doing if run.stage in ('', 'training') else run.stage}",
                    total=run.total_steps,
                    completed=run.step,
                )
    return run


def _facts(run: TrainingRun) -> dict[str, Any]:
    return run.model_dump(exclude={"lease_token", "lease_owner", "lease_until"})


def _print_runs(database: Database, settings: Settings, *, as_json: bool) -> None:
    with database.read() as session:
        runs = store.runs(session)
        schedule = retraining.look(session, settings)
    if as_json:
        print_json({"runs": [_facts(run) for run in runs], "schedule": str(schedule)})
        return
    print_table(
        "Training runs",
        ["run", "state", "step", "loss", "asked for", "by", "what came of it"],
        [
            (
                r.id,
                r.stage or r.state,
                f"{r.step}/{r.total_steps}",
                "" if r.loss is None else f"{r.loss:.3f}",
                age(r.created_at),
                r.created_by,
                r.error or r.verdict.get("sentence", ""),
            )
            for r in runs
        ],
    )
    console.print(f"{schedule}.")
