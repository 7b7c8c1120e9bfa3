"""Who may use which route, for every route there is: the table is made from the router (tests/desk/routes.py)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from tests.desk.conftest import browser
from tests.desk.routes import (
    FOREIGN_IDS,
    MAY,
    PERSONAS,
    Declared,
    age_sessions,
    all_routes,
    desk_on,
    fill,
    snapshot,
)

ROUTES = all_routes()
UNSAFE = [route for route in ROUTES if route.method not in ("GET",)]
GETS = [route for route in ROUTES if route.method == "GET"]
JSON = {"accept": "application/json"}
FORMS = {"content-type": "application/x-www-form-urlencoded"}
ABROAD = (
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "https://other.desk.example"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
)


@dataclass
class Place:
    """A filled desk of its own."""

    app: FastAPI
    database: Database
    tokens: dict[str, str]
    browsers: dict[str, TestClient] = field(default_factory=dict)

    def ask(self, who: str, route: Declared, **headers: str) -> tuple[int, str]:
        """Status and where it leads to."""
        if who not in self.browsers:
            self.browsers[who] = browser(self.app, self.tokens.get(who, ""))
        sent = FORMS if route.method != "GET" else {}
        answer = self.browsers[who].request(route.method, route.address, headers={**sent, **headers})
        return answer.status_code, answer.headers.get("location", "")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("filled") / "briefbox.db"
    return path, fill(path, migrated_sqlite)


@pytest.fixture
def place(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[Place]:
    app, database = desk_on(filled[0], tmp_path / "data")
    yield Place(app, database, filled[1])
    database.close()


def test_there_are_routes() -> None:
    assert len(ROUTES) > 50
    assert {"anyone", "agent", "admin"} <= {route.role for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.id)
def test_every_route_declares_one_role(route: Declared) -> None:
    assert route.role, (
        f"{route.id} declares no role, or `anyone` beside another: depend on exactly one of access.anyone, signed_in, "
        "reviewer, admin, or on a callable with an attribute `scope` where programs use it with a token"
    )


@pytest.mark.parametrize("route", [r for r in ROUTES if r.role != "token"], ids=lambda route: route.id)
def test_who_may_use_it(place: Place, route: Declared) -> None:
    foreign = FOREIGN_IDS.intersection(route.names)
    for rank, who in enumerate(PERSONAS):
        before = snapshot(place.database)
        status, to = place.ask(who, route)
        if route.role == "anyone":
            assert status < 500 or status == 503, (who, status, to)
        elif who == "nobody":
            assert (status, to.split("?")[0]) == (303, "/sign-in"), (status, to)
            assert place.ask(who, route, **JSON)[0] == 401
            assert snapshot(place.database) == before
        elif rank < MAY[route.role]:
            assert status == 403 or (who == "rex" and foreign and status == 404), (who, status, to)
            assert changed(before, snapshot(place.database)) <= {"audit"}
        elif who == "rex" and foreign:
            assert status == 404, (status, to)
            assert snapshot(place.database) == before
        else:
            assert status not in (401, 403), (who, status, to)
            assert status < 500 or status == 503, (who, status)
            assert not to.startswith(("/sign-in?", "/account/verify")), (who, to)


@pytest.mark.parametrize("route", [r for r in ROUTES if r.role == "token"], ids=lambda route: route.id)
def test_a_program_without_a_token_gets_nothing(place: Place, route: Declared) -> None:
    before = snapshot(place.database)
    assert place.ask("nobody", route)[0] == 401
    assert snapshot(place.database) == before


@pytest.mark.parametrize("route", [r for r in ROUTES if r.verified], ids=lambda route: route.id)
def test_what_asks_for_proof_asks_after_a_quarter_of_an_hour(place: Place, route: Declared) -> None:
    age_sessions(place.database, 16)
    before = snapshot(place.database)
    status, to = place.ask("ada", route)
    assert (status, to.split("?")[0]) == (303, "/account/verify")
    assert place.ask("ada", route, **JSON)[0] == 403
    assert snapshot(place.database) == before


@pytest.mark.parametrize("route", UNSAFE, ids=lambda route: route.id)
def test_no_other_site_can_make_this_request(place: Place, route: Declared) -> None:
    before = snapshot(place.database)
    for headers in ABROAD:
        for who in ("ada", "nobody"):
            assert place.ask(who, route, **headers)[0] == 403, (who, headers)
    assert snapshot(place.database) == before


@pytest.mark.parametrize("route", GETS, ids=lambda route: route.id)
def test_looking_changes_nothing(place: Place, route: Declared) -> None:
    before = snapshot(place.database)
    for who in ("nobody", "ada"):
        place.ask(who, route)
    assert changed(before, snapshot(place.database)) == set()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.id)
def test_every_answer_carries_the_protecting_headers(place: Place, route: Declared) -> None:
    for who in ("nobody", "ada"):
        for abroad in ({}, ABROAD[0]):
            place.ask(who, route, **abroad)
            answer = place.browsers[who].request(route.method, route.address, headers=abroad)
            check_headers(dict(answer.headers))


def check_headers(headers: dict[str, str]) -> None:
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers
    assert "access-control-allow-origin" not in headers
    for cookie in headers.get("set-cookie", "").split("briefbox="):
        assert not cookie or ("HttpOnly" in cookie and "samesite=lax" in cookie.lower())


def test_over_https_the_cookie_is_bound_to_the_host_and_browsers_stay_with_it(
    filled: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    app, database = desk_on(filled[0], tmp_path / "data", desk_url="https://desk.larkspur.example")
    client = TestClient(app, base_url="https://desk.larkspur.example", follow_redirects=False)
    client.cookies.set("__Host-briefbox", filled[1]["ada"])
    answer = client.post("/sign-out")
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    [cookie] = answer.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-briefbox=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    database.close()


def test_static_files_need_no_session_and_are_asked_for_again(place: Place) -> None:
    answer = browser(place.app).get("/static/desk.css")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"


def changed(
    before: dict[str, list[tuple[object, ...]]], after: dict[str, list[tuple[object, ...]]]
) -> set[str]:
    return {name for name in before if before[name] != after[name]}
