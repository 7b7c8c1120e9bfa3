"""`briefbox adapters`: list, show, promote, shadow, assign and remove; roll-back and merge have files of their own."""

from typing import Annotated, Any

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.evaluate import evaluate
from briefbox.cli.merge import merge
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.cli.rollback import rollback
from briefbox.db import Database
from briefbox.errors import AdapterError
from briefbox.settings import Settings
from briefbox.store import adapters as store
from briefbox.store import mailboxes as mailbox_store
from briefbox.store import shadows
from briefbox.tables import Adapter, Promotion

adapters_app = typer.Typer(
    help="LoRA adapters: what was trained, and which one is in use.", no_args_is_help=True
)
adapters_app.command("evaluate")(evaluate)
adapters_app.command("rollback")(rollback)
adapters_app.command("merge")(merge)

BASE = "the bare base model"
# Those of an evaluation that `show` prints; --json has all.
METRICS = (
    *("priority/macro_f1", "category/macro_f1", "headline/rougeL", "summary/rougeL"),
    *("urgent_recall", "grounding"),
)
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[
    bool, typer.Option("--force", help="Although the gate has not passed it; --reason says why.")
]
Reason = Annotated[str, typer.Option(help="Why, for the history and the audit log.")]


@adapters_app.command("list")
def list_adapters(
    removed: Annotated[bool, typer.Option("--all", help="Also those that were removed.")] = False,
    as_json: JSON = False,
) -> None:
    """List adapters: `champion` is the one in use, `shadow` the one on trial, beside those of single mailboxes."""
    database, _ = database_for()
    with database.read() as session:
        adapters = store.all_of(session, removed=removed)
        mailboxes: dict[str, list[str]] = {}
        for mailbox in mailbox_store.all_of(session):
            mailboxes.setdefault(mailbox.adapter, []).append(mailbox.name)
    if as_json:
        print_json([a.model_dump() | {"mailboxes": mailboxes.get(a.name, [])} for a in adapters])
        return
    print_table(
        "Adapters",
        ["name", "state", "gate", "mailboxes", "base model", "examples", "made", "sha256"],
        [
            (
                a.name,
                a.state,
                store.decision(a) or "not judged",
                ", ".join(mailboxes.get(a.name, [])),
                a.base_model,
                a.card.get("num_examples"),
                age(a.created_at),
                a.weights_sha256[:12],
            )
            for a in adapters
        ],
        empty="none yet: the bare base model is in use. Make one with: briefbox train",
    )


@adapters_app.command("show")
def show(name: str, as_json: JSON = False) -> None:
    """Show an adapter: who trained it on what, what the gate checked, its scores, and when it came and went."""
    database, _ = database_for()
    with database.read() as session:
        adapter = store.get(session, name)
        run, dataset = store.origin(session, adapter)
        history = store.promotions(session, name)
    made = {
        "run": run.id if run else None,
        "by": run.created_by if run else "",
        "cause": run.cause if run else "",
        "dataset": dataset.name if dataset else adapter.card.get("dataset", ""),
        "examples": adapter.card.get("num_examples"),
    }
    if as_json:
        changes = [row.model_dump(exclude={"id"}) for row in history]
        print_json(adapter.model_dump() | {"trained": made, "promotions": changes})
        return
    _print_adapter(adapter, made, history)


def _print_adapter(adapter: Adapter, made: dict[str, Any], history: list[Promotion]) -> None:
    verdict = adapter.card.get("verdict", {})
    says = verdict.get("sentence") or store.decision(adapter) or "It was never judged."
    run = f"run {made['run']}, asked for by {made['by']}" if made["run"] else "no run of this database"
    console.print(
        f"{adapter.name}: {adapter.state}, made {age(adapter.created_at)} ({run}) from {made['dataset'] or 'an unknown dataset'}, {made['examples'] or 'an unknown number of'} examples, for {adapter.base_model}",
        f"weights sha256 {adapter.weights_sha256}",
        f"gate: {says}",
        sep="\n",
        markup=False,
        soft_wrap=True,
    )
    print_table(
        "Checks",
        ["rule", "passed", "what was found"],
        [
            (check["rule"], {True: "yes", False: "no"}.get(check["passed"], "cannot say"), check["sentence"])
            for check in verdict.get("checks", ())
        ],
    )
    _print_scores(verdict.get("scores", {}))
    print_table(
        "In use",
        ["when", "what", "came", "went", "by", "note"],
        [
            (age(row.created_at), row.kind, row.adapter or BASE, row.before or BASE, row.actor, _note(row))
            for row in history
        ],
        empty="never",
    )


def _print_scores(scores: dict[str, Any]) -> None:
    """Of all models that answered the same test; their order is the gate's."""
    from training.evaluate import Evaluation

    models = {name: Evaluation.model_validate(found) for name, found in scores.items()}
    rows = [[metric, *(model.value(metric) for model in models.values())] for metric in METRICS]
    print_table(
        "Scores",
        ["metric", *models],
        [[metric, *("" if v is None else f"{v:.3f}" for v in values)] for metric, *values in rows]
        if models
        else [],
    )


def _note(row: Promotion) -> str:
    if reason := row.proof.get("forced"):
        return f"forced: {reason}"
    if "of" not in row.proof:
        return "unproven" if row.kind == "rollback" else ""
    return f"{row.proof['equal']} of {row.proof['of']} probe answers as recorded"


@adapters_app.command("promote")
def promote(name: str, force: Force = False, reason: Reason = "", as_json: JSON = False) -> None:
    """Put an adapter in use that the gate has passed. Workers load it before their next batch."""
    _both_or_none(force, reason)
    database, settings = database_for()
    _refuse_broken(database, settings, name)
    with database.write() as session:
        adapter = store.promote(
            session, name, actor=actor(), four_eyes=settings.promotion == "person", reason=reason
        )
    if as_json:
        print_json(adapter.model_dump())
    else:
        console.print(f"{name} is in use from the next batch on.")


@adapters_app.command("shadow")
def shadow(
    name: Annotated[str | None, typer.Argument(help="The adapter on trial.")] = None,
    none: Annotated[bool, typer.Option("--none", help="End the trial.")] = False,
    disagreements: Annotated[
        bool, typer.Option("--disagreements", help="Show where it differs from what agents see.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Let an adapter brief the same mail unseen, while no mail waits: to compare before it is put in use."""
    if disagreements:
        if name is not None or none:
            raise typer.BadParameter("expected it alone", param_hint="--disagreements")
        _print_disagreements(as_json=as_json)
        return
    _one_of(name, none)
    database, settings = database_for()
    if name is not None:
        _refuse_broken(database, settings, name)
    with database.write() as session:
        adapter = store.shadow(session, name, actor=actor())
    if as_json:
        print_json(adapter.model_dump() if adapter else None)
    elif adapter is None:
        console.print("No adapter is on trial.")
    else:
        console.print(f"{name} briefs the same mail unseen from the next batch on.")


def _print_disagreements(*, as_json: bool) -> None:
    database, _ = database_for()
    with database.read() as session:
        found = shadows.disagreements(session)
    if as_json:
        print_json(
            [
                {
                    "conversation": row.conversation.id,
                    "email": row.shown.email_id,
                    "adapter": row.shadow.adapter,
                    "brief": row.shown.id,
                    "shadow_brief": row.shadow.id,
                    "shown": {field: getattr(row.shown, field) for field in row.fields},
                    "shadow": {field: getattr(row.shadow, field) for field in row.fields},
                }
                for row in found
            ]
        )
        return
    print_table(
        "Disagreements",
        ["conversation", "subject", "field", "shown", "on trial"],
        [
            (
                row.conversation.id,
                row.conversation.subject,
                field,
                getattr(row.shown, field),
                getattr(row.shadow, field),
            )
            for row in found
            for field in row.fields
        ],
        empty="none that nobody has decided",
    )


@adapters_app.command("assign")
def assign(
    name: Annotated[str | None, typer.Argument(help="The adapter.")] = None,
    mailbox: Annotated[str, typer.Option(help="The mailbox whose mail it briefs.")] = ...,  # type: ignore[assignment]
    none: Annotated[bool, typer.Option("--none", help="Use the champion for this mailbox again.")] = False,
    force: Force = False,
    reason: Reason = "",
    as_json: JSON = False,
) -> None:
    """Give one mailbox's mail an adapter of its own that the gate has passed."""
    _one_of(name, none)
    _both_or_none(force, reason)
    database, settings = database_for()
    if name is not None:
        _refuse_broken(database, settings, name)
    with database.write() as session:
        row = mailbox_store.get(session, mailbox)
        four_eyes = settings.promotion == "person"
        store.assign(session, row, name, actor=actor(), four_eyes=four_eyes, reason=reason)
    if as_json:
        print_json({"mailbox": mailbox, "adapter": name})
    else:
        console.print(f"{mailbox} is briefed with {name or 'the champion'} from the next batch on.")


@adapters_app.command("remove")
def remove(
    name: str,
    force: Annotated[
        bool, typer.Option("--force", help="Also the one that roll-back would return to.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Delete an adapter's files; its row stays for the history."""
    from models.registry import delete_adapter

    database, settings = database_for()
    with database.write() as session:
        adapter = store.remove(session, name, actor=actor(), force=force)
        path = settings.data_dir / adapter.path
        # The row may have been written by anyone with access to the database, and a folder is about to go.
        if path.parent.resolve() != (settings.data_dir / "adapters").resolve():
            raise AdapterError(
                f"The adapter {name} lies in {path}, expected a folder in {settings.data_dir / 'adapters'}; nothing was removed."
            )
    # After the commit: a removal that dies here is finished by the next one.
    delete_adapter(path)
    if as_json:
        print_json(adapter.model_dump())
    else:
        console.print(f"{name} is removed.")


def _one_of(name: str | None, none: bool) -> None:
    if (name is None) is not none:
        raise typer.BadParameter("expected the name of an adapter, or --none", param_hint="NAME")


def _both_or_none(force: bool, reason: str) -> None:
    if force is not bool(reason.strip()):
        raise typer.BadParameter("expected --force and --reason TEXT together", param_hint="--force")


def _refuse_broken(database: Database, settings: Settings, name: str) -> None:
    """A broken file must be refused here, not found out by a worker. Raises AdapterError, NotFoundError."""
    from models.base import resolve_base_model
    from models.registry import verify_adapter

    with database.read() as session:
        adapter = store.get(session, name)
    verify_adapter(settings.data_dir / adapter.path, resolve_base_model(settings), adapter.weights_sha256)
