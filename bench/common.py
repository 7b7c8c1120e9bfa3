"""What the benches share: sample mails, the machine in a line, a table."""

import os
import platform
import sys
from collections.abc import Sequence
from email.message import EmailMessage
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

# A table that is cut to 80 columns when it goes into a file or a page helps nobody.
console = Console(width=None if sys.stdout.isatty() else 150)


def machine() -> str:
    """The processor, its cores, the memory: what a figure is worth nothing without."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def samples() -> list[bytes]:
    """The demo's sample emails."""
    folder = files("briefbox.demo").joinpath("emails")
    return [e.read_bytes() for e in sorted(folder.iterdir(), key=lambda e: e.name) if e.name.endswith(".eml")]


def plain_email(number: int, size: int = 2_000) -> bytes:
    """A customer mail of about `size` bytes."""
    message = EmailMessage()
    message["From"] = f"Customer {number} <customer{number}@example.org>"
    message["To"] = "support@larkspur.example"
    message["Subject"] = f"Question number {number}"
    message["Message-ID"] = f"<bench-{number}@example.org>"
    message["Date"] = "Mon, 23 Nov 2026 10:00:00 +0000"
    line = f"This is mail {number}. Where is order {number * 7}? It should have been here on Monday.\n"
    message.set_content(line * max(1, size // len(line)))
    return message.as_bytes().replace(b"\n", b"\r\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table and the machine below it."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    console.print(machine())
