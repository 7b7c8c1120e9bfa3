"""`briefbox conversation`: taking conversations apart and putting them together by hand."""

from typing import Annotated

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import console
from briefbox.store import regroup

app = typer.Typer(help="Conversations: split and merge them by hand.", no_args_is_help=True)


@app.command("split")
def split(
    email_id: Annotated[int, typer.Argument(help="The mail that shall leave its conversation.")],
    with_later: Annotated[
        bool, typer.Option("--with-later", help="It and all later mails of its conversation.")
    ] = False,
) -> None:
    """Move a mail from its conversation to a new one, with its brief and what agents said of it.

    Undone by: conversation merge NEW OLD.
    """
    database, _ = database_for()
    with database.write() as session:
        new = regroup.split(session, email_id, actor=actor(), with_later=with_later)
        number = new.num_emails
    console.print(f"Conversation {new.id} has {number} {'mail' if number == 1 else 'mails'} now.")


@app.command("merge")
def merge(
    from_id: Annotated[int, typer.Argument(help="The conversation that ends.")],
    into_id: Annotated[int, typer.Argument(help="The one that takes its mail, and keeps its own labels.")],
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Give back to FROM what came from it; INTO must be where it is now."),
    ] = False,
) -> None:
    """Move all mail of one conversation into another of the same mailbox. Later answers go there too."""
    database, _ = database_for()
    with database.write() as session:
        if undo:
            source = regroup.unmerge(session, from_id, actor=actor(), out_of=into_id)
            told = f"Conversation {source.id} stands for itself again, with {source.num_emails} of its mails."
        else:
            target = regroup.merge(session, from_id, into_id, actor=actor())
            told = f"Conversation {target.id} has {target.num_emails} mails now."
    console.print(told)
