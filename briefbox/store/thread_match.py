"""The conversation that a mail joins, by the rules of threads.py: what a mail tells, what is stored, what fits.

Reads the database and writes nothing.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from sqlmodel import Session, col, func, select

from briefbox.schemas import EmailKind, ParsedEmail
from briefbox.store.handling import Handling
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


def our_addresses(session: Session, mailbox_id: int) -> frozenset[str]:
    """The addresses that lead to this mailbox, folded."""
    found = session.exec(select(Mailbox.address, Mailbox.addresses).where(Mailbox.id == mailbox_id)).first()
    return _folded((found[0], *found[1])) if found else frozenset()


def ids_of(parsed: ParsedEmail) -> dict[str, bool]:
    """The keys that a mail has (True) or names (False)."""
    keys = dict.fromkeys((*_named(parsed), *_keys([parsed.bounced_id], 1)), False)
    return {**keys, **dict.fromkeys(_keys((parsed.message_id, *parsed.other_ids), MAX_OWN), True)}


def people_of(parsed: ParsedEmail, ours: frozenset[str]) -> frozenset[str]:
    """Everybody but us who wrote it or was written to, folded."""
    return _folded(a.address for a in (parsed.sender, *parsed.to, *parsed.cc)) - ours


# --- one mail


class PlacedEmail(Protocol):
    """What of an email's row its place depends on, stored already or not; and its place."""

    id: int
    conversation_id: int | None
    from_name: str
    from_address: str
    subject: str
    kind: str
    received_at: datetime
    created_at: datetime


@dataclass(eq=False)
class Mail:
    """A new mail, folded for comparing."""

    parsed: ParsedEmail
    email: PlacedEmail
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
    def of(cls, parsed: ParsedEmail, email: PlacedEmail, ours: frozenset[str], handling: Handling) -> "Mail":
        """`ours` are the mailbox's addresses, folded."""
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
        """When the server received it."""
        return self.email.received_at

    @cached_property
    def looks_like_an_answer(self) -> bool:
        """By its subject, or because it names or quotes something that we do not know."""
        if is_reply(self.parsed.subject):
            return True
        if self.email.kind == EmailKind.OWN:
            return False
        if self.named or self.parsed.quoted:
            return True
        text = self.parsed.text[:20_000]
        return ">" in text and bool(_QUOTE.search(text))

    @cached_property
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

    def affinity(self, thread: "Thread") -> int:
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
class Thread:
    """A conversation as far as a batch needs it: stored, or opened by one of the batch's mails (`id` is None)."""

    id: int | None
    subject: str
    customer: str
    name: str
    participants: set[str]
    first_at: datetime | None = None  # known only where rule 4 asked for it
    last_at: datetime | None = None
    mails: list[Mail] = field(default_factory=list)

    @classmethod
    def opened_by(cls, mail: Mail) -> "Thread":
        """A new one."""
        customer = mail.email.from_address.strip().lower()
        return cls(None, mail.subject, customer, mail.email.from_name.lower(), set(), mail.at, mail.at)

    def is_near(self, at: datetime, days: float) -> bool:
        """Whether its mails came within so many days of this moment."""
        if self.first_at is None or self.last_at is None:
            return False
        window = timedelta(days=days)
        return self.first_at - window <= at <= self.last_at + window


class Known:
    """What is known while a batch is placed: ids and subjects of stored conversations and of those just opened."""

    def __init__(self, days: float) -> None:
        self.days = days
        self.held: dict[str, list[Thread]] = defaultdict(list)
        self.only_named: dict[str, list[Thread]] = defaultdict(list)
        self.by_subject: dict[tuple[str, str], list[Thread]] = defaultdict(list)
        self.targets: list[Thread] = []
        self.stored: set[tuple[str, int, bool]] = set()

    @classmethod
    def load(cls, session: Session, mailbox_id: int, mails: Sequence[Mail], handling: Handling) -> "Known":
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

    def find(self, mail: Mail) -> Thread | None:
        """The conversation that it joins, by the rules in their order."""
        if mail.email.kind == EmailKind.SPAM and not mail.opens:
            return None
        return self._of_bounced(mail) or self._of_held(mail) or self._of_named(mail) or self._of_subject(mail)

    def _of_bounced(self, mail: Mail) -> Thread | None:
        """A mail server had no part in the conversation, and what it says wakes nobody: here an id is enough."""
        if mail.email.kind != EmailKind.BOUNCE:
            return None
        for key in (mail.bounced, *mail.named):
            found: list[Thread] = [*self.held.get(key, ()), *self.only_named.get(key, ())] if key else []
            if found:
                return max(found, key=mail.affinity)
        return None

    def _of_held(self, mail: Mail) -> Thread | None:
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

    def _of_named(self, mail: Mail) -> Thread | None:
        for key in mail.named:
            if thread := _best(mail, self.only_named.get(key, ()), at_least=PARTICIPANT):
                return thread
        # What it is itself was named before it came.
        named = [t for key in mail.own for t in self.only_named.get(key, ())]
        return _best(mail, named, at_least=PARTICIPANT)

    def _of_subject(self, mail: Mail) -> Thread | None:
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

    def find_our_own(
        self, session: Session, mailbox_id: int, ours: frozenset[str], handling: Handling
    ) -> list[tuple[Thread, Mail]]:
        """Stored mail of ours that these mails answer and that opened no conversation when it came."""
        asked: dict[str, list[Thread]] = defaultdict(list)
        for thread in self.targets:
            for mail in thread.mails:
                for id_ in (*mail.parsed.in_reply_to, *mail.parsed.references)[:MAX_NAMED]:
                    asked[id_].append(thread)
        if not asked:
            return []
        emails = session.exec(
            select(Email).where(
                Email.mailbox_id == mailbox_id,
                col(Email.message_id).in_(asked),
                col(Email.conversation_id).is_(None),
                Email.kind == EmailKind.OWN,
            )
        )
        found = []
        for email in emails:
            mail = Mail.of(ParsedEmail.model_validate(email.parsed), email, ours, handling)
            best = _best(mail, asked[email.message_id], at_least=PARTICIPANT)
            if best is not None:
                found.append((best, mail))
        return found

    def note(self, thread: Thread, mail: Mail) -> None:
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


def _best(mail: Mail, threads: Iterable[Thread], *, at_least: int) -> Thread | None:
    """The conversation it has most to do with; of equals the first."""
    best = max(threads, key=mail.affinity, default=None)
    return best if best is not None and mail.affinity(best) >= at_least else None


# --- what is stored


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


def _thread(row: Any) -> Thread:
    return Thread(
        row.id,
        row.subject_key or subject_key(row.subject),
        row.customer_address.lower(),
        row.customer_name.lower(),
        set(row.participants),
    )


def _stored_threads(session: Session, ids: set[int]) -> dict[int, Thread]:
    if not ids:
        return {}
    query = select(*_THREAD).where(col(Conversation.id).in_(ids), Conversation.state != "merged")  # type: ignore[call-overload]
    return {row.id: _thread(row) for row in session.connection().execute(query)}


def _threads_by_subject(
    session: Session, mailbox_id: int, mails: Sequence[Mail], known: dict[int, Thread]
) -> list[Thread]:
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
