"""What crosses the border between two stages: small frozen values, no tables, no dicts.

`Email` in these names is one stored mail; `Brief` is what the model says about it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Priority(StrEnum):
    """The help-desk set, most urgent first."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


PRIORITIES: tuple[str, ...] = tuple(p.value for p in Priority)

# The fields of a brief that an agent can correct, in the order in which they are written.
BriefField = Literal["priority", "category", "headline", "summary"]
BRIEF_FIELDS: tuple[BriefField, ...] = ("priority", "category", "headline", "summary")


# Where a conversation stands: for an agent, put off until a time, answered by a mail of ours, finished.
STATES: tuple[str, ...] = ("open", "snoozed", "answered", "done")
UNFINISHED: tuple[str, ...] = ("open", "snoozed", "answered")


class EmailKind(StrEnum):
    """What sort of mail it is; only customer mail is briefed."""

    CUSTOMER = "customer"
    AUTO_REPLY = "auto-reply"
    BOUNCE = "bounce"
    NEWSLETTER = "newsletter"
    LIST = "list"  # people talking on a mailing list
    CALENDAR = "calendar"
    OWN = "own"  # sent from one of our own addresses
    SPAM = "spam"  # by the server's headers


class LedgerState(StrEnum):
    """Where a message that the server has shown us ended. Exactly one of these, always."""

    QUEUED = "queued"  # an email in the agent queue
    SIGHTING = "sighting"  # the same bytes are already held; linked to that email
    SKIPPED = "skipped"  # stored, not for the agents, with its reason
    DEAD = "dead"  # a dead letter with its reason, and its bytes if the server gave them
    GONE = "gone"  # listed by the server and then withdrawn before we received it


class WorkState(StrEnum):
    """Where the briefing of an email stands."""

    NONE = "none"  # not to be briefed: an auto-reply, a bounce, a newsletter, mail that was there before us
    WAITING = "waiting"
    RUNNING = "running"  # leased by a worker
    DONE = "done"
    DEAD = "dead"  # gave up; a dead letter says why


class Frozen(BaseModel):
    """Base of values that are stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Address(Frozen):
    """A mail address with its display name ("" where there is none)."""

    name: str = ""
    address: str = ""


class Attachment(Frozen):
    """An attached file as listed to people; `size` is in decoded bytes, 0 where it is not known."""

    name: str
    type: str
    size: int
    section: str = ""  # its IMAP section (RFC 3501, 6.4.5) when it stayed on the server


class ParsedEmail(Frozen):
    """What we make of the raw bytes. All text is free of NUL and lone surrogates."""

    subject: str = ""
    sender: Address = Address()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    sent_at: datetime | None = None  # the Date header, UTC
    message_id: str = ""  # without angle brackets; "" where there is none
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    kind: EmailKind = EmailKind.CUSTOMER
    kind_reason: str = ""
    text: str = ""  # all visible text
    reply: str = (
        ""  # the new part, without quoted history and signature: all of `text` where nothing is left out
    )
    signature: str = ""
    quoted: str = ""  # the history and forwarded mail that `reply` leaves out
    language: str = ""  # ISO 639-1 of the new part; "" where it is too short to tell
    attachments: tuple[Attachment, ...] = ()
    hidden_text: bool = False  # HTML held text that a person would not see; it was left out
    other_ids: tuple[str, ...] = ()  # Message-IDs that it had before a server on the way gave it another
    bounced_id: str = ""  # of a bounce: the Message-ID of the mail that could not be delivered
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _with_reply(self) -> Self:
        if not self.reply:
            object.__setattr__(self, "reply", self.text)
        return self

    def to_store(self) -> str:
        """As JSON, without a `reply` that only repeats `text`: most mail is new as a whole, and kept for years."""
        return self.model_dump_json(exclude={"reply"} if self.reply == self.text else None)


class LeftOnServer(Frozen):
    """What of an email was not fetched, by IMAP section (RFC 3501, 6.4.5).

    It is kept beside the bytes and never read out of them, so that no sender can claim it.
    """

    sizes: dict[str, int] = Field(default_factory=dict)  # decoded bytes of each such part: estimates
    cut: tuple[str, ...] = ()  # of those, the texts of which the beginning was fetched
    first_bytes: int = 0  # where the structure could not be used: so many bytes were fetched, and no parts


@dataclass(frozen=True, slots=True)
class FetchedEmail:
    """One message as the mailbox server gave it. `raw` is None when it was listed but not given.

    With `left`, `raw` was put together from the parts that were fetched (ingest/partial.py).
    """

    uid: int
    raw: bytes | None
    size: int | None = None
    internal_date: datetime | None = None  # UTC
    problem: str = ""  # why raw is None: "gone", or a sentence
    left: LeftOnServer | None = None  # None: the email was fetched whole


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells a mail from others without its bytes. `size` in bytes and `internal_date` (UTC) as the server states them."""

    message_id: str
    size: int | None = None
    internal_date: datetime | None = None


class Category(Frozen):
    """One of the admin's categories."""

    name: str
    description: str = ""


class EarlierEmail(Frozen):
    """An earlier email of the same conversation, its quoted history trimmed."""

    sender: str
    text: str


class BriefRequest(Frozen):
    """All that the model may know about one email: one customer's conversation and the allowed labels.

    Stored beside the brief, so that training sees exactly what the model saw.
    """

    subject: str
    sender: str
    text: str  # the newest customer message; quoted history trimmed
    categories: tuple[Category, ...]
    earlier: tuple[EarlierEmail, ...] = ()  # oldest first: the original request is the first one
    written_in: str = ""  # ISO 639-1 code of the brief's language; "" is the email's own


class LabelScore(Frozen):
    """A label chosen from a closed set, with calibrated probabilities over the whole set, summing to 1.

    `confidence` is the chosen label's; None, and no scores, where the engine's server does not tell.
    """

    label: str
    confidence: float | None
    scores: dict[str, float]


class Sentence(Frozen):
    """A sentence of a summary and the span [start, end) in characters of the request's text that supports it."""

    text: str
    start: int | None = None
    end: int | None = None


class Grounding(Frozen):
    """What was checked against the visible email."""

    removed: tuple[str, ...] = ()  # what the model wrote and the email does not hold; it was left out
    sentences: tuple[Sentence, ...] = ()  # of the summary, in order
    quoted: tuple[BriefField, ...] = ()  # fields that quote the email because nothing of the model's was left


class Omission(Frozen):
    """What the model was not given because it did not fit."""

    part: Literal["newest", "original", "earlier"]  # newest email, original request, emails between
    emails: int  # how many emails it concerns
    tokens: int  # how many tokens of them were left out; an estimate where they were never counted


class Provenance(Frozen):
    """What made a brief. `adapter` is "" for the bare base model.

    All seconds are this email's share of its batch: `seconds` in all, of which prefill (prompt and labels) and
    decode (headline and summary). `tokens_cached` of `tokens_in` came from the shared prefix.
    """

    engine: str
    base_model: str
    base_revision: str = ""
    adapter: str = ""
    prompt_version: str
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    batch_size: int = 1
    device: str = ""


class Brief(Frozen):
    """What the model says about an email."""

    headline: str
    summary: str
    priority: LabelScore
    category: LabelScore
    language: str = ""  # of the email, ISO 639-1; "" where it is too short to tell
    needs_human: tuple[BriefField, ...] = ()  # labels too doubtful to rely on; the guess stays
    grounding: Grounding = Grounding()
    instructions_found: bool = False  # the email holds text addressed to an assistant
    cut: bool = False  # something was left out, see `omitted`
    omitted: tuple[Omission, ...] = ()
    provenance: Provenance


class ExampleOutput(Frozen):
    """The target of training: the brief after the agent. A missing field is left out of the loss."""

    priority: str | None = None
    category: str | None = None
    headline: str | None = None
    summary: str | None = None


# The parts of a dataset: to learn from; for early stopping and calibration; for the verdict, never trained on.
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Example(Frozen):
    """One JSONL line of a dataset (schema 1)."""

    schema_version: Literal[1] = 1
    id: str
    split: Split | None = None  # None: in a file that was never split
    input: BriefRequest
    output: ExampleOutput
    model_output: ExampleOutput = ExampleOutput()  # nothing, where no model of ours had said anything
    changed: tuple[BriefField, ...] = ()
    # How much a person stands behind it: changed it, pressed "right", finished it as it was, wrote it elsewhere.
    strength: Literal["corrected", "confirmed", "finished", "imported"]
    conversation: str  # key for splitting; not the row id of another system
    sender: str = ""  # salted hash of the customer's address
    agent: str = ""  # salted hash of the agent who judged last
    corrections: tuple[int, ...] = ()
    confirmations: tuple[int, ...] = ()
    adapter: str = ""
    prompt_version: str = ""
    tags: tuple[str, ...] = ()  # what an example was written or chosen for
    created_at: datetime | None = None  # when it was judged; None where nobody knows


class AdapterCard(Frozen):
    """The JSON file beside an adapter's weights: everything needed to judge and load it."""

    format: Literal["briefbox-adapter-1"] = "briefbox-adapter-1"
    name: str
    base_model: str
    base_sha256: str
    weights_sha256: str
    prompt_version: str
    dataset: str
    dataset_hash: str
    num_examples: int
    method: str = "lora"
    settings: dict[str, Any] = Field(default_factory=dict)
    # Fitted on the validation split. Temperatures by field ("priority"), 1.0 where missing; thresholds below which
    # a label needs a human, by field or by field and label ("priority", "priority/urgent").
    temperatures: dict[str, float] = Field(default_factory=dict)
    thresholds: dict[str, float] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)
    verdict: dict[str, Any] = Field(default_factory=dict)  # of the gate
    # What it answered to the probe set when it was judged (training.probes): roll-back proves itself by it.
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime


@dataclass(slots=True)
class TrainingProgress:
    """A sign of life of a training run."""

    step: int
    total_steps: int
    loss: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    stage: str = "training"  # training, calibrating, evaluating


class ProgressCallback(Protocol):
    """Called between steps. Raising stops the run (LeaseLostError when another process took it over)."""

    def __call__(self, progress: TrainingProgress, /) -> None: ...


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """What SELECT said about a folder."""

    uidvalidity: int
    exists: int
    uidnext: int | None = None
    highest_modseq: int | None = None
    flags: tuple[str, ...] = field(default=())
