"""Signing in with an account elsewhere, against a provider that really signs: who is let in, and what is not believed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import SettingsError
from briefbox.settings import load_settings
from briefbox.store import identities, passwords, people, users
from briefbox.tables import AuditEntry, Identity, LoginSession, User
from desk.app import create_app
from tests.desk.conftest import browser, session_for, sign_in_with
from tests.desk.routes import age_sessions
from tests.desk.test_second_factor_page import turn_on
from tests.oauth_server import CLIENT_SECRET
from tests.oidc_server import OIDCServer, shared_secret

AWAY = "does not work now"


@pytest.fixture
def provider() -> Iterator[OIDCServer]:
    with OIDCServer() as server:
        yield server


@pytest.fixture
def app(database: Database, tmp_path: Path, provider: OIDCServer) -> FastAPI:
    settings = load_settings(data_dir=tmp_path / "data", engine="fake", **provider.settings())
    return create_app(database, settings)


def linked(database: Database, provider: OIDCServer, user: User) -> None:
    with database.write() as session:
        identities.link(session, users.get(session, user.email), provider.url, provider.subject)


def come_back(client: TestClient, provider: OIDCServer, start: str = "/sign-in/oidc") -> Any:
    sent = client.get(start)
    assert sent.status_code == 303, sent.text
    assert sent.headers["location"].startswith(provider.url + "/authorize?")
    return client.get(provider.visit(sent.headers["location"]))


def num(database: Database, table: Any) -> int:
    with database.read() as session:
        return len(session.exec(select(table)).all())


def test_a_linked_account_signs_in_and_leads_to_where_one_wanted_to_be(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    linked(database, provider, ana)
    assert "Sign in with <bdi>Larkspur account</bdi>" in nobody.get("/sign-in").text
    answer = come_back(nobody, provider, "/sign-in/oidc?next=/status")
    assert (answer.status_code, answer.headers["location"]) == (303, "/status")
    assert "Ana" in nobody.get("/account").text
    with database.read() as session:
        [entry] = session.exec(select(AuditEntry).where(AuditEntry.action == "signed in")).all()
    assert (entry.actor, entry.detail["subject"]) == (ana.email, provider.subject)


def test_what_is_asked_of_the_provider_is_bound_to_this_browser(
    nobody: TestClient, provider: OIDCServer
) -> None:
    sent = nobody.get("/sign-in/oidc")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(sent.headers["location"]).query).items()}
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert "openid" in asked["scope"].split()
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert asked["redirect_uri"].endswith("/sign-in/oidc/back")
    cookie = sent.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert not [part for part in (asked["state"], asked["nonce"]) if part in cookie]


def test_an_account_that_nobody_linked_is_refused_in_words_whatever_its_address(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    provider.claims = {"email": ana.email, "email_verified": True}
    answer = come_back(nobody, provider)
    assert answer.status_code == 403
    assert "Nobody here signs in with that account yet" in answer.text
    assert num(database, LoginSession) == 0
    with database.read() as session:
        assert session.exec(select(AuditEntry).where(AuditEntry.action == "sign-in refused")).one()


def test_a_disabled_person_does_not_come_in_that_way_either(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User, ada: User
) -> None:
    linked(database, provider, ana)
    with database.write() as session:
        people.disable(session, users.get(session, ana.email), actor="test")
    assert come_back(nobody, provider).status_code == 403
    assert num(database, LoginSession) == 0


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-app"},
        {"aud": ["desk-app", "another-app"], "azp": "another-app"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 300},
    ],
    ids=str,
)
def test_an_id_token_that_says_the_wrong_thing_is_not_believed(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User, claims: dict[str, Any]
) -> None:
    linked(database, provider, ana)
    provider.claims = claims
    answer = come_back(nobody, provider)
    assert (answer.status_code, AWAY in answer.text) == (503, True)
    assert num(database, LoginSession) == 0


def test_an_id_token_by_another_key_is_not_believed(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    linked(database, provider, ana)
    provider.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
    assert come_back(nobody, provider).status_code == 503
    assert num(database, LoginSession) == 0


def test_an_id_token_by_a_shared_secret_is_not_believed_even_if_it_is_published(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    linked(database, provider, ana)
    provider.key, provider.algorithm = shared_secret(), "HS256"
    assert come_back(nobody, provider).status_code == 503
    assert num(database, LoginSession) == 0


def test_keys_on_curves_are_taken_too(database: Database, tmp_path: Path, ana: User) -> None:
    with OIDCServer(kind="EC") as provider:
        settings = load_settings(data_dir=tmp_path / "ec", engine="fake", **provider.settings())
        linked(database, provider, ana)
        assert come_back(browser(create_app(database, settings)), provider).headers["location"] == "/"


@pytest.mark.parametrize("state", ["", "another", "\N{SNOWMAN}"])
def test_a_browser_that_did_not_ask_is_not_signed_in(
    nobody: TestClient, app: FastAPI, database: Database, provider: OIDCServer, ana: User, state: str
) -> None:
    linked(database, provider, ana)
    sent = nobody.get("/sign-in/oidc")
    back = provider.visit(sent.headers["location"])
    assert browser(app).get(back).status_code == 400  # without the cookie
    [code] = parse_qs(urlsplit(back).query)["code"]
    assert nobody.get("/sign-in/oidc/back", params={"code": code, "state": state}).status_code == 400
    assert num(database, LoginSession) == 0


def test_the_way_back_works_once(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    linked(database, provider, ana)
    back = provider.visit(nobody.get("/sign-in/oidc").headers["location"])
    assert nobody.get(back).status_code == 303
    assert nobody.get(back).status_code == 400


def test_who_says_no_at_the_provider_is_told_so(nobody: TestClient, provider: OIDCServer) -> None:
    sent = nobody.get("/sign-in/oidc")
    [state] = parse_qs(urlsplit(sent.headers["location"]).query)["state"]
    answer = nobody.get("/sign-in/oidc/back", params={"state": state, "error": "access_denied<script>"})
    assert answer.status_code == 403
    assert "did not sign you in" in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
def test_a_provider_that_is_not_what_it_should_be_is_not_asked(
    nobody: TestClient, provider: OIDCServer, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    answer = nobody.get("/sign-in/oidc")
    assert (answer.status_code, AWAY in answer.text) == (503, True)


def test_while_the_provider_is_away_passwords_work(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as session:
        passwords.set_password(session, users.get(session, ana.email), "correct horse battery")
    provider._server.server_close()
    assert nobody.get("/sign-in/oidc").status_code == 503
    data = {"email": ana.email, "password": "correct horse battery"}
    assert nobody.post("/sign-in", data=data).headers["location"] == "/"
    assert provider.url in caplog.text
    assert CLIENT_SECRET not in caplog.text


def test_a_refused_code_tells_no_secret(
    nobody: TestClient, provider: OIDCServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider.says = [(400, {"error": "invalid_grant", "error_description": "no"})]
    answer = come_back(nobody, provider)
    assert (answer.status_code, AWAY in answer.text) == (503, True)
    assert "invalid_grant" in caplog.text
    assert CLIENT_SECRET not in caplog.text


def test_the_second_factor_is_asked_for_all_the_same(
    nobody: TestClient, database: Database, provider: OIDCServer, app: FastAPI, ana: User
) -> None:
    linked(database, provider, ana)
    turn_on(database, app, ana)
    answer = come_back(nobody, provider, "/sign-in/oidc?next=/status")
    assert answer.headers["location"] == "/sign-in/code?next=/status"
    assert nobody.get("/").status_code == 303


# --- linking


def sealed(page: str) -> str:
    return page.split('name="sealed" value="')[1].split('"')[0]


def test_a_person_links_an_account_by_a_form_after_coming_back(
    as_ana: TestClient, database: Database, provider: OIDCServer, app: FastAPI
) -> None:
    page = come_back(as_ana, provider, "/account/identities/start")
    assert page.status_code == 200
    assert "ana@elsewhere.example" in page.text
    assert num(database, Identity) == 0  # to come back alone links nothing
    answer = as_ana.post("/account/identities", data={"sealed": sealed(page.text)})
    assert answer.headers["location"] == "/account?note=linked"
    [row] = _identities(database)
    assert (row.issuer, row.subject) == (provider.url, provider.subject)
    assert provider.subject in as_ana.get("/account").text
    assert come_back(browser(app), provider).headers["location"] == "/"
    assert as_ana.post("/account/identities", data={"sealed": sealed(page.text)}).status_code == 409


def test_what_somebody_else_came_back_with_cannot_be_linked(
    as_ana: TestClient, as_ada: TestClient, database: Database, provider: OIDCServer
) -> None:
    page = come_back(as_ana, provider, "/account/identities/start")
    for text in (sealed(page.text), "nonsense", ""):
        assert as_ada.post("/account/identities", data={"sealed": text}).status_code == 400
    assert num(database, Identity) == 0


def test_the_only_way_in_is_not_unlinked(
    as_ana: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    linked(database, provider, ana)
    [row] = _identities(database)
    answer = as_ana.post(f"/account/identities/{row.id}/unlink")
    assert answer.status_code == 400
    assert "only way" in answer.text
    with database.write() as session:
        passwords.set_password(session, users.get(session, ana.email), "correct horse battery")
    sign_in_with(as_ana, session_for(database, ana))
    assert as_ana.post(f"/account/identities/{row.id}/unlink").status_code == 303
    assert num(database, Identity) == 0


def test_an_invitation_is_taken_up_with_an_account(
    nobody: TestClient, database: Database, provider: OIDCServer, app: FastAPI, ana: User
) -> None:
    with database.write() as session:
        token = users.new_link(session, ana)
    page = come_back(nobody, provider, f"/sign-in/oidc?link={token}")
    assert ana.email in page.text
    assert nobody.get(f"/link/{token}").status_code == 200  # still good
    answer = nobody.post(f"/link/{token}/account", data={"sealed": sealed(page.text)})
    assert answer.headers["location"] == "/"
    assert "Ana" in nobody.get("/account").text
    assert nobody.get(f"/link/{token}").status_code == 404
    assert come_back(browser(app), provider).headers["location"] == "/"


def test_an_account_for_one_invitation_does_not_take_up_another(
    nobody: TestClient, database: Database, provider: OIDCServer, ana: User, ada: User
) -> None:
    with database.write() as session:
        anas, adas = users.new_link(session, ana), users.new_link(session, ada)
    page = come_back(nobody, provider, f"/sign-in/oidc?link={anas}")
    assert nobody.post(f"/link/{adas}/account", data={"sealed": sealed(page.text)}).status_code == 400
    assert num(database, Identity) == 0


# --- proof


def test_the_provider_can_be_the_proof_of_who_one_is(
    as_ana: TestClient, database: Database, provider: OIDCServer, ana: User
) -> None:
    linked(database, provider, ana)
    age_sessions(database, 30)
    assert as_ana.get("/account/second-factor").headers["location"].startswith("/account/verify")
    assert "Larkspur account" in as_ana.get("/account/verify").text
    provider.claims = {"auth_time": int(time.time()) - 4000}
    assert come_back(as_ana, provider, "/account/verify/oidc").status_code == 503  # it did not ask anew
    provider.claims = {}
    answer = come_back(as_ana, provider, "/account/verify/oidc?next=/account/second-factor")
    assert answer.headers["location"] == "/account/second-factor"
    assert as_ana.get("/account/second-factor").status_code == 200
    provider.subject = "somebody else"
    age_sessions(database, 30)
    assert come_back(as_ana, provider, "/account/verify/oidc").status_code == 403


def test_without_the_setting_there_is_no_such_way(database: Database, tmp_path: Path, ana: User) -> None:
    client = browser(create_app(database, load_settings(data_dir=tmp_path / "none", engine="fake")))
    assert client.get("/sign-in/oidc").status_code == 404
    assert client.get("/sign-in/oidc/back?state=x&code=y").status_code == 404
    assert "Sign in with" not in client.get("/sign-in").text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"oidc_issuer": "http://login.example", "oidc_client_id": "x"}, "https://"),
        ({"oidc_issuer": "https://login.example"}, "BRIEFBOX_OIDC_CLIENT_ID"),
    ],
)
def test_wrong_settings_are_refused_at_start(values: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(**values)


def _identities(database: Database) -> list[Identity]:
    with database.read() as session:
        return list(session.exec(select(Identity)))
