"""A database of many conversations with emails, briefs and search entries, the same at each run.

Of a hundred conversations 95 are done and the rest open, answered or put off; priorities, categories, agents and
mailboxes are spread unevenly; words are as common as words are (the n-th one 1/n as often). All mails share one row of
raw bytes, which no list reads.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import accumulate
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from briefbox.db import Database, JSONText, to_json
from briefbox.schemas import PRIORITIES
from briefbox.store import rows, search, search_words
from briefbox.tables import Brief, Category, Conversation, Email, Mailbox, RawEmail, User

CHUNK = 20_000
CATEGORIES = ("order", "delivery", "refund", "technical problem", "billing", "cancellation")
RARE = "zirconium"  # in one mail of 50,000
FREQUENT = "order"  # in two thirds of them
TWO = "refund broken"
_START = datetime(2026, 1, 1, tzinfo=UTC)
# Where agents' names and words come from; the first words are the commonest.
_WORDS = (
    "order",
    "the",
    "refund",
    "parcel",
    "invoice",
    "broken",
    "account",
    "password",
    "delivery",
    "please",
)


class Maker:
    """Makes rows by their number, from one seed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._chance = random.Random(7)
        names = [*_WORDS, *(_word(n) for n in range(20_000))]
        self.words = [*names, RARE, "question", "example", "org"]
        weights = list(accumulate(1 / (n + 3) for n in range(len(names))))
        # Sentences are put together once: a mail is some of them and words of its own.
        self._sentences = [self._chance.choices(names, cum_weights=weights, k=8) for _ in range(20_000)]
        self._newest = datetime.now(UTC)

    def chunks(self) -> Iterator[list[int]]:
        for first in range(1, self.number + 1, CHUNK):
            yield list(range(first, min(first + CHUNK, self.number + 1)))

    def conversation(self, id_: int) -> dict[str, Any]:
        chance = self._chance
        # The newer, the less is done: 95 % of all.
        age = (self.number - id_) / self.number
        state = (
            "done"
            if chance.random() < 0.95
            else chance.choices(("open", "answered", "snoozed"), (7, 2, 1))[0]
        )
        opened = self._newest - timedelta(days=700 * age, seconds=chance.random() * 60)
        priority = chance.choices(PRIORITIES, (3, 17, 60, 20))[0]
        doubt = ["category"] if chance.random() < 0.08 else []
        return {
            "mailbox_id": chance.choices((1, 2, 3, 4, 5, 6), (60, 20, 10, 6, 3, 1))[0],
            "subject": f"Question {id_}",
            "customer_name": f"Customer {id_ % 300_000}",
            "customer_address": f"customer{id_ % 300_000}@example.org",
            "subject_key": f"question {id_}",
            "participants": [f"customer{id_ % 300_000}@example.org"],
            "state": state,
            "snoozed_until": self._newest + timedelta(hours=1 + chance.random() * 200)
            if state == "snoozed"
            else None,
            "assigned_to": chance.choices((None, 1, 2, 3, 4, 5, 6), (30, 25, 20, 12, 8, 4, 1))[0],
            "priority": priority,
            "priority_rank": PRIORITIES.index(priority),
            "category": chance.choices(CATEGORIES, (40, 25, 15, 12, 7, 1))[0],
            "headline": " ".join(self._sentence()).capitalize(),
            "summary": " ".join([*self._sentence(), *self._sentence()]).capitalize() + ".",
            "needs_human": doubt,
            "in_doubt": bool(doubt),
            "brief_id": id_,
            "num_emails": 2 if id_ % 4 == 0 else 1,
            "waiting_since": opened,
            "answered_at": opened + timedelta(hours=2) if state == "answered" else None,
            "opened_at": opened,
            "updated_at": opened + timedelta(hours=3) if state != "open" else opened,
            "done_at": opened + timedelta(hours=3 + 20 * chance.random()) if state == "done" else None,
            "done_by": 1 if state == "done" else None,
        }

    def email(self, id_: int, conversation_id: int, at: datetime) -> tuple[dict[str, Any], search.Fields]:
        said = [
            *self._sentence(),
            *self._sentence(),
            *self._sentence(),
            *self._sentence(),
            str(100_000 + id_),
        ]
        if id_ % 50_000 == 77:
            said.append(RARE)
        customer = f"customer{conversation_id % 300_000}"
        body = " ".join(said)
        subject = f"Question {conversation_id}"
        parsed = {
            "subject": subject,
            "sender": {"name": customer, "address": f"{customer}@example.org"},
            "text": body,
        }
        email = {
            "mailbox_id": 1,
            "conversation_id": conversation_id,
            "raw_id": 1,
            "sha256": sha256(str(id_).encode()).hexdigest(),
            "message_id": f"{id_}@example.org",
            "from_name": customer,
            "from_address": f"{customer}@example.org",
            "subject": subject,
            "language": "en",
            "received_at": at,
            "parsed": JSONText(to_json(parsed)),
            "work_state": "done",
            "not_before": at,
            "created_at": at,
        }
        return email, (search_words.words(subject), [customer, customer, "example", "org"], said)

    def _sentence(self) -> list[str]:
        return self._sentences[int(self._chance.random() * len(self._sentences))]


def _word(number: int) -> str:
    """A word that can be spoken, for each number another one."""
    letters = ""
    number += 100
    while number:
        number, one = divmod(number, 100)
        letters += "bdfgklmnprstvz"[one % 14] + "aeiouy"[one // 14 % 6] + ("" if one < 84 else "n")
    return letters


def fill(database: Database, number: int) -> None:
    """Write `number` conversations into a migrated, empty database."""
    maker = Maker(number)
    with _in_one_go(database), database.write() as session:
        _people(session)
    next_email = 1
    with _in_one_go(database), _without_indexes(database):
        for ids in maker.chunks():
            with database.write() as session:
                next_email = _chunk(session, maker, ids, next_email)
    if not database.is_sqlite:  # as its autovacuum does by itself; SQLite has no statistics in use either
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def _people(session: Session) -> None:
    moment = datetime.now(UTC)
    for n in range(1, 7):
        session.add(User(email=f"agent{n}@example.org", name=f"Agent {n}", created_at=moment))
        session.add(
            Mailbox(
                name=f"box{n}",
                address=f"box{n}@example.org",
                host="-",
                port=1,
                username="-",
                folders=["INBOX"],
                created_at=moment,
            )
        )
    known = {row.name for row in session.exec(rows.table_of(Category).select())}
    for name in CATEGORIES:
        if name not in known:
            session.add(Category(name=name))
    rows.insert(session, RawEmail, [{"sha256": "0", "size": 0, "data": b""}])


def _chunk(session: Session, maker: Maker, ids: Sequence[int], next_email: int) -> int:
    made = {id_: maker.conversation(id_) for id_ in ids}
    rows.insert(session, Conversation, list(made.values()))
    emails, mails, briefs, said = [], {}, [], {}
    for id_, conversation in made.items():
        for n in range(conversation["num_emails"]):
            email, fields = maker.email(next_email, id_, conversation["opened_at"] + timedelta(minutes=n))
            emails.append(email)
            mails[next_email] = fields
            next_email += 1
        briefs.append(_brief(next_email - 1, id_, conversation))
        said[next_email - 1] = (
            conversation["headline"].lower().split(),
            conversation["summary"].lower().rstrip(".").split(),
        )
    rows.insert(session, Email, emails)
    rows.insert(session, Brief, briefs)
    search.insert_entries(session, "email_search", mails)
    search.insert_entries(session, "brief_search", said)
    if ids[0] == 1:
        search.insert_words(session, maker.words)
    return next_email


def _brief(email_id: int, conversation_id: int, conversation: dict[str, Any]) -> dict[str, Any]:
    return {
        "email_id": email_id,
        "conversation_id": conversation_id,
        **{
            name: conversation[name]
            for name in ("headline", "summary", "priority", "category", "needs_human")
        },
        "priority_confidence": 0.9,
        "priority_scores": {},
        "category_confidence": 0.9,
        "category_scores": {},
        "engine": "fake",
        "base_model": "fake",
        "prompt_version": "1",
        "created_at": conversation["opened_at"],
    }


@contextmanager
def _in_one_go(database: Database) -> Iterator[None]:
    """A set-up need not outlive a power cut."""
    if database.is_sqlite:
        with database.engine.connect() as connection:
            connection.connection.driver_connection.execute("PRAGMA synchronous=OFF")  # type: ignore[union-attr]
    yield


@contextmanager
def _without_indexes(database: Database) -> Iterator[None]:
    """Indexes are built once at the end, in a fraction of the time."""
    tables = ("conversations", "emails", "briefs", "email_search", "brief_search")
    if database.is_sqlite:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN :tables"
    else:
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN :tables"
            " AND indexname NOT LIKE 'pk_%' AND indexname NOT LIKE 'uq_%' AND indexname NOT LIKE '%_pkey'"
        )
    with database.write() as session:
        statement = text(query.replace(":tables", str(tables)))
        found = [(name, sql) for name, sql in session.connection().execute(statement)]
        for name, _ in found:
            session.connection().exec_driver_sql(f'DROP INDEX "{name}"')
    yield
    with database.write() as session:
        if not database.is_sqlite:
            session.connection().exec_driver_sql("SET LOCAL maintenance_work_mem = '512MB'")
        for _, sql in found:
            session.connection().exec_driver_sql(sql)
