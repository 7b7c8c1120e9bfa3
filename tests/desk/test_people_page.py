"""Admins and people: invited, changed, disabled, signed out; the last admin stays; every change says what was before."""

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from briefbox.db import Database
from briefbox.store import passwords, users
from briefbox.tables import AuditEntry, MailboxAccess, SignInLink, User
from tests.desk.conftest import Inbox, browser, person, session_for

HOSTILE = "<script>window.__xss=1</script>"
NEW = {"email": "ben@larkspur.example", "name": "Ben", "role": "reviewer", "sees": "some", "hours": "72"}


def entries(database: Database, action: str) -> list[AuditEntry]:
    with database.read() as session:
        found = list(session.exec(select(AuditEntry).where(AuditEntry.action == action)))
        session.expunge_all()
        return found


def get(database: Database, email: str) -> User:
    with database.read() as session:
        return users.get(session, email)


def test_everybody_is_listed_with_what_an_admin_wants_to_know(
    inbox: Inbox, as_ada: TestClient, as_ana: TestClient, database: Database
) -> None:
    person(database, "new@larkspur.example", HOSTILE)
    as_ana.get("/")
    page = as_ada.get("/admin/people").text
    for shown in ("Ana", "Ada", "sees all mailboxes", "second factor off", "seen", "invited, not here yet"):
        assert shown in page
    assert HOSTILE not in page
    for words in ("is the second person who puts an adapter in use", "Works in the queue"):
        assert words in page


def test_somebody_is_invited_by_a_link_that_is_shown_once(
    inbox: Inbox, as_ada: TestClient, nobody: TestClient, database: Database
) -> None:
    answer = as_ada.post("/admin/people/new", data=NEW | {"mailbox": str(inbox.mailbox.id)})
    assert answer.status_code == 200
    [link] = re.findall(r'value="http://[^"]+(/link/[^"]+)"', answer.text)
    assert "three days" in answer.text
    assert link not in as_ada.get("/admin/people").text
    assert nobody.post(link, data={"password": "correct horse battery"}).headers["location"] == "/"
    ben = get(database, NEW["email"])
    assert (ben.role, ben.all_mailboxes) == ("reviewer", False)
    page = nobody.get("/account").text
    assert "reviewer" in page
    assert "support" in page
    [made] = entries(database, "user added")[-1:]
    assert (made.actor, made.object, made.detail) == ("ada@larkspur.example", ben.email, {"role": "reviewer"})
    with database.read() as session:
        written = "".join(e.model_dump_json() for e in session.exec(select(AuditEntry)).all())
        assert len(session.exec(select(SignInLink).where(SignInLink.user_id == ben.id)).all()) == 1
    assert link.removeprefix("/link/") not in written


@pytest.mark.parametrize(
    ("wrong", "status", "says"),
    [
        ({"email": "ben"}, 400, "is no email address"),
        ({"email": "ada@larkspur.example"}, 409, "exists already"),
        ({"role": "root"}, 400, "is none of agent, reviewer, admin"),
        ({"hours": "9999"}, 400, "none of 24, 72, 168"),
    ],
)
def test_a_wrong_invitation_is_said_in_words_and_keeps_what_was_typed(
    as_ada: TestClient, database: Database, wrong: dict[str, str], status: int, says: str
) -> None:
    answer = as_ada.post("/admin/people/new", data=NEW | wrong)
    assert answer.status_code == status
    assert says in answer.text
    assert f'value="{(NEW | wrong)["email"]}"' in answer.text
    with database.read() as session:
        assert len(users.all_of(session)) == 1


@pytest.mark.parametrize("mailbox", ["999", "x", "-1", "9" * 30])
def test_an_unknown_mailbox_adds_nobody(as_ada: TestClient, database: Database, mailbox: str) -> None:
    assert as_ada.post("/admin/people/new", data=NEW | {"mailbox": mailbox}).status_code in (400, 404)
    with database.read() as session:
        assert len(users.all_of(session)) == 1


def test_mailboxes_are_changed_and_hold_at_once(
    inbox: Inbox, as_ada: TestClient, as_ana: TestClient, database: Database, ana: User
) -> None:
    number = inbox.receive(brief={})
    assert as_ana.get(f"/conversations/{number}").status_code == 200
    data = {"role": "agent", "sees": "some"}
    answer = as_ada.post(f"/admin/people/{ana.id}", data=data)
    assert answer.headers["location"].endswith("?note=changed")
    assert as_ana.get(f"/conversations/{number}").status_code == 404  # still signed in
    data["mailbox"] = str(inbox.mailbox.id)
    as_ada.post(f"/admin/people/{ana.id}", data=data)
    assert as_ana.get(f"/conversations/{number}").status_code == 200
    assert as_ada.post(f"/admin/people/{ana.id}", data=data).headers["location"].endswith("unchanged")
    changes = [entry.detail for entry in entries(database, "user changed")]
    assert changes == [
        {"before": {"role": "agent", "mailboxes": "all"}, "after": {"role": "agent", "mailboxes": []}},
        {"before": {"role": "agent", "mailboxes": []}, "after": {"role": "agent", "mailboxes": ["support"]}},
    ]


def test_another_role_ends_the_sessions(
    as_ada: TestClient, as_ana: TestClient, database: Database, ana: User
) -> None:
    assert (
        as_ada.post(f"/admin/people/{ana.id}", data={"role": "reviewer"}).headers["location"].endswith("role")
    )
    assert as_ana.get("/").status_code == 303
    assert get(database, ana.email).role == "reviewer"


def test_a_form_of_another_program_changes_only_what_it_names(
    inbox: Inbox, as_ada: TestClient, database: Database, ana: User
) -> None:
    as_ada.post(f"/admin/people/{ana.id}", data={"sees": "some", "mailbox": str(inbox.mailbox.id)})
    answer = as_ada.post(
        f"/admin/people/{ana.id}", data={"name": "Ana B."}, headers={"accept": "application/json"}
    )
    assert answer.json() == {"ok": True}
    user = get(database, ana.email)
    assert (user.name, user.role, user.all_mailboxes) == ("Ana B.", "agent", False)
    with database.read() as session:
        assert session.exec(select(MailboxAccess.mailbox_id)).all() == [inbox.mailbox.id]


def test_a_disabled_person_is_out_at_once_and_can_come_back(
    as_ada: TestClient, as_ana: TestClient, app: FastAPI, database: Database, ana: User
) -> None:
    with database.write() as session:
        link = users.new_link(session, ana)
    assert as_ada.post(f"/admin/people/{ana.id}/disable").status_code == 303
    assert as_ana.get("/").status_code == 303
    assert browser(app).get(f"/link/{link}").status_code == 404
    assert "disabled" in as_ada.get("/admin/people").text
    assert as_ada.post(f"/admin/people/{ana.id}/link").status_code == 400
    assert as_ada.post(f"/admin/people/{ana.id}/disable").status_code == 400
    assert as_ada.post(f"/admin/people/{ana.id}/enable").status_code == 303
    assert as_ana.get("/").status_code == 303  # the old session does not come back
    assert browser(app, session_for(database, ana)).get("/").status_code == 200
    assert [e.detail["role"] for e in entries(database, "user disabled")] == ["agent"]


@pytest.mark.parametrize("how", ["disable", "demote"])
def test_the_last_admin_stays(as_ada: TestClient, database: Database, ada: User, how: str) -> None:
    def go() -> Any:
        if how == "disable":
            return as_ada.post(f"/admin/people/{ada.id}/disable")
        return as_ada.post(f"/admin/people/{ada.id}", data={"role": "agent"})

    other = person(database, "una@larkspur.example", "Una", "admin")
    answer = go()  # Una was invited, but has no way in yet
    assert answer.status_code == 409
    assert "last admin who can sign in" in answer.text
    with database.write() as session:
        passwords.set_password(session, users.get(session, other.email), "correct horse battery")
    assert go().status_code == 303
    assert as_ada.get("/admin/people").status_code == 303  # signed out, too


def test_an_admin_signs_somebody_out_everywhere(
    as_ada: TestClient, as_ana: TestClient, database: Database, ana: User
) -> None:
    assert as_ada.post(f"/admin/people/{ana.id}/end-sessions").status_code == 303
    assert as_ana.get("/").status_code == 303
    assert entries(database, "sessions ended")[0].detail == {"sessions": 1}


def test_a_new_link_replaces_the_old_and_asks_for_a_password(
    as_ada: TestClient, nobody: TestClient, database: Database, ana: User
) -> None:
    with database.write() as session:
        old = users.new_link(session, ana)
    answer = as_ada.post(
        f"/admin/people/{ana.id}/link", data={"hours": "24"}, headers={"accept": "application/json"}
    )
    link = answer.json()["link"].removeprefix("http://127.0.0.1:8025")
    assert nobody.get(f"/link/{old}").status_code == 404
    assert nobody.get(link).status_code == 200


@pytest.mark.parametrize("user_id", ["999", "0", "x"])
def test_nobody_by_that_id(as_ada: TestClient, user_id: str) -> None:
    for answer in (as_ada.get(f"/admin/people/{user_id}"), as_ada.post(f"/admin/people/{user_id}/disable")):
        assert answer.status_code == 404
