"""`briefbox mailbox`: connect a support inbox, test it, list what is connected."""

from pathlib import Path
from typing import Annotated, Any

import typer

from briefbox.cli.context import actor, database_for, file_text
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.settings import Settings
from briefbox.store import accounting, mailboxes, secrets
from briefbox.tables import Mailbox

app = typer.Typer(help="Support inboxes that are read. They are never changed.", no_args_is_help=True)

PORTS = {"tls": 993, "starttls": 143, "none": 143}
PROMISE = "We will not delete, move or mark anything."
JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A short name, for example support.")],
    host: Annotated[str, typer.Option(help="IMAP server.")],
    username: Annotated[str, typer.Option(help="User name at the server.")],
    address: Annotated[str, typer.Option(help="The inbox's own address. Default: the user name.")] = "",
    port: Annotated[int | None, typer.Option(help="Default: 993 with tls, else 143.")] = None,
    security: Annotated[str, typer.Option(help="tls, starttls, or none (only on this machine).")] = "tls",
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password. Without it you are asked.")
    ] = None,
    folder: Annotated[
        list[str] | None, typer.Option(help="Folder to watch; may be given again. Default: INBOX.")
    ] = None,
    start: Annotated[str, typer.Option(help="now: only new mail. all: also what is there already.")] = "now",
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificate authority of a private server (PEM).")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Change an existing mailbox of this name.")
    ] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Store it without connecting first.")] = False,
) -> None:
    """Connect a support inbox. It is tested first; nothing is stored when the test fails."""
    if security not in PORTS:
        raise typer.BadParameter(f"expected one of {', '.join(PORTS)}", param_hint="--security")
    if start not in ("now", "all"):
        raise typer.BadParameter("expected now or all", param_hint="--start")
    database, settings = database_for()
    password = _password(password_file)
    row = Mailbox(
        name=name,
        address=address or username,
        host=host,
        port=port or PORTS[security],
        security=security,
        username=username,
        password_encrypted=secrets.cipher(settings).encrypt(name, password),
        ca_file=str(ca_file.absolute()) if ca_file else "",
        folders=folder or ["INBOX"],
        start_at=start,
    )
    if not no_test:
        facts = _look(row, settings)
        console.print(f"{facts['server']}: signed in, {len(facts['folders'])} folders. {PROMISE}")
    with database.write() as session:
        mailboxes.add(session, row, actor=actor(), replace=replace)
    console.print(f"Mailbox {name} is stored. `briefbox up` (or `briefbox poll`) reads it.")


@app.command("test")
def test(name: str, as_json: JSON = False) -> None:
    """Connect and show folders, counts and the newest subjects. Changes nothing."""
    database, settings = database_for()
    with database.read() as session:
        row = mailboxes.get(session, name)
    facts = _look(row, settings)
    if as_json:
        print_json(facts)
        return
    console.print(f"Connected to {facts['server']} as {row.username}. {PROMISE}")
    print_table(
        "Folders",
        ["folder", "messages", "watched"],
        [(f["name"], f["messages"], "yes" if f["watched"] else "") for f in facts["folders"]],
    )
    print_table(
        "Newest",
        ["date", "from", "subject"],
        [(m["date"], m["from"], m["subject"]) for m in facts["newest"]],
        empty="the folder is empty",
    )
    console.print(f"Server capabilities that matter: {', '.join(facts['capabilities']) or 'none'}")


@app.command("list")
def list_(as_json: JSON = False) -> None:
    """List mailboxes with their state and the ledger's counts."""
    database, _ = database_for()
    with database.read() as session:
        rows = mailboxes.all_of(session)
        balances = accounting.balances(session)
    ledger = {row.id: sum(b.ledger for b in balances if b.mailbox_id == row.id) for row in rows}
    if as_json:
        fields = {
            "id",
            "name",
            "address",
            "host",
            "port",
            "security",
            "username",
            "folders",
            "last_success_at",
            "last_error",
            "last_error_at",
            "paused_at",
        }
        print_json([{**row.model_dump(include=fields), "ledger": ledger[row.id]} for row in rows])
        return
    print_table(
        "Mailboxes",
        ["name", "address", "server", "folders", "last read", "ledger", "last error"],
        [
            (
                r.name,
                r.address,
                f"{r.host}:{r.port}",
                ", ".join(r.folders),
                age(r.last_success_at),
                ledger[r.id],
                r.last_error,
            )
            for r in rows
        ],
        empty="none yet; connect one with: briefbox mailbox add",
    )


def _password(path: Path | None) -> str:
    if path is None:
        return str(typer.prompt("Password", hide_input=True))
    try:
        return file_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read ({error})", param_hint="--password-file") from error


def _look(row: Mailbox, settings: Settings) -> dict[str, Any]:
    from ingest.look import look

    return look(row, settings)
