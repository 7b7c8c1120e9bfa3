"""`briefbox adapters`: list, promote, shadow and assign."""

from typing import Annotated

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.store import adapters as store
from briefbox.store import mailboxes as mailbox_store

adapters_app = typer.Typer(
    help="LoRA adapters: what was trained, and which one is in use.", no_args_is_help=True
)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[
    bool, typer.Option("--force", help="Although the gate has not passed it; --reason says why.")
]
Reason = Annotated[str, typer.Option(help="Why, for the history and the audit log.")]


@adapters_app.command("list")
def list_adapters(as_json: JSON = False) -> None:
    """List adapters: `champion` is the one in use, `shadow` the one on trial, beside those of single mailboxes."""
    database, _ = database_for()
    with database.read() as session:
        adapters = store.all_of(session)
        mailboxes: dict[str, list[str]] = {}
        for mailbox in mailbox_store.all_of(session):
            mailboxes.setdefault(mailbox.adapter, []).append(mailbox.name)
    if as_json:
        print_json([a.model_dump() | {"mailboxes": mailboxes.get(a.name, [])} for a in adapters])
        return
    print_table(
        "Adapters",
        ["name", "state", "mailboxes", "base model", "examples", "made", "sha256"],
        [
            (
                a.name,
                a.state,
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
    as_json: JSON = False,
) -> None:
    """Let an adapter brief the same mail unseen, while no mail waits: to compare before it is put in use."""
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
