"""A desk on a fresh SQLite database, mail as the poller stores it, briefs as the worker stores them, and people.

Ana is an agent, Ada an admin, nobody has no session.
"""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import (
    Address,
    Attachment,
    Brief,
    EmailKind,
    FetchedEmail,
    Grounding,
    LabelScore,
    Omission,
    ParsedEmail,
    Provenance,
)
from briefbox.settings import Settings
from briefbox.store import ledger, login_sessions, mailboxes, passwords, users, work
from briefbox.store.ledger import Arrival
from briefbox.tables import Category, Conversation, Email, Mailbox, User
from desk.app import equip, routes
from desk.tools import Tools
from ingest.parse import parse_email
from ingest.reader import StoredEmails

CATEGORIES = ("order", "delivery", "refund", "technical problem", "billing", "other")


@pytest.fixture
def database(settings: Settings, migrated_sqlite: Path) -> Iterator[Database]:
    """The store is tested on PostgreSQL too; the desk only calls it."""
    shutil.copy(migrated_sqlite, settings.ensure_data_dir() / "briefbox.db")
    database = Database(settings.database_address)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def quick_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id that costs next to nothing; tests/briefbox/test_users.py has the real one."""
    cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    nobody = cheap.hash("nobody")
    monkeypatch.setattr(passwords, "_hasher", lambda: cheap)
    monkeypatch.setattr(passwords, "_nobodys_hash", lambda: nobody)


class Inbox:
    """Puts mail and briefs into the database without a mail server and without a model."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._uids = count(1)
        with database.write() as session:
            row = Mailbox(
                name="support",
                address="support@larkspur.example",
                host="mail.larkspur.example",
                port=993,
                username="support-login",
                folders=["INBOX"],
            )
            self.mailbox = mailboxes.add(session, row, actor="test")
            # The migration may bring categories of its own.
            known = set(session.exec(select(Category.name)))
            for position, name in enumerate(CATEGORIES):
                if name not in known:
                    session.add(Category(name=name, description=f"about {name}", position=position))

    def receive(
        self,
        subject: str = "Where is my order?",
        text: str = "Hello, where is my order 1001?",
        *,
        sender: Address | None = None,
        age: timedelta = timedelta(),
        kind: EmailKind = EmailKind.CUSTOMER,
        attachments: tuple[Attachment, ...] = (),
        brief: dict[str, Any] | None = None,
        **parsed: Any,
    ) -> int:
        """One mail, briefed if `brief` says how. Returns its conversation's id."""
        uid = next(self._uids)
        raw = f"{uid} {subject} {text}".encode("utf-8", "replace")
        mail = ParsedEmail(
            subject=subject,
            sender=sender or Address(name=f"Customer {uid}", address=f"customer{uid}@example.org"),
            to=parsed.pop("to", (Address(address="support@larkspur.example"),)),
            message_id=parsed.pop("message_id", f"mail-{uid}@example.org"),
            text=text,
            reply=parsed.pop("reply", text),
            kind=kind,
            attachments=attachments,
            **parsed,
        )
        email = self._store(uid, raw, mail, age)
        if brief is not None:
            self.brief(email.id, **brief)
        return email.conversation_id or 0

    def arrive(self, raw: bytes, *, brief: dict[str, Any] | None = None) -> Email:
        """A mail as it came from a server, parsed like one."""
        email = self._store(next(self._uids), raw, parse_email(raw), timedelta())
        if brief is not None:
            self.brief(email.id, **brief)
        return email

    def _store(self, uid: int, raw: bytes, mail: ParsedEmail, age: timedelta) -> Email:
        arrival = Arrival(FetchedEmail(uid, raw, len(raw), datetime.now(UTC) - age), mail)
        with self.database.write() as session:
            lease = mailboxes.claim(session, self.mailbox.id, owner="test", seconds=60)
            assert lease is not None
            cursor = ledger.open_folder(session, self.mailbox.id, "INBOX", 1)
            ledger.commit_batch(session, lease, cursor, [arrival], up_to=uid, lease_seconds=60)
            mailboxes.release(session, lease)
            return session.exec(select(Email).where(Email.sha256 == sha256(raw).hexdigest())).one()

    def brief(
        self,
        email_id: int,
        *,
        headline: str = "Customer asks where an order is",
        summary: str = "The customer asks where order 1001 is.",
        priority: str = "normal",
        category: str = "order",
        sure: float | None = 0.9,
        cut: bool = False,
        adapter: str = "",
        prompt_version: str = "1",
        language: str = "en",
        grounding: Grounding = Grounding(),
        omitted: tuple[Omission, ...] = (),
        instructions_found: bool = False,
        **provenance: Any,
    ) -> None:
        """What a worker does with one waiting mail."""
        value = Brief(
            headline=headline,
            summary=summary,
            priority=score(priority, ("urgent", "high", "normal", "low"), sure),
            category=score(category, CATEGORIES, sure),
            needs_human=("priority", "category") if sure is not None and sure < 0.4 else (),
            language=language,
            grounding=grounding,
            instructions_found=instructions_found,
            cut=cut or bool(omitted),
            omitted=omitted,
            provenance=Provenance(
                engine="fake",
                base_model="fake-model",
                adapter=adapter,
                prompt_version=prompt_version,
                tokens_in=210,
                tokens_out=40,
                seconds=0.31,
                **provenance,
            ),
        )
        with self.database.write() as session:
            claim = work.claim(session, owner="test", limit=500, seconds=60, max_attempts=3)
            assert claim is not None
            item = next(item for item in claim.emails if item.email_id == email_id)
            assert work.finish(session, claim.token, item, value)
            work.give_back(session, claim.token)

    def give_up(self, conversation_id: int, reason: str = "the model ran out of memory") -> None:
        """The mail of this conversation becomes a dead letter."""
        with self.database.write() as session:
            claim = work.claim(session, owner="test", limit=500, seconds=60, max_attempts=3)
            assert claim is not None
            email = session.exec(select(Email).where(Email.conversation_id == conversation_id)).one()
            item = next(item for item in claim.emails if item.email_id == email.id)
            assert work.fail(session, claim.token, item, reason, max_attempts=3, permanent=True)
            work.give_back(session, claim.token)

    def get(self, conversation_id: int) -> Conversation:
        """The row as it stands now."""
        with self.database.read() as session:
            row = session.get_one(Conversation, conversation_id)
            session.expunge(row)
            return row

    def all(self, table: Any) -> list[Any]:
        """All rows of a table."""
        with self.database.read() as session:
            found = list(session.exec(select(table).order_by(table.id)))
            session.expunge_all()
            return found


def score(label: str, labels: tuple[str, ...], sure: float | None) -> LabelScore:
    """A label with the rest of the probability spread over the others; None is a server that does not tell."""
    if sure is None:
        return LabelScore(label=label, confidence=None, scores={})
    rest = (1 - sure) / (len(labels) - 1)
    return LabelScore(label=label, confidence=sure, scores={x: sure if x == label else rest for x in labels})


@pytest.fixture
def inbox(database: Database) -> Inbox:
    """An inbox with one mailbox and the usual categories."""
    return Inbox(database)


@pytest.fixture
def app(database: Database, settings: Settings) -> FastAPI:
    """The desk. Its routes are the same for every test of the process: finding out what each needs takes a while."""
    app = _routes()
    equip(app, database, settings, Tools(reader=StoredEmails(database, settings)))
    return app


@cache
def _routes() -> FastAPI:
    return routes(https=False)


def person(database: Database, email: str, name: str, role: str = "agent") -> User:
    """Somebody who was added and has not signed in yet."""
    with database.write() as session:
        user, _ = users.create(session, email=email, name=name, role=role, actor="test")
        return user


@pytest.fixture
def ana(database: Database) -> User:
    """An agent."""
    return person(database, "ana@larkspur.example", "Ana")


@pytest.fixture
def ada(database: Database) -> User:
    """An admin."""
    return person(database, "ada@larkspur.example", "Ada", "admin")


@pytest.fixture
def nobody(app: FastAPI) -> TestClient:
    """A browser without a session."""
    return browser(app)


@pytest.fixture
def as_ana(app: FastAPI, database: Database, ana: User) -> TestClient:
    """Ana's browser, signed in."""
    return browser(app, session_for(database, ana))


@pytest.fixture
def as_ada(app: FastAPI, database: Database, ada: User) -> TestClient:
    """Ada's browser, signed in."""
    return browser(app, session_for(database, ada))


def session_for(database: Database, user: User) -> str:
    """A session token for the cookie."""
    with database.write() as session:
        return login_sessions.open_session(session, user, hours=1)


def browser(app: FastAPI, token: str = "") -> TestClient:
    """A client that shows redirects instead of following them, and errors as a browser would get them."""
    client = TestClient(app, follow_redirects=False, raise_server_exceptions=False)
    if token:
        sign_in_with(client, token)
    return client


def sign_in_with(client: TestClient, token: str) -> None:
    """Give a browser a session; the desk can replace it as it can in a real one."""
    client.cookies.set("briefbox", token, domain="testserver.local", path="/")
