"""Judgements become JSONL lines: the same judgements the same bytes, and nothing that nobody approved."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import InvalidValueError, TrainingError
from briefbox.schemas import Example
from briefbox.settings import Settings
from briefbox.store import training as store
from briefbox.tables import Dataset
from tests.conftest import make_email
from tests.training.conftest import NOON, Support, make_example
from training.dataset import HarvestResult, harvest, read_dataset, write_lines


def harvested(database: Database, settings: Settings) -> HarvestResult:
    with database.write() as session:
        return harvest(session, settings, actor="test")


def examples(database: Database, settings: Settings) -> list[Example]:
    result = harvested(database, settings)
    assert result.dataset is not None
    return read_dataset(settings.data_dir / result.dataset.path, content_hash=result.dataset.content_hash)


def test_nothing_judged_is_no_dataset(database: Database, settings: Settings, support: Support) -> None:
    support.brief(make_email(1))
    result = harvested(database, settings)
    assert (result.dataset, result.num_examples, result.new) == (None, 0, False)
    assert not (settings.data_dir / "datasets").exists()


def test_the_corrected_value_is_the_target_and_the_rest_stays(
    database: Database, settings: Settings, support: Support
) -> None:
    brief = support.brief(make_email(1))
    support.correct(brief, "priority", "high")
    last = support.correct(brief, "priority", "urgent")
    (example,) = examples(database, settings)
    assert example.output.model_dump() == {
        "priority": "urgent",
        "category": "Billing",
        "headline": "A parcel",
        "summary": "A parcel is late.",
    }
    assert example.model_output.priority == "normal"
    assert (example.changed, example.strength, example.corrections) == (("priority",), "corrected", (last,))
    assert example.input.text == brief.request["text"]


def test_pressed_right_is_strong_and_merely_finished_is_weak(
    database: Database, settings: Settings, support: Support
) -> None:
    pressed, finished = support.brief(make_email(1)), support.brief(make_email(2))
    ids = [support.confirm(pressed, "strong"), support.confirm(finished, "weak")]
    support.confirm(pressed, "weak")
    result = harvested(database, settings)
    assert (result.num_examples, result.num_corrected, result.num_confirmed) == (2, 0, 1)
    lines = examples(database, settings)
    assert [line.strength for line in lines] == ["confirmed", "finished"]
    assert [line.confirmations for line in lines] == [(ids[0],), (ids[1],)]


def test_what_is_not_finished_is_counted_and_left_out(
    database: Database, settings: Settings, support: Support
) -> None:
    support.correct(support.brief(make_email(1), done=False), "priority", "urgent")
    support.confirm(support.brief(make_email(2)), "strong")
    support.brief(make_email(3))  # finished, but nobody said anything
    result = harvested(database, settings)
    assert (result.num_examples, result.num_unfinished) == (1, 1)


def test_a_correction_that_was_taken_back_leaves_no_trace(
    database: Database, settings: Settings, support: Support
) -> None:
    brief = support.brief(make_email(1))
    support.correct(brief, "priority", "urgent")
    support.correct(brief, "priority", "normal")
    (example,) = examples(database, settings)
    assert (example.changed, example.corrections, example.strength) == ((), (), "finished")


@pytest.mark.parametrize("hand", [False, True])
def test_a_field_that_the_desk_showed_with_an_agents_value_is_not_the_models_to_learn(
    database: Database, settings: Settings, support: Support, hand: bool
) -> None:
    first = support.brief(make_email(1))
    second = support.brief(
        make_email(2, In_Reply_To="<mail-1@example.org>", From="Customer 1 <customer1@example.org>")
    )
    assert second.conversation_id == first.conversation_id
    support.correct(first, "priority", "urgent", hand=hand)
    support.confirm(second, "weak")
    line = examples(database, settings)[-1]
    assert line.id == f"brief-{second.id}"
    assert (line.output.priority, line.output.category) == (None, "Billing")


def test_the_same_content_is_the_same_version(
    database: Database, settings: Settings, support: Support
) -> None:
    support.confirm(support.brief(make_email(1)), "strong")
    first, second = harvested(database, settings), harvested(database, settings)
    assert first.dataset is not None
    assert second.dataset is not None
    assert (first.new, second.new) == (True, False)
    assert first.dataset.id == second.dataset.id
    assert first.dataset.name == f"dataset-0001-{first.dataset.content_hash[:8]}"
    assert sorted(p.name for p in (settings.data_dir / "datasets").iterdir()) == [
        f"{first.dataset.name}.jsonl",
        "salt",
    ]


def test_a_new_judgement_is_a_new_version_and_the_old_one_stays(
    database: Database, settings: Settings, support: Support
) -> None:
    support.confirm(support.brief(make_email(1)), "strong")
    old = harvested(database, settings).dataset
    support.correct(support.brief(make_email(2)), "category", "Delivery")
    new = harvested(database, settings).dataset
    assert old is not None
    assert new is not None
    assert new.name.startswith("dataset-0002-")
    assert len(read_dataset(settings.data_dir / old.path, content_hash=old.content_hash)) == 1
    assert new.counts["changed"] == {"category": 1}
    assert new.counts["category"] == {"Billing": 1, "Delivery": 1}


def test_a_lost_file_is_written_again(database: Database, settings: Settings, support: Support) -> None:
    support.confirm(support.brief(make_email(1)), "strong")
    dataset = harvested(database, settings).dataset
    assert dataset is not None
    (settings.data_dir / dataset.path).unlink()
    assert harvested(database, settings).new is False
    assert read_dataset(settings.data_dir / dataset.path, content_hash=dataset.content_hash)


def test_a_customer_is_one_key_and_no_name(database: Database, settings: Settings, support: Support) -> None:
    for number in (1, 2):
        support.confirm(support.brief(make_email(number, From="Cy <cy@example.org>")), "strong")
    support.confirm(support.brief(make_email(3)), "strong")
    one, two, three = examples(database, settings)
    assert one.sender == two.sender != three.sender
    assert one.conversation != two.conversation
    assert "cy@example.org" not in one.model_dump_json()
    assert stat.S_IMODE((settings.data_dir / "datasets" / "salt").stat().st_mode) == 0o600


def test_a_data_folder_that_cannot_be_written_is_one_sentence(
    database: Database, settings: Settings, support: Support
) -> None:
    support.confirm(support.brief(make_email(1)), "strong")
    settings.ensure_data_dir()
    (settings.data_dir / "datasets").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        harvested(database, settings)
    with database.read() as session:
        assert session.exec(select(Dataset)).first() is None


def test_lines_survive_the_round_trip_with_odd_characters(tmp_path: Path) -> None:
    lines = [
        make_example(1),
        make_example(2, input=make_example().input.model_copy(update={"text": "a\u2028b\r\nc"})),
    ]
    path = tmp_path / "d.jsonl"
    path.write_bytes(write_lines(lines))
    assert read_dataset(path) == lines
    assert b"null" not in path.read_bytes()


def test_bad_lines_are_named_by_number(tmp_path: Path) -> None:
    good = write_lines([make_example()])
    path = tmp_path / "d.jsonl"
    path.write_bytes(
        good + b"{broken\n" + good + good.replace(b'"strength":"confirmed"', b'"strength":"sure"')
    )
    with pytest.raises(TrainingError, match=r"2 bad lines \(line 2: .*; line 4: strength: "):
        read_dataset(path)


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with pytest.raises(TrainingError, match="cannot be read"):
        read_dataset(path)
    path.write_bytes(write_lines([make_example()]))
    with pytest.raises(TrainingError, match="was changed after it was written"):
        read_dataset(path, content_hash="0" * 64)


def test_what_an_agent_judged_in_a_range_of_time_can_be_excluded_and_let_in_again(
    database: Database, settings: Settings, support: Support
) -> None:
    first, second = (support.brief(make_email(number)) for number in (1, 2))
    support.correct(first, "priority", "urgent")  # minute 1
    support.correct(second, "priority", "low")  # minute 2
    with database.write() as session:
        rule = store.exclude(
            session,
            user=support.agent,
            since=NOON + timedelta(minutes=2),
            until=None,
            reason="poison",
            actor="test",
        )
    assert harvested(database, settings).num_examples == 1
    with database.write() as session:
        store.lift_exclusion(session, rule.id, actor="test")
    assert harvested(database, settings).num_examples == 2
    with database.write() as session, pytest.raises(InvalidValueError, match="would be of everything"):
        store.exclude(session, user=None, since=None, until=None, reason="", actor="test")


def test_a_version_remembers_the_part_of_each_example(
    database: Database, settings: Settings, support: Support
) -> None:
    for number in range(1, 11):
        support.correct(support.brief(make_email(number)), "priority", "urgent")
    before = harvested(database, settings)
    assert before.dataset is not None
    parts = {e.id: e.split for e in read_dataset(settings.data_dir / before.dataset.path)}
    for number in range(11, 16):
        support.correct(support.brief(make_email(number)), "priority", "urgent")
    after = harvested(database, settings)
    assert after.dataset is not None
    now = {e.id: e.split for e in read_dataset(settings.data_dir / after.dataset.path)}
    assert parts.items() <= now.items()
    assert after.dataset.counts["split"]["test"] >= before.dataset.counts["split"]["test"] > 0
