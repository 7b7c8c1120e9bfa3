"""training.default_adapter: the adapter that comes with briefbox is in use on a new installation, and only there."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from briefbox.db import Database
from briefbox.errors import ConflictError
from briefbox.schemas import AdapterCard
from briefbox.settings import Settings
from briefbox.store import adapters
from models.prompt import PROMPT_VERSION
from training.default_adapter import STARTER, install_starter


@pytest.fixture
def real(settings: Settings) -> Settings:
    return settings.model_copy(update={"engine": "transformers", "base_model": "packaged"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "starter"
    folder.mkdir()
    card = AdapterCard(
        name="starter",
        base_model="SmolLM2-135M-Instruct",
        base_sha256="b",
        weights_sha256="w",
        prompt_version=PROMPT_VERSION,
        dataset="starter",
        dataset_hash="h",
        num_examples=600,
        verdict={"decision": "promoted"},
        created_at=datetime(2026, 11, 24, tzinfo=UTC),
    )
    (folder / "card.json").write_text(card.model_dump_json())
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_a_new_installation_has_it_in_use(database: Database, real: Settings, source: Path) -> None:
    assert install_starter(database, real, source) == "starter"
    with database.read() as session:
        champion = adapters.champion(session)
        assert champion is not None
        assert champion.name == "starter"
        assert (real.data_dir / champion.path / "adapter_model.safetensors").read_bytes() == b"weights"
        assert adapters.way_back(session) == [""], "roll-back leads to the bare base"
        assert [p.actor for p in adapters.promotions(session)] == ["installation"]
    # Once: the next start changes nothing.
    assert install_starter(database, real, source) == ""


def test_whoever_rolled_back_keeps_the_bare_base(database: Database, real: Settings, source: Path) -> None:
    install_starter(database, real, source)
    with database.write() as session:
        adapters.rollback(session, to="", proof={}, actor="test")
    assert install_starter(database, real, source) == ""
    with database.read() as session:
        assert adapters.champion(session) is None


@pytest.mark.parametrize(
    "changes", [{"engine": "fake"}, {"base_model": "/models/other"}, {"starter_adapter": False}]
)
def test_other_models_and_wishes_are_left_alone(
    database: Database, real: Settings, source: Path, changes: dict[str, object]
) -> None:
    assert install_starter(database, real.model_copy(update=changes), source) == ""


def test_one_that_the_gate_did_not_pass_is_not_put_in_use(
    database: Database, real: Settings, source: Path
) -> None:
    card = json.loads((source / "card.json").read_text())
    (source / "card.json").write_text(json.dumps(card | {"verdict": {"decision": "not enough data"}}))
    with pytest.raises(ConflictError, match="The gate has not passed"):
        install_starter(database, real, source)


def test_what_ships_was_made_for_this_prompt_from_this_starter_set() -> None:
    from hashlib import sha256

    from training.dataset import write_lines
    from training.seeds import read_seeds

    card = AdapterCard.model_validate_json((STARTER / "card.json").read_text())
    assert card.prompt_version == PROMPT_VERSION
    assert card.verdict["decision"] == "promoted"
    assert card.fingerprint
    assert sha256((STARTER / "adapter_model.safetensors").read_bytes()).hexdigest() == card.weights_sha256
    seeds = read_seeds()
    learned = [e for split in ("train", "validation") for e in seeds if e.split == split]
    assert sha256(write_lines(learned)).hexdigest() == card.dataset_hash
