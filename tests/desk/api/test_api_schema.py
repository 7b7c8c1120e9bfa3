"""Problems, the OpenAPI document, and its page."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from desk.security import MAX_BODY
from tests.desk.api.conftest import API, Program


def document(client: TestClient) -> dict[str, Any]:
    said: dict[str, Any] = client.get(f"{API}/openapi.json").json()
    return said


def test_the_document_holds_together(nobody: TestClient) -> None:
    made = document(nobody)
    assert made["openapi"].startswith("3.1")
    assert {"title", "version", "description"} <= set(made["info"])
    operations = [one for path in made["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) > 10
    for one in operations:
        assert one["summary"]
        assert one["summary"][0].isupper()
        assert one["tags"]
        assert one["security"]
        assert one["x-scope"] in ("read", "write", "admin")
        assert {"default"} < set(one["responses"])
        assert "422" not in one["responses"]
    schemas = made["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    refs = set(_refs(made))
    assert {ref.rpartition("/")[2] for ref in refs} <= set(schemas) | {"token"}
    assert all(ref.startswith("#/components/") for ref in refs)
    assert "HTTPValidationError" not in schemas


def _refs(value: Any) -> Any:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from _refs(one)
    elif isinstance(value, list):
        for one in value:
            yield from _refs(one)


def test_the_page_tells_every_request(nobody: TestClient) -> None:
    page = nobody.get(f"{API}/docs")
    assert page.status_code == 200
    assert "<script" not in page.text.replace('<script type="module" src="/static/desk.js"></script>', "")
    for path, operations in document(nobody)["paths"].items():
        assert f"<code>{path}</code>" in page.text
        for one in operations.values():
            assert one["summary"] in page.text.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v2/conversations", 404),
        ("GET", "/api/v1/conversations/", 404),
        ("DELETE", "/api/v1/conversations", 405),
        ("GET", "/api/v1/conversations/99999", 404),
        ("GET", "/api/v1/conversations/odd", 404),
        ("GET", "/api/v1/conversations/99999999999999999999", 404),
    ],
)
def test_errors_are_problem_documents(anas: Program, method: str, path: str, status: int) -> None:
    answer = anas.client.request(method, path, headers={"Authorization": f"Bearer {anas.token}"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    said = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(said)
    assert (said["status"], said["instance"]) == (status, path)


def test_too_large_a_body_is_refused(anas: Program) -> None:
    body = json.dumps({"text": "x" * MAX_BODY}).encode()
    headers = {"Authorization": f"Bearer {anas.token}", "Content-Type": "application/json"}
    answer = anas.client.post(f"{API}/conversations/1/notes", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    # Without a stated length.
    chunks = iter([body[:MAX_BODY], body[MAX_BODY:]])
    answer = anas.client.post(f"{API}/conversations/1/notes", content=chunks, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


def test_another_websites_page_cannot_use_it(anas: Program) -> None:
    answer = anas.post("/conversations/1/done", headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert anas.post("/conversations/1/done").status_code == 404


def test_what_is_no_json_is_refused(anas: Program) -> None:
    answer = anas.post("/conversations/1/notes", content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_what_nobody_expected_is_a_problem_too(anas: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("desk.api.me.answers.one", lambda *_: 1 / 0)
    answer = anas.get("/me")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "log under the id" in answer.json()["detail"]
