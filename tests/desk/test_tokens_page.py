"""The pages for API tokens: make, see once, revoke."""

import re

import pytest
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.tables import APIToken, AuditEntry, User
from tests.desk.conftest import Inbox


def make(client: TestClient, **fields: object) -> str:
    """Make a token over the form; its text."""
    page = client.post("/account/tokens", data={"name": "backup", "scope": ["read"], "days": "90"} | fields)
    assert page.status_code == 200, page.text
    found = re.search(r'value="(bbx_[^"]+)"', page.text)
    assert found is not None
    return found[1]


def test_a_token_is_shown_once_and_stored_nowhere(
    as_ana: TestClient, nobody: TestClient, inbox: Inbox
) -> None:
    text = make(as_ana, scope=["read", "write"])
    [row] = inbox.all(APIToken)
    assert (row.name, row.scopes, row.prefix) == ("backup", ["read", "write"], text[:10])
    page = as_ana.get("/account/tokens").text
    assert "backup" in page
    assert text[:10] in page
    assert text not in page
    assert all(text not in str(entry.detail) + entry.object for entry in inbox.all(AuditEntry))
    answer = nobody.get("/api/v1/me", headers={"Authorization": f"Bearer {text}"})
    assert (answer.status_code, answer.json()["token_name"]) == (200, "backup")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": " "}, "0 characters"),
        ({"name": "x" * 81}, "81 characters"),
        ({"scope": []}, "Choose what the token may do"),
        ({"scope": ["everything"]}, "Choose what the token may do"),
        ({"scope": ["admin"]}, "Only an admin"),
        ({"days": "-1"}, "none of those offered"),
    ],
)
def test_odd_input_is_answered_in_words_and_kept(
    as_ana: TestClient, inbox: Inbox, fields: dict[str, object], said: str
) -> None:
    body = {"name": "<b>mine</b>", "scope": ["read"], "days": "90"} | fields
    page = as_ana.post("/account/tokens", data=body)
    assert page.status_code == 400
    assert said in page.text
    assert "<b>mine" not in page.text
    assert inbox.all(APIToken) == []


def test_one_revokes_ones_own_and_nobody_elses(
    as_ana: TestClient, as_ada: TestClient, inbox: Inbox, ana: User
) -> None:
    make(as_ana)
    make(as_ada, name="ada's", scope=["read", "admin"])
    mine, hers = inbox.all(APIToken)
    assert as_ana.post(f"/account/tokens/{hers.id}/revoke").status_code == 404
    assert (
        as_ana.post(f"/account/tokens/{mine.id}/revoke").headers["location"] == "/account/tokens?note=revoked"
    )
    assert [row.revoked_at is None for row in inbox.all(APIToken)] == [False, True]
    assert "You have none." in as_ana.get("/account/tokens").text


def test_admins_see_and_revoke_all(as_ana: TestClient, as_ada: TestClient, inbox: Inbox) -> None:
    make(as_ana, name="<i>hers</i>")
    page = as_ada.get("/admin/tokens").text
    assert "ana@larkspur.example" in page
    assert "&lt;i&gt;hers" in page
    assert "<i>hers" not in page
    assert as_ana.get("/admin/tokens").status_code == 403
    assert as_ana.post("/admin/tokens/1/revoke").status_code == 403
    assert as_ada.post("/admin/tokens/1/revoke").status_code == 303
    assert "Nobody has made a token." in as_ada.get("/admin/tokens").text


def test_who_is_not_signed_in_makes_none(nobody: TestClient, database: Database) -> None:
    assert nobody.get("/account/tokens").status_code == 303
    assert (
        nobody.post("/account/tokens", data={"name": "x", "scope": "read"}).headers["location"] == "/sign-in"
    )
