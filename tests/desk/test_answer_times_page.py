"""The page of answer times: entered as people write them, refused in words, counted against what is open."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.errors import InvalidValueError
from briefbox.store import sla
from desk.durations import in_words, minutes_of
from tests.desk.conftest import Inbox

PAGE = "/admin/sla"


@pytest.mark.parametrize(
    ("said", "minutes"),
    [
        ("30 min", 30),
        ("1 h", 60),
        ("2 days", 2880),
        ("1h30m", 90),
        ("1 h, 30 min", 90),
        ("1.5 hours", 90),
        ("1 WEEK", 10080),
        ("", None),
        (" none ", None),
    ],
)
def test_lengths_as_people_write_them(said: str, minutes: int | None) -> None:
    assert minutes_of(said) == minutes


@pytest.mark.parametrize("said", ["90", "soon", "1 fortnight", "-3 h", "h", "1 h <b>"])
def test_what_is_no_length_is_refused(said: str) -> None:
    with pytest.raises(InvalidValueError, match="is no length of time"):
        minutes_of(said)


@pytest.mark.parametrize("minutes", [1, 60, 90, 1440, 2880, 4321])
def test_what_is_shown_can_be_entered_again(minutes: int) -> None:
    assert minutes_of(in_words(minutes)) == minutes


def test_targets_are_shown_saved_and_taken_away(database: Database, inbox: Inbox, as_ada: TestClient) -> None:
    assert 'value="1 h"' in as_ada.get(PAGE).text
    form = {"urgent": "30 min", "high": "4 h", "normal": "2 days", "low": ""}
    assert as_ada.post(PAGE, data=form).headers["location"] == f"{PAGE}?note=saved"
    with database.read() as session:
        assert sla.targets(session) == {"urgent": 30, "high": 240, "normal": 2880}
    page = as_ada.get(f"{PAGE}?note=saved").text
    assert 'value="30 min"' in page
    assert "no target" in page


def test_one_bad_entry_changes_none_and_all_stay(
    database: Database, inbox: Inbox, as_ada: TestClient
) -> None:
    form = {"urgent": "30 min", "high": 'soon"><b>', "normal": "0 min", "low": "3000 weeks"}
    answer = as_ada.post(PAGE, data=form)
    assert answer.status_code == 400
    assert 'value="30 min"' in answer.text
    assert "soon&#34;&gt;&lt;b&gt;" in answer.text
    assert "Nobody answers within no time" in answer.text
    with database.read() as session:
        assert sla.targets(session)["urgent"] == 60
    too_long = as_ada.post(PAGE, data=form | {"high": "", "normal": ""})
    assert too_long.status_code == 400
    with database.read() as session:
        assert sla.targets(session)["urgent"] == 60


def test_what_is_beyond_its_target(inbox: Inbox, as_ada: TestClient) -> None:
    inbox.receive(brief={"priority": "urgent"}, age=timedelta(hours=2))
    inbox.receive(brief={"priority": "urgent"})
    inbox.receive(brief={"priority": "low"}, age=timedelta(hours=2))
    page = " ".join(as_ada.get(PAGE).text.split())
    assert "2 open, <strong>1 beyond it now</strong>" in page
    assert "1 open, none beyond it" in page


def test_only_admins(inbox: Inbox, as_ana: TestClient, nobody: TestClient) -> None:
    assert as_ana.get(PAGE).status_code == 403
    assert as_ana.post(PAGE, data={"urgent": "1 h"}).status_code == 403
    assert nobody.get(PAGE, headers={"accept": "application/json"}).status_code == 401
