"""The command `adapters merge`: base and adapter as one whole model, proven to answer as the two did."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from briefbox.cli.context import actor, database_for
from briefbox.cli.output import console, print_json
from briefbox.store import adapters as store


def merge(
    name: str,
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="How far a label's probability may differ.")
    ] = 0.02,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write base model and adapter as one whole model (safetensors), and refuse it if it answers differently.

    Both are loaded, one after the other, and answer the probe set: labels must be equal. The adapter stays as it is.
    """
    from models.merge import merge as write
    from training.probes import probe_requests

    database, settings = database_for()
    with database.read() as session:
        adapter = store.usable(session, name)
    found = write(
        settings,
        settings.data_dir / adapter.path,
        adapter.weights_sha256,
        out,
        probe_requests(),
        tolerance=tolerance,
    )
    with database.write() as session:
        store.note_merged(session, name, str(out.absolute()), actor=actor())
    if as_json:
        print_json({"adapter": name, "model": str(out.absolute()), **asdict(found)})
        return
    console.print(
        f"{name} is merged into {out}: {found.of} of {found.of} probe emails get the same labels, probabilities differ by at most {found.largest:.4f}, {found.equal_texts} of {found.of} texts are the same.",
        f"Use it with: BRIEFBOX_BASE_MODEL={out.absolute()}",
        sep="\n",
        soft_wrap=True,
    )
