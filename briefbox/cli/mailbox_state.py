"""`briefbox mailbox pause|resume|remove`: whether a mailbox is read. What it brought stays in any case."""

from typing import Annotated

import typer
from sqlmodel import Session, col, func, select

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import console
from briefbox.store import mailboxes
from briefbox.tables import Conversation, Email, LedgerEntry


def register(app: typer.Typer) -> None:
    """Add these commands to `briefbox mailbox`."""
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("remove")(remove)


def pause(name: str, reason: Annotated[str, typer.Option(help="Why, for those who ask later.")] = "") -> None:
    """Stop reading a mailbox until `resume`. Mail that comes meanwhile waits on its server."""
    database, _ = database_for()
    with database.write() as session:
        mailboxes.pause(session, name, reason=reason, actor=actor())
    console.print(
        f"Mailbox {name} is paused: a running poller leaves it within seconds. Read on with: briefbox mailbox resume {name}",
        markup=False,
    )


def resume(name: str) -> None:
    """Read a paused mailbox on, where it stopped."""
    database, _ = database_for()
    with database.write() as session:
        mailboxes.resume(session, name, actor=actor())
    console.print(
        f"Mailbox {name} is read again, from where it stopped, as soon as a poller runs.", markup=False
    )


def remove(name: str, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Read a mailbox no more and free its name. What it brought stays; nothing on its server changes."""
    database, _ = database_for()
    with database.read() as session:
        row = mailboxes.get(session, name)
        stays = _what_stays(session, row.id)
    console.print(
        f"Mailbox {name} ({row.username} at {row.host}): {stays} stay. Its password or tokens are erased here, and its name is free.",
        markup=False,
    )
    if not yes and not typer.confirm("Remove it?"):
        raise typer.Abort
    with database.write() as session:
        removed = mailboxes.remove(session, name, actor=actor())
    console.print(f"Removed; it is listed as {removed.name!r} by: briefbox mailbox list --all", markup=False)


def _what_stays(session: Session, mailbox_id: int) -> str:
    counts = [
        session.exec(select(func.count()).select_from(table).where(col(table.mailbox_id) == mailbox_id)).one()
        for table in (Email, Conversation, LedgerEntry)
    ]
    return "{:,} emails, {:,} conversations and {:,} ledger rows".format(*counts)
