"""Tokens, scopes and what is not seen: over every route of the API."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import col, update

from briefbox.db import Database
from briefbox.store import api_tokens
from briefbox.tables import APIToken, LoginFailure, Mailbox, MailboxAccess, User
from desk import access
from desk.api import schema
from desk.api.app import create_api
from tests.desk.api.conftest import API, Program, token_of
from tests.desk.conftest import Inbox, person

RANK = {"read": 0, "write": 1, "admin": 2}


def routes(app: FastAPI) -> list[tuple[str, str, str]]:
    """Every request of the API that asks for a token: method, path with ids of things that are not there, scope."""
    api = create_api()
    found = [
        (method, re.sub(r"{[^}]*}", "999999", route.path), route.scope.name)
        for route in schema.scoped(api.routes)
        for method in route.methods
        if route.scope is not None
    ]
    assert len(found) > 10
    return found


def test_every_route_declares_exactly_one_scope_or_that_it_is_for_anyone(app: FastAPI) -> None:
    api = create_api()
    for route in schema.scoped(api.routes):
        scopes = {call for call in route.calls if isinstance(call, schema.scope)}
        assert len(scopes) + (access.anyone in route.calls) == 1, route.path
        assert scopes or route.path in ("/openapi.json", "/docs")


def test_no_route_answers_without_a_token_or_with_a_browsers_session(
    app: FastAPI, as_ada: TestClient
) -> None:
    for method, path, _ in routes(app):
        for headers in (
            {},
            {"Authorization": "Basic YWRhOnNlY3JldA=="},
            {"Authorization": "Bearer bbx_wrong"},
        ):
            answer = as_ada.request(method, API + path, headers=headers)
            assert answer.status_code in (401, 429), path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.status_code == 429 or answer.headers["www-authenticate"].startswith("Bearer")


def test_a_token_does_what_its_scopes_say_and_no_more(
    app: FastAPI, ada: User, program: Callable[..., Program]
) -> None:
    programs = {scope: program(ada, scope) for scope in RANK}
    for method, path, needed in routes(app):
        for scope, one in programs.items():
            answer = one.ask(method, path, json={} if method != "GET" else None)
            if scope == needed:
                assert answer.status_code not in (401, 403), (method, path, scope, answer.text)
            else:
                assert answer.status_code == 403, (method, path, scope, answer.text)
                assert needed in answer.json()["detail"]


def test_what_only_admins_do_no_agents_token_does(app: FastAPI, database: Database, ana: User) -> None:
    text = token_of(database, ana, "read", "write")
    with database.write() as session:  # as if Ana had been an admin once
        session.exec(update(APIToken).values(scopes=["read", "write", "admin"]))
    one = Program(TestClient(app), text)
    for method, path, needed in routes(app):
        if needed == "admin":
            answer = one.ask(method, path, json={})
            assert answer.status_code == 403, path
            assert "admins" in answer.json()["detail"]


def test_a_token_opens_no_page(nobody: TestClient, adas: Program) -> None:
    for path in ("/", "/account", "/admin/tokens", "/training"):
        answer = nobody.get(path, headers={"Authorization": f"Bearer {adas.token}"})
        assert (answer.status_code, answer.headers["location"][:8]) == (303, "/sign-in")


def test_a_token_dies_with_its_time_its_revoking_and_its_owner(
    anas: Program, database: Database, ana: User
) -> None:
    assert anas.get("/me").json()["email"] == ana.email
    past = datetime.now(UTC) - timedelta(seconds=1)
    for table, values in (
        (APIToken, {"expires_at": past}),
        (APIToken, {"revoked_at": past}),
        (User, {"disabled_at": past}),
    ):
        with database.write() as session:
            session.exec(update(table).values(**values))
        assert anas.get("/me").status_code == 401
        with database.write() as session:
            session.exec(update(table).values(**dict.fromkeys(values)))
        assert anas.get("/me").status_code == 200


def test_its_last_use_is_kept_to_the_minute(anas: Program, inbox: Inbox, database: Database) -> None:
    anas.get("/me")
    [row] = inbox.all(APIToken)
    assert row.last_used_at is not None
    anas.get("/me")
    assert inbox.all(APIToken)[0].last_used_at == row.last_used_at
    with database.write() as session:
        session.exec(update(APIToken).values(last_used_at=row.last_used_at - timedelta(minutes=2)))
    anas.get("/me")
    assert inbox.all(APIToken)[0].last_used_at >= row.last_used_at


def test_who_guesses_has_to_wait_and_a_right_token_has_not(
    anas: Program, nobody: TestClient, inbox: Inbox
) -> None:
    headers = {"Authorization": "Bearer bbx_guessed"}
    said = [nobody.get(f"{API}/me", headers=headers).status_code for _ in range(api_tokens.MAX_FAILURES + 2)]
    assert said == [401] * api_tokens.MAX_FAILURES + [429] * 2
    answer = nobody.get(f"{API}/me", headers=headers)
    assert 0 < int(answer.headers["retry-after"]) <= 900
    assert len(inbox.all(LoginFailure)) == api_tokens.MAX_FAILURES
    assert anas.get("/me").status_code == 200


@pytest.fixture
def narrow(database: Database, inbox: Inbox) -> User:
    """Nora sees another mailbox than the one with the mail."""
    nora = person(database, "nora@larkspur.example", "Nora")
    with database.write() as session:
        other = Mailbox(
            name="other",
            address="other@larkspur.example",
            host="h",
            port=1,
            username="u",
            created_at=datetime.now(UTC),
        )
        session.add(other)
        session.flush()
        session.exec(update(User).where(col(User.id) == nora.id).values(all_mailboxes=False))
        session.add(MailboxAccess(user_id=nora.id, mailbox_id=other.id))
    return nora


def test_what_somebody_does_not_see_is_not_there(
    narrow: User, inbox: Inbox, program: Callable[..., Program], anas: Program
) -> None:
    number = inbox.receive(brief={"headline": "Secret"})
    one = program(narrow, "read", "write")
    email, brief = 1, 1
    for method, path, body in (
        ("GET", f"/conversations/{number}", None),
        ("PATCH", f"/conversations/{number}", {"priority": "urgent"}),
        ("POST", f"/conversations/{number}/done", None),
        ("POST", f"/conversations/{number}/notes", {"text": "hello"}),
        ("GET", f"/conversations/{number}/notes", None),
    ):
        assert anas.ask(method, path, json=body).status_code in (200, 201), path
        answer = one.ask(method, path, json=body)
        assert answer.status_code == 404, path
        assert "Secret" not in answer.text
    assert one.get("/conversations?state=all").json()["items"] == []
    assert (email, brief) == (1, 1)
