"""The command `adapters rollback`: prove first, then switch."""

from typing import Annotated, Any

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import console, print_json
from briefbox.errors import AdapterError
from briefbox.settings import Settings
from briefbox.store import adapters as store
from briefbox.tables import Adapter

BASE = "base"  # how people name the bare base model


def rollback(
    to: Annotated[
        str | None,
        typer.Option(
            help="An adapter that was in use earlier, or `base`: the bare base model. Default: the one before."
        ),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also when its answers are not those that were recorded.")
    ] = False,
    proof: Annotated[
        bool,
        typer.Option("--proof/--no-proof", help="Ask it the probe set and compare, before it is put in use."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put back in use what was before the champion, after a proof that it answers as it did. Repeated: further back.

    The adapter is loaded here and answers the probe set; workers follow before their next batch. Without an engine on
    this machine: --no-proof.
    """
    database, settings = database_for()
    with database.read() as session:
        name = store.destination(session, "" if to == BASE else to)
        current = store.champion(session)
        adapter = store.get(session, name) if name else None
    facts, says = _proof(settings, adapter, wanted=proof, anyway=anyway)
    with database.write() as session:
        store.rollback(
            session, actor=actor(), to=name, leaving=current.name if current else None, proof=facts
        )
    if as_json:
        print_json({"adapter": name, "before": current.name if current else "", "proof": facts})
        return
    console.print(
        f"{name or 'The bare base model'} is in use again from the next batch on: {says}.", soft_wrap=True
    )


def _proof(
    settings: Settings, adapter: Adapter | None, *, wanted: bool, anyway: bool
) -> tuple[dict[str, Any], str]:
    """For the history, and in words. Raises AdapterError when the answers differ and nobody said `anyway`."""
    if not wanted:
        if adapter is not None:
            from models.base import resolve_base_model
            from models.registry import verify_adapter

            # What a worker would refuse is refused here, with or without a proof.
            folder = settings.data_dir / adapter.path
            verify_adapter(folder, resolve_base_model(settings), adapter.weights_sha256)
        return {"proven": None, "skipped": True}, "unproven, as asked for"
    from models.engine import make_engine
    from training.proof import prove

    found = prove(settings, make_engine(settings), adapter)
    facts = found.facts()
    # Of the bare base nothing may have been recorded before; now it is.
    if found.proven or (found.proven is None and adapter is None):
        return facts, str(found)
    name = adapter.name if adapter is not None else "the bare base model"
    if not anyway:
        first = f" ({found.differences[0]})" if found.differences else ""
        raise AdapterError(
            f"Nothing was changed, because {name} does not prove itself: {found}{first}. Return to another one with --to NAME, or to this one all the same with --anyway."
        )
    return facts | {"anyway": True}, f"{found}, and that was to be ignored"
