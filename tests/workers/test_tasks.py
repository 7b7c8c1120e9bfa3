"""The training task with 0: what people asked for on the desk comes first, then what waits."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from celery import Celery

from briefbox.db import Database
from briefbox.settings import Settings
from briefbox.store import processes, training_requests
from briefbox.tables import TrainingRequest
from training import pipeline
from workers.tasks import register_training_tasks


class Tasks:
    """A Celery app that only keeps what is registered."""

    def __init__(self) -> None:
        self.kept: dict[str, Callable[..., Any]] = {}

    def task(self, body: Callable[..., Any], *, name: str) -> None:
        self.kept[name] = body


def test_what_was_asked_for_on_the_desk_is_done_at_the_next_hint(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.yielding.be_nice", lambda: None)
    trained: list[int | None] = []
    monkeypatch.setattr(pipeline, "run", lambda _d, _s, run_id, *, owner: trained.append(run_id))
    tasks = Tasks()
    process = processes.this_process("training")
    register_training_tasks(cast(Celery, tasks), database, settings, process)
    with database.write() as session:
        number = training_requests.ask(session, "look", actor="rea@x.example").id
    tasks.kept["briefbox.train"](0)
    with database.read() as session:
        assert session.get_one(TrainingRequest, number).state == "done"
        beats = [(beat.name, beat.detail, alive) for beat, alive in processes.all_of(session)]
    assert beats == [(process.name, "waits for a run", True)], "an idle worker is no silent one"
    assert trained == [None]
    tasks.kept["briefbox.train"](7)
    assert trained == [None, 7]
