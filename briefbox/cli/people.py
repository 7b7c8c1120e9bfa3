"""`briefbox user`: people who may sign in."""

from typing import Annotated

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.store import users

app = typer.Typer(help="People who may sign in to the desk.", no_args_is_help=True)


@app.command("add")
def add(
    email: Annotated[str, typer.Argument(help="Address the person signs in with.")],
    name: Annotated[str, typer.Option(help="Shown to other agents.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="May see and change everything.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Add a person and print the one-time link with which they choose a password."""
    database, settings = database_for()
    with database.write() as session:
        user, token = users.create(
            session,
            email=email,
            name=name or email.partition("@")[0],
            role="admin" if admin else "agent",
            actor=actor(),
        )
    link = f"{settings.desk_address}/link/{token}"
    if as_json:
        print_json({"id": user.id, "email": user.email, "role": user.role, "link": link})
    else:
        console.print(f"{user.email} ({user.role}) signs in here, one use, 24 hours:\n{link}", soft_wrap=True)


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List people."""
    database, _ = database_for()
    with database.read() as session:
        people = users.all_of(session)
    if as_json:
        print_json(
            [
                p.model_dump(include={"id", "email", "name", "role", "created_at", "disabled_at"})
                for p in people
            ]
        )
    else:
        print_table(
            "People",
            ["address", "name", "role", "added"],
            [(p.email, p.name, p.role, age(p.created_at)) for p in people],
        )
