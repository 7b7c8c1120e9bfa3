"""Commands that check: audit (is every mail accounted for?), doctor (can everything be reached?), dead-letters."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from briefbox import __version__, queue
from briefbox.cli.context import actor, database_for, settings_for
from briefbox.cli.output import age, console, print_json, print_table
from briefbox.db import Database, open_database, revision_of
from briefbox.errors import BriefboxError, NotFoundError
from briefbox.settings import Settings
from briefbox.store import accounting, dead_letters, ledger, mailboxes, processes, work

dead_letters_app = typer.Typer(
    help="What could not be read or briefed: the reason, the bytes, and a retry.", no_args_is_help=True
)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(audit)
    app.command()(doctor)


def audit(
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the database alone, without asking the mailbox servers.")
    ] = False,
    all_bytes: Annotated[
        bool,
        typer.Option("--all-bytes", help="Hash the bytes of every stored email, not only of the newest."),
    ] = False,
    as_json: JSON = False,
) -> None:
    """Prove that every email is accounted for: nothing lost, nothing twice, nothing stuck. Exit 1 if not."""
    database, settings = database_for()
    report = run_audit(database, settings, offline=offline, all_bytes=all_bytes)
    if as_json:
        print_json(report)
    else:
        print_audit(report)
    if not report["clean"]:
        raise typer.Exit(1)


def run_audit(
    database: Database, settings: Settings, *, offline: bool = False, all_bytes: bool = False
) -> dict[str, Any]:
    """The audit as data: invariants of the database, and server N against ledger N."""
    with database.read() as session:
        findings = accounting.audit(session, all_bytes=all_bytes)
        rows = mailboxes.active(session)
    folders = [] if offline else [c for row in rows for c in _settled(database, settings, row.name)]
    return {
        "clean": all(not f.broken for f in findings)
        and all(not c.missing and not c.problem for c in folders),
        "invariants": [
            {"name": f.name, "checked": f.checked, "broken": f.broken, "examples": f.examples}
            for f in findings
        ],
        "folders": [
            {
                "mailbox": c.mailbox,
                "folder": c.folder,
                "uidvalidity": c.uidvalidity,
                "server": c.server,
                "ledger": c.ledger,
                "missing": c.missing,
                "to_read": c.to_read,
                "problem": c.problem,
            }
            for c in folders
        ],
    }


def print_audit(report: dict[str, Any]) -> None:
    """The report as two tables and a verdict."""
    print_table(
        "Invariants",
        ["invariant", "looked at", "broken", "for example"],
        [(f["name"], f["checked"], f["broken"], ", ".join(f["examples"])) for f in report["invariants"]],
    )
    if report["folders"]:
        print_table(
            "Mailboxes",
            ["mailbox", "folder", "server", "ledger", "to read", "missing", "problem"],
            [
                (
                    c["mailbox"],
                    c["folder"],
                    c["server"],
                    c["ledger"],
                    c["to_read"],
                    len(c["missing"]),
                    c["problem"],
                )
                for c in report["folders"]
            ],
        )
    if report["clean"]:
        console.print("Clean: 0 unaccounted, 0 duplicate, 0 stuck.", style="green")
    else:
        console.print("Not clean: see the lines that are not 0.", style="red")


def _settled(database: Database, settings: Settings, name: str) -> list[Any]:
    from ingest.look import compare_settled

    return compare_settled(database, settings, name)


def doctor(as_json: JSON = False) -> None:
    """Check settings, data folder, database, Redis, mailboxes, model and processes; each failing line says the fix."""
    settings = settings_for("doctor")
    lines: list[dict[str, Any]] = [{"check": "version", "ok": True, "says": f"briefbox {__version__}"}]

    def line(check: str, body: Callable[[], str]) -> None:
        try:
            lines.append({"check": check, "ok": True, "says": body()})
        except BriefboxError as error:
            lines.append({"check": check, "ok": False, "says": str(error)})

    line("data folder", lambda: _data_folder(settings))
    line("database", lambda: _database(settings))
    line("redis", lambda: "answers, version {version}, waiting {waiting}".format(**queue.ping(settings)))
    line("model", lambda: _model(settings))
    if lines[2]["ok"]:
        database = open_database(settings)
        line("processes", lambda: _processes(database))
        with database.read() as session:
            names = [row.name for row in mailboxes.active(session)]
        for name in names:
            line(f"mailbox {name}", lambda name=name: _mailbox(database, settings, name))  # type: ignore[misc]
    if as_json:
        print_json(lines)
    else:
        print_table(
            "Doctor",
            ["", "check", "says"],
            [("ok" if x["ok"] else "FAIL", x["check"], x["says"]) for x in lines],
        )
    if not all(x["ok"] for x in lines):
        raise typer.Exit(1)


def _data_folder(settings: Settings) -> str:
    path = settings.ensure_data_dir()
    return f"{path}, {shutil.disk_usage(path).free / 1e9:.1f} GB free"


def _database(settings: Settings) -> str:
    database = open_database(settings)
    with database.read() as session:
        waiting = work.num_waiting(session)
    return f"{database.shown_address} at revision {revision_of(database)}, {waiting} emails wait for a brief"


def _model(settings: Settings) -> str:
    if settings.engine == "fake":
        return "the fake engine: no weights"
    if settings.engine == "openai":
        from models.openai_engine import OpenAIEngine

        engine = OpenAIEngine(settings)
        engine.warm_up()
        return f"{engine.base_model} at {settings.openai_url}"
    from models.base import resolve_base_model

    base = resolve_base_model(settings)
    return f"{base.name} in {base.path}"


def _processes(database: Database) -> str:
    with database.read() as session:
        alive = [beat.name for beat, is_alive in processes.all_of(session) if is_alive]
    if not alive:
        raise NotFoundError("No process has given a sign of life lately. Start everything with: briefbox up")
    return ", ".join(alive)


def _mailbox(database: Database, settings: Settings, name: str) -> str:
    from ingest.look import compare

    with database.read() as session:
        row = mailboxes.get(session, name)
    comparisons = compare(database, settings, row)
    problems = [c.problem for c in comparisons if c.problem]
    if problems:
        raise NotFoundError(problems[0])
    return f"{' '.join(c.words for c in comparisons)} Last read {age(row.last_success_at)}"


@dead_letters_app.command("list")
def list_dead_letters(as_json: JSON = False) -> None:
    """List what was given up on, with the reason."""
    database, _ = database_for()
    with database.read() as session:
        letters = dead_letters.unresolved(session)
    if as_json:
        print_json([letter.model_dump() for letter in letters])
        return
    print_table(
        "Dead letters",
        ["id", "stage", "reason", "attempts", "since", "bytes"],
        [
            (x.id, x.stage, x.reason, x.attempts, age(x.created_at), "kept" if x.raw_id else "never received")
            for x in letters
        ],
        empty="none",
    )


@dead_letters_app.command("export")
def export_dead_letter(
    letter_id: int, path: Annotated[Path, typer.Argument(help="File to write the raw email to.")]
) -> None:
    """Write the raw bytes of a dead letter to a file."""
    database, _ = database_for()
    with database.read() as session:
        letter = dead_letters.get(session, letter_id)
        if letter.raw_id is None:
            raise NotFoundError(
                f"The server never gave the bytes of dead letter {letter_id}: {letter.reason}"
            )
        raw = ledger.raw_bytes(session, letter.raw_id)
    path.write_bytes(raw)
    console.print(f"{len(raw)} bytes written to {path}")


@dead_letters_app.command("retry")
def retry_dead_letter(letter_id: int) -> None:
    """Try again: brief it, parse it, or fetch it, wherever it failed."""
    from ingest.again import retry

    database, settings = database_for()
    console.print(retry(database, settings, letter_id, actor=actor()))
