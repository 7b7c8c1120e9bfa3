"""`briefbox mailbox`: connect support inboxes, look at them, and say what becomes of them."""

from typing import Annotated, Any

import typer

from briefbox.cli import mailbox_add, mailbox_ledger, mailbox_state
from briefbox.cli.context import database_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.store import mailbox_state as state_store
from briefbox.store import mailboxes
from briefbox.tables import Mailbox

app = typer.Typer(help="Support inboxes that are read. They are never changed.", no_args_is_help=True)
app.command("add")(mailbox_add.add)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("test")
def test(name: str, as_json: JSON = False) -> None:
    """Connect and show folders, counts and the newest subjects, and what we will do with them. Changes nothing."""
    from ingest.look import look

    database, settings = database_for()
    with database.read() as session:
        row = mailboxes.get(session, name)
    facts = look(row, settings, database)
    if as_json:
        print_json(facts)
        return
    console.print(f"Connected to {facts['server']} as {row.username}.")
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
    for sentence in facts["will"]:
        console.print(f"- {sentence}", markup=False)


@app.command("list")
def list_(
    as_json: JSON = False,
    with_removed: Annotated[bool, typer.Option("--all", help="Those that were removed, too.")] = False,
) -> None:
    """List mailboxes: state, last read, how far behind, and the ledger's counts."""
    database, _ = database_for()
    with database.read() as session:
        rows = mailboxes.all_of(session) if with_removed else mailboxes.active(session)
        found = [(row, state_store.state_of(session, row)) for row in rows]
    if as_json:
        print_json([_facts(row, state) for row, state in found])
        return
    print_table(
        "Mailboxes",
        ["name", "address", "server", "state", "last read", "behind", "ledger", "last error"],
        [
            (
                row.name,
                row.address,
                f"{row.host}:{row.port}",
                state.words,
                age(row.last_success_at),
                "" if state.lag is None else f"{state.lag.total_seconds():.0f} s",
                ", ".join(f"{n:,} {name}" for name, n in state.states.items() if n) or "0",
                row.last_error,
            )
            for row, state in found
        ],
        empty="none yet; connect one with: briefbox mailbox add",
    )


def _facts(row: Mailbox, state: state_store.MailboxState) -> dict[str, Any]:
    fields = {
        "id", "name", "address", "host", "port", "security", "username", "auth", "folders", "sent_folder", "addresses", "start_at",
        "older", "attachments", "last_success_at", "last_error", "last_error_at", "paused_at", "paused_reason",
        "removed_at",
    }  # fmt: skip
    return {
        **row.model_dump(include=fields),
        "state": state.words,
        "lag_seconds": None if state.lag is None else state.lag.total_seconds(),
        "older_read": state_store.older_words(state.folders) or None,
        "ledger": sum(state.states.values()),
        "states": state.states,
    }


mailbox_ledger.register(app)
mailbox_state.register(app)
