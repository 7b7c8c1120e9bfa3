"""The tables, in the order of the flow: mailbox, ledger, email, conversation, brief, correction, training.

Rules that the tables themselves keep:

- one ledger row for each (mailbox, folder, uidvalidity, generation, uid);
- one email for each (mailbox, sha256 of its bytes); a Message-ID is a hint, never an identity;
- one brief for each (email, engine, base model, adapter, prompt version);
- one correction for each (conversation, agent, idempotency key);
- at most one champion adapter, at most one open training run for a dataset and method.

Times are UTC. A lease is three columns (owner, token, until): who works on the row, the fencing
token that its writes must carry, and until when nobody else may take it.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, LargeBinary, SQLModel

# Named constraints can be changed by later migrations, on SQLite too.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite, which has no time zones, stores it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values: their meaning would depend on the machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}; expected an aware one")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give every value back as aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _when(*, nullable: bool = False, index: bool = False) -> Any:
    column: Column[datetime] = Column(UTCDateTime(), nullable=nullable, index=index)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


def _json(kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    # Not the type itself: pydantic inspects a factory's signature each time, and a type's is slow to read.
    return Field(
        default_factory=_empty_list if kind is list else _empty_dict, sa_column=Column(JSON, nullable=False)
    )


def _list_index(state: str, *columns: str) -> Index:
    condition = text(f"state = '{state}'")
    return Index(
        f"ix_conversations_{state}",
        *columns,
        "mailbox_id",
        "assigned_to",
        "category",
        "in_doubt",
        "state",  # SQLite would read each row for it
        sqlite_where=condition,
        postgresql_where=condition,
    )


def _empty_list() -> list[Any]:
    return []


def _empty_dict() -> dict[str, Any]:
    return {}


def _text() -> Any:
    return Field(default="", sa_column=Column(Text, nullable=False, default=""))


def _reference(target: str, *, nullable: bool = False, index: bool = True) -> Any:
    if nullable:
        return Field(default=None, sa_column=Column(ForeignKey(target), nullable=True, index=index))
    return Field(sa_column=Column(ForeignKey(target), nullable=False, index=index))


# --- people


class User(SQLModel, table=True):
    """A person who signs in. `password_hash` is argon2id, empty until the one-time link was used."""

    __tablename__ = "users"
    id: int = Field(default=None, primary_key=True)
    email: str = Field(unique=True)
    name: str = ""
    role: str = "agent"  # agent, reviewer or admin: each may do what the one before may
    password_hash: str = ""
    all_mailboxes: bool = True  # False: only those of MailboxAccess; admins see all
    totp_encrypted: str = _text()  # secret of the second factor (RFC 6238); "" where there is none
    totp_step: int = Field(default=0, sa_type=BigInteger)  # of the code used last: no code is good twice
    recovery_hashes: list[str] = _json(list)  # sha256 of the recovery codes that are left
    created_at: datetime = _when()
    disabled_at: datetime | None = _when(nullable=True)


class MailboxAccess(SQLModel, table=True):
    """A mailbox that somebody who does not see all of them may see."""

    __tablename__ = "mailbox_access"
    __table_args__ = (UniqueConstraint("user_id", "mailbox_id"),)
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id", index=False)
    mailbox_id: int = _reference("mailboxes.id")


class Identity(SQLModel, table=True):
    """An account at an OpenID provider with which somebody signs in. Never linked by an address alone."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id")
    issuer: str
    subject: str
    created_at: datetime = _when()


class SignInLink(SQLModel, table=True):
    """A one-time link to set a password or to sign in. Only the token's sha256 is stored."""

    __tablename__ = "sign_in_links"
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id")
    token_hash: str = Field(unique=True)
    expires_at: datetime = _when()
    used_at: datetime | None = _when(nullable=True)


class LoginSession(SQLModel, table=True):
    """A signed-in browser. Only the cookie's sha256 is stored."""

    __tablename__ = "login_sessions"
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id")
    token_hash: str = Field(unique=True)
    pending: bool = False  # the password was right, the second factor is still to come: nobody is signed in
    address: str = ""  # the network address it was opened from
    browser: str = ""  # as it calls itself
    created_at: datetime = _when()
    seen_at: datetime = _when()  # to the minute
    verified_at: datetime = _when()  # when the person last proved who they are
    expires_at: datetime = _when()


class APIToken(SQLModel, table=True):
    """A program's key to the REST API, with what it may do. Only its sha256 is stored."""

    __tablename__ = "api_tokens"
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id")
    name: str
    prefix: str  # the beginning, by which people tell tokens apart
    token_hash: str = Field(unique=True)
    scopes: list[str] = _json(list)
    created_at: datetime = _when()
    expires_at: datetime | None = _when(nullable=True)
    last_used_at: datetime | None = _when(nullable=True)
    revoked_at: datetime | None = _when(nullable=True)


class IdempotencyKey(SQLModel, table=True):
    """What was answered to a request of the REST API: the same key again gets the same answer."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("token_id", "key"),)
    id: int = Field(default=None, primary_key=True)
    token_id: int = _reference("api_tokens.id", index=False)
    key: str
    request_hash: str  # of method, path and body: the key with another request is refused
    status: int
    body: str = _text()
    created_at: datetime = _when(index=True)


class LoginFailure(SQLModel, table=True):
    """A failed sign-in, counted for throttling. Kept in the database so that a flushed Redis changes nothing."""

    __tablename__ = "login_failures"
    id: int = Field(default=None, primary_key=True)
    key: str = Field(index=True)  # "account:..." or "address:..."
    at: datetime = _when(index=True)


class AuditEntry(SQLModel, table=True):
    """Who did what. Append-only; each row's hash covers the row before it."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_actor", "actor", "id"),
        Index("ix_audit_action", "action", "id"),
        Index("ix_audit_object", "object", "id"),
        Index("ix_audit_at", "at"),
    )
    id: int = Field(default=None, primary_key=True)
    at: datetime = _when()
    actor: str  # a user's address, or "cli", "poller"...
    action: str
    object: str = ""
    detail: dict[str, Any] = _json(dict)
    previous_hash: str = ""
    hash: str = ""


class AuditCheck(SQLModel, table=True):
    """How far the chain of the audit log was checked. One row."""

    __tablename__ = "audit_checks"
    id: int = Field(default=None, primary_key=True)
    entry_id: int = 0  # checked up to this entry, and with it
    entry_hash: str = ""  # as it was then: who changes what was checked before is found out
    broken: list[int] = _json(
        list
    )  # entries that were changed, or follow one that is missing; the first of them
    began_at: datetime = _when()  # when it was begun at the first entry
    checked_at: datetime = _when()


# --- mailbox and ledger


class Mailbox(SQLModel, table=True):
    """A support inbox that we read and never change. One poller at a time, by lease."""

    __tablename__ = "mailboxes"
    id: int = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    address: str
    host: str
    port: int
    security: str = "tls"  # tls, starttls or none
    username: str
    password_encrypted: str = _text()
    ca_file: str = ""
    folders: list[str] = _json(list)
    sent_folder: str = ""  # watched for answers that were written elsewhere: all in it is our own
    # Connected in the browser: the host is reached only at public addresses, or in `private_networks`.
    vetted: bool = False
    auth: str = "password"  # password or oauth2
    # Of oauth2: provider, client_id, tenant, end-points, scopes. No secrets: those are in oauth_encrypted.
    oauth: dict[str, Any] = _json(dict)
    oauth_encrypted: str = _text()  # client secret, refresh token, access token and its end; one JSON object
    addresses: list[str] = _json(list)  # other addresses of ours that lead here; mail from any is our own
    start_at: str = "now"  # now, all, or "14 days": where a folder begins when it is first seen
    # What becomes of the mail that was there before us: "closed" conversations without a brief, "briefed" (closed
    # too, after all live mail), or "open" like new mail.
    older: str = "open"
    attachments: str = "keep"  # keep: as bytes; reference: they stay on the server
    adapter: str = ""  # name of the adapter for this mailbox's mail; "" is the champion
    created_at: datetime = _when()
    paused_at: datetime | None = _when(nullable=True)
    paused_reason: str = _text()
    removed_at: datetime | None = _when(nullable=True)  # no longer read; what it brought stays
    reconcile_at: datetime | None = _when(nullable=True)  # somebody asked for a full comparison
    last_success_at: datetime | None = _when(nullable=True)
    last_error: str = _text()
    last_error_at: datetime | None = _when(nullable=True)
    lease_owner: str = ""
    lease_token: str = ""
    lease_until: datetime | None = _when(nullable=True)


class FolderCursor(SQLModel, table=True):
    """How far one (folder, UIDVALIDITY) has been read. A new UIDVALIDITY is a new row; the old one stays.

    Every UID in (first_uid, backfill_uid] and in (older_uid, last_uid] has its ledger row. UIDs up to `older_uid`
    were there before us; those in (backfill_uid, older_uid] are still to be read, beside and after new mail.
    `generation` counts folders that came back with the same UIDVALIDITY and other mail (a restored backup, another
    account).
    """

    __tablename__ = "folder_cursors"
    __table_args__ = (UniqueConstraint("mailbox_id", "folder", "uidvalidity", "generation"),)
    id: int = Field(default=None, primary_key=True)
    mailbox_id: int = _reference("mailboxes.id")
    folder: str
    uidvalidity: int = Field(sa_type=BigInteger)
    generation: int = 0
    current: bool = True
    first_uid: int = Field(default=0, sa_type=BigInteger)  # mail up to here is not ours to read
    backfill_uid: int = Field(default=0, sa_type=BigInteger)
    older_uid: int = Field(default=0, sa_type=BigInteger)
    last_uid: int = Field(default=0, sa_type=BigInteger)
    # The folder was read before under other UIDs: what is up to `older_uid` may be known mail, and is not before us.
    reread: bool = False
    since: datetime | None = _when(
        nullable=True
    )  # mail that the server had before is not ours, where UIDs can't tell
    total: int | None = None  # messages in the folder at the last full comparison, as are the next three
    uidnext: int | None = Field(
        default=None, sa_type=BigInteger
    )  # at the last full comparison, as are the next two
    highest_modseq: int | None = Field(default=None, sa_type=BigInteger)
    server_exists: int | None = None  # of the total, those above first_uid
    ledger_exists: int | None = None  # of these, how many had their ledger row then
    missing_since: datetime | None = _when(nullable=True)  # the server has no such folder
    created_at: datetime = _when()
    # When it was last compared with the server, by whatever tells that nothing is new; and when all its UIDs were.
    reconciled_at: datetime | None = _when(nullable=True)
    listed_at: datetime | None = _when(nullable=True)


class MailboxEvent(SQLModel, table=True):
    """Something that happened to a mailbox and an admin may ask about: renumbered, restored, paused, recovered."""

    __tablename__ = "mailbox_events"
    id: int = Field(default=None, primary_key=True)
    mailbox_id: int = _reference("mailboxes.id")
    folder: str = ""
    kind: str  # renumbered, restored, folder missing, folder back, folder renamed, paused, resumed, stopped, recovered
    text: str = _text()
    created_at: datetime = _when()


class MailboxDraft(SQLModel, table=True):
    """A mailbox that an admin is connecting in the browser: what was entered and found, until it goes live or lapses."""

    __tablename__ = "mailbox_drafts"
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id", index=False)
    key: str = Field(unique=True)  # random; its page's address
    values: dict[str, Any] = _json(dict)  # columns of the Mailbox to be
    secret_encrypted: str = _text()  # password or tokens, bound to the key
    facts: dict[str, Any] = _json(dict)  # what the test found
    created_at: datetime = _when()
    expires_at: datetime = _when()


class Trial(SQLModel, table=True):
    """Emails that a worker briefs for a look and that are stored nowhere else. Goes when it was seen, or lapses."""

    __tablename__ = "trials"
    id: int = Field(default=None, primary_key=True)
    key: str = Field(unique=True)  # random
    requests_encrypted: str = _text()  # BriefRequest values
    briefs_encrypted: str = _text()  # Brief values, in the same order
    state: str = "waiting"  # waiting, running, done, failed
    error: str = _text()
    lease_token: str = ""
    lease_until: datetime | None = _when(nullable=True)
    created_at: datetime = _when()
    expires_at: datetime = _when()


class RawEmail(SQLModel, table=True):
    """The bytes as the server gave them, compressed with zlib. `sha256` is of the bytes before compression.

    Where `left` is not empty, parts stayed on the server and the bytes were put together from the others: it is a
    LeftOnServer.
    """

    __tablename__ = "raw_emails"
    id: int = Field(default=None, primary_key=True)
    sha256: str = Field(index=True)
    size: int
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    left: dict[str, Any] = _json(dict)


class LedgerEntry(SQLModel, table=True):
    """One message that a mailbox server has shown us, and where it ended."""

    __tablename__ = "ledger"
    __table_args__ = (UniqueConstraint("mailbox_id", "folder", "uidvalidity", "generation", "uid"),)
    id: int = Field(default=None, primary_key=True)
    mailbox_id: int = _reference("mailboxes.id", index=False)
    folder: str
    uidvalidity: int = Field(sa_type=BigInteger)
    generation: int = 0
    uid: int = Field(sa_type=BigInteger)
    state: str = Field(index=True)
    reason: str = _text()
    email_id: int | None = _reference("emails.id", nullable=True)
    size: int | None = None
    internal_date: datetime | None = _when(nullable=True)
    seen_at: datetime = _when()


class DeadLetter(SQLModel, table=True):
    """A message or an email that we gave up on, with the reason, its bytes where we have them, and a retry."""

    __tablename__ = "dead_letters"
    id: int = Field(default=None, primary_key=True)
    stage: str  # fetch, parse or brief
    mailbox_id: int = _reference("mailboxes.id")
    ledger_id: int | None = _reference("ledger.id", nullable=True)
    email_id: int | None = _reference("emails.id", nullable=True)
    raw_id: int | None = _reference("raw_emails.id", nullable=True, index=False)
    reason: str = _text()
    attempts: int = 1
    created_at: datetime = _when()
    resolved_at: datetime | None = _when(nullable=True)
    resolution: str = ""


# --- email, conversation, brief


class Conversation(SQLModel, table=True):
    """One row of the agent queue: the emails of one thread, and what the brief says after the agents."""

    __tablename__ = "conversations"
    __table_args__ = (
        # One index for each list of the queue, in its order. It holds all that a filter asks about, so that what a
        # filter leaves out costs an entry of the index and no row (store/queue.py).
        _list_index("open", "priority_rank", "waiting_since", "id"),
        _list_index("snoozed", "snoozed_until", "id", "priority_rank", "waiting_since"),
        _list_index("answered", "answered_at", "id", "priority_rank", "waiting_since"),
        _list_index("done", "done_at", "id", "priority_rank", "waiting_since"),
        Index("ix_conversations_mailbox", "mailbox_id", "state"),  # for counting
        Index(
            "ix_conversations_merged_into",
            "merged_into",
            sqlite_where=text("merged_into IS NOT NULL"),
            postgresql_where=text("merged_into IS NOT NULL"),
        ),
        Index("ix_conversations_subject", "mailbox_id", "customer_address", "subject_key"),
    )
    id: int = Field(default=None, primary_key=True)
    mailbox_id: int = _reference("mailboxes.id", index=False)
    subject: str = _text()
    customer_name: str = ""
    customer_address: str = Field(default="", index=True)
    subject_key: str = _text()  # the subject without "Re:" and the like, folded: for mail that names no other
    merged_into: int | None = Field(default=None)  # the conversation that took its emails
    # Folded addresses of everybody but us who wrote or was written to: who may add to it.
    participants: list[str] = _json(list)
    state: str = "open"  # open, snoozed, answered (by a mail of ours), done or merged
    snoozed_until: datetime | None = _when(nullable=True)
    assigned_to: int | None = _reference("users.id", nullable=True, index=False)
    priority: str = ""
    priority_rank: int = 4  # 0 urgent ... 3 low, 4 not known yet
    category: str = ""
    headline: str = _text()
    summary: str = _text()
    needs_human: list[str] = _json(list)  # labels whose confidence was below the threshold
    in_doubt: bool = False  # whether there are any: lists are filtered by it
    touched: list[str] = _json(list)  # fields that an agent changed: the model never writes them again
    suggestion: dict[str, Any] = _json(dict)  # what a later brief says about touched fields
    brief_id: int | None = Field(default=None)
    num_emails: int = 0
    version: int = 1  # counts writes: the second of two agents sees that it is older
    waiting_since: datetime = _when()  # oldest customer email since the last answer
    answered_at: datetime | None = _when(
        nullable=True
    )  # a mail of ours that nothing newer of the customer's followed
    opened_at: datetime = _when()
    updated_at: datetime = _when(index=True)
    done_at: datetime | None = _when(nullable=True)
    done_by: int | None = _reference("users.id", nullable=True, index=False)


@event.listens_for(Conversation, "before_insert")
@event.listens_for(Conversation, "before_update")
def _doubt_follows(_mapper: Any, _connection: Any, conversation: Conversation) -> None:
    conversation.in_doubt = bool(conversation.needs_human)


class Email(SQLModel, table=True):
    """One stored mail. Its work columns are the queue: the database row is the truth, Redis only wakes."""

    __tablename__ = "emails"
    __table_args__ = (
        UniqueConstraint("mailbox_id", "sha256"),
        Index("ix_emails_ready", "work_state", "backfill", "received_at", "id"),  # claims read in this order
    )
    id: int = Field(default=None, primary_key=True)
    mailbox_id: int = _reference("mailboxes.id", index=False)
    conversation_id: int | None = _reference("conversations.id", nullable=True)
    raw_id: int = _reference("raw_emails.id", index=False)
    sha256: str
    message_id: str = Field(default="", index=True, sa_type=Text)
    from_name: str = ""
    from_address: str = ""
    subject: str = _text()
    kind: str = "customer"
    kind_reason: str = _text()
    language: str = ""  # ISO 639-1; "" where it is too short to tell
    backfill: bool = False  # it was there before we were: briefed after all others
    received_at: datetime = _when()  # the server's INTERNALDATE, else when we saw it
    parsed: dict[str, Any] = _json(dict)  # the whole ParsedEmail
    # --- the work: waiting -> running (leased) -> done or dead
    instructions_found: bool = False  # contains text addressed to an assistant; it changes nothing else
    work_state: str = "waiting"
    attempts: int = 0  # counted at claim time, so that a death of the process counts
    not_before: datetime = _when()
    lease_owner: str = ""
    lease_token: str = ""
    lease_until: datetime | None = _when(nullable=True)
    last_error: str = _text()
    created_at: datetime = _when()


class ThreadId(SQLModel, table=True):
    """A Message-ID that mails of a conversation have or name, ours or not: what a reply is told by."""

    __tablename__ = "thread_ids"
    __table_args__ = (UniqueConstraint("mailbox_id", "message_id", "conversation_id"),)
    id: int = Field(default=None, primary_key=True)
    mailbox_id: int = _reference("mailboxes.id", index=False)
    message_id: str = Field(sa_type=Text)
    conversation_id: int = _reference("conversations.id")
    held: bool = False  # a mail that we hold has it; otherwise it is only named


class Brief(SQLModel, table=True):
    """What a model said about an email, and everything that made it."""

    __tablename__ = "briefs"
    __table_args__ = (UniqueConstraint("email_id", "engine", "base_model", "adapter", "prompt_version"),)
    id: int = Field(default=None, primary_key=True)
    email_id: int = _reference("emails.id", index=False)
    conversation_id: int = _reference("conversations.id")
    headline: str = _text()
    summary: str = _text()
    priority: str
    priority_confidence: float | None  # None: the engine's server does not tell
    priority_scores: dict[str, float] = _json(dict)
    category: str
    category_confidence: float | None
    category_scores: dict[str, float] = _json(dict)
    language: str = ""  # of the email, ISO 639-1; "" where it is too short to tell
    needs_human: list[str] = _json(list)
    grounding: dict[str, Any] = _json(dict)  # a Grounding
    instructions_found: bool = False
    cut: bool = False
    omitted: list[dict[str, Any]] = _json(list)  # Omission values
    shadow: bool = False  # by an adapter on trial: kept for comparison, never shown
    request: dict[str, Any] = _json(dict)  # exactly what the model was asked: the input of training examples
    engine: str
    base_model: str
    base_revision: str = ""
    adapter: str = ""
    prompt_version: str
    device: str = ""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    batch_size: int = 1
    attempt: int = 1
    created_at: datetime = _when(index=True)  # `briefbox cost` sums up ranges of days


class Category(SQLModel, table=True):
    """One of the admin's categories."""

    __tablename__ = "categories"
    id: int = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    description: str = ""
    position: int = 0
    retired_at: datetime | None = _when(nullable=True)
    merged_into: str = ""  # the category that took its conversations when it was merged


class SLATarget(SQLModel, table=True):
    """Within how many minutes a customer is to have an answer, by priority. No row: no target."""

    __tablename__ = "sla_targets"
    priority: str = Field(primary_key=True)
    minutes: int


class SearchPending(SQLModel, table=True):
    """An email whose search entry is to be written, with what its brief says. The desk's chores take them out."""

    __tablename__ = "search_pending"
    id: int = Field(default=None, primary_key=True)
    email_id: int = _reference("emails.id", index=False)


# --- what agents did and said


class Activity(SQLModel, table=True):
    """Something that was done with a conversation, by whom, and how to undo it. Append-only but for `undone_at`."""

    __tablename__ = "activities"
    id: int = Field(default=None, primary_key=True)
    conversation_id: int = _reference("conversations.id")
    user_id: int | None = _reference("users.id", nullable=True, index=False)  # None: it came about
    kind: str  # assigned, unassigned, snoozed, woken, done, reopened, answered, noted, corrected, confirmed, undone...
    detail: dict[str, Any] = _json(dict)
    before: dict[str, Any] = _json(dict)  # the values that undoing brings back; empty where it can't
    group: str = Field(default="", index=True)  # the same for all that one bulk action did
    created_at: datetime = _when()
    undone_at: datetime | None = _when(nullable=True)


class Note(SQLModel, table=True):
    """What agents tell each other about a conversation. No customer and no model ever reads it."""

    __tablename__ = "notes"
    id: int = Field(default=None, primary_key=True)
    conversation_id: int = _reference("conversations.id")
    user_id: int = _reference("users.id", index=False)
    text: str = _text()
    created_at: datetime = _when()
    deleted_at: datetime | None = _when(nullable=True)


class Presence(SQLModel, table=True):
    """Who looks at a conversation, until when we heard of it, and how long they had it open in all."""

    __tablename__ = "presences"
    __table_args__ = (UniqueConstraint("conversation_id", "user_id"),)
    id: int = Field(default=None, primary_key=True)
    conversation_id: int = _reference("conversations.id", index=False)
    user_id: int = _reference("users.id", index=False)
    editing: str = ""  # the field that they are writing
    seconds: float = 0.0  # time spent, by the page's own signs of life
    seen_at: datetime = _when(index=True)


class View(SQLModel, table=True):
    """A named filter of the queue, of one person or of everybody."""

    __tablename__ = "views"
    id: int = Field(default=None, primary_key=True)
    user_id: int = _reference("users.id")
    name: str
    query: str  # as it stands in the queue's address
    shared: bool = False
    position: int = 0
    created_at: datetime = _when()


class Correction(SQLModel, table=True):
    """One field that an agent changed. Append-only."""

    __tablename__ = "corrections"
    __table_args__ = (UniqueConstraint("conversation_id", "user_id", "idempotency_key"),)
    id: int = Field(default=None, primary_key=True)
    conversation_id: int = _reference("conversations.id")
    brief_id: int | None = _reference("briefs.id", nullable=True)  # None: labelled by hand before any brief
    user_id: int = _reference("users.id", index=False)
    field: str
    before: str = _text()
    after: str = _text()
    reason: str = ""
    idempotency_key: str
    created_at: datetime = _when()
    undone_at: datetime | None = _when(nullable=True)  # taken back by the agent: it teaches nothing


class Confirmation(SQLModel, table=True):
    """An agent approved a brief: strong = pressed "right as it is", weak = finished it unchanged."""

    __tablename__ = "confirmations"
    __table_args__ = (UniqueConstraint("brief_id", "user_id", "strength"),)
    id: int = Field(default=None, primary_key=True)
    conversation_id: int = _reference("conversations.id")
    brief_id: int = _reference("briefs.id", index=False)
    user_id: int = _reference("users.id", index=False)
    strength: str
    created_at: datetime = _when()
    undone_at: datetime | None = _when(nullable=True)


# --- training


class Dataset(SQLModel, table=True):
    """An immutable dataset version: a JSONL file and its hash. The same content is the same version."""

    __tablename__ = "datasets"
    id: int = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    content_hash: str = Field(unique=True)
    path: str  # relative to the data folder
    num_examples: int
    counts: dict[str, Any] = _json(dict)
    source: str = "corrections"  # corrections, import
    report: dict[str, Any] = _json(dict)  # what the harvest or the import left out, and why
    created_at: datetime = _when()


class SplitMember(SQLModel, table=True):
    """The part that an example was given to, for ever: what was trained on is never tested on."""

    __tablename__ = "split_members"
    example_id: str = Field(primary_key=True)
    split: str  # train, validation, test
    dataset_id: int = _reference("datasets.id", index=False)  # the version in which it came first


class Exclusion(SQLModel, table=True):
    """What one agent judged in a range of time is kept out of datasets, until it is lifted."""

    __tablename__ = "exclusions"
    id: int = Field(default=None, primary_key=True)
    user_id: int | None = _reference("users.id", nullable=True, index=False)  # None: of every agent
    since: datetime | None = _when(nullable=True)
    until: datetime | None = _when(nullable=True)
    reason: str = ""
    created_by: str = ""
    created_at: datetime = _when()
    lifted_at: datetime | None = _when(nullable=True)


class TrainingRun(SQLModel, table=True):
    """One fine-tuning run. Its lease makes a second delivery of the task return at once."""

    __tablename__ = "training_runs"
    __table_args__ = (
        Index(
            "ux_training_runs_open",
            "dataset_id",
            "method",
            unique=True,
            sqlite_where=text("state IN ('waiting', 'running')"),
            postgresql_where=text("state IN ('waiting', 'running')"),
        ),
    )
    id: int = Field(default=None, primary_key=True)
    dataset_id: int = _reference("datasets.id")
    base_model: str
    method: str = "lora"
    settings: dict[str, Any] = _json(dict)
    state: str = Field(default="waiting", index=True)  # waiting, running, done, failed, cancelled
    stage: str = ""  # of a running one: training, calibrating, evaluating
    attempts: int = 0
    lease_owner: str = ""
    lease_token: str = ""
    lease_until: datetime | None = _when(nullable=True)
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    seconds_left: float | None = None  # as estimated from the steps so far
    losses: list[list[float]] = _json(list)  # (step, loss) pairs, thinned out: the curve
    paused_seconds: float = 0.0  # how long it stood aside for waiting mail
    cancel_requested: bool = False
    cause: str = "person"  # person, schedule
    verdict: dict[str, Any] = _json(dict)  # of the gate
    error: str = _text()
    adapter_id: int | None = Field(default=None)
    created_by: str = ""
    created_at: datetime = _when()
    started_at: datetime | None = _when(nullable=True)
    finished_at: datetime | None = _when(nullable=True)


class Adapter(SQLModel, table=True):
    """LoRA weights on disk, and whether they are in use. Promotion is a change of these rows alone."""

    __tablename__ = "adapters"
    __table_args__ = (
        Index(
            "ux_adapters_champion",
            "state",
            unique=True,
            sqlite_where=text("state = 'champion'"),
            postgresql_where=text("state = 'champion'"),
        ),
    )
    id: int = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    path: str  # relative to the data folder
    base_model: str
    weights_sha256: str
    card: dict[str, Any] = _json(dict)
    state: str = "candidate"  # candidate, shadow, champion, retired, rejected, removed
    training_run_id: int | None = _reference("training_runs.id", nullable=True, index=False)
    created_at: datetime = _when()
    promoted_at: datetime | None = _when(nullable=True)


class Promotion(SQLModel, table=True):
    """A change of the champion: what came, what went, who did it. Append-only; roll-back reads it backwards."""

    __tablename__ = "promotions"
    id: int = Field(default=None, primary_key=True)
    adapter: str = ""  # name; "" is the bare base model
    before: str = ""
    kind: str  # promote, rollback
    actor: str = ""
    # Of a roll-back: how the answers to the probe set compare with the recorded ones; of a forced promotion: why.
    proof: dict[str, Any] = _json(dict)
    created_at: datetime = _when()


class RollBackRequest(SQLModel, table=True):
    """A roll-back that somebody asked for on the desk: the training worker does it, since only it has the engine."""

    __tablename__ = "roll_back_requests"
    id: int = Field(default=None, primary_key=True)
    actor: str
    state: str = "waiting"  # waiting, running, done, failed
    error: str = _text()
    promotion_id: int | None = _reference("promotions.id", nullable=True, index=False)
    created_at: datetime = _when()
    finished_at: datetime | None = _when(nullable=True)


# --- for programs


class Webhook(SQLModel, table=True):
    """An address that is told what happens. `secret_encrypted` signs what is sent (Standard Webhooks)."""

    __tablename__ = "webhooks"
    id: int = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    url: str
    secret_encrypted: str = _text()
    events: list[str] = _json(list)
    mailbox_ids: list[int] = _json(list)  # empty: all
    full: bool = False  # it is told what the mail says, too
    # The secret before the last change, which signs beside the new one until then.
    old_secret_encrypted: str = _text()
    old_secret_until: datetime | None = _when(nullable=True)
    created_by: str = ""
    created_at: datetime = _when()
    disabled_at: datetime | None = _when(nullable=True)
    disabled_reason: str = _text()
    num_failures: int = 0  # in a row
    failing_since: datetime | None = _when(nullable=True)  # the first of them


class WebhookDelivery(SQLModel, table=True):
    """One event for one address: written in the transaction of what happened, sent afterwards, kept as a log."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_ready", "state", "not_before", "id"),
        Index("ix_webhook_deliveries_webhook", "webhook_id", "state", "id"),
        Index("ix_webhook_deliveries_subject", "subject", "state"),
    )
    id: int = Field(default=None, primary_key=True)
    webhook_id: int = _reference("webhooks.id", index=False)
    event_id: str = Field(index=True)  # the same for every address and every try
    event: str
    subject: str = ""  # what it is about, where a later event may take its place while it waits
    body: str = _text()  # JSON exactly as it is signed and sent
    state: str = "waiting"  # waiting, running, done, failed
    attempts: int = 0
    not_before: datetime = _when()
    lease_token: str = ""
    lease_until: datetime | None = _when(nullable=True)
    status: int | None = None  # of the last answer
    answer: str = _text()  # its beginning, or why there was none
    replay_of: int | None = Field(default=None)
    created_at: datetime = _when()
    finished_at: datetime | None = _when(nullable=True)


class Alert(SQLModel, table=True):
    """Something an admin should know, until it is over. One row for each key; raising it again counts."""

    __tablename__ = "alerts"
    id: int = Field(default=None, primary_key=True)
    key: str = Field(unique=True)  # what it is about, for example "adapter lora-3"
    text: str = _text()
    times: int = 1
    raised_at: datetime = _when()
    seen_at: datetime = _when()  # when it was raised last
    resolved_at: datetime | None = _when(nullable=True)


class ProcessBeat(SQLModel, table=True):
    """A sign of life and of progress from each long-running process, for `briefbox doctor` and the desk."""

    __tablename__ = "process_beats"
    id: int = Field(default=None, primary_key=True)
    name: str = Field(unique=True)  # kind@host:pid
    kind: str
    detail: str = ""
    started_at: datetime = _when()
    seen_at: datetime = _when()
