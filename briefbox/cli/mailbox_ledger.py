"""`briefbox mailbox ledger|reconcile|retry`: every mail of a mailbox has its place, and how to give it one again."""

import time
from contextlib import nullcontext
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import age, console, errors, print_json, print_table
from briefbox.db import Database, now
from briefbox.errors import BriefboxError, MailboxError, NotFoundError
from briefbox.schemas import LedgerState
from briefbox.settings import Settings
from briefbox.store import dead_letters, mailbox_state, mailboxes
from briefbox.tables import Mailbox

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LOOK_AGAIN_SECONDS = 0.3


def register(app: typer.Typer) -> None:
    """Add these commands to `briefbox mailbox`."""
    app.command("ledger")(ledger)
    app.command("reconcile")(reconcile)
    app.command("retry")(retry)


# --- ledger


def ledger(
    name: str,
    folder: Annotated[str, typer.Option(help="This folder only.")] = "",
    state: Annotated[
        str, typer.Option(help="List the rows in this state: queued, sighting, skipped, dead or gone.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="With --state: how many rows, the newest.")] = 200,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the server.")] = False,
    as_json: JSON = False,
) -> None:
    """Compare the server's list with the ledger, folder by folder. Exit 1 when a mail has no place."""
    if state and state not in [s.value for s in LedgerState]:
        raise typer.BadParameter(f"expected one of {', '.join(LedgerState)}", param_hint="--state")
    database, settings = database_for()
    with database.read() as session:
        row = mailboxes.get(session, name)
    if folder and folder not in row.folders:
        raise NotFoundError(f"Mailbox {name} does not read {folder!r}; it reads {', '.join(row.folders)}.")
    if state:
        _print_rows(database, row, state, folder, limit, as_json=as_json)
        return
    offline = offline or row.removed_at is not None
    report = _report(database, settings, row, folder, offline=offline)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not report["clean"]:
        raise typer.Exit(1)


def _report(
    database: Database, settings: Settings, row: Mailbox, folder: str, *, offline: bool
) -> dict[str, Any]:
    from ingest.look import compare_settled

    compared = [] if offline else compare_settled(database, settings, row.name)
    with database.read() as session:
        states = mailbox_state.folder_states(session, row.id)
        skipped = mailbox_state.reasons(session, row.id, LedgerState.SKIPPED)
        dead = mailbox_state.reasons(session, row.id, LedgerState.DEAD)
    return {
        "mailbox": row.name,
        "offline": offline,
        "clean": all(c.agrees for c in compared if c.folder == folder or not folder),
        "server": [
            {
                "folder": c.folder,
                "says": c.words,
                "uidvalidity": c.uidvalidity,
                "server": c.server,
                "ledger": c.ledger,
                "missing": list(c.missing),
                "to_read": c.to_read,
                "left": list(c.left),
                "problem": c.problem,
            }
            for c in compared
            if c.folder == folder or not folder
        ],
        "folders": [
            {
                "folder": f.folder,
                "uidvalidity": f.uidvalidity,
                "ledger": f.ledger,
                "states": f.states,
                "older_read": mailbox_state.older_words([f]) or None,
                "reconciled_at": f.reconciled_at,
                "missing_since": f.missing_since,
            }
            for f in states
            if f.folder == folder or not folder
        ],
        "skipped": [
            {"folder": f, "reason": r, "number": n} for f, r, n in skipped if f == folder or not folder
        ],
        "dead": [{"folder": f, "reason": r, "number": n} for f, r, n in dead if f == folder or not folder],
    }


def _print_report(report: dict[str, Any]) -> None:
    for found in report["server"]:
        console.print(
            found["says"], style=None if not (found["missing"] or found["problem"]) else "red", markup=False
        )
        if found["left"]:
            console.print(
                f"  {len(found['left']):,} more have a row and are no longer in the folder: deleted or moved by others after we took them.",
                markup=False,
            )
    names = [s.value for s in LedgerState]
    print_table(
        f"Ledger of {report['mailbox']}",
        ["folder", *names, "all", "older mail read", "compared"],
        [
            (
                f["folder"],
                *(f["states"].get(n, 0) for n in names),
                f["ledger"],
                f["older_read"] or "all",
                age(f["reconciled_at"]),
            )
            for f in report["folders"]
        ],
        empty="no folder was read yet",
    )
    for title in ("skipped", "dead"):
        if report[title]:
            print_table(
                f"{title.capitalize()}, by reason",
                ["folder", "reason", "number"],
                [(x["folder"], x["reason"], x["number"]) for x in report[title]],
            )
            console.print(
                f"One by one: briefbox mailbox ledger {report['mailbox']} --state {title}", markup=False
            )


def _print_rows(
    database: Database, row: Mailbox, state: str, folder: str, limit: int, *, as_json: bool
) -> None:
    with database.read() as session:
        lines = mailbox_state.lines(session, row.id, state=state, folder=folder, limit=limit)
    if as_json:
        print_json(
            [
                {
                    "folder": x.folder, "uidvalidity": x.uidvalidity, "uid": x.uid, "state": x.state,
                    "subject": x.subject, "reason": x.reason, "seen_at": x.seen_at,
                }
                for x in lines
            ]
        )  # fmt: skip
        return
    print_table(
        f"{row.name}: {state}",
        ["folder", "UID", "seen", "subject", "reason"],
        [(x.folder, x.uid, age(x.seen_at), x.subject, x.reason) for x in lines],
        empty="none",
    )


# --- reconcile


def reconcile(
    name: str,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the comparison and older mail; 0: do not wait.")
    ] = 60,
) -> None:
    """Have the poller compare a mailbox with its server in full now, and show how far it is."""
    database, settings = database_for()
    with database.write() as session:
        row = mailboxes.ask_to_reconcile(session, name, actor=actor())
        asked, is_read = now(session), mailbox_state.is_read(row, now(session))
    if not is_read:
        raise NotFoundError(
            f"No poller reads mailbox {name} now; the comparison is done when one starts: briefbox up (or briefbox poll)"
        )
    if wait == 0:
        console.print("Asked for; the poller compares it within seconds.")
        return
    _watch(database, row, asked, wait)
    report = _report(database, settings, row, "", offline=False)
    for found in report["server"]:
        console.print(found["says"], markup=False)
    if not report["clean"]:
        raise typer.Exit(1)


def _watch(database: Database, row: Mailbox, asked: datetime, seconds: float) -> None:
    """Show how far older mail is read, until every folder is compared and all of it is read, or time is over."""
    deadline = time.monotonic() + seconds
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=errors) if errors.is_terminal else None
    with progress or nullcontext():
        task = progress.add_task("waiting for the comparison", total=None) if progress else None
        while time.monotonic() < deadline:
            with database.read() as session:
                fresh = mailboxes.get_by_id(session, row.id)
                folders = mailbox_state.folder_states(session, row.id)
            done, total = sum(f.older_done for f in folders), sum(f.older_total for f in folders)
            if progress and task is not None and total:
                progress.update(task, description="older mail (by UID)", completed=done, total=total)
            names = {f.folder for f in folders if f.reconciled_at and f.reconciled_at >= asked}
            if fresh.last_error and fresh.last_error_at and fresh.last_error_at >= asked:
                raise MailboxError(f"Mailbox {row.name} cannot be compared now: {fresh.last_error}")
            if names >= set(row.folders) and done >= total:
                return
            time.sleep(LOOK_AGAIN_SECONDS)
    if names >= set(row.folders):
        console.print(f"Compared; older mail is read on: {mailbox_state.older_words(folders)}.")
    else:
        console.print(f"Not compared within {seconds:g} s: {', '.join(sorted(set(row.folders) - names))}.")


# --- retry


def retry(
    name: str,
    letter_ids: Annotated[
        list[int] | None, typer.Argument(help="Dead letters. Default: all open ones.")
    ] = None,
) -> None:
    """Try again what was given up on in a mailbox: fetch it, parse it or brief it. Exit 1 if any fails again."""
    from ingest.again import retry_all

    database, settings = database_for()
    with database.read() as session:
        row = mailboxes.get(session, name)
        open_ones = [letter.id for letter in dead_letters.open_of(session, row.id)]
    if strangers := sorted(set(letter_ids or []) - set(open_ones)):
        raise NotFoundError(
            f"Mailbox {name} has no open dead letter {', '.join(map(str, strangers))}; open ones: {', '.join(map(str, open_ones)) or 'none'}."
        )
    wanted = letter_ids or open_ones
    if not wanted:
        console.print(f"Mailbox {name} has no open dead letters.", markup=False)
        return
    num_failed = 0
    for letter_id, outcome in retry_all(database, settings, row, wanted, actor=actor()):
        is_error = isinstance(outcome, BriefboxError)
        num_failed += is_error
        console.print(f"{letter_id}: {outcome}", style="red" if is_error else None, markup=False)
    console.print(f"{len(wanted) - num_failed} of {len(wanted)} dead letters are settled.")
    if num_failed:
        raise typer.Exit(1)
