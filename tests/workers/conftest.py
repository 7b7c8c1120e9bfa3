"""A worker on the fake engine, and adapters that are rows with a card on disk."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import AdapterCard
from briefbox.settings import Settings
from briefbox.store import adapters, processes, training
from briefbox.tables import Adapter, Brief
from models.engine import FakeEngine
from models.prompt import PROMPT_VERSION
from models.registry import write_card
from workers.gpu import BriefWorker

Deliver = Callable[..., list[int]]
MakeWorker = Callable[..., BriefWorker]
MakeAdapter = Callable[..., None]


@pytest.fixture
def make_worker(database: Database, settings: Settings) -> MakeWorker:
    def make(engine: FakeEngine | None = None, **changes: object) -> BriefWorker:
        process = processes.this_process("worker")
        return BriefWorker(database, settings.model_copy(update=changes), engine or FakeEngine(), process)

    return make


@pytest.fixture
def make_adapter(database: Database, settings: Settings) -> MakeAdapter:
    """`make_adapter("a", "champion")`: its row and, unless `whole` is false, its card on disk."""

    def make(name: str, state: str = "candidate", *, whole: bool = True) -> None:
        if state == "champion":
            retire_champion()
        with database.write() as session:
            session.add(
                Adapter(
                    name=name,
                    path=f"adapters/{name}",
                    base_model="fake",
                    weights_sha256="0",
                    card={"num_examples": 1, "verdict": {"decision": "promoted"}},
                    state=state,
                    created_at=training.now(session),
                )
            )
        if whole:
            write_folder(settings, name)

    def retire_champion() -> None:
        with database.write() as session:
            if (before := adapters.champion(session)) is not None:
                before.state = "retired"

    return make


def write_folder(settings: Settings, name: str) -> None:
    """What the fake engine looks at: the card."""
    folder = settings.data_dir / "adapters" / name
    folder.mkdir(parents=True)
    card = AdapterCard(
        name=name,
        base_model="fake",
        base_sha256="0",
        weights_sha256="0",
        prompt_version=PROMPT_VERSION,
        dataset="d",
        dataset_hash="0",
        num_examples=1,
        created_at=datetime.now(UTC),
    )
    write_card(folder, card)


def briefs(database: Database, *, shadow: bool = False) -> list[Brief]:
    """The briefs that agents see, or those of the adapter on trial."""
    with database.read() as session:
        return list(session.exec(select(Brief).where(Brief.shadow == shadow).order_by(Brief.id)))
