"""An installation without processes: mail stored as the poller stores it, briefed as the worker does, judged as agents do."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count

from sqlmodel import col, select, update

from briefbox.db import Database, migrate
from briefbox.schemas import Address, Brief, BriefField, EmailKind, FetchedEmail, ParsedEmail
from briefbox.settings import Settings
from briefbox.store import adapters, conversations, ledger, mailboxes, users, work
from briefbox.store.ledger import Arrival
from briefbox.tables import Category, Conversation, Email, Mailbox, User
from models.engine import Engine

BATCH = 16
LEASE_SECONDS = 3600.0


class Inbox:
    """One mailbox, three agents, and the categories given."""

    def __init__(self, settings: Settings, categories: Sequence[str] = ()) -> None:
        self.settings = settings
        settings.ensure_data_dir()
        self.database = Database(settings.database_address)
        migrate(self.database)
        self._uids = count(1)
        self._loaded = ""
        with self.database.write() as session:
            row = Mailbox(
                name="support",
                address="support@larkspur.example",
                host="mail.larkspur.example",
                port=993,
                username="support",
                folders=["INBOX"],
            )
            self.mailbox = mailboxes.add(session, row, actor="bench").id
            if categories:
                session.exec(update(Category).values(retired_at=datetime.now(UTC)))
                known = {c.name: c for c in session.exec(select(Category))}
                for position, name in enumerate(categories):
                    category = known.get(name) or Category(name=name, description="", position=position)
                    category.retired_at, category.description = None, ""
                    session.add(category)
            self.agents = [
                users.create(session, email=f"{name}@desk.example", name=name, actor="bench")[0].id
                for name in ("ana", "bo", "cy")
            ]

    def receive(self, subject: str, text: str) -> int:
        """Store one customer mail; returns its id."""
        uid = next(self._uids)
        raw = f"{uid}\r\n{subject}\r\n{text}".encode()
        mail = ParsedEmail(
            subject=subject,
            sender=Address(name=f"Customer {uid}", address=f"customer{uid}@example.org"),
            to=(Address(address="support@larkspur.example"),),
            message_id=f"mail-{uid}@example.org",
            text=text,
            reply=text,
            kind=EmailKind.CUSTOMER,
        )
        with self.database.write() as session:
            lease = mailboxes.claim(session, self.mailbox, owner="bench", seconds=60)
            assert lease is not None
            cursor = ledger.open_folder(session, self.mailbox, "INBOX", 1)
            arrival = Arrival(FetchedEmail(uid, raw, len(raw), datetime.now(UTC)), mail)
            ledger.commit_batch(session, lease, cursor, [arrival], up_to=uid, lease_seconds=60)
            mailboxes.release(session, lease)
            return session.exec(select(Email.id).where(Email.sha256 == sha256(raw).hexdigest())).one()

    def brief(self, engine: Engine) -> list[tuple[int, Brief]]:
        """Brief all that waits with the adapter in use; email ids with their briefs."""
        made: list[tuple[int, Brief]] = []
        adapter = self.load_champion(engine)
        while True:
            with self.database.write() as session:
                claim = work.claim(session, owner="bench", limit=BATCH, seconds=LEASE_SECONDS, max_attempts=3)
            if claim is None:
                return made
            briefs = engine.brief([item.request for item in claim.emails], adapter)
            with self.database.write() as session:
                for item, brief in zip(claim.emails, briefs, strict=True):
                    work.finish(session, claim.token, item, brief)
                work.give_back(session, claim.token)
            made += [(item.email_id, brief) for item, brief in zip(claim.emails, briefs, strict=True)]

    def load_champion(self, engine: Engine) -> str:
        """The resident name of the adapter in use; "" is the bare base."""
        with self.database.read() as session:
            row = adapters.champion(session)
        if row is None:
            return ""
        return engine.load_adapter(self.settings.data_dir / row.path, row.name, row.weights_sha256)

    def judge(
        self, email_id: int, truth: dict[BriefField, str], rng: random.Random, *, agent: int | None = None
    ) -> bool:
        """An agent, any of them or this one, sets right what is wrong (or approves) and presses done.

        Returns whether anything was wrong.
        """
        with self.database.write() as session:
            user = session.get_one(User, rng.choice(self.agents) if agent is None else self.agents[agent])
            row = session.exec(
                select(Conversation)
                .join(Email, col(Email.conversation_id) == col(Conversation.id))
                .where(Email.id == email_id)
            ).one()
            wrong = {field: value for field, value in truth.items() if getattr(row, field) != value}
            for field, value in wrong.items():
                conversations.correct(session, row.id, field, value, user=user, before=getattr(row, field))
            if not wrong:
                conversations.confirm(session, row.id, user=user)
            conversations.finish(session, row.id, user=user)
        return bool(wrong)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
