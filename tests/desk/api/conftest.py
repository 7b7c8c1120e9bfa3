"""Programs with tokens: Ana's (agent), Ada's (admin), and one for whatever a test asks for."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.store import api_tokens
from briefbox.tables import User
from tests.desk.conftest import browser

API = "/api/v1"


class Program:
    """A program that asks the API with a token."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client, self.token = client, token

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.client.request(method, API + path, headers=headers, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> Any:
        return self.ask("POST", path, **options)

    def patch(self, path: str, **options: Any) -> Any:
        return self.ask("PATCH", path, **options)


def token_of(database: Database, user: User, *scopes: str, days: int | None = None) -> str:
    """A token of this person."""
    with database.write() as session:
        return api_tokens.create(session, user, name="a program", scopes=list(scopes), days=days)[1]


@pytest.fixture
def program(app: FastAPI, database: Database) -> Callable[..., Program]:
    """Makes a program of somebody with these scopes."""

    def make(user: User, *scopes: str) -> Program:
        return Program(browser(app), token_of(database, user, *scopes))

    return make


@pytest.fixture
def anas(program: Callable[..., Program], ana: User) -> Program:
    """Ana's program, which may read and write."""
    return program(ana, "read", "write")


@pytest.fixture
def adas(program: Callable[..., Program], ada: User) -> Program:
    """Ada's program, which may do everything."""
    return program(ada, "read", "write", "admin")
