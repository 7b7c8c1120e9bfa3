"""The command line: it wires the stages together and turns every expected error into one sentence.

Imports of the stages happen inside the commands, so that `briefbox --help` is quick and a poller never loads torch.
"""

import os
import sys

import typer

from briefbox import __version__
from briefbox.cli import (
    adapters,
    attachment,
    brief,
    checks,
    conversation,
    cost,
    datasets,
    email,
    mailbox,
    models,
    parse,
    people,
    run,
    train,
)
from briefbox.cli.output import errors
from briefbox.errors import BriefboxError

app = typer.Typer(
    name="briefbox",
    help="Reads a shared support inbox, writes a brief of every email, and learns from what agents correct.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (run, checks, cost, brief, attachment, parse):
    module.register(app)
app.add_typer(mailbox.app, name="mailbox")
app.add_typer(email.app, name="email")
app.add_typer(conversation.app, name="conversation")
app.add_typer(people.app, name="user")
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="dataset")
app.command("train")(train.train)
app.add_typer(adapters.adapters_app, name="adapters")
app.add_typer(checks.dead_letters_app, name="dead-letters")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """The console script. Expected errors: one sentence on standard error, exit code 1."""
    try:
        app()
    except BriefboxError as error:
        if os.environ.get("BRIEFBOX_TRACEBACK"):
            raise
        errors.print(f"briefbox: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
