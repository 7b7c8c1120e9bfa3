"""Conversations over the API: read, change, once, and not over somebody else's change."""

from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest

from briefbox.db import Database
from briefbox.store import conversations
from briefbox.tables import Confirmation, Correction, IdempotencyKey, Note, User
from tests.desk.api.conftest import Program
from tests.desk.conftest import Inbox

FIELDS = {
    *("id", "mailbox_id", "mailbox", "state", "merged_into", "subject", "customer_name", "customer_address"),
    *("priority", "category", "headline", "summary", "needs_human", "touched", "suggestion", "brief_id"),
    *("assigned_to", "num_emails", "version", "waiting_since", "answered_at", "snoozed_until", "opened_at"),
    *("updated_at", "done_at", "link"),
}


def test_one_conversation(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive("Order 1001", brief={"headline": "Asks for it", "priority": "high"})
    said = anas.get(f"/conversations/{number}").json()
    assert set(said) == FIELDS
    assert (said["id"], said["headline"], said["priority"]) == (number, "Asks for it", "high")
    assert (said["mailbox"], said["link"]) == ("support", f"/conversations/{number}")


def test_the_list_has_filters_and_pages_in_the_order_of_the_queue(anas: Program, inbox: Inbox) -> None:
    for age, priority in ((1, "low"), (2, "urgent"), (3, "urgent"), (4, "normal"), (5, "normal")):
        inbox.receive(f"m{age}", age=timedelta(hours=age), brief={"priority": priority})
    found, path, links = [], "/conversations?limit=2", []
    while path:
        answer = anas.get(path)
        body = answer.json()
        found += [item["subject"] for item in body["items"]]
        path = f"/conversations?limit=2&after={body['next']}" if body["next"] else ""
        links.append(answer.headers.get("link"))
    assert found == ["m3", "m2", "m5", "m4", "m1"]
    assert [link is not None and link.endswith('rel="next"') for link in links] == [True, True, False]
    following = links[0].partition(">")[0].removeprefix("</api/v1")
    assert [item["subject"] for item in anas.get(following).json()["items"]] == ["m5", "m4"]
    urgent = anas.get("/conversations?priority=urgent").json()
    assert [item["subject"] for item in urgent["items"]] == ["m3", "m2"]
    assert anas.get("/conversations?state=done").json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    "query",
    ["state=odd", "after=nowhere", "limit=0", "limit=1000", "priority=odd", "assigned=x", "mailbox=y"],
)
def test_odd_filters_are_refused_in_words(anas: Program, query: str) -> None:
    answer = anas.get(f"/conversations?{query}")
    assert answer.status_code == 422
    said = answer.json()
    assert (said["status"], said["type"]) == (422, "urn:briefbox:problem:invalid-value")
    assert query.partition("=")[0] in said["detail"]


def test_what_has_not_changed_is_not_sent_again(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={})
    first = anas.get(f"/conversations/{number}")
    tag = first.headers["etag"]
    for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = anas.get(f"/conversations/{number}", headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    anas.patch(f"/conversations/{number}", json={"priority": "urgent"})
    changed = anas.get(f"/conversations/{number}", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["priority"]) == (200, "urgent")


def test_a_correction_is_the_owners(anas: Program, inbox: Inbox, ana: User) -> None:
    number = inbox.receive(brief={"priority": "low", "category": "order"})
    body = {"priority": "urgent", "summary": "Two\nlines", "reason": "too long"}
    said = anas.patch(f"/conversations/{number}", json=body).json()
    assert (said["priority"], said["summary"], said["touched"]) == (
        "urgent",
        "Two\nlines",
        ["priority", "summary"],
    )
    rows = inbox.all(Correction)
    assert [(row.field, row.user_id, row.reason) for row in rows] == [
        ("priority", ana.id, "too long"),
        ("summary", ana.id, "too long"),
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"priority": "soon"}, "body.priority"),
        ({"priority": "low", "colour": "red"}, "body.colour"),
        ({"reason": "why"}, "body"),
        ([1], "body"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_field(
    anas: Program, inbox: Inbox, body: Any, field: str
) -> None:
    number = inbox.receive(brief={})
    answer = anas.patch(f"/conversations/{number}", json=body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert inbox.all(Correction) == []


def test_one_wrong_field_writes_none(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={"priority": "low"})
    answer = anas.patch(f"/conversations/{number}", json={"priority": "urgent", "category": "no such"})
    assert answer.status_code == 422
    assert "no such" in answer.json()["detail"]
    assert inbox.get(number).priority == "low"


def test_states(anas: Program, inbox: Inbox, ana: User) -> None:
    number = inbox.receive(brief={"priority": "low"})
    path = f"/conversations/{number}"
    until = datetime.now(UTC) + timedelta(days=1)
    assert anas.post(f"{path}/assign", json={"user_id": ana.id}).json()["assigned_to"] == ana.id
    assert anas.post(f"{path}/assign", json={"user_id": 4711}).status_code == 404
    snoozed = anas.post(f"{path}/snooze", json={"until": until.isoformat()}).json()
    assert (snoozed["state"], datetime.fromisoformat(snoozed["snoozed_until"])) == ("snoozed", until)
    assert anas.post(f"{path}/snooze", json={"until": "2020-01-01T00:00:00Z"}).status_code == 422
    assert anas.post(f"{path}/snooze", json={"until": "2030-01-01T00:00:00"}).status_code == 422
    assert anas.post(f"{path}/reopen").json()["state"] == "open"
    assert anas.post(f"{path}/confirm").json()["needs_human"] == []
    assert anas.post(f"{path}/done").json()["state"] == "done"
    assert anas.post(f"{path}/undo").json()["state"] == "open"
    kinds = [item["kind"] for item in anas.get(f"{path}/activities").json()["items"]]
    assert kinds == ["assigned", "snoozed", "reopened", "confirmed", "done", "undone"]
    assert [row.strength for row in inbox.all(Confirmation) if row.undone_at is None] == ["strong"]


def test_undo_of_a_named_action_and_of_nothing(anas: Program, adas: Program, inbox: Inbox) -> None:
    number, other = inbox.receive(brief={}), inbox.receive(brief={})
    anas.patch(f"/conversations/{number}", json={"priority": "urgent"})
    [activity] = anas.get(f"/conversations/{number}/activities").json()["items"]
    body = {"activity_id": activity["id"]}
    assert anas.post(f"/conversations/{other}/undo", json=body).status_code == 404
    assert adas.post(f"/conversations/{number}/undo", json=body).status_code == 404
    assert anas.post(f"/conversations/{number}/undo", json=body).json()["priority"] == "normal"
    assert anas.post(f"/conversations/{number}/undo").status_code == 404


def test_notes(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={})
    hostile = "<script>alert(1)</script> ünïcode"
    made = anas.post(f"/conversations/{number}/notes", json={"text": hostile})
    assert (made.status_code, made.json()["text"]) == (201, hostile)
    assert [n["text"] for n in anas.get(f"/conversations/{number}/notes").json()["items"]] == [hostile]
    assert anas.post(f"/conversations/{number}/notes", json={"text": ""}).status_code == 422


def test_no_brief_to_confirm(anas: Program, inbox: Inbox) -> None:
    answer = anas.post(f"/conversations/{inbox.receive()}/confirm")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:briefbox:problem:conflict")


# --- If-Match


def test_a_change_over_a_newer_one_is_refused_with_the_newer_one(
    anas: Program, inbox: Inbox, database: Database, ada: User
) -> None:
    number = inbox.receive(brief={"priority": "low"})
    tag = anas.get(f"/conversations/{number}").headers["etag"]
    with database.write() as session:
        conversations.correct(session, number, "headline", "By Ada", user=ada)
    answer = anas.patch(f"/conversations/{number}", json={"headline": "By Ana"}, headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["current"]["headline"]) == (412, "By Ada")
    assert answer.json()["type"] == "urn:briefbox:problem:newer"
    assert inbox.get(number).headline == "By Ada"
    newer = answer.headers["etag"]
    done = anas.patch(f"/conversations/{number}", json={"headline": "By Ana"}, headers={"If-Match": newer})
    assert (done.status_code, done.json()["headline"]) == (200, "By Ana")
    following = anas.post(f"/conversations/{number}/done", headers={"If-Match": done.headers["etag"]})
    assert following.status_code == 200


# --- Idempotency-Key


def test_the_same_request_again_gets_the_same_answer(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={})
    once = {"Idempotency-Key": "one"}
    first = anas.post(f"/conversations/{number}/notes", json={"text": "Once"}, headers=once)
    again = anas.post(f"/conversations/{number}/notes", json={"text": "Once"}, headers=once)
    assert (again.status_code, again.json(), again.headers["etag"]) == (
        201,
        first.json(),
        first.headers["etag"],
    )
    assert again.headers["idempotent-replayed"] == "true"
    assert len(inbox.all(Note)) == 1


def test_the_same_key_with_another_request_is_refused(anas: Program, adas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={})
    once = {"Idempotency-Key": "one"}
    anas.post(f"/conversations/{number}/notes", json={"text": "Once"}, headers=once)
    for path, body in (("notes", {"text": "Another"}), ("undo", {})):
        answer = anas.post(f"/conversations/{number}/{path}", json=body, headers=once)
        assert (answer.status_code, answer.json()["type"][-22:]) == (422, "idempotency-key-reused")
    # Another token's keys are its own.
    assert (
        adas.post(f"/conversations/{number}/notes", json={"text": "Ada's"}, headers=once).status_code == 201
    )
    assert (
        anas.post(
            f"/conversations/{number}/notes", json={"text": "x"}, headers={"Idempotency-Key": "x" * 201}
        ).status_code
        == 422
    )


def test_what_failed_may_be_tried_again_under_its_key(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive()
    once = {"Idempotency-Key": "one"}
    assert anas.post(f"/conversations/{number}/confirm", headers=once).status_code == 409
    assert inbox.all(IdempotencyKey) == []
    inbox.brief(1)
    assert anas.post(f"/conversations/{number}/confirm", headers=once).status_code == 200


def test_two_at_once_have_one_effect(anas: Program, inbox: Inbox) -> None:
    number = inbox.receive(brief={})
    barrier, answers = Barrier(2), []

    def ask() -> None:
        barrier.wait()
        answers.append(
            anas.post(
                f"/conversations/{number}/notes", json={"text": "Once"}, headers={"Idempotency-Key": "one"}
            )
        )

    threads = [Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(inbox.all(Note)) == 1
