"""Which conversation an email belongs to, for a whole batch in a fixed number of statements.

1. a bounce: the conversation of the mail that it is about;
2. the nearest mail that it names in In-Reply-To or References and that we hold, if the sender has a part in that
   conversation or the subject is the same: an id alone is easy to forge and to share;
3. a mail that others named and nobody has seen yet: only among people who have a part in the conversation;
4. the same customer and the same subject within some days of its last mail, if it looks like an answer;
5. otherwise a new conversation, for mail of a kind that is briefed. No other kind ever opens one.

Ids and subjects are compared as thread_keys.py folds them. An empty id joins nothing. docs/conversations.md is the
same in more words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlalchemy import bindparam, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm.util import identity_key
from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.schemas import EmailKind, ParsedEmail
from briefbox.store import events, rows
from briefbox.store.handling import Handling
from briefbox.store.thread_match import Known, Mail, PlacedEmail, Thread, our_addresses
from briefbox.tables import Activity, Conversation, Email, ThreadId


def place(
    session: Session,
    mailbox_id: int,
    emails: Sequence[tuple[ParsedEmail, PlacedEmail]],
    *,
    handling: Handling = Handling(),
    closed: bool = False,
) -> list["Turn"]:
    """Give each new email its conversation. `closed`: it was there before us, and nobody waits for an answer.

    Sets `conversation_id` and writes the conversations; the emails are the caller's to store. Emails of a kind that
    is not briefed keep None when they belong nowhere. What answered or reopened a conversation is returned: the
    caller records it once the emails are stored.
    """
    if not emails:
        return []
    ours = our_addresses(session, mailbox_id)
    mails = [Mail.of(parsed, email, ours, handling) for parsed, email in emails]
    # UIDs are not the order of reception: within a batch the server's own times are.
    mails.sort(key=lambda mail: mail.at)
    known = Known.load(session, mailbox_id, mails, handling)
    for mail in mails:
        thread = known.find(mail)
        if thread is None and mail.opens:
            thread = Thread.opened_by(mail)
        if thread is not None:
            known.note(thread, mail)
    for thread, mail in known.find_our_own(session, mailbox_id, ours, handling):
        known.note(thread, mail)
    return _write(session, mailbox_id, known, handling, closed=closed)


@dataclass(frozen=True, slots=True)
class Turn:
    """A mail that answered a conversation, or reopened it."""

    thread: Thread
    kind: Literal["answered", "reopened"]
    email: PlacedEmail
    was: str  # the state before


def record_turns(session: Session, turns: Sequence[Turn]) -> None:
    """Keep what mail did to conversations beside what people did, once the mails have their ids."""
    moment = now(session) if turns else None
    values = [
        {
            "conversation_id": turn.thread.id,
            "kind": turn.kind,
            "detail": {"email": turn.email.id, "was": turn.was},
            "created_at": moment,
        }
        for turn in turns
    ]
    rows.insert(session, Activity, values)


# --- what is written


class Waiting(Protocol):
    """What the coming and going of mail changes of a conversation."""

    state: str
    snoozed_until: datetime | None
    waiting_since: datetime
    answered_at: datetime | None
    done_at: datetime | None
    done_by: int | None


def wait_again(conversation: Waiting, at: datetime) -> None:
    """A mail that wants an answer came in at this time. A customer who writes again is waiting again."""
    if conversation.state == "done":
        conversation.done_at, conversation.done_by = None, None
        conversation.waiting_since, conversation.answered_at = at, None
    elif conversation.answered_at is None:
        conversation.waiting_since = min(conversation.waiting_since, at)
    elif at >= conversation.answered_at:
        # Servers tell seconds: a mail of the same one had better wait than be overlooked.
        conversation.waiting_since, conversation.answered_at = at, None
    else:  # it was answered already, and is read late
        return
    conversation.state, conversation.snoozed_until = "open", None


def answered(conversation: Waiting, at: datetime, last_customer_at: datetime | None) -> None:
    """A mail of ours went out at this time; folders are read one after the other, so that newer mail may be here already."""
    if conversation.state not in ("open", "answered", "snoozed") or at < conversation.waiting_since:
        return
    if last_customer_at is not None and last_customer_at > at:
        conversation.waiting_since = last_customer_at
        return
    conversation.answered_at = max(conversation.answered_at or at, at)
    if conversation.state == "open":  # one that was put off comes back at its time
        conversation.state = "answered"


@dataclass(slots=True)
class _Row:
    """The columns of a conversation that a batch changes."""

    state: str
    num_emails: int
    version: int
    snoozed_until: datetime | None
    waiting_since: datetime
    answered_at: datetime | None
    updated_at: datetime
    done_at: datetime | None
    done_by: int | None
    participants: list[str] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CHANGED}


_CHANGED = tuple(_Row.__dataclass_fields__)


def _write(
    session: Session, mailbox_id: int, known: Known, handling: Handling, *, closed: bool
) -> list[Turn]:
    targets = known.targets
    if not targets:
        return []
    session.flush()
    stored = _locked(session, targets)
    last_customer = _last_customer_mails(session, targets, handling)
    changed: list[tuple[Thread, _Row]] = []
    turns: list[Turn] = []
    for thread in targets:
        row = _new_row(thread.mails[0], closed=closed) if thread.id is None else stored[thread.id]
        last = last_customer.get(thread.id) if thread.id is not None else None
        for mail in thread.mails:
            was, was_answered = row.state, row.answered_at is not None
            last = _arrive(row, mail, last, closed=closed)
            if row.answered_at is not None and not was_answered:
                turns.append(Turn(thread, "answered", mail.email, was))
            elif row.state == "open" and was != "open":
                turns.append(Turn(thread, "reopened", mail.email, was))
        row.participants = sorted({*row.participants, *thread.participants})
        changed.append((thread, row))
    _insert(session, mailbox_id, [(thread, row) for thread, row in changed if thread.id is None])
    _update(session, [(thread, row) for thread, row in changed if thread.mails and thread.id in stored])
    _remember_ids(session, mailbox_id, known)
    for thread in targets:
        for mail in thread.mails:
            mail.email.conversation_id = thread.id
    if not closed:  # mail that was there before us is no news
        told = [thread.id for thread in targets if thread.mails and thread.id is not None]
        events.changed_by_id(session, mailbox_id, told)
    return turns


def _arrive(row: _Row, mail: Mail, last_customer: datetime | None, *, closed: bool) -> datetime | None:
    """Count a mail in. Returns when the customer's newest mail came."""
    row.num_emails += 1
    row.version += 1
    row.updated_at = max(row.updated_at, mail.email.created_at)
    if mail.email.kind == EmailKind.OWN:
        answered(row, mail.at, last_customer)
    elif mail.opens:
        if not closed:
            wait_again(row, mail.at)
        return max(last_customer or mail.at, mail.at)
    return last_customer


def _new_row(mail: Mail, *, closed: bool) -> _Row:
    return _Row(
        state="done" if closed else "open",
        num_emails=0,
        version=1,
        snoozed_until=None,
        waiting_since=mail.at,
        answered_at=None,
        updated_at=mail.email.created_at,
        done_at=mail.at if closed else None,  # among the finished ones it stands where it belongs by its age
        done_by=None,
    )


def _locked(session: Session, targets: Sequence[Thread]) -> dict[int, _Row]:
    """The stored conversations as they stand now, held against agents until the commit.

    One that was merged since we looked is followed to where its mail is now.
    """
    found_rows: dict[int, _Row] = {}
    wanted = {thread.id for thread in targets if thread.id is not None}
    table = rows.table_of(Conversation)
    columns = [table.c[name] for name in (*_CHANGED, "id", "merged_into")]
    while wanted:
        query = select(*columns).where(table.c.id.in_(wanted)).order_by(table.c.id).with_for_update()
        moved: dict[int, int] = {}
        for found in session.connection().execute(query).mappings():
            if found["state"] == "merged":
                moved[found["id"]] = found["merged_into"]
            else:
                found_rows[found["id"]] = _Row(**{name: found[name] for name in _CHANGED})
        for thread in targets:
            if thread.id in moved:
                thread.id = moved[thread.id]
        wanted = set(moved.values()) - set(found_rows)
    return found_rows


def _last_customer_mails(
    session: Session, targets: Sequence[Thread], handling: Handling
) -> dict[int, datetime]:
    """When the customer's newest stored mail came, for conversations that a mail of ours joins."""
    ids = {t.id for t in targets if t.id and any(mail.email.kind == EmailKind.OWN for mail in t.mails)}
    if not ids:
        return {}
    query = (
        select(Email.conversation_id, func.max(Email.received_at))
        .where(col(Email.conversation_id).in_(ids), col(Email.kind).in_(handling.brief_kinds))
        .group_by(col(Email.conversation_id))
    )
    return {id_: at for id_, at in session.exec(query) if id_ is not None}


def _insert(session: Session, mailbox_id: int, new: Sequence[tuple[Thread, _Row]]) -> None:
    values = []
    for thread, row in new:
        email = thread.mails[0].email
        values.append(
            {
                **row.values(),
                "mailbox_id": mailbox_id,
                "subject": email.subject,
                "subject_key": thread.subject,
                "customer_name": email.from_name,
                "customer_address": thread.customer,
                "opened_at": email.created_at,
            }
        )
    ids = rows.insert(session, Conversation, values)
    for (thread, _), id_ in zip(new, ids, strict=True):
        thread.id = id_


def _update(session: Session, changed: Sequence[tuple[Thread, _Row]]) -> None:
    if not changed:
        return
    table = rows.table_of(Conversation)
    statement = table.update().where(table.c.id == bindparam("row"))
    statement = statement.values({name: bindparam(f"new_{name}") for name in _CHANGED})
    values = [
        {"row": thread.id, **{f"new_{name}": value for name, value in row.values().items()}}
        for thread, row in changed
    ]
    session.connection().execute(statement, values)
    for thread, _ in changed:
        stale = session.identity_map.get(identity_key(Conversation, thread.id))
        if stale is not None:
            session.expire(stale)


def _remember_ids(session: Session, mailbox_id: int, known: Known) -> None:
    ids: dict[tuple[str, int], bool] = {}
    for thread in known.targets:
        assert thread.id is not None
        for mail in thread.mails:
            for key in (*mail.named, mail.bounced):
                if key:
                    ids.setdefault((key, thread.id), False)
            ids.update({(key, thread.id): True for key in mail.own})
    known_too = known.stored
    store_ids(
        session,
        mailbox_id,
        {
            (key, id_): held
            for (key, id_), held in ids.items()
            if (key, id_, held) not in known_too and (key, id_, True) not in known_too
        },
    )


def store_ids(session: Session, mailbox_id: int, ids: dict[tuple[str, int], bool]) -> None:
    """Remember what a conversation is told by: `held` for each (key, conversation). What is held stays so."""
    if not ids:
        return
    connection = session.connection()
    # In one order for everybody, so that two who write at once do not wait for each other.
    keys, wanted, held = zip(*((key, id_, held) for (key, id_), held in sorted(ids.items())), strict=True)
    if connection.dialect.name == "postgresql":
        # Row by row, most of the time would go into the driver.
        arrays = {"mailbox": mailbox_id, "keys": list(keys), "ids": list(wanted), "held": list(held)}
        connection.execute(_STORE_MANY, arrays)
        return
    table = rows.table_of(ThreadId)
    statement = sqlite.insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=[table.c.mailbox_id, table.c.message_id, table.c.conversation_id],
        set_={"held": table.c.held | statement.excluded.held},
    )
    connection.execute(
        statement,
        [
            {"mailbox_id": mailbox_id, "message_id": key, "conversation_id": id_, "held": is_held}
            for key, id_, is_held in zip(keys, wanted, held, strict=True)
        ],
    )


_STORE_MANY = text("""
    INSERT INTO thread_ids (mailbox_id, message_id, conversation_id, held)
    SELECT :mailbox, one.* FROM unnest(CAST(:keys AS text[]), CAST(:ids AS integer[]), CAST(:held AS boolean[])) AS one
    ON CONFLICT (mailbox_id, message_id, conversation_id) DO UPDATE SET held = thread_ids.held OR excluded.held
""")
