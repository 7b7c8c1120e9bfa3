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

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm.util import identity_key
from sqlmodel import Session, SQLModel, col, func, select

from briefbox.schemas import EmailKind, ParsedEmail
from briefbox.settings import Settings
from briefbox.store.thread_keys import id_key, is_reply, num_words, says_enough, subject_key
from briefbox.tables import Conversation, Email, Mailbox, ThreadId

# Ids that one mail is looked up by: itself, what it answers, the nearest references, and the first one.
MAX_NAMED = 40
MAX_OWN = 10
# Conversations that one id may lead to before it says nothing: some senders give all their mail the same id.
MAX_SHARED = 20
MAX_PARTICIPANTS = 200
# A new mail under the old subject joins without "Re:" only if the subject is as long as that.
MIN_WORDS = 4
_IDS_IN_A_QUERY = 20_000  # SQLite takes 32,766 values, PostgreSQL 65,535

_QUOTE = re.compile(r"^\s*>", re.MULTILINE)
# Addresses that write in the name of many people: the same subject says nothing about who it is.
_MACHINE = re.compile(
    r"(?:no|do-?not|dont|not?)[-_.]?reply|notif\w*|alerts?|mailer\w*|(?:contact|web)?[-_.]?forms?|formular|kontaktformular|"
    r"wordpress|www-data|web(?:site|master|server)|apache|nobody|system|robot|bot|daemon|root|postmaster",
    re.IGNORECASE,
)

CUSTOMER, PARTICIPANT, SAME_SUBJECT, STRANGER = 3, 2, 1, 0


@dataclass(frozen=True, slots=True)
class Handling:
    """What the settings say about mail: which kinds are briefed, and how long a subject alone joins a conversation."""

    brief_kinds: frozenset[str] = frozenset({EmailKind.CUSTOMER.value})
    thread_days: float = 14

    @classmethod
    def of(cls, settings: Settings) -> "Handling":
        """The part of the settings."""
        return cls(frozenset(settings.brief_kinds), settings.thread_days)


def place(
    session: Session,
    mailbox_id: int,
    emails: Sequence[tuple[ParsedEmail, Email]],
    *,
    handling: Handling = Handling(),
    closed: bool = False,
) -> None:
    """Give each new email its conversation. `closed`: it was there before us, and nobody waits for an answer.

    Sets `conversation_id` and writes the conversations; the emails are the caller's to store. Emails of a kind that
    is not briefed keep None when they belong nowhere.
    """
    if not emails:
        return
    ours = _our_addresses(session, mailbox_id)
    mails = [_Mail.of(parsed, email, ours, handling) for parsed, email in emails]
    # UIDs are not the order of reception: within a batch the server's own times are.
    mails.sort(key=lambda mail: mail.at)
    known = _Known.load(session, mailbox_id, mails, handling)
    for mail in mails:
        thread = known.find(mail)
        if thread is None and mail.opens:
            thread = _Thread.opened_by(mail)
        if thread is not None:
            known.note(thread, mail)
    _write(session, mailbox_id, known, handling, closed=closed)


# --- one mail


@dataclass(slots=True, eq=False)
class _Mail:
    parsed: ParsedEmail
    email: Email
    own: tuple[str, ...]  # ids that it has or had
    named: tuple[str, ...]  # ids that it names, nearest first
    bounced: str
    people: frozenset[
        str
    ]  # who must have a part in the conversation: the sender; of our own mail its recipients
    addressed: frozenset[str]  # everybody in it but us
    subject: str
    opens: bool

    @classmethod
    def of(cls, parsed: ParsedEmail, email: Email, ours: frozenset[str], handling: Handling) -> "_Mail":
        recipients = _folded(a.address for a in (*parsed.to, *parsed.cc)) - ours
        sender = _folded([email.from_address]) - ours
        return cls(
            parsed,
            email,
            own=_keys((parsed.message_id, *parsed.other_ids), MAX_OWN),
            named=_named(parsed),
            bounced=id_key(parsed.bounced_id),
            people=recipients if email.kind == EmailKind.OWN else sender,
            addressed=sender | recipients,
            subject=subject_key(parsed.subject),
            opens=email.kind in handling.brief_kinds,
        )

    @property
    def at(self) -> datetime:
        return self.email.received_at

    @property
    def looks_like_an_answer(self) -> bool:
        """By its subject, or because it names or quotes something that we do not know."""
        if is_reply(self.parsed.subject):
            return True
        if self.email.kind == EmailKind.OWN:
            return False
        return bool(self.named or self.parsed.quoted or _QUOTE.search(self.parsed.text[:20_000]))

    @property
    def may_go_by_subject(self) -> bool:
        """Rule 4, as far as the mail alone can tell."""
        if not (self.opens or self.email.kind == EmailKind.OWN) or not says_enough(self.subject):
            return False
        return self.looks_like_an_answer or self._repeats

    @property
    def _repeats(self) -> bool:
        """The same long subject once more, from an address that is one person's."""
        local = self.email.from_address.partition("@")[0]
        is_own = self.email.kind == EmailKind.OWN
        return not is_own and num_words(self.subject) >= MIN_WORDS and not _MACHINE.fullmatch(local)

    def affinity(self, thread: "_Thread") -> int:
        """How much says that it belongs there, beside an id."""
        if thread.customer in self.people:
            return CUSTOMER
        if not self.people.isdisjoint(thread.participants):
            return PARTICIPANT
        return SAME_SUBJECT if self.subject and self.subject == thread.subject else STRANGER


def _named(parsed: ParsedEmail) -> tuple[str, ...]:
    nearest = (*parsed.in_reply_to, *reversed(parsed.references))
    if len(nearest) > MAX_NAMED:
        nearest = (*nearest[: MAX_NAMED - 1], nearest[-1])
    return _keys(nearest, MAX_NAMED)


def _keys(ids: Iterable[str], limit: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for key in map(id_key, ids) if key))[:limit]


def _folded(addresses: Iterable[str]) -> frozenset[str]:
    return frozenset(a for a in (address.strip().lower() for address in addresses) if a)


# --- one conversation, as far as this batch needs it


@dataclass(slots=True, eq=False)
class _Thread:
    id: int | None
    subject: str
    customer: str
    name: str
    participants: set[str]
    first_at: datetime | None = None  # known only where rule 4 asked for it
    last_at: datetime | None = None
    mails: list[_Mail] = field(default_factory=list)

    @classmethod
    def opened_by(cls, mail: _Mail) -> "_Thread":
        customer = mail.email.from_address.strip().lower()
        return cls(None, mail.subject, customer, mail.email.from_name.lower(), set(), mail.at, mail.at)

    def is_near(self, at: datetime, days: float) -> bool:
        if self.first_at is None or self.last_at is None:
            return False
        window = timedelta(days=days)
        return self.first_at - window <= at <= self.last_at + window


class _Known:
    """What is known while a batch is placed: ids and subjects of stored conversations and of those just opened."""

    def __init__(self, days: float) -> None:
        self.days = days
        self.held: dict[str, list[_Thread]] = defaultdict(list)
        self.only_named: dict[str, list[_Thread]] = defaultdict(list)
        self.by_subject: dict[tuple[str, str], list[_Thread]] = defaultdict(list)
        self.targets: list[_Thread] = []
        self.stored: set[tuple[str, int, bool]] = set()

    @classmethod
    def load(cls, session: Session, mailbox_id: int, mails: Sequence[_Mail], handling: Handling) -> "_Known":
        known = cls(handling.thread_days)
        wanted = {key for mail in mails for key in (*mail.own, *mail.named, mail.bounced) if key}
        rows = _stored_ids(session, mailbox_id, wanted)
        known.stored = set(rows)
        threads = _stored_threads(session, {conversation_id for _, conversation_id, _ in rows})
        for key, conversation_id, held in rows:
            if conversation_id in threads:
                (known.held if held else known.only_named)[key].append(threads[conversation_id])
        if known.days > 0:
            for thread in _threads_by_subject(session, mailbox_id, mails, threads):
                known.by_subject[thread.customer, thread.subject].append(thread)
        return known

    def find(self, mail: _Mail) -> _Thread | None:
        """The conversation that it joins, by the rules in their order."""
        if mail.email.kind == EmailKind.SPAM and not mail.opens:
            return None
        return self._of_bounced(mail) or self._of_held(mail) or self._of_named(mail) or self._of_subject(mail)

    def _of_bounced(self, mail: _Mail) -> _Thread | None:
        if mail.email.kind != EmailKind.BOUNCE or not mail.bounced:
            return None
        found = [*self.held.get(mail.bounced, ()), *self.only_named.get(mail.bounced, ())]
        return max(found, key=mail.affinity, default=None)

    def _of_held(self, mail: _Mail) -> _Thread | None:
        for key in mail.named:
            if thread := _best(mail, self.held.get(key, ()), at_least=SAME_SUBJECT):
                return thread
        # The same mail by another way: a resend, a list's copy. The same id alone is a broken or a lying sender.
        same = [
            t
            for key in mail.own
            for t in self.held.get(key, ())
            if mail.subject and t.subject == mail.subject
        ]
        return _best(mail, same, at_least=CUSTOMER)

    def _of_named(self, mail: _Mail) -> _Thread | None:
        for key in mail.named:
            if thread := _best(mail, self.only_named.get(key, ()), at_least=PARTICIPANT):
                return thread
        # What it is itself was named before it came.
        named = [t for key in mail.own for t in self.only_named.get(key, ())]
        return _best(mail, named, at_least=PARTICIPANT)

    def _of_subject(self, mail: _Mail) -> _Thread | None:
        if self.days <= 0 or not mail.may_go_by_subject:
            return None
        # Many people may write from one address; then their names differ.
        name = None if mail.looks_like_an_answer else mail.email.from_name.lower()
        found = [
            thread
            for address in sorted(mail.people)
            for thread in self.by_subject.get((address, mail.subject), ())
            if thread.is_near(mail.at, self.days) and name in (None, thread.name)
        ]
        return max(found, key=lambda thread: thread.last_at or mail.at, default=None)

    def note(self, thread: _Thread, mail: _Mail) -> None:
        """It stands in this conversation now; what comes after it in the batch can tell."""
        if not thread.mails:
            self.targets.append(thread)
            if thread.id is None:
                self.by_subject[thread.customer, thread.subject].append(thread)
        thread.mails.append(mail)
        if len(thread.participants) < MAX_PARTICIPANTS:
            thread.participants |= mail.addressed
        thread.first_at = min(thread.first_at, mail.at) if thread.first_at else None
        thread.last_at = max(thread.last_at, mail.at) if thread.last_at else None
        for key in mail.own:
            self.held[key].append(thread)
        for key in (*mail.named, mail.bounced):
            if key:
                self.only_named[key].append(thread)


def _best(mail: _Mail, threads: Iterable[_Thread], *, at_least: int) -> _Thread | None:
    """The conversation it has most to do with; of equals the first."""
    best = max(threads, key=mail.affinity, default=None)
    return best if best is not None and mail.affinity(best) >= at_least else None


# --- what is stored


def _our_addresses(session: Session, mailbox_id: int) -> frozenset[str]:
    found = session.exec(select(Mailbox.address, Mailbox.addresses).where(Mailbox.id == mailbox_id)).first()
    return _folded((found[0], *found[1])) if found else frozenset()


def _stored_ids(session: Session, mailbox_id: int, keys: set[str]) -> list[tuple[str, int, bool]]:
    """(key, conversation, held) of these keys; of one that leads to very many conversations the first ones."""
    found: list[tuple[str, int, bool]] = []
    wanted = sorted(keys)
    for start in range(0, len(wanted), _IDS_IN_A_QUERY):
        ranked = (
            select(
                ThreadId.message_id,
                ThreadId.conversation_id,
                ThreadId.held,
                func.row_number()
                .over(partition_by=col(ThreadId.message_id), order_by=col(ThreadId.conversation_id))
                .label("place"),
            )
            .where(
                ThreadId.mailbox_id == mailbox_id,
                col(ThreadId.message_id).in_(wanted[start : start + _IDS_IN_A_QUERY]),
            )
            .subquery()
        )
        at = ranked.c
        rows = session.connection().execute(
            select(at.message_id, at.conversation_id, at.held)
            .where(at.place <= MAX_SHARED)
            .order_by(at.conversation_id)
        )
        found += [(row[0], row[1], row[2]) for row in rows]
    return found


_THREAD = (
    Conversation.id,
    Conversation.subject,
    Conversation.subject_key,
    Conversation.customer_address,
    Conversation.customer_name,
    Conversation.participants,
)


def _thread(row: Any) -> _Thread:
    return _Thread(
        row.id,
        row.subject_key or subject_key(row.subject),
        row.customer_address.lower(),
        row.customer_name.lower(),
        set(row.participants),
    )


def _stored_threads(session: Session, ids: set[int]) -> dict[int, _Thread]:
    if not ids:
        return {}
    query = select(*_THREAD).where(col(Conversation.id).in_(ids), Conversation.state != "merged")  # type: ignore[call-overload]
    return {row.id: _thread(row) for row in session.connection().execute(query)}


def _threads_by_subject(
    session: Session, mailbox_id: int, mails: Sequence[_Mail], known: dict[int, _Thread]
) -> list[_Thread]:
    """Conversations that rule 4 may choose, with when their first and last mails came."""
    asking = [mail for mail in mails if mail.may_go_by_subject]
    if not asking:
        return []
    times = func.min(Email.received_at), func.max(Email.received_at)
    query = (
        select(*_THREAD, times[0].label("first_at"), times[1].label("last_at"))  # type: ignore[call-overload]
        .join(Email, col(Email.conversation_id) == col(Conversation.id))
        .where(
            Conversation.mailbox_id == mailbox_id,
            col(Conversation.customer_address).in_({address for mail in asking for address in mail.people}),
            col(Conversation.subject_key).in_({mail.subject for mail in asking}),
            Conversation.state != "merged",
        )
        .group_by(col(Conversation.id))
        .order_by(col(Conversation.id))
    )
    found = []
    for row in session.connection().execute(query):
        thread = known.setdefault(row.id, _thread(row))
        thread.first_at, thread.last_at = row.first_at, row.last_at
        found.append(thread)
    return found


# --- what is written


class Waiting(Protocol):
    """What the coming and going of mail changes of a conversation."""

    state: str
    waiting_since: datetime
    answered_at: datetime | None
    done_at: datetime | None
    done_by: int | None


def wait_again(conversation: Waiting, at: datetime) -> None:
    """A mail that wants an answer came in at this time. A customer who writes again is waiting again."""
    if conversation.state == "done":
        conversation.state, conversation.done_at, conversation.done_by = "open", None, None
        conversation.waiting_since, conversation.answered_at = at, None
    elif conversation.answered_at is None:
        conversation.waiting_since = min(conversation.waiting_since, at)
    elif at > conversation.answered_at:
        conversation.waiting_since, conversation.answered_at = at, None


def answered(conversation: Waiting, at: datetime, last_customer_at: datetime | None) -> None:
    """A mail of ours went out at this time; folders are read one after the other, so that newer mail may be here already."""
    if conversation.state != "open" or at < conversation.waiting_since:
        return
    if last_customer_at is not None and last_customer_at > at:
        conversation.waiting_since = last_customer_at
    else:
        conversation.answered_at = max(conversation.answered_at or at, at)


@dataclass(slots=True)
class _Row:
    """The columns of a conversation that a batch changes."""

    state: str
    num_emails: int
    version: int
    waiting_since: datetime
    answered_at: datetime | None
    updated_at: datetime
    done_at: datetime | None
    done_by: int | None
    participants: list[str] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CHANGED}


_CHANGED = tuple(_Row.__dataclass_fields__)


def _write(session: Session, mailbox_id: int, known: _Known, handling: Handling, *, closed: bool) -> None:
    targets = known.targets
    if not targets:
        return
    session.flush()
    stored = _locked(session, targets)
    last_customer = _last_customer_mails(session, targets, handling)
    rows: list[tuple[_Thread, _Row]] = []
    for thread in targets:
        row = _new_row(thread.mails[0], closed=closed) if thread.id is None else stored[thread.id]
        last = last_customer.get(thread.id) if thread.id is not None else None
        for mail in thread.mails:
            last = _arrive(row, mail, last, closed=closed)
        row.participants = sorted(thread.participants)
        rows.append((thread, row))
    _insert(session, mailbox_id, [(thread, row) for thread, row in rows if thread.id is None])
    _update(session, [(thread, row) for thread, row in rows if thread.mails and thread.id in stored])
    _remember_ids(session, mailbox_id, known)
    for thread in targets:
        for mail in thread.mails:
            mail.email.conversation_id = thread.id


def _arrive(row: _Row, mail: _Mail, last_customer: datetime | None, *, closed: bool) -> datetime | None:
    """Count a mail in. Returns when the customer's newest mail came."""
    row.num_emails += 1
    row.version += 1
    row.updated_at = mail.email.created_at
    if mail.email.kind == EmailKind.OWN:
        answered(row, mail.at, last_customer)
    elif mail.opens:
        if not closed:
            wait_again(row, mail.at)
        return max(last_customer or mail.at, mail.at)
    return last_customer


def _new_row(mail: _Mail, *, closed: bool) -> _Row:
    return _Row(
        state="done" if closed else "open",
        num_emails=0,
        version=1,
        waiting_since=mail.at,
        answered_at=None,
        updated_at=mail.email.created_at,
        done_at=mail.at if closed else None,  # among the finished ones it stands where it belongs by its age
        done_by=None,
    )


def _locked(session: Session, targets: Sequence[_Thread]) -> dict[int, _Row]:
    """The stored conversations as they stand now, held against agents until the commit.

    One that was merged since we looked is followed to where its mail is now.
    """
    rows: dict[int, _Row] = {}
    wanted = {thread.id for thread in targets if thread.id is not None}
    table = _table(Conversation)
    columns = [table.c[name] for name in (*_CHANGED, "id", "merged_into")]
    while wanted:
        query = select(*columns).where(table.c.id.in_(wanted)).order_by(table.c.id).with_for_update()
        moved: dict[int, int] = {}
        for found in session.connection().execute(query).mappings():
            if found["state"] == "merged":
                moved[found["id"]] = found["merged_into"]
            else:
                rows[found["id"]] = _Row(**{name: found[name] for name in _CHANGED})
        for thread in targets:
            if thread.id in moved:
                thread.id = moved[thread.id]
        wanted = set(moved.values()) - set(rows)
    return rows


def _last_customer_mails(
    session: Session, targets: Sequence[_Thread], handling: Handling
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


def _insert(session: Session, mailbox_id: int, new: Sequence[tuple[_Thread, _Row]]) -> None:
    if not new:
        return
    table = _table(Conversation)
    values = []
    for thread, row in new:
        email = thread.mails[0].email
        values.append(
            {
                **_blank(),
                **row.values(),
                "mailbox_id": mailbox_id,
                "subject": email.subject,
                "subject_key": thread.subject,
                "customer_name": email.from_name,
                "customer_address": thread.customer,
                "opened_at": email.created_at,
            }
        )
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        statement = table.insert().returning(table.c.id, sort_by_parameter_order=True)
        ids = list(connection.execute(statement, values).scalars())
    else:
        # SQLite would return ids of many rows in no order, but nobody else writes while we do.
        first = (connection.execute(select(func.max(table.c.id))).scalar() or 0) + 1
        ids = list(range(first, first + len(values)))
        connection.execute(table.insert(), [{**row, "id": id_} for row, id_ in zip(values, ids, strict=True)])
    for (thread, _), id_ in zip(new, ids, strict=True):
        thread.id = id_


def _update(session: Session, changed: Sequence[tuple[_Thread, _Row]]) -> None:
    if not changed:
        return
    table = _table(Conversation)
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


def _remember_ids(session: Session, mailbox_id: int, known: _Known) -> None:
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
    table = _table(ThreadId)
    is_postgres = session.get_bind().dialect.name == "postgresql"
    statement: Any = (postgresql.insert if is_postgres else sqlite.insert)(table)
    statement = statement.on_conflict_do_update(
        index_elements=[table.c.mailbox_id, table.c.message_id, table.c.conversation_id],
        set_={"held": table.c.held | statement.excluded.held},
    )
    session.connection().execute(
        statement,
        [
            {"mailbox_id": mailbox_id, "message_id": key, "conversation_id": id_, "held": held}
            for (key, id_), held in sorted(ids.items())
        ],
    )


def ids_of(parsed: ParsedEmail) -> dict[str, bool]:
    """The keys that a mail has (True) or names (False)."""
    keys = dict.fromkeys((*_named(parsed), *_keys([parsed.bounced_id], 1)), False)
    return {**keys, **dict.fromkeys(_keys((parsed.message_id, *parsed.other_ids), MAX_OWN), True)}


def _table(model: type[SQLModel]) -> Table:
    table = model.__table__  # type: ignore[attr-defined]
    assert isinstance(table, Table)
    return table


@cache
def _blank() -> dict[str, Any]:
    """The columns of a new conversation that are not told here."""
    moment = datetime.now(UTC)
    row = Conversation(mailbox_id=0, waiting_since=moment, opened_at=moment, updated_at=moment)
    return {
        column.name: getattr(row, column.name)
        for column in _table(Conversation).columns
        if column.name != "id"
    }
