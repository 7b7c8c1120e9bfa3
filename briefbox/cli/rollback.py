"""The command `adapters rollback`: prove first, then switch."""

from typing import Annotated

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import console, print_json

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
    # Imported here: it takes a second, and other commands of `adapters` need none of it.
    from training.rollback import roll_back

    database, settings = database_for()
    wanted = "" if to == BASE else to
    done = roll_back(database, settings, actor=actor(), to=wanted, proof=proof, anyway=anyway)
    if as_json:
        print_json({"adapter": done.adapter, "before": done.before, "proof": done.proof})
        return
    console.print(str(done), soft_wrap=True)
