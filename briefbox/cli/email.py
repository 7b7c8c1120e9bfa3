"""`briefbox email`: what became of each mail, and how a person overrules it."""

from typing import Annotated, Any

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.errors import InvalidValueError
from briefbox.queue import hints_for
from briefbox.schemas import EmailKind
from briefbox.store import mailboxes, skips
from briefbox.store.handling import Handling
from briefbox.store.skips import StoredEmail

app = typer.Typer(
    help="Stored mail: what kind each is, why it was skipped, and overruling that.", no_args_is_help=True
)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    mailbox: Annotated[str, typer.Option(help="Only this mailbox's mail.")] = "",
    kind: Annotated[
        str, typer.Option(help="Only this kind: customer, auto-reply, bounce, newsletter, list, ...")
    ] = "",
    state: Annotated[str, typer.Option(help="Only what is queued, or what was skipped.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Only the newest so many.")] = 50,
    as_json: JSON = False,
) -> None:
    """List stored mail, newest first, with its kind and, where it was skipped, the reason."""
    database, _ = database_for()
    with database.read() as session:
        mailbox_id = mailboxes.get(session, mailbox).id if mailbox else None
        found = skips.stored(session, mailbox_id=mailbox_id, kind=kind, state=state, limit=limit)
        counts = skips.num_skipped(session)
    if as_json:
        print_json([_facts(row) for row in found])
        return
    print_table(
        "Mail",
        ["id", "received", "from", "subject", "kind", "conversation", "skipped because"],
        [
            (
                row.email.id,
                age(row.email.received_at),
                row.email.from_address or row.email.from_name,
                row.email.subject,
                row.email.kind,
                row.email.conversation_id,
                row.entry.reason,
            )
            for row in found
        ],
        empty="none",
    )
    if counts:
        told = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        console.print(f"Skipped in all: {told}. Brief one after all with: briefbox email brief ID")


@app.command("brief")
def brief(
    email_ids: Annotated[list[int], typer.Argument(help="Ids as `briefbox email list` shows them.")],
) -> None:
    """Brief mail after all that was skipped: it counts as customer mail and stands in the queue. Undone by: email skip."""
    database, settings = database_for()
    with database.write() as session:
        emails = [
            skips.overrule(session, email_id, actor=actor(), handling=Handling.of(settings))
            for email_id in dict.fromkeys(email_ids)
        ]
    hints_for(settings).brief([email.id for email in emails])
    for email in emails:
        console.print(
            f"Email {email.id} waits for its brief in conversation {email.conversation_id}.", soft_wrap=True
        )


@app.command("skip")
def skip(
    email_id: Annotated[int, typer.Argument(help="Id as `briefbox email list` shows it.")],
    reason: Annotated[str, typer.Option(help="Why, in a few words.")],
    kind: Annotated[str, typer.Option(help="What kind of mail it is instead.")] = EmailKind.SPAM.value,
) -> None:
    """Take a mail out of what is briefed. Undone by: email brief."""
    try:
        wanted = EmailKind(kind)
    except ValueError:
        raise InvalidValueError(f"--kind {kind}: expected one of {', '.join(EmailKind)}.") from None
    database, _ = database_for()
    with database.write() as session:
        email = skips.skip(session, email_id, reason, actor=actor(), kind=wanted)
    console.print(f"Email {email.id} is skipped as {email.kind}: {email.kind_reason}", soft_wrap=True)


def _facts(row: StoredEmail) -> dict[str, Any]:
    fields = {"id", "conversation_id", "from_name", "from_address", "subject", "kind", "kind_reason"}
    fields |= {"language", "received_at", "work_state"}
    return {
        **row.email.model_dump(include=fields),
        "mailbox": row.mailbox.name,
        "state": row.entry.state,
        "reason": row.entry.reason,
    }
