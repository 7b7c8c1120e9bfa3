"""`briefbox user`: people who may sign in."""

from typing import Annotated

import typer
from sqlmodel import Session

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.errors import InvalidValueError, NotFoundError
from briefbox.settings import Settings
from briefbox.store import login_sessions, people, second_factor, users
from briefbox.tables import User

app = typer.Typer(help="People who may sign in to the desk.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="Address the person signs in with.")]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Role = Annotated[
    str, typer.Option("--role", help=f"{', '.join(users.ROLES)}: each may do what the one before may.")
]
Mailboxes = Annotated[
    list[str] | None,
    typer.Option(
        "--mailbox", help="Name of a mailbox that they may see; may be given several times. Without: all."
    ),
]
Hours = Annotated[float, typer.Option(min=0.1, max=720, help="Hours for which the link is good.")]


@app.command("add")
def add(
    email: Email,
    name: Annotated[str, typer.Option(help="Shown to other agents.")] = "",
    role: Role = "agent",
    admin: Annotated[bool, typer.Option("--admin", help="The same as --role admin.")] = False,
    mailbox: Mailboxes = None,
    hours: Hours = 24,
    as_json: JSON = False,
) -> None:
    """Add a person and print the one-time link with which they choose a password."""
    database, settings = database_for()
    with database.write() as session:
        user, token = users.create(
            session,
            email=email,
            name=name or email.partition("@")[0],
            role="admin" if admin else role,
            actor=actor(),
            link_hours=hours,
        )
        if mailbox:
            _give(session, user, mailbox)
    _print_link(settings, user, token, hours, as_json=as_json)


@app.command("list")
def list_(as_json: JSON = False) -> None:
    """List people."""
    database, _ = database_for()
    with database.read() as session:
        found = people.all_of(session)
    if as_json:
        print_json([_as_json(person) for person in found])
        return
    print_table(
        "People",
        ["address", "name", "role", "mailboxes", "second factor", "last seen", "added"],
        [
            (
                p.user.email,
                p.user.name,
                f"{p.user.role} (disabled)" if p.user.disabled_at else p.user.role,
                "all" if p.mailboxes is None else ", ".join(p.mailboxes) or "none",
                "on" if p.has_second_factor else "off",
                age(p.seen_at) if p.seen_at else "",
                age(p.user.created_at),
            )
            for p in found
        ],
    )


@app.command("link")
def link(email: Email, hours: Hours = 24, as_json: JSON = False) -> None:
    """Print a new one-time sign-in link; the ones before no longer work."""
    database, settings = database_for()
    with database.write() as session:
        user = users.get(session, email)
        if user.disabled_at is not None:
            raise InvalidValueError(
                f"{user.email} is disabled; a link would not work. First: briefbox user enable {user.email}"
            )
        token = users.new_link(session, user, hours=hours, actor=actor())
    _print_link(settings, user, token, hours, as_json=as_json)


@app.command("role")
def role_(
    email: Email, role: Annotated[str, typer.Argument(help=f"One of {', '.join(users.ROLES)}.")]
) -> None:
    """Give a person another role. They are signed out, and sign in again with it."""
    database, _ = database_for()
    with database.write() as session:
        user = users.get(session, email)
        given = people.mailbox_ids(session, user)
        changed = people.change(
            session, user, role=role, all_mailboxes=user.all_mailboxes, mailbox_ids=given, actor=actor()
        )
    console.print(f"{user.email} is {'now' if changed else 'already'} {role}.")


@app.command("mailboxes")
def mailboxes(
    email: Email,
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of the mailboxes that they may see.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, those to come too.")] = False,
) -> None:
    """Say which mailboxes a person sees: those that are named, or all. Admins see all in any case."""
    if every == bool(names):
        raise InvalidValueError("Expected the names of mailboxes, or --all.")
    database, _ = database_for()
    with database.write() as session:
        _give(session, users.get(session, email), names)
    console.print(f"{email} sees {'all mailboxes' if every else ', '.join(names or ())}.")


@app.command("disable")
def disable(email: Email) -> None:
    """Let a person no longer sign in, and sign them out now. What they did stays theirs."""
    database, _ = database_for()
    with database.write() as session:
        people.disable(session, users.get(session, email), actor=actor())
    console.print(f"{email} can no longer sign in.")


@app.command("enable")
def enable(email: Email) -> None:
    """Let a person who was disabled sign in again."""
    database, _ = database_for()
    with database.write() as session:
        people.enable(session, users.get(session, email), actor=actor())
    console.print(f"{email} can sign in again.")


@app.command("sign-out")
def sign_out(email: Email) -> None:
    """Sign a person out of every browser."""
    database, _ = database_for()
    with database.write() as session:
        ended = login_sessions.end_all(session, users.get(session, email), actor=actor())
    console.print(f"{email} was signed in in {ended} {'browser' if ended == 1 else 'browsers'}.")


@app.command("second-factor-off")
def second_factor_off(email: Email) -> None:
    """Take a person's second factor away, for example when the phone is lost."""
    database, _ = database_for()
    with database.write() as session:
        second_factor.turn_off(session, users.get(session, email), actor=actor())
    console.print(f"{email} signs in without a second factor from now on.")


def _give(session: Session, user: User, names: list[str] | None) -> None:
    known = {mailbox.name: mailbox.id for mailbox in people.mailboxes(session)}
    for name in names or ():
        if name not in known:
            raise NotFoundError(f"There is no mailbox {name}; briefbox mailbox list shows them.")
    people.change(
        session,
        user,
        role=user.role,
        all_mailboxes=names is None,
        mailbox_ids=[known[name] for name in names or ()],
        actor=actor(),
    )


def _print_link(settings: Settings, user: User, token: str, hours: float, *, as_json: bool) -> None:
    link = f"{settings.desk_address}/link/{token}"
    if as_json:
        print_json({"id": user.id, "email": user.email, "role": user.role, "link": link})
    else:
        console.print(
            f"{user.email} ({user.role}) signs in here, one use, {hours:g} hours:\n{link}", soft_wrap=True
        )


def _as_json(person: people.Person) -> dict[str, object]:
    fields = {"id", "email", "name", "role", "created_at", "disabled_at"}
    return person.user.model_dump(include=fields) | {
        "mailboxes": None if person.mailboxes is None else list(person.mailboxes),
        "second_factor": person.has_second_factor,
        "last_seen": person.seen_at,
    }
