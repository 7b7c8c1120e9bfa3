"""`briefbox parse`: what we make of an email, from files and standard input. No database, no model."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any

import typer

from briefbox.cli.output import printable
from briefbox.schemas import Address, ParsedEmail

STDIN = "-"
# Far above what mailboxes take; what is longer is no email.
MAX_BYTES = 256_000_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("parse")(parse)


def parse(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Emails, folders (their .eml files), - for standard input."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a file.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="The files are plain-text bodies.")] = False,
    html: Annotated[bool, typer.Option("--html", help="The files are HTML bodies.")] = False,
) -> None:
    """Show what we make of an email: its text, the new part of it, its kind and why. Exits 0 whatever the file."""
    if plain and html:
        raise typer.BadParameter("--plain and --html exclude each other; give one of them.")
    body = "plain" if plain else "html" if html else ""
    for value in _read(paths, body):
        line = json.dumps(value, ensure_ascii=False) if as_json else _for_people(value)
        # In UTF-8 whatever the terminal's locale is. A name may hold what no encoding has.
        sys.stdout.buffer.write(line.encode("utf-8", "replace") + b"\n")
        sys.stdout.buffer.flush()


def _read(paths: Sequence[str], body: str) -> Iterator[dict[str, Any]]:
    """One value for each file, in order; what goes wrong with one is its "error"."""
    for name in paths:
        if name == STDIN:
            yield _value("standard input", body, None)
            continue
        try:
            files = _files(Path(name))
        except (OSError, ValueError) as error:
            yield {"file": printable(name), "error": _why(error)}
            continue
        if files is None:
            yield _value(name, body, Path(name))
        elif not files:
            yield {"file": printable(name), "error": "The folder holds no .eml file."}
        else:
            for file in files:
                yield _value(str(file), body, file)


def _files(path: Path) -> list[Path] | None:
    """The emails of a folder, sorted by name; None for anything else."""
    if not path.is_dir():
        return None
    return sorted(file for file in path.iterdir() if file.suffix.lower() == ".eml")


def _value(name: str, body: str, path: Path | None) -> dict[str, Any]:
    from ingest.parse import parse_body, parse_email

    shown = {"file": printable(name)}
    try:
        if path is None:
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return shown | {"error": f"It is longer than {MAX_BYTES} bytes."}
        parsed = parse_body(raw, html=body == "html") if body else parse_email(raw)
    except (Exception, MemoryError, RecursionError) as error:
        return shown | {"error": _why(error)}
    return shown | as_value(parsed)


def as_value(parsed: ParsedEmail) -> dict[str, Any]:
    """A parsed email in the shape of the JSON line, without its file."""
    moment = parsed.sent_at.astimezone(UTC) if parsed.sent_at else None
    return {
        "subject": parsed.subject,
        "from": _address(parsed.sender),
        "to": [_address(one) for one in parsed.to],
        "date": moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None,
        "message_id": parsed.message_id,
        "kind": str(parsed.kind),
        "kind_reason": parsed.kind_reason,
        "language": parsed.language,
        "text": parsed.text,
        "reply": parsed.reply,
        "signature": parsed.signature,
        "quoted": parsed.quoted,
        "hidden_text": parsed.hidden_text,
        "attachments": [{"name": one.name, "type": one.type, "size": one.size} for one in parsed.attachments],
        "warnings": list(parsed.warnings),
    }


def _address(address: Address) -> dict[str, str]:
    return {"name": address.name, "address": address.address}


def _why(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"It cannot be read ({error.strerror or error})."
    return printable(str(error)) or f"It cannot be read ({type(error).__name__})."


def _for_people(value: dict[str, Any]) -> str:
    from ingest.headers import one_line

    title = f"{one_line(value['file'])}\n"
    if "error" in value:
        return f"{title}  {value['error']}\n"
    facts = [
        ("From", _shown(value["from"])),
        ("To", ", ".join(_shown(one) for one in value["to"])),
        ("Date", value["date"] or ""),
        ("Subject", value["subject"]),
        ("Kind", " - ".join(text for text in (value["kind"], value["kind_reason"]) if text)),
        ("Language", value["language"]),
        ("Attachments", ", ".join(f"{one['name']} ({one['size']} bytes)" for one in value["attachments"])),
        (
            "Warnings",
            ", ".join([*value["warnings"], *(["hidden text left out"] if value["hidden_text"] else [])]),
        ),
    ]
    lines = [f"  {name + ':':<13}{text}" for name, text in facts if text]
    for name in ("reply", "signature", "quoted"):
        if value[name].strip():
            lines += ["", f"  --- {name}", *(f"  {line}".rstrip() for line in value[name].split("\n"))]
    return title + "\n".join(lines) + "\n"


def _shown(address: dict[str, str]) -> str:
    name, at = address["name"], address["address"]
    return f"{name} <{at}>" if name and at else name or at
