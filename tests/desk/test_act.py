"""What agents do from the list: assign, put off, in bulk, and undo."""

from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.tables import Activity, Conversation, Correction, User
from tests.desk.conftest import Inbox, person

JSON = {"accept": "application/json"}


def test_assigning_and_undoing(inbox: Inbox, as_ana: TestClient, ana: User, ada: User) -> None:
    number = inbox.receive(brief={"headline": "Give me"})
    answer = as_ana.post(f"/conversations/{number}/assign", data={"to": "me"}, headers=JSON).json()
    assert answer["said"] == "“Give me” assigned to you."
    assert inbox.get(number).assigned_to == ana.id
    again = as_ana.post(f"/conversations/{number}/assign", data={"to": "me"}, headers=JSON).json()
    assert "already" in again["said"]
    answer = as_ana.post(f"/conversations/{number}/assign", data={"to": str(ada.id)}, headers=JSON).json()
    assert answer["said"] == "“Give me” assigned to Ada."
    undone = as_ana.post("/undo", headers=JSON).json()
    assert undone["conversations"] == [number]
    assert inbox.get(number).assigned_to == ana.id
    as_ana.post("/undo", headers=JSON)
    assert inbox.get(number).assigned_to is None
    nothing = as_ana.post("/undo", headers=JSON)
    assert nothing.status_code == 404
    assert "nothing of yours to undo" in nothing.json()["error"]


def test_a_form_leads_back_to_where_it_was_with_what_was_done(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={"headline": "Give me"})
    form = {"to": "me", "back": "/?category=order&did=1"}
    answer = as_ana.post(f"/conversations/{number}/assign", data=form)
    [activity] = inbox.all(Activity)
    assert answer.headers["location"] == f"/?category=order&did={activity.id}"
    page = unescape(as_ana.get(answer.headers["location"]).text)
    assert "“Give me” assigned to you." in page
    assert f'name="activity" value="{activity.id}"' in page


def test_nobody_is_sent_to_another_site(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive()
    for back in ("https://evil.example/", "//evil.example", "/\\evil.example"):
        answer = as_ana.post(f"/conversations/{number}/assign", data={"to": "none", "back": back})
        assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    ("action", "form", "words"),
    [
        ("assign", {}, "to: “”"),
        ("assign", {"to": "everybody"}, "to: “everybody”"),
        ("assign", {"to": "99999"}, "no user 99999"),
        ("snooze", {}, "expected later, tomorrow"),
        ("snooze", {"until": "2001-01-01T09:00"}, "no time to put it off until"),
        ("snooze", {"until": "at", "at": ""}, "expected later, tomorrow"),
    ],
)
def test_odd_input_is_refused_in_words(
    inbox: Inbox, as_ana: TestClient, action: str, form: dict[str, str], words: str
) -> None:
    number = inbox.receive()
    answer = as_ana.post(f"/conversations/{number}/{action}", data=form, headers=JSON)
    assert answer.status_code in (400, 404)
    assert words in answer.json()["error"]
    assert inbox.all(Activity) == []


def test_who_left_gets_nothing(inbox: Inbox, as_ana: TestClient, database: Database) -> None:
    number = inbox.receive()
    gone = person(database, "gone@larkspur.example", "Gone")
    assert "Gone" in as_ana.get("/").text
    with database.write() as session:
        session.get_one(User, gone.id).disabled_at = datetime.now(UTC)
    assert "Gone" not in as_ana.get("/").text
    assert as_ana.post(f"/conversations/{number}/assign", data={"to": str(gone.id)}).status_code == 404


def test_putting_off(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive()
    answer = as_ana.post(f"/conversations/{number}/snooze", data={"until": "tomorrow"}, headers=JSON).json()
    assert "put off until tomorrow 09:00" in answer["said"]
    row = inbox.get(number)
    assert row.snoozed_until is not None
    assert (row.state, row.snoozed_until.hour) == ("snoozed", 9)
    later = datetime.now(UTC) + timedelta(days=30)
    form = {"until": "at", "at": f"{later:%Y-%m-%dT%H:%M}"}
    as_ana.post(f"/conversations/{number}/snooze", data=form)
    assert inbox.get(number).snoozed_until == later.replace(second=0, microsecond=0)


# --- in bulk


@pytest.mark.parametrize(
    ("do", "said", "column", "value"),
    [
        ("done", "3 done.", "state", "done"),
        ("assign:me", "3 assigned to you.", "assigned_to", 1),
        ("snooze:tomorrow", "3 put off until tomorrow 09:00.", "state", "snoozed"),
        (
            "priority:urgent",
            "3: priority urgent. It will be used in the next training.",
            "priority",
            "urgent",
        ),
        (
            "category:refund",
            "3: category refund. It will be used in the next training.",
            "category",
            "refund",
        ),
    ],
)
def test_three_at_once_and_back(
    inbox: Inbox, as_ana: TestClient, ana: User, do: str, said: str, column: str, value: object
) -> None:
    numbers = [inbox.receive(f"mail {n}", brief={}) for n in range(3)]
    untouched = inbox.receive("another", brief={})
    before = [inbox.get(number) for number in (*numbers, untouched)]
    answer = as_ana.post("/bulk", data={"do": do, "id": [str(n) for n in numbers]}, headers=JSON).json()
    assert (answer["said"], answer["changed"], answer["failed"]) == (said, 3, 0)
    expected = ana.id if do == "assign:me" else value
    assert {getattr(inbox.get(number), column) for number in numbers} == {expected}
    assert getattr(inbox.get(untouched), column) == getattr(before[-1], column)
    undone = as_ana.post("/undo", data={"activity": str(answer["activity"])}, headers=JSON).json()
    assert sorted(undone["conversations"]) == numbers
    for row in before:
        assert getattr(inbox.get(row.id), column) == getattr(row, column)


def test_all_that_match_and_no_other(inbox: Inbox, as_ana: TestClient) -> None:
    matching = [inbox.receive(f"mail {n}", brief={"category": "refund"}) for n in range(60)]
    other = inbox.receive("another", brief={"category": "order"})
    form = {"do": "done", "all": "1", "query": "category=refund", "back": "/?category=refund"}
    answer = as_ana.post("/bulk", data=form)
    page = unescape(as_ana.get(answer.headers["location"]).text)
    assert "60 done." in page
    assert {inbox.get(number).state for number in matching} == {"done"}
    assert inbox.get(other).state == "open"
    answer = as_ana.post("/undo", data={"back": "/?category=refund"}, headers=JSON).json()
    assert answer["number"] == 60
    assert {inbox.get(number).state for number in matching} == {"open"}


def test_what_somebody_changed_since_stays(inbox: Inbox, as_ana: TestClient, as_ada: TestClient) -> None:
    numbers = [inbox.receive(f"mail {n}", brief={}) for n in range(3)]
    as_ana.post("/bulk", data={"do": "assign:me", "id": [str(n) for n in numbers]})
    as_ada.post(f"/conversations/{numbers[0]}/assign", data={"to": "me"})
    answer = as_ana.post("/undo", headers=JSON).json()
    assert answer["said"] == "Undone: 2 are as they were. 1 stays, because somebody changed it since."
    assert inbox.get(numbers[0]).assigned_to is not None


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"do": "done"}, "No row is selected"),
        ({"id": ["1"]}, "nothing to do with conversations"),
        ({"do": "explode", "id": ["1"]}, "nothing to do with conversations"),
        ({"do": "done", "id": ["x"]}, "id: “x”"),
        ({"do": "snooze:soon", "id": ["1"]}, "expected later, tomorrow"),
        ({"do": "assign:", "id": ["1"]}, "to: “”"),
        ({"do": "done", "all": "1", "query": "state=nonsense"}, "The state “nonsense”"),
    ],
)
def test_odd_bulk_is_refused_in_words(
    inbox: Inbox, as_ana: TestClient, form: dict[str, list[str] | str], words: str
) -> None:
    inbox.receive()
    answer = as_ana.post("/bulk", data=form, headers=JSON)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert inbox.all(Activity) == []


def test_what_cannot_be_changed_is_counted_and_stops_nothing(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    form = {"do": "category:nonsense", "id": [str(number)]}
    refused = as_ana.post("/bulk", data=form, headers=JSON)
    assert refused.status_code == 400
    assert "nonsense" in refused.json()["error"]
    assert inbox.all(Correction) == []
    form = {"do": "done", "id": [str(number), "999"]}
    answer = as_ana.post("/bulk", data=form, headers=JSON).json()
    assert answer["said"].endswith("1 could not be changed; open it to see why.")


def test_the_row_of_one_conversation_for_a_list(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={"headline": "A row", "category": "refund"})
    row = as_ana.get(f"/conversations/{number}/row?category=refund").json()["row"]
    assert (row["id"], row["here"]) == (number, True)
    assert "A row" in row["html"]
    assert as_ana.get(f"/conversations/{number}/row?category=order").json()["row"]["here"] is False
    assert as_ana.get(f"/conversations/{number}/row?q=row").json()["row"]["here"] is None
    assert as_ana.get("/conversations/999/row").status_code == 404


def test_done_is_said_above_the_list_and_taken_back(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={"headline": "Finish me"})
    to = as_ana.post(f"/conversations/{number}/done").headers["location"]
    page = unescape(as_ana.get(to).text)
    assert "Done: “Finish me”." in page
    as_ana.post("/undo")
    assert inbox.get(number).state == "open"
    assert {row.state for row in inbox.all(Conversation)} == {"open"}
