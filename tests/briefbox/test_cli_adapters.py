"""`briefbox adapters`: which adapter briefs what, that a broken one is refused before a worker meets it, and the way back."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sqlmodel import select
from typer.testing import CliRunner, Result

import models.merge
from briefbox.cli import app
from briefbox.db import Database, migrate, now
from briefbox.errors import AdapterError, BriefboxError, ConflictError, NotFoundError
from briefbox.schemas import AdapterCard
from briefbox.settings import get_settings
from briefbox.store import mailboxes
from briefbox.tables import Adapter, AuditEntry, Mailbox, Promotion
from models.base import resolve_base_model
from models.engine import FakeEngine
from models.prompt import PROMPT_VERSION
from models.registry import CARD_FILE, WEIGHTS_FILE, read_card, write_adapter, write_card
from training.probes import fingerprint
from training.proof import BASE_FILE

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command on a database with one mailbox and the adapters a, b (whole), unjudged, broken and rejected."""
    base_folder = tmp_path / "base"
    base_folder.mkdir()
    (base_folder / "config.json").write_text("{}")
    save_file({"weight": torch.ones(2, 2)}, base_folder / "model.safetensors")
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BRIEFBOX_BASE_MODEL", str(base_folder))
    monkeypatch.setenv("BRIEFBOX_ENGINE", "fake")
    settings = get_settings()
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    base = resolve_base_model(settings)
    recorded = fingerprint(FakeEngine(settings), "")
    with database.write() as session:
        row = Mailbox(name="sales", address="s@x.example", host="h", port=1, username="u", folders=["INBOX"])
        mailboxes.add(session, row, actor="test")
        for name in ("a", "b", "unjudged", "broken", "rejected"):
            card = AdapterCard(
                name=name,
                base_model=base.name,
                base_sha256=base.sha256,
                weights_sha256="",
                prompt_version=PROMPT_VERSION,
                dataset="d",
                dataset_hash="h",
                num_examples=3,
                created_at=datetime.now(UTC),
            )
            card = write_adapter(
                settings.data_dir / "adapters" / name,
                weights={
                    f"base_model.model.layer.lora_{side}.weight": torch.ones(2, 2) for side in ("A", "B")
                },
                config={"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["layer"]},
                card=card,
            )
            session.add(
                Adapter(
                    name=name,
                    path=f"adapters/{name}",
                    base_model=base.name,
                    weights_sha256=card.weights_sha256,
                    card={"num_examples": 3, "fingerprint": recorded, "verdict": verdict_of(name)},
                    state="rejected" if name == "rejected" else "candidate",
                    created_at=now(session),
                )
            )
    (settings.data_dir / "adapters" / "broken" / CARD_FILE).unlink()
    database.close()

    def run(*words: str, fails: type[BriefboxError] | None = None) -> Result:
        result = CliRunner().invoke(app, ["adapters", *words])
        assert type(result.exception) is (fails or type(None)), result.exception
        return result

    handlers, level = logging.root.handlers[:], logging.root.level
    yield run
    logging.root.handlers[:], logging.root.level = handlers, level


def verdict_of(name: str) -> dict[str, Any]:
    """`a` and the others passed the gate."""
    check = {"rule": "gain", "passed": True, "sentence": "It gains 3 points."}
    passed = {"decision": "promoted", "sentence": "It passed every rule.", "checks": [check]}
    return {} if name == "unjudged" else passed


def open_database() -> Database:
    return Database(get_settings().database_address)


def change(name: str, **values: Any) -> None:
    """Write into an adapter's row."""
    with open_database().write() as session:
        row = session.exec(select(Adapter).where(Adapter.name == name)).one()
        for key, value in values.items():
            setattr(row, key, value)


def history() -> list[Promotion]:
    with open_database().read() as session:
        return list(session.exec(select(Promotion)))


def listed(run: Run) -> dict[str, tuple[str, list[str]]]:
    rows = json.loads(run("list", "--json").output)
    return {row["name"]: (row["state"], row["mailboxes"]) for row in rows}


def test_one_adapter_at_a_time_is_on_trial(run: Run) -> None:
    run("shadow", "a")
    assert "unseen" in run("shadow", "b").output
    assert {name: state for name, (state, _) in listed(run).items()} == {
        "a": "candidate",
        "b": "shadow",
        "unjudged": "candidate",
        "broken": "candidate",
        "rejected": "rejected",
    }
    assert "shadow" in run("list").output
    run("shadow", "--none")
    assert listed(run)["b"] == ("candidate", [])


def test_a_mailbox_has_an_adapter_of_its_own_until_it_is_taken_back(run: Run) -> None:
    assert "sales is briefed with a" in run("assign", "a", "--mailbox", "sales").output
    assert listed(run)["a"] == ("candidate", ["sales"])
    assert "the champion" in run("assign", "--none", "--mailbox", "sales").output
    assert listed(run)["a"] == ("candidate", [])


def test_the_one_on_trial_can_be_promoted_but_the_champion_cannot_be_on_trial(run: Run) -> None:
    run("shadow", "a")
    run("promote", "a")
    assert listed(run)["a"][0] == "champion"
    assert "is in use already" in str(run("shadow", "a", fails=ConflictError).exception)


@pytest.mark.parametrize("words", [("promote",), ("shadow",), ("assign", "--mailbox", "sales")])
def test_what_a_worker_would_refuse_is_refused_here(run: Run, words: tuple[str, ...]) -> None:
    assert "lacks the file" in str(run(*words, "broken", fails=AdapterError).exception)
    assert "was rejected" in str(run(*words, "rejected", fails=ConflictError).exception)
    assert "no adapter named none" in str(run(*words, "none", fails=NotFoundError).exception)
    assert {state for state, _ in listed(run).values()} == {"candidate", "rejected"}


def test_a_mailbox_that_does_not_exist_is_named(run: Run) -> None:
    found = run("assign", "a", "--mailbox", "support", fails=NotFoundError)
    assert "Mailboxes: sales" in str(found.exception)


@pytest.mark.parametrize(
    "words", [("shadow",), ("shadow", "a", "--none"), ("assign", "--mailbox", "sales"), ("assign", "a")]
)
def test_a_command_that_says_too_little_or_too_much_is_explained(run: Run, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["adapters", *words])
    assert result.exit_code == 2
    assert "NAME" in result.output or "--mailbox" in result.output


# --- the gate


@pytest.mark.parametrize("words", [("promote",), ("assign", "--mailbox", "sales")])
def test_no_command_puts_an_unjudged_one_in_use_without_a_reason(run: Run, words: tuple[str, ...]) -> None:
    assert "--force --reason" in str(run(*words, "unjudged", fails=ConflictError).exception)
    for half in (("--force",), ("--reason", "why not")):
        assert CliRunner().invoke(app, ["adapters", *words, "unjudged", *half]).exit_code == 2
    assert listed(run)["unjudged"] == ("candidate", [])
    run(*words, "unjudged", "--force", "--reason", "tried by hand")
    assert listed(run)["unjudged"] != ("candidate", [])


# --- roll-back


def test_roll_back_proves_itself_walks_back_and_records_the_proof(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    assert "a is in use again" in (said := run("rollback").output)
    assert "24 of 24 probe answers equal the recorded fingerprint" in said
    assert (listed(run)["a"][0], listed(run)["b"][0]) == ("champion", "retired")
    assert history()[-1].proof == {"proven": True, "equal": 24, "of": 24, "differences": []}
    # The bare base is recorded the first time, and compared with that the next time.
    made = json.loads(run("rollback", "--json").output)
    assert (made["adapter"], made["before"], made["proof"]["proven"]) == ("", "a", None)
    run("promote", "b")
    assert "24 of 24" in run("rollback", "--to", "base").output
    assert "nothing to roll back" in str(run("rollback", fails=ConflictError).exception)


def test_roll_back_to_a_name_that_was_rejected_since_is_refused(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    change("a", state="rejected")
    assert "cannot return to a" in str(run("rollback", "--to", "a", fails=ConflictError).exception)
    assert json.loads(run("rollback", "--json").output)["adapter"] == ""


def test_an_adapter_that_answers_differently_is_not_returned_to_unless_somebody_insists(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    answers = fingerprint(FakeEngine(), "")
    answers["answers"][3]["priority"] = "urgent"
    answers["sha256"] = "other"
    change("a", card={"fingerprint": answers, "verdict": {"decision": "promoted"}})
    sentence = str(run("rollback", fails=AdapterError).exception)
    assert "23 of 24 probe answers" in sentence
    assert "Delivery day: priority was 'urgent'" in sentence
    assert "--anyway" in sentence
    assert listed(run)["b"][0] == "champion"
    run("rollback", "--anyway")
    assert listed(run)["a"][0] == "champion"
    assert (history()[-1].proof["proven"], history()[-1].proof["anyway"]) == (False, True)


def test_one_without_recorded_answers_cannot_prove_itself(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    change("a", card={"verdict": {"decision": "promoted"}})
    assert "no probe answers were recorded" in str(run("rollback", fails=AdapterError).exception)
    assert listed(run)["b"][0] == "champion"


def test_altered_weights_are_found_with_and_without_a_proof_and_whoever_insists(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    folder = get_settings().data_dir / "adapters" / "a"
    (folder / WEIGHTS_FILE).write_bytes(b"other")
    write_card(folder, read_card(folder).model_copy(update={"weights_sha256": "f" * 64}))
    for words in ((), ("--no-proof",), ("--anyway",)):
        run("rollback", *words, fails=AdapterError)
    assert listed(run)["b"][0] == "champion"
    assert [row.kind for row in history()] == ["promote", "promote"]


def test_without_an_engine_roll_back_is_recorded_as_unproven(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    assert "unproven" in run("rollback", "--no-proof").output
    assert history()[-1].proof == {"proven": None, "skipped": True}
    assert "unproven" in run("show", "a").output


def test_the_answers_of_another_base_model_are_no_measure_for_this_one(run: Run) -> None:
    run("promote", "a")
    file = get_settings().data_dir / BASE_FILE
    file.write_text(json.dumps({"engine": "fake", "base_model": "other", "fingerprint": {}}))
    assert json.loads(run("rollback", "--json").output)["proof"]["proven"] is None
    assert json.loads(file.read_text())["base_model"] == "fake"


# --- show and remove


def test_show_tells_the_verdict_and_the_history(run: Run) -> None:
    run("promote", "a")
    run("promote", "b")
    said = run("show", "a").output
    assert "a: retired" in said
    assert "It passed every rule." in said
    assert "It gains 3 points." in said
    shown = json.loads(run("show", "a", "--json").output)
    assert [(row["adapter"], row["before"]) for row in shown["promotions"]] == [("a", ""), ("b", "a")]
    assert shown["trained"]["examples"] == 3
    assert "never judged" in run("show", "unjudged").output


def test_remove_takes_the_files_and_leaves_the_row(run: Run) -> None:
    run("promote", "a")
    folder = get_settings().data_dir / "adapters"
    assert "is in use" in str(run("remove", "a", fails=ConflictError).exception)
    run("promote", "b")
    assert "Roll-back would return" in str(run("remove", "a", fails=ConflictError).exception)
    assert (folder / "a").is_dir()
    run("remove", "a", "--force")
    run("remove", "a", "--force")  # again: nothing is left to do
    assert sorted(path.name for path in folder.iterdir()) == ["b", "broken", "rejected", "unjudged"]
    assert "a" not in listed(run)
    assert "removed" in {row["state"] for row in json.loads(run("list", "--all", "--json").output)}
    assert "was it removed?" in str(run("shadow", "a", fails=AdapterError).exception)


def test_remove_deletes_nothing_outside_the_adapters_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    change("a", path="../precious")
    assert "nothing was removed" in str(run("remove", "a", fails=AdapterError).exception)
    assert (tmp_path / "precious").is_dir()
    assert listed(run)["a"][0] == "candidate"


def test_the_disagreements_stand_alone(run: Run) -> None:
    assert "none that nobody has decided" in run("shadow", "--disagreements").output
    assert json.loads(run("shadow", "--disagreements", "--json").output) == []
    assert CliRunner().invoke(app, ["adapters", "shadow", "a", "--disagreements"]).exit_code == 2


# --- merge


def test_a_rejected_adapter_is_not_made_a_base_model(run: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "merged")
    assert "was rejected" in str(run("merge", "rejected", "--out", out, fails=ConflictError).exception)


def test_what_was_merged_is_said_and_audited(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = models.merge.Comparison(of=24, largest=0.001, equal_texts=23, worst="Idea", changed="")
    monkeypatch.setattr(models.merge, "merge", lambda *_, **__: found)
    said = run("merge", "a", "--out", str(tmp_path / "merged")).output
    assert "24 of 24 probe emails get the same labels" in said
    assert f"BRIEFBOX_BASE_MODEL={tmp_path / 'merged'}" in said.replace("\n", "")
    with open_database().read() as session:
        entry = session.exec(select(AuditEntry).where(AuditEntry.action == "adapter merged")).one()
    assert (entry.object, entry.detail) == ("a", {"folder": str(tmp_path / "merged")})
