"""Every route of the desk as it is declared, and a filled database to try them on.

A new route is found here by itself. It has to do one thing: depend on exactly one of `access.anyone`, `signed_in`,
`reviewer`, `admin` (each includes the one before), or on a callable with an attribute `scope` where programs use it with a
token. A path parameter gets the value below, or 1 where its name ends in `_id`, or "nothing".
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Table
from sqlmodel import Session, SQLModel, select

from briefbox.db import Database
from briefbox.settings import Settings, load_settings
from briefbox.store import alerts, login_sessions, mailboxes, people, users
from briefbox.tables import Mailbox, User
from desk import access
from desk.app import create_app
from tests.desk.conftest import Inbox

# In the order of what they may do. Rex is an agent who sees another mailbox than the one with all the mail.
PERSONAS = ("nobody", "rex", "ana", "rae", "ada")
ROLES = {"rex": "agent", "ana": "agent", "rae": "reviewer", "ada": "admin"}
MAY = {"anyone": 0, "agent": 1, "reviewer": 3, "admin": 4}  # the first of PERSONAS who may
DECLARED = {
    access.anyone: "anyone",
    access.signed_in: "agent",
    access.reviewer: "reviewer",
    access.admin: "admin",
}
FOREIGN_IDS = {"conversation_id", "email_id", "mailbox_id"}
VALUES = {"number": "0", "choice": "shown", "priority": "high"}


@dataclass(frozen=True)
class Declared:
    """A route with one method, and who may use it: "anyone", "agent", "reviewer", "admin", "token", or "" for none."""

    method: str
    path: str
    role: str
    verified: bool
    names: tuple[str, ...]

    @property
    def address(self) -> str:
        """The path with values in it."""
        filled = self.path
        for name in self.names:
            value = VALUES.get(name, "1" if name.endswith("_id") else "nothing")
            for form in (f"{{{name}}}", f"{{{name}:path}}"):
                filled = filled.replace(form, value)
        return filled

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.method} {self.path}"


def all_routes() -> list[Declared]:
    """Of the whole desk, without its static files."""
    app = create_app(Database("sqlite://"), load_settings(data_dir=Path("nowhere"), engine="fake"))
    return [
        _declared(prefix, route, method)
        for prefix, route in _flat(app)
        for method in sorted(route.methods - {"HEAD", "OPTIONS"})
    ]


def _flat(app: FastAPI, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each route with where its application is mounted."""
    for route in app.routes:
        if hasattr(route, "effective_route_contexts"):
            yield from ((prefix, one) for one in route.effective_route_contexts())
        elif hasattr(route, "dependant"):
            yield prefix, route
        elif isinstance(getattr(route, "app", None), FastAPI):
            yield from _flat(route.app, prefix + route.path)
        else:
            assert getattr(route, "path", "") == "/static", f"{route} is no route whose role can be told"


def _declared(prefix: str, route: Any, method: str) -> Declared:
    calls = list(_calls(route.dependant))
    roles = [role for call, role in DECLARED.items() if call in calls]
    if any(hasattr(call, "scope") for call in calls):
        roles.append("token")
    # The roles contain each other; the last is what the route asks for.
    one = roles[-1] if roles and not ("anyone" in roles and len(roles) > 1) else ""
    return Declared(method, prefix + route.path, one, access.verified in calls, tuple(route.param_convertors))


def _calls(dependant: Any) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


# --- a filled desk


def fill(path: Path, migrated: Path) -> dict[str, str]:
    """A database with mail, briefs and everybody in PERSONAS. Their session tokens."""
    shutil.copy(migrated, path)
    database = Database(f"sqlite:///{path}")
    inbox = Inbox(database)
    number = inbox.receive("Where is it?", brief={"headline": "Where is the parcel"})
    inbox.receive("A second one", brief={"priority": "urgent"}, age=timedelta(hours=3))
    inbox.give_up(inbox.receive("A bad one"))
    tokens = {}
    with database.write() as session:
        other = Mailbox(name="billing", address="billing@larkspur.example", host="h", port=993, username="b")
        mailboxes.add(session, other, actor="test")
        alerts.raise_alert(session, "something", "Something is wrong.")
        for name, role in ROLES.items():
            tokens[name] = _enter(session, name, role, other.id if name == "rex" else None)
    assert inbox.get(number).id == 1
    database.close()
    return tokens


def _enter(session: Session, name: str, role: str, only: int | None) -> str:
    user, _ = users.create(
        session, email=f"{name}@larkspur.example", name=name.title(), role=role, actor="test"
    )
    if only is not None:
        people.change(session, user, role=role, all_mailboxes=False, mailbox_ids=[only], actor="test")
    return login_sessions.open_session(session, user, hours=1)


def desk_on(path: Path, data: Path, **values: Any) -> tuple[FastAPI, Database]:
    """A desk on a copy of that database. Its event streams end after their first event."""
    settings: Settings = load_settings(data_dir=data, engine="fake", threads=1, **values)
    shutil.copy(path, settings.ensure_data_dir() / "briefbox.db")
    database = Database(settings.database_address)
    app = create_app(database, settings)
    app.state.desk.live.close()
    return app, database


def snapshot(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, but for when a browser was seen."""
    with database.read() as session:
        return {
            table.name: [tuple(row) for row in session.connection().execute(_rows(table))]
            for table in SQLModel.metadata.sorted_tables
        }


def _rows(table: Table) -> Any:
    columns = [
        column for column in table.columns if (table.name, column.name) != ("login_sessions", "seen_at")
    ]
    return select(*columns).order_by(*table.primary_key.columns)


def age_sessions(database: Database, minutes: float) -> None:
    """As if everybody had signed in, and was seen last, so long ago."""
    from sqlmodel import update

    from briefbox.tables import LoginSession

    moment = datetime.now(UTC) - timedelta(minutes=minutes)
    with database.write() as session:
        session.exec(update(LoginSession).values(seen_at=moment, verified_at=moment, created_at=moment))


def find(database: Database, name: str) -> User:
    """One of the personas."""
    with database.read() as session:
        return users.get(session, f"{name}@larkspur.example")
