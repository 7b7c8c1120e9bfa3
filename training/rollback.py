"""Roll-back: prove first, then switch. The command line and the training worker do it alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from briefbox.db import Database
from briefbox.errors import AdapterError
from briefbox.settings import Settings
from briefbox.store import adapters as store
from briefbox.tables import Adapter, Promotion


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What is in use again ("" is the bare base model), what was before, and the proof: for the history, and in words."""

    adapter: str
    before: str
    proof: dict[str, Any]
    says: str

    def __str__(self) -> str:
        return f"{self.adapter or 'The bare base model'} is in use again from the next batch on: {self.says}."


def roll_back(
    database: Database,
    settings: Settings,
    *,
    actor: str,
    to: str | None = None,
    proof: bool = True,
    anyway: bool = False,
    then: Callable[[Session, Promotion], None] = lambda _session, _entry: None,
) -> RolledBack:
    """Put back in use what was before the champion, or `to` ("" is the bare base).

    Without `proof` nothing is asked; with `anyway` other answers than the recorded ones do not stop it. `then` is
    called in the transaction of the switch: what it raises undoes it. Raises ConflictError, AdapterError, ModelError.
    """
    with database.read() as session:
        name = store.destination(session, to)
        current = store.champion(session)
        adapter = store.get(session, name) if name else None
    facts, says = _proof(settings, adapter, wanted=proof, anyway=anyway)
    with database.write() as session:
        leaving = current.name if current else None
        then(session, store.rollback(session, actor=actor, to=name, leaving=leaving, proof=facts))
    return RolledBack(name, current.name if current else "", facts, says)


def _proof(
    settings: Settings, adapter: Adapter | None, *, wanted: bool, anyway: bool
) -> tuple[dict[str, Any], str]:
    """For the history, and in words. Raises AdapterError when the answers differ and nobody said `anyway`."""
    if not wanted:
        if adapter is not None:
            from models.base import resolve_base_model
            from models.registry import verify_adapter

            # What a worker would refuse is refused here, with or without a proof.
            folder = settings.data_dir / adapter.path
            verify_adapter(folder, resolve_base_model(settings), adapter.weights_sha256)
        return {"proven": None, "skipped": True}, "unproven, as asked for"
    from models.engine import make_engine
    from training.proof import prove

    found = prove(settings, make_engine(settings), adapter)
    facts = found.facts()
    # Of the bare base nothing may have been recorded before; now it is.
    if found.proven or (found.proven is None and adapter is None):
        return facts, str(found)
    name = adapter.name if adapter is not None else "the bare base model"
    if not anyway:
        first = f" ({found.differences[0]})" if found.differences else ""
        raise AdapterError(
            f"Nothing was changed, because {name} does not prove itself: {found}{first}. Return to another one with --to NAME, or to this one all the same with --anyway."
        )
    return facts | {"anyway": True}, f"{found}, and that was to be ignored"
