"""How facts are printed: tables for people, `--json` for programs, one sentence for errors."""

import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

# A table that is folded to 80 columns in a pipe or a file helps neither grep nor the person who opens it.
_IS_PIPED = not sys.stdout.isatty() and "COLUMNS" not in os.environ
console = Console(highlight=False, width=160 if _IS_PIPED else None)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "none yet"
) -> None:
    """A table, or a sentence when there is nothing in it."""
    rows = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not rows:
        console.print(f"{title}: {empty}")
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def printable(name: str) -> str:
    """A file's name or an id that any output can hold: bytes that are no UTF-8 become replacement characters."""
    # Lone surrogates stand for such bytes only if all of them are in the range that Python uses for it.
    escapes = all(not "\ud800" <= char <= "\udfff" or "\udc80" <= char <= "\udcff" for char in name)
    return name.encode("utf-8", "surrogateescape" if escapes else "replace").decode("utf-8", "replace")


def age(moment: datetime | None) -> str:
    """How long ago, in a form that fits a column."""
    if moment is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def set_up_logging(level: str, process: str) -> None:
    """Log lines on standard error: time, process, level, where, what."""
    logging.basicConfig(
        level=level,
        format=f"%(asctime)s {process:<8} %(levelname)-7s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    # Their INFO tells of every request and every migration step.
    for chatty in (
        "imapclient",
        "alembic",
        "urllib3",
        "httpx",
        "kombu",
        "celery.beat",
        "celery.worker.strategy",
        "celery.app.trace",
    ):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
