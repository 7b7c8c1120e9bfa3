"""The second factor on the desk: set up, asked for at every way in, single use, recovery, taken away, required."""

import re
from pathlib import Path

import pyotp
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select, update

from briefbox.db import Database
from briefbox.settings import load_settings
from briefbox.store import login_sessions, passwords, second_factor, secrets, throttle, users
from briefbox.tables import AuditEntry, LoginSession, User
from desk.app import create_app
from tests.desk.conftest import browser, session_for, sign_in_with
from tests.desk.routes import age_sessions

GOOD = "correct horse battery"


def turn_on(database: Database, app: FastAPI, user: User) -> tuple[pyotp.TOTP, list[str]]:
    """Give somebody a second factor whose present code is still good. Their authenticator and recovery codes."""
    secret, cipher = pyotp.random_base32(), secrets.cipher(app.state.desk.settings)
    with database.write() as session:
        person = users.get(session, user.email)
        codes = second_factor.turn_on(session, cipher, person, secret, pyotp.TOTP(secret).now())
        person.totp_step = 0
    return pyotp.TOTP(secret), codes


@pytest.fixture
def phone(database: Database, app: FastAPI, ana: User) -> tuple[pyotp.TOTP, list[str]]:
    """Ana has a password and a second factor."""
    with database.write() as session:
        passwords.set_password(session, users.get(session, ana.email), GOOD)
    return turn_on(database, app, ana)


def sign_in(client: TestClient, user: User) -> str:
    data = {"email": user.email, "password": GOOD, "next": "/status"}
    return client.post("/sign-in", data=data).headers["location"]


def test_it_is_set_up_by_scanning_and_typing_a_code(
    as_ana: TestClient, database: Database, ana: User
) -> None:
    page = as_ana.get("/account/second-factor").text
    assert 'src="data:image/svg+xml' in page
    [sealed] = re.findall(r'name="sealed" value="([^"]+)"', page)
    [secret] = re.findall(r'class="secret">([A-Z2-7 ]+)<', page)
    totp = pyotp.TOTP(secret.replace(" ", ""))
    wrong = as_ana.post("/account/second-factor", data={"sealed": sealed, "code": "000000"})
    assert wrong.status_code == 400
    assert secret in wrong.text  # the same secret: it is in the phone already
    before = as_ana.cookies["briefbox"]
    answer = as_ana.post("/account/second-factor", data={"sealed": sealed, "code": totp.now()})
    codes = re.findall(r"<code>([a-z0-9-]{19})</code>", answer.text)
    assert len(set(codes)) == 10
    assert as_ana.cookies["briefbox"] != before
    assert "10 of 10 recovery codes" in as_ana.get("/account").text
    with database.read() as session:
        user = users.get(session, ana.email)
        written = user.model_dump_json() + "".join(
            e.model_dump_json() for e in session.exec(select(AuditEntry)).all()
        )
    assert not [text for text in (totp.secret, *codes) if text in written]
    assert (
        as_ana.post("/account/second-factor", data={"sealed": sealed, "code": totp.now()}).status_code == 409
    )


def test_another_persons_form_is_refused(as_ana: TestClient, as_ada: TestClient, ana: User) -> None:
    page = as_ana.get("/account/second-factor").text
    [sealed] = re.findall(r'name="sealed" value="([^"]+)"', page)
    [secret] = re.findall(r'class="secret">([A-Z2-7 ]+)<', page)
    answer = as_ada.post(
        "/account/second-factor",
        data={"sealed": sealed, "code": pyotp.TOTP(secret.replace(" ", "")).now()},
    )
    assert answer.status_code == 400
    assert secret not in answer.text


def test_after_the_password_nobody_is_signed_in_before_the_code(
    nobody: TestClient, phone: tuple[pyotp.TOTP, list[str]], ana: User, database: Database
) -> None:
    assert sign_in(nobody, ana) == "/sign-in/code?next=/status"
    assert nobody.get("/").headers["location"] == "/sign-in"
    assert nobody.get("/events", headers={"accept": "text/event-stream"}).status_code == 401
    assert ana.email in nobody.get("/sign-in/code").text
    pending = nobody.cookies["briefbox"]
    code = phone[0].now()
    answer = nobody.post("/sign-in/code", data={"code": code, "next": "/status"})
    assert answer.headers["location"] == "/status"
    assert nobody.cookies["briefbox"] != pending
    assert nobody.get("/").status_code == 200
    with database.read() as session:
        assert [row.pending for row in session.exec(select(LoginSession))] == [False]
        said = session.exec(select(AuditEntry.action).where(AuditEntry.actor == ana.email)).all()
    assert list(said[-2:]) == ["password accepted", "signed in"]


def test_a_code_is_good_once(
    nobody: TestClient, app: FastAPI, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    code = phone[0].now()
    sign_in(nobody, ana)
    assert nobody.post("/sign-in/code", data={"code": code}).status_code == 303
    other = browser(app)
    sign_in(other, ana)
    answer = other.post("/sign-in/code", data={"code": code})
    assert answer.status_code == 401
    assert "not right" in answer.text


def test_a_recovery_code_is_good_once_however_it_is_typed(
    nobody: TestClient, app: FastAPI, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    typed = phone[1][3].upper().replace("-", " ")
    sign_in(nobody, ana)
    assert nobody.post("/sign-in/code", data={"code": typed}).status_code == 303
    assert "9 of 10" in nobody.get("/account").text
    other = browser(app)
    sign_in(other, ana)
    assert other.post("/sign-in/code", data={"code": typed}).status_code == 401


def test_a_link_does_not_get_past_it(
    nobody: TestClient, database: Database, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    with database.write() as session:
        token = users.new_link(session, ana)
    answer = nobody.post(f"/link/{token}", data={"password": "another good one 7"})
    assert answer.headers["location"] == "/sign-in/code?next=/"
    assert nobody.get("/").headers["location"] == "/sign-in"


def test_codes_are_guessed_no_better_than_passwords(
    nobody: TestClient, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    codes = []
    for number in range(throttle.MAX_ACCOUNT_FAILURES + 2):
        if "briefbox" not in nobody.cookies:
            sign_in(nobody, ana)
        codes.append(nobody.post("/sign-in/code", data={"code": f"00000{number % 10}"}).status_code)
        if number == 3:  # the right password in between forgives nothing
            assert sign_in(nobody, ana).startswith("/sign-in/code")
    assert codes[-1] == 429
    answer = nobody.post("/sign-in/code", data={"code": phone[0].now()})
    assert (answer.status_code, "Try again in" in answer.text) == (429, True)
    assert int(answer.headers["retry-after"]) > 600
    assert nobody.post("/sign-in", data={"email": ana.email, "password": GOOD}).status_code == 429


def test_without_a_password_first_there_is_no_code_to_type(nobody: TestClient) -> None:
    assert nobody.get("/sign-in/code").headers["location"] == "/sign-in"
    assert nobody.post("/sign-in/code", data={"code": "123456"}).headers["location"] == "/sign-in"


def test_taking_it_away_asks_for_proof_and_ends_the_other_browsers(
    as_ana: TestClient, database: Database, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    sign_in_with(as_ana, session_for(database, ana))
    elsewhere = session_for(database, ana)
    age_sessions(database, 20)
    asked = as_ana.post(
        "/account/second-factor/remove", headers={"referer": "http://testserver/account/second-factor"}
    )
    assert asked.headers["location"] == "/account/verify?next=/account/second-factor"
    wrong = as_ana.post("/account/verify", data={"code": "000000", "next": "/account/second-factor"})
    assert (wrong.status_code, "not right" in wrong.text) == (400, True)
    right = {"code": phone[0].now(), "next": "/account/second-factor"}
    assert as_ana.post("/account/verify", data=right).headers["location"] == "/account/second-factor"
    assert as_ana.post("/account/second-factor/remove").status_code == 303
    with database.read() as session:
        assert not second_factor.is_on(users.get(session, ana.email))
        assert login_sessions.session_user(session, elsewhere) is None
    assert "Set up a second factor" in as_ana.get("/account").text


def test_new_recovery_codes_replace_the_old(
    as_ana: TestClient, database: Database, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    sign_in_with(as_ana, session_for(database, ana))
    fresh = re.findall(r"<code>([a-z0-9-]{19})</code>", as_ana.post("/account/second-factor/recovery").text)
    assert len(fresh) == 10
    assert not set(fresh) & set(phone[1])
    client = browser(as_ana.app)  # type: ignore[arg-type]
    sign_in(client, ana)
    assert client.post("/sign-in/code", data={"code": phone[1][0]}).status_code == 401
    assert client.post("/sign-in/code", data={"code": fresh[0]}).status_code == 303


def test_an_admin_takes_it_from_somebody_else_and_the_log_says_so(
    as_ada: TestClient, database: Database, phone: tuple[pyotp.TOTP, list[str]], ana: User, nobody: TestClient
) -> None:
    assert as_ada.post(f"/admin/people/{ana.id}/second-factor/remove").status_code == 303
    assert sign_in(nobody, ana) == "/status"
    with database.read() as session:
        [entry] = session.exec(select(AuditEntry).where(AuditEntry.action == "second factor removed")).all()
    assert (entry.actor, entry.object) == ("ada@larkspur.example", ana.email)
    assert as_ada.post(f"/admin/people/{ana.id}/second-factor/remove").status_code == 400


def test_a_secret_of_another_key_is_told_in_words(
    database: Database, tmp_path: Path, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    moved = browser(create_app(database, load_settings(data_dir=tmp_path / "other", engine="fake")))
    sign_in(moved, ana)
    answer = moved.post("/sign-in/code", data={"code": phone[0].now()})
    assert answer.status_code == 500
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(("asked", "agent_needs_it"), [("admins", False), ("all", True)])
def test_a_required_second_factor_comes_before_anything_else(
    database: Database, tmp_path: Path, ana: User, ada: User, asked: str, agent_needs_it: bool
) -> None:
    settings = load_settings(data_dir=tmp_path / "data", engine="fake", require_second_factor=asked)
    app = create_app(database, settings)
    for user, needs_it in ((ana, agent_needs_it), (ada, True)):
        client = browser(app, session_for(database, user))
        answer = client.get("/")
        if not needs_it:
            assert answer.status_code == 200
            continue
        assert answer.headers["location"] == "/account/second-factor"
        assert client.get("/", headers={"accept": "application/json"}).status_code == 403
        assert "before anything else" in client.get("/account/second-factor").text
        turn_on(database, app, user)
        assert client.get("/").status_code == 200
    assert browser(app, session_for(database, ana)).post("/sign-out").status_code == 303


def test_a_pending_sign_in_ends_after_ten_minutes(
    nobody: TestClient, database: Database, phone: tuple[pyotp.TOTP, list[str]], ana: User
) -> None:
    sign_in(nobody, ana)
    with database.write() as session:
        [row] = session.exec(select(LoginSession)).all()
        assert row.expires_at - row.created_at == login_sessions.PENDING_FOR
        session.exec(update(LoginSession).values(expires_at=row.created_at))
    assert nobody.post("/sign-in/code", data={"code": phone[0].now()}).headers["location"] == "/sign-in"
