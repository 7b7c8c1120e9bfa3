"""Commands of base models: add, list, check, use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from briefbox.cli.output import console, print_json, print_table
from briefbox.errors import ModelError
from briefbox.settings import PACKAGED_MODEL, Settings, get_settings

if TYPE_CHECKING:
    from models.catalog import Facts, Place
    from models.fit import Machine
    from models.inspect_model import Line

app = typer.Typer(
    help="Base models: fetch one, see what is here, check it, and how to use it.", no_args_is_help=True
)

JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("add")
def add(
    model: Annotated[str, typer.Argument(help="A hub's model (owner/name), or a local folder.")],
    revision: Annotated[str, typer.Option(help="The hub model's commit: 40 hex digits.")] = "",
    as_json: JSON = False,
) -> None:
    """Fetch a model from a hub at one commit, or register a local folder; then check it and say how to use it."""
    from models.catalog import Place, register
    from models.fetch import add_from_hub
    from models.hub import hub_model
    from models.inspect_model import inspect

    settings = _settings()
    if wanted := hub_model(model, revision):
        base = add_from_hub(settings, wanted)
        place = Place(base.name, base.path, base.revision)
        lines = inspect(settings, place)
    else:
        path = Path(model).resolve()
        if not path.is_dir():
            raise ModelError(
                f"{model} is no folder here; expected a local folder or a hub's model (owner/name with --revision)."
            )
        place = Place(str(path), path)
        lines = inspect(settings, place)
        if not lines[0].ok:
            raise ModelError(lines[0].says)
        register(settings.models_path, path)
    if as_json:
        print_json(
            {
                "model": place.name,
                "revision": place.revision,
                "path": str(place.path),
                "checks": [_line_facts(line) for line in lines],
                "settings": settings_of(place),
            }
        )
    else:
        _print_lines(place, lines)
        _print_settings(place)
    if not all(line.ok for line in lines):
        raise typer.Exit(1)


@app.command("list")
def list_models(as_json: JSON = False) -> None:
    """List the base models on this machine: size, licence, context, memory for a full batch, and whether it fits."""
    from models.catalog import places
    from models.fit import this_machine

    settings = get_settings()
    machine = this_machine(settings)
    rows = [_row(settings, place, machine) for place in places(settings)]
    if as_json:
        print_json(
            {
                "device": machine.name,
                "memory_gb": round(machine.total / 1e9, 2),
                "precision": machine.precision,
                "models": rows,
            }
        )
        return
    print_table(
        f"Base models ({machine.precision} on {machine.name}, {machine.total / 1e9:.1f} GB)",
        ["model", "GB", "parameters", "licence", "context", "needs GB", "fits"],
        [
            (
                _name(row) + (" (in use)" if row["in_use"] else ""),
                row["size_gb"],
                _count(row["parameters"]),
                row["licence"],
                row["context"] or "unknown",
                row["needs_gb"] or "unknown",
                row["problem"] or {True: "yes", False: "no", None: "unknown"}[row["fits"]],
            )
            for row in rows
        ],
    )


@app.command("check")
def check(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A name of the list or a folder. Default: the one in use.")
    ] = "",
    as_json: JSON = False,
) -> None:
    """Check a base model: files, checksums, weights, licence, chat template, context, memory. Exit 1 on a failure."""
    from models.catalog import find
    from models.inspect_model import inspect

    settings = _settings()
    place = find(settings, name)
    lines = inspect(settings, place)
    if as_json:
        print_json(
            {
                "model": place.name,
                "ok": all(line.ok for line in lines),
                "checks": [_line_facts(line) for line in lines],
            }
        )
    else:
        _print_lines(place, lines)
    if not all(line.ok for line in lines):
        raise typer.Exit(1)


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="A name of the list (owner/name, packaged) or a folder.")],
    as_json: JSON = False,
) -> None:
    """Print the settings that put a base model in use. A model that does not fit this machine is refused."""
    from models.catalog import facts_of, find
    from models.fit import fits, memory, this_machine, what_fits

    settings = get_settings()
    place = find(settings, name)
    if place.path.is_dir():
        shape = facts_of(place).shape
        machine = this_machine(settings)
        if shape is not None and not fits(shape, settings, machine):
            need = memory(shape, settings, machine.precision).total
            raise ModelError(
                f"{place.name} needs {need / 1e9:.1f} GB in {machine.precision} for a full batch, but of {machine.name} only {machine.usable / 1e9:.1f} GB may be used. {what_fits(shape, settings, machine)}"
            )
    if as_json:
        print_json({"model": place.name, "path": str(place.path), "settings": settings_of(place)})
    else:
        _print_settings(place)


def _settings() -> Settings:
    """The settings, with the data folder made for this user alone before anything is written into it."""
    settings = get_settings()
    if settings.models_dir is None:
        settings.ensure_data_dir()
    return settings


def settings_of(place: "Place") -> dict[str, str]:
    """The environment that puts a model in use."""
    values = {"BRIEFBOX_BASE_MODEL": place.name}
    if place.revision:
        values["BRIEFBOX_BASE_REVISION"] = place.revision
    return values


def _print_settings(place: "Place") -> None:
    console.print("Set this in the environment of every worker and of training:", soft_wrap=True)
    for name, value in settings_of(place).items():
        console.print(f"  {name}={value}", markup=False, soft_wrap=True)
    if not place.revision:
        console.print("  (and BRIEFBOX_BASE_REVISION unset)", soft_wrap=True)
    console.print(
        "Adapters fit only the base model on which they were trained; train again after a change.",
        soft_wrap=True,
    )


def _row(settings: Settings, place: "Place", machine: "Machine") -> dict[str, Any]:
    """A model as a row; where it cannot be read, the reason."""
    from models.catalog import facts_of

    row: dict[str, Any] = {
        "model": place.name,
        "revision": place.revision,
        "path": str(place.path),
        "in_use": _in_use(settings, place),
        "size_gb": None,
        "parameters": None,
        "licence": "",
        "context": None,
        "needs_gb": None,
        "fits": None,
        "problem": "",
    }
    if place.name == PACKAGED_MODEL and not place.path.is_dir():
        return row | {"problem": "converted at its first use"}
    try:
        return row | _known(settings, facts_of(place), machine)
    except ModelError as error:
        return row | {"problem": str(error)}


def _name(row: dict[str, Any]) -> str:
    """As `briefbox models use` takes it."""
    return f"{row['model']}@{row['revision'][:12]}" if row["revision"] else str(row["model"])


def _count(parameters: int | None) -> str:
    if parameters is None:
        return ""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


def _known(settings: Settings, facts: "Facts", machine: "Machine") -> dict[str, Any]:
    from models.fit import fits, memory

    known: dict[str, Any] = {
        "size_gb": round(facts.bytes / 1e9, 2),
        "parameters": facts.parameters,
        "licence": facts.licence,
        "context": facts.context or None,
    }
    if facts.shape is not None:
        known["needs_gb"] = round(memory(facts.shape, settings, machine.precision).total / 1e9, 1)
        known["fits"] = fits(facts.shape, settings, machine)
    return known


def _in_use(settings: Settings, place: "Place") -> bool:
    if place.revision:
        return (settings.base_model, settings.base_revision) == (place.name, place.revision)
    if PACKAGED_MODEL in (place.name, settings.base_model):
        return place.name == settings.base_model
    return Path(settings.base_model).resolve() == place.path


def _line_facts(line: "Line") -> dict[str, Any]:
    return {"check": line.check, "ok": line.ok, "says": line.says}


def _print_lines(place: "Place", lines: "list[Line]") -> None:
    print_table(
        f"{place.name}{f' at {place.revision[:12]}' if place.revision else ''}",
        ["", "check", "says"],
        [("ok" if line.ok else "FAIL", line.check, line.says) for line in lines],
    )
