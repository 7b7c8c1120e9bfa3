"""`briefbox attachment`: one attachment of a stored email as a file."""

from pathlib import Path
from typing import Annotated

import typer

from briefbox.cli.context import database_for
from briefbox.cli.output import console


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(attachment)


def attachment(
    email_id: Annotated[int, typer.Argument(help="The email's number.", show_default=False)],
    name: Annotated[
        str,
        typer.Argument(help="The attachment's name, or its place in the list from 1.", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(help="File to write; it must not exist yet.", show_default=False)],
) -> None:
    """Write an attachment to a file, from the stored email or from the mail server where it stayed.

    Nothing on the server is changed. What is not there any more is said so.
    """
    from ingest.attachment import save

    database, settings = database_for()
    console.print(save(database, settings, email_id, name, file), markup=False, soft_wrap=True)
