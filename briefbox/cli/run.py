"""Commands that run something: up, demo, poll, worker, beat, desk, migrate."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from briefbox.cli.context import database_for, settings_for
from briefbox.cli.output import console
from briefbox.cli.supervisor import Supervisor
from briefbox.db import Database, migrate, open_database, revision_of
from briefbox.queue import BRIEFS, TRAINING, hints_for
from briefbox.settings import Settings
from briefbox.store import processes, users


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (up, demo, poll, worker, beat, desk):
        app.command()(command)
    app.command("migrate")(migrate_command)


def up() -> None:
    """Run everything on this machine and keep it running. Ctrl-C stops it cleanly."""
    settings = settings_for("up")
    database = open_database(settings, check=False)
    prepare(database, settings)
    stop = stop_on_signals()
    supervisor = Supervisor(settings)
    try:
        supervisor.start()
        console.print(f"briefbox is up: {settings.desk_address}   (Ctrl-C stops it)")
        _print_set_up_link(database, settings.desk_address)
        while not stop.wait(0.5):
            supervisor.watch()
        console.print("stopping ...")
    finally:
        supervisor.stop()
        database.close()


def demo(
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Run without a person: exit 0 when the emails are briefed, one is corrected over HTTP and the audit is clean.",
        ),
    ] = False,
    loop: Annotated[
        bool,
        typer.Option(
            "--loop",
            help="Show the learning loop instead: correction, harvest, training, gate, promotion, a better brief, roll-back. Takes about a quarter of an hour on two cores.",
        ),
    ] = False,
    emails: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="How many customer emails arrive. Default: all samples; with --check 12, with --loop 64.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address the desk listens on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port of the desk. Default: 8025, or a free one.")] = None,
    engine: Annotated[
        str, typer.Option(help="transformers (the real model) or fake (no weights).")
    ] = "transformers",
    interval: Annotated[float, typer.Option(min=0, help="Seconds between emails.")] = 2.0,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the demo's data in this folder instead of a temporary one.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=10, help="Seconds after which --check gives up.")] = 600.0,
) -> None:
    """Show the whole flow on this machine: sample emails arrive over IMAP and stand as briefs in the queue."""
    from briefbox.cli.demo import Demo

    stop = stop_on_signals()
    runner = Demo(host=host, port=port, engine=engine, interval=interval, data_dir=data_dir, stop=stop)
    if loop:
        from briefbox.cli.loop import Loop

        problem = Loop(runner, num_emails=emails or 64, timeout=timeout).show()
    else:
        problem = runner.check(emails or 12, timeout=timeout) if check else runner.show(emails)
    if problem:
        raise typer.Exit(1)


def poll() -> None:
    """Read every mailbox and keep reading. The mailboxes are never changed."""
    from ingest.poller import Poller

    database, settings = database_for("poll")
    process = processes.this_process("poll")
    stop = stop_on_signals()
    Poller(database, settings, process, hints_for(settings).brief).run(stop)
    with database.write() as session:
        processes.leave(session, process)


def worker(
    queue: Annotated[str, typer.Option(help=f"Which queue: {BRIEFS} or {TRAINING}.")] = BRIEFS,
) -> None:
    """Brief waiting emails with the model, or run training."""
    if queue not in (BRIEFS, TRAINING):
        raise typer.BadParameter(f"expected {BRIEFS} or {TRAINING}", param_hint="--queue")
    from workers.app import run_worker

    database, settings = database_for("worker" if queue == BRIEFS else queue)
    run_worker(database, settings, queue)


def beat() -> None:
    """Send the ticks that offer overdue work again."""
    from workers.app import run_beat

    run_beat(settings_for("beat"))


def desk(
    set_up_link: Annotated[
        bool,
        typer.Option(
            "--set-up-link/--no-set-up-link",
            help="Print a one-time link for the first admin while nobody can sign in yet.",
        ),
    ] = True,
) -> None:
    """Serve the agent queue to browsers."""
    from briefbox.cli.desk_tools import desk_tools
    from desk.server import serve

    database, settings = database_for("desk")

    def ready(address: str) -> None:
        if set_up_link:
            _print_set_up_link(database, address)

    serve(database, settings, desk_tools(database, settings), ready=ready)


def migrate_command(
    revision: Annotated[str, typer.Argument(help="Revision to go to: head, base, or one by name.")] = "head",
) -> None:
    """Bring the database's tables to this version."""
    settings = settings_for("migrate")
    database = open_database(settings, check=False)
    if revision == "head":
        prepare(database, settings)
    else:
        migrate(database, revision)
    console.print(f"{database.shown_address} is at revision {revision_of(database)}.", soft_wrap=True)


def prepare(database: Database, settings: Settings) -> None:
    """What a new installation needs before its first process: tables, and the adapter that comes with briefbox."""
    from training.default_adapter import install_starter

    migrate(database)
    install_starter(database, settings)


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set. A second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def _print_set_up_link(database: Database, address: str) -> None:
    """While nobody can sign in yet: a one-time link for the first admin."""
    with database.write() as session:
        token = users.first_link(session)
    if token is not None:
        console.print(f"First sign-in, one use, 24 hours: {address}/link/{token}", soft_wrap=True)
