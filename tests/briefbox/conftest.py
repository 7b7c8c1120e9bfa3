"""Fixtures of the tests about conversations."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import FetchedEmail, ParsedEmail
from briefbox.store import accounting, ledger, mailboxes
from briefbox.store.ledger import Arrival
from briefbox.tables import Email, LedgerEntry, Mailbox
from tests.briefbox.mails import START, Receive


@pytest.fixture
def receive(database: Database, mailbox: Mailbox) -> Receive:
    """Commit one batch; returns the conversation of each mail in the order given."""
    uids = count(1)

    def receive(*mails: ParsedEmail, **options: Any) -> list[int | None]:
        arrivals = []
        for parsed in mails:
            uid = next(uids)
            raw = f"{uid} {parsed.message_id}".encode()
            when = START + timedelta(hours=float(parsed.warnings[0]))
            arrivals.append(Arrival(FetchedEmail(uid, raw, len(raw), when), parsed))
        with database.write() as session:
            lease = mailboxes.claim(session, mailbox.id, owner="test", seconds=60)
            assert lease is not None
            cursor = ledger.open_folder(session, mailbox.id, "INBOX", 1)
            ledger.commit_batch(
                session,
                lease,
                cursor,
                arrivals,
                up_to=arrivals[-1].fetched.uid,
                lease_seconds=60,
                **options,
            )
            mailboxes.release(session, lease)
        with database.read() as session:
            stored = session.exec(
                select(LedgerEntry.uid, Email.conversation_id)
                .join(Email, Email.id == LedgerEntry.email_id)  # type: ignore[arg-type]
                .where(LedgerEntry.uid >= arrivals[0].fetched.uid)
            )
            found = dict(stored.all())
        return [found[a.fetched.uid] for a in arrivals]

    return receive


@pytest.fixture
def audited(database: Database) -> Iterator[None]:
    """Whatever a test does, everything is accounted for afterwards."""
    yield
    with database.read() as session:
        broken = [f for f in accounting.audit(session) if f.broken and not f.name.startswith("stuck")]
    assert broken == []
