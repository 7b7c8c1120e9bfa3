"""The first admin, sessions and their list, proof asked for anew, idle and absolute limits, the brake."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select, update

from briefbox.db import Database
from briefbox.settings import load_settings
from briefbox.store import alerts, passwords, throttle, users
from briefbox.tables import AuditEntry, LoginFailure, LoginSession, User
from desk.app import create_app
from desk.chores import calm
from desk.sign_in.browsers import browser_in_words
from tests.desk.conftest import browser, session_for, sign_in_with
from tests.desk.routes import age_sessions

GOOD = "correct horse battery"
ADA = {"name": "Ada", "email": "ada@larkspur.example", "password": GOOD}


@pytest.fixture
def first(database: Database) -> str:
    """The token of the set-up link."""
    with database.write() as session:
        token = users.first_link(session)
    assert token is not None
    return token


def with_password(database: Database, user: User) -> None:
    with database.write() as session:
        passwords.set_password(session, users.get(session, user.email), GOOD)


def actions(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.exec(select(AuditEntry.action).order_by(AuditEntry.id)))  # type: ignore[arg-type]


# --- the first admin


def test_the_first_admin_says_who_they_are_and_goes_on_to_the_first_inbox(
    nobody: TestClient, database: Database, first: str
) -> None:
    page = nobody.get(f"/link/{first}").text
    assert "Set up briefbox" in page
    assert users.UNKNOWN_ADMIN not in page
    answer = nobody.post(f"/link/{first}", data=ADA)
    assert answer.headers["location"] == "/admin/mailboxes"
    assert "Ada" in nobody.get("/account").text
    assert nobody.get(f"/link/{first}").status_code == 404
    with database.write() as session:
        assert [(u.email, u.role) for u in users.all_of(session)] == [("ada@larkspur.example", "admin")]
        assert users.first_link(session) is None  # somebody can sign in: no more such links


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": " "}, "name is empty"),
        ({"email": "ada"}, "is no email address"),
        ({"email": users.UNKNOWN_ADMIN}, "your own address"),
        ({"password": "short"}, "expected 12 to 256"),
        ({"password": "ada@larkspur.example"}, "first that would be guessed"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    nobody: TestClient, first: str, wrong: dict[str, str], says: str
) -> None:
    answer = nobody.post(f"/link/{first}", data=ADA | wrong)
    assert answer.status_code == 400
    assert says in answer.text
    assert f'value="{(ADA | wrong)["email"]}"' in answer.text
    assert GOOD not in answer.text
    assert nobody.post(f"/link/{first}", data=ADA).status_code == 303  # the link is still good


def test_a_set_up_link_can_be_made_again_until_somebody_can_sign_in(
    nobody: TestClient, database: Database, first: str
) -> None:
    with database.write() as session:
        second = users.first_link(session)
    assert nobody.get(f"/link/{first}").status_code == 404
    assert nobody.get(f"/link/{second}").status_code == 200
    with database.read() as session:
        assert len(users.all_of(session)) == 1


# --- sessions


def test_one_sees_where_one_is_signed_in_and_ends_any(
    app: FastAPI, database: Database, ana: User, as_ana: TestClient, as_ada: TestClient
) -> None:
    with_password(database, ana)
    phone = browser(app)
    phone.headers["user-agent"] = "Mozilla/5.0 (iPhone; CPU) AppleWebKit/605 Version/18 Mobile Safari/604 <b>"
    phone.post("/sign-in", data={"email": ana.email, "password": GOOD})
    sign_in_with(as_ana, session_for(database, ana))
    page = as_ana.get("/account").text
    assert "Safari on iPhone" in page
    assert "this browser" in page
    with database.read() as session:
        rows = session.exec(select(LoginSession).where(LoginSession.user_id == ana.id)).all()
    [other] = [row for row in rows if "iPhone" in row.browser]
    assert as_ada.post(f"/account/sessions/{other.id}/end").status_code == 404  # not hers
    assert phone.get("/").status_code == 200
    assert as_ana.post(f"/account/sessions/{other.id}/end").status_code == 303
    assert phone.get("/").status_code == 303
    assert as_ana.post(f"/account/sessions/{other.id}/end").status_code == 404


def test_one_ends_all_others_at_once(database: Database, app: FastAPI, ana: User, as_ana: TestClient) -> None:
    others = [browser(app, session_for(database, ana)) for _ in range(3)]
    assert as_ana.post("/account/sessions/end-others").headers["location"] == "/account?note=others-ended"
    assert [client.get("/").status_code for client in others] == [303, 303, 303]
    assert as_ana.get("/").status_code == 200


def test_every_sign_in_is_a_new_session_and_ends_what_the_browser_had(
    nobody: TestClient, app: FastAPI, database: Database, ana: User
) -> None:
    with_password(database, ana)
    planted = session_for(database, ana)
    sign_in_with(nobody, planted)
    nobody.post("/sign-in", data={"email": ana.email, "password": GOOD})
    assert nobody.cookies["briefbox"] != planted
    assert browser(app, planted).get("/").status_code == 303


def test_a_new_password_is_a_new_token_here_and_the_end_elsewhere(
    app: FastAPI, database: Database, ana: User
) -> None:
    with_password(database, ana)
    here, elsewhere = session_for(database, ana), session_for(database, ana)
    client = browser(app, here)
    data = {"old_password": "wrong wrong wrong", "password": "another good one 7"}
    assert client.post("/account/password", data=data).status_code == 400
    data["old_password"] = GOOD
    assert client.post("/account/password", data=data).status_code == 303
    assert client.get("/").status_code == 200
    assert [browser(app, token).get("/").status_code for token in (here, elsewhere)] == [303, 303]


def test_a_first_password_needs_a_fresh_sign_in(as_ana: TestClient, database: Database) -> None:
    age_sessions(database, 20)
    assert "Sign in once more" in as_ana.post("/account/password", data={"password": GOOD}).text
    age_sessions(database, 1)
    assert as_ana.post("/account/password", data={"password": GOOD}).status_code == 303


def test_an_idle_browser_is_signed_out_and_listening_is_idle(
    as_ana: TestClient, database: Database, app: FastAPI
) -> None:
    app.state.desk.live.close()
    idle = app.state.desk.settings.session_idle_minutes
    age_sessions(database, idle - 1)
    assert as_ana.get("/events", headers={"accept": "text/event-stream"}).status_code == 200
    assert as_ana.get("/status", headers={"x-background": "1"}).status_code == 200
    age = datetime.now(UTC) - timedelta(minutes=idle - 2)
    assert seen(database) < age  # neither of them counts
    assert as_ana.get("/status").status_code == 200
    assert seen(database) > datetime.now(UTC) - timedelta(minutes=1)
    age_sessions(database, idle + 1)
    assert as_ana.get("/status").status_code == 303


def test_when_a_browser_was_seen_is_written_once_a_minute(as_ana: TestClient, database: Database) -> None:
    before = seen(database)
    as_ana.get("/status")
    assert seen(database) == before
    age_sessions(database, 2)
    as_ana.get("/status")
    assert seen(database) > before


def test_no_session_outlives_its_time(as_ana: TestClient, database: Database) -> None:
    with database.write() as session:
        session.exec(update(LoginSession).values(expires_at=datetime.now(UTC)))
    assert as_ana.get("/status").status_code == 303


def seen(database: Database) -> datetime:
    with database.read() as session:
        return session.exec(select(LoginSession.seen_at)).one()


# --- proof


def test_proof_is_asked_for_once_and_leads_back_to_the_page_of_the_form(
    as_ada: TestClient, database: Database, ada: User, ana: User
) -> None:
    with_password(database, ada)
    sign_in_with(as_ada, session_for(database, ada))
    age_sessions(database, 20)
    page = f"/admin/people/{ana.id}"
    for referer, back in (
        (f"http://testserver{page}?note=changed", f"{page}?note=changed"),
        ("http://evil.example/x", "/account"),
        ("", "/account"),
    ):
        asked = as_ada.post(f"{page}/disable", headers={"referer": referer})
        assert (
            asked.headers["location"].replace("%3F", "?").replace("%3D", "=")
            == f"/account/verify?next={back}"
        )
    assert as_ada.get("/admin/people").status_code == 200  # to look asks for nothing
    before = as_ada.cookies["briefbox"]
    wrong = as_ada.post("/account/verify", data={"password": "wrong wrong wrong", "next": page})
    assert wrong.status_code == 400
    assert f'value="{page}"' in wrong.text
    right = as_ada.post("/account/verify", data={"password": GOOD, "next": page})
    assert right.headers["location"] == page
    assert as_ada.cookies["briefbox"] != before
    assert as_ada.get(page).status_code == 200


def test_proof_leads_to_no_other_site(as_ana: TestClient, database: Database, ana: User) -> None:
    with_password(database, ana)
    sign_in_with(as_ana, session_for(database, ana))
    answer = as_ana.post("/account/verify", data={"password": GOOD, "next": "//evil.example"})
    assert answer.headers["location"] == "/"


def test_who_has_nothing_to_prove_it_with_is_told_what_to_do(as_ana: TestClient) -> None:
    assert "ask an admin for a new sign-in link" in as_ana.get("/account/verify").text


# --- the brake


def test_who_has_to_wait_is_told_how_long(nobody: TestClient, database: Database, ana: User) -> None:
    with_password(database, ana)
    for number in range(throttle.MAX_ACCOUNT_FAILURES):
        nobody.post("/sign-in", data={"email": ana.email, "password": f"wrong number {number}"})
    answer = nobody.post("/sign-in", data={"email": ana.email, "password": GOOD})
    assert answer.status_code == 429
    assert "Try again in 15 minutes" in answer.text
    assert 800 < int(answer.headers["retry-after"]) <= 900


def test_a_flood_from_everywhere_stops_all_but_where_somebody_is_signed_in(
    nobody: TestClient, database: Database, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAX_FAILURES", 20)
    with_password(database, ana)
    moment = datetime.now(UTC)
    with database.write() as session:
        session.add_all(LoginFailure(key=f"address:192.0.2.{n}", at=moment) for n in range(20))
    data = {"email": ana.email, "password": GOOD}
    assert nobody.post("/sign-in", data=data).status_code == 429
    with database.write() as session:
        session.exec(update(LoginFailure).values(at=moment - throttle.FAILURE_WINDOW))
    assert nobody.post("/sign-in", data=data).status_code == 303
    with database.write() as session:
        session.exec(update(LoginFailure).values(at=moment))
    assert nobody.post("/sign-in", data=data).status_code == 303  # its session is known


def test_guessing_is_told_to_admins_until_it_is_over(
    nobody: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "ALERT_FAILURES", 5)
    for number in range(6):
        nobody.post("/sign-in", data={"email": f"p{number}@x.example", "password": "wrong wrong"})
    assert [alert.key for alert in open_alerts(database)] == [throttle.ALERT]
    assert "6 failed sign-ins within 15 minutes from 1 network address." in open_alerts(database)[0].text
    calm(database)
    assert open_alerts(database)
    with database.write() as session:
        session.exec(update(LoginFailure).values(at=datetime.now(UTC) - throttle.FAILURE_WINDOW))
    calm(database)
    assert not open_alerts(database)


def open_alerts(database: Database) -> list[alerts.Alert]:
    with database.read() as session:
        return alerts.open_alerts(session)


# --- denials


def test_a_denial_is_in_the_audit_log_once_a_minute(as_ana: TestClient, database: Database) -> None:
    for _ in range(5):
        assert as_ana.get("/admin/people").status_code == 403
    as_ana.post("/admin/audit/check")
    with database.read() as session:
        found = session.exec(select(AuditEntry).where(AuditEntry.action == "denied")).all()
    assert [entry.object for entry in found] == ["GET /admin/people", "POST /admin/audit/check"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/140.0", "Firefox on Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/140 Safari/537 Edg/140", "Edge on Linux"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140 Mobile Safari/537", "Chrome on Android"),
        ("curl/8.5", "curl/8.5"),
        ("", "a browser that does not say what it is"),
    ],
)
def test_browsers_in_words(name: str, said: str) -> None:
    assert browser_in_words(name) == said


def test_the_idle_limit_is_a_setting(database: Database, tmp_path: Path, ana: User) -> None:
    settings = load_settings(data_dir=tmp_path / "data", engine="fake", session_idle_minutes=5)
    client = browser(create_app(database, settings), session_for(database, ana))
    age_sessions(database, 6)
    assert client.get("/status").status_code == 303
