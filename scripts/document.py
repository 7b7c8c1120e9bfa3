"""Writes the parts of docs/ that repeat the code: docs/configuration.md and docs/commands.md.

    python scripts/document.py [--check]

`--check` writes nothing and exits 1 when a file differs from the code (a test does that).
"""

import sys
from pathlib import Path
from typing import Any

import typer.main
from pydantic_core import PydanticUndefined

from briefbox.cli import app
from briefbox.settings import PREFIX, Settings

DOCS = Path(__file__).parent.parent / "docs"


def configuration() -> str:
    """Every setting with its default and meaning."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by scripts/document.py from briefbox/settings.py. -->",
        "",
        f"Every setting is an environment variable with the prefix `{PREFIX}`. With `_FILE` appended it names a file that holds the value:",
        f"`{PREFIX}DATABASE_URL_FILE=/run/secrets/database_url`. A value that cannot be used stops the start with a sentence that names the variable.",
        "Without any setting everything is embedded: SQLite, Valkey and the packaged model.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        if name == "data_dir":
            default = "`~/.local/share/briefbox`"
        else:
            default = "" if field.default in (None, PydanticUndefined) else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its options, as `--help` tells it."""
    lines = [
        "# Commands",
        "",
        "<!-- Written by scripts/document.py from briefbox/cli. -->",
        "",
        "Every command that prints facts takes `--json`. Expected errors are one sentence on standard error and exit code 1.",
    ]
    for words, command in _walk(typer.main.get_command(app), ()):
        arguments = " ".join(
            (p.name or "").upper() for p in command.params if p.param_type_name == "argument"
        )
        lines += [
            "",
            f"## `{' '.join(('briefbox', *words, arguments)).strip()}`",
            "",
            (command.help or "").strip(),
        ]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        if options:
            lines += ["", "| option | meaning |", "|---|---|"]
            lines += [f"| `{', '.join([*o.opts, *o.secondary_opts])}` | {o.help or ''} |" for o in options]
    return "\n".join(lines) + "\n"


def _walk(command: Any, words: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        return [
            found
            for name in sorted(command.commands)
            for found in _walk(command.commands[name], (*words, name))
        ]
    return [(words, command)]


def main() -> None:
    check = "--check" in sys.argv
    differs = False
    for name, text in (("configuration.md", configuration()), ("commands.md", commands())):
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differs = True
        if not check:
            path.write_text(text, encoding="utf-8")
        sys.stderr.write(
            f"docs/{name} {'differs from the code: run python scripts/document.py' if check else 'written'}\n"
        )
    sys.exit(1 if check and differs else 0)


if __name__ == "__main__":
    main()
