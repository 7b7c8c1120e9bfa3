"""The ledger: every message a server showed us, written in one transaction with its bytes and the cursor.

Numbered as in `commit_batch`:

1. fence: the mailbox lease must still be ours;
2. leave out what the ledger holds already (a second delivery finds nothing to do);
3. each arrival gets exactly one row: queued, sighting, skipped, dead or gone;
4. the cursor moves, in the same transaction, so that a crash repeats work but loses none.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from isal import isal_zlib
from sqlmodel import Session, col, func, select, update

from briefbox.db import JSONText, now
from briefbox.schemas import FetchedEmail, FolderStatus, LedgerState, LeftOnServer, ParsedEmail, WorkState
from briefbox.store import dead_letters, folders, forms, mailboxes, rows, search, threads
from briefbox.store.handling import Handling
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import DeadLetter, Email, FolderCursor, LedgerEntry, Mailbox, RawEmail

# Level 1 already halves mail, and compression is on the path of every commit.
COMPRESSION_LEVEL = 1
# A list of UIDs longer than this is compared in one pass.
MANY = 2000
OLDER = "it was there before this mailbox was read (older mail: closed)"
_SIGHTING = (LedgerState.SIGHTING, "the same bytes are already held")
_OTHER_FORM = (
    LedgerState.SIGHTING,
    "the same email is already held (its Message-ID, date and size), once whole and once in part",
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A fetched message and what the parser made of it: `parsed`, and the same as JSON where it is at hand, or the `problem` why not."""

    fetched: FetchedEmail
    parsed: ParsedEmail | None = None
    problem: str = ""
    json: str = ""

    @property
    def digest(self) -> str | None:
        """The sha256 of its bytes; None where there are none."""
        return None if self.fetched.raw is None else sha256(self.fetched.raw).hexdigest()


def pack(raw: bytes) -> bytes:
    """The bytes as they are stored, in zlib's format; made several times faster than zlib makes it."""
    packed: bytes = isal_zlib.compress(raw, COMPRESSION_LEVEL)
    return packed


def open_folder(session: Session, mailbox_id: int, folder: str, uidvalidity: int) -> FolderCursor:
    """A folder's cursor for mail that comes from no server (imports, benches); begun at UID 0 where there is none."""
    cursors = folders.cursors_of(session, mailbox_id, folder)
    found = next((c for c in cursors if c.uidvalidity == uidvalidity), None)
    if found is None:
        found = folders.begin(
            session, mailbox_id, folder, FolderStatus(uidvalidity, exists=0), first_uid=0, newest_uid=0
        )
    folders.make_current(session, found)
    return found


def known_uids(session: Session, cursor: FolderCursor, uids: Iterable[int]) -> set[int]:
    """Which of these UIDs have a ledger row."""
    wanted = sorted(set(uids))
    if len(wanted) > MANY:  # one pass over the index instead of hundreds of look-ups
        rows = select(LedgerEntry.uid).where(
            *folders.entries_of(cursor), col(LedgerEntry.uid).between(wanted[0], wanted[-1])
        )
        return set(session.exec(rows)).intersection(wanted)
    known: set[int] = set()
    for start in range(0, len(wanted), 500):  # SQLite limits the number of bound parameters
        known.update(
            session.exec(
                select(LedgerEntry.uid).where(
                    *folders.entries_of(cursor), col(LedgerEntry.uid).in_(wanted[start : start + 500])
                )
            )
        )
    return known


def held(session: Session, cursor: FolderCursor, uids: Iterable[int]) -> dict[int, tuple[LedgerEntry, Email]]:
    """The rows of those of these UIDs that led to an email, with the email. For a handful of UIDs."""
    rows = session.exec(
        select(LedgerEntry, Email)
        .join(Email, col(LedgerEntry.email_id) == col(Email.id))
        .where(*folders.entries_of(cursor), col(LedgerEntry.uid).in_(list(uids)))
    )
    return {entry.uid: (entry, email) for entry, email in rows}


def move_backfill(session: Session, cursor: FolderCursor, uid: int) -> None:
    """Everything that was there before us is accounted for up to this UID."""
    session.exec(
        update(FolderCursor)
        .where(col(FolderCursor.id) == cursor.id, col(FolderCursor.backfill_uid) < uid)
        .values(backfill_uid=uid)
    )


def count(session: Session, cursor: FolderCursor) -> int:
    """How many ledger rows this (folder, UIDVALIDITY) has."""
    return session.exec(
        select(func.count()).select_from(LedgerEntry).where(*folders.entries_of(cursor))
    ).one()


def commit_batch(
    session: Session,
    lease: MailboxLease,
    cursor: FolderCursor,
    arrivals: Sequence[Arrival],
    *,
    up_to: int,
    lease_seconds: float,
    backfill: bool = False,
    moves: Literal["last_uid", "backfill_uid"] = "last_uid",
    handling: Handling = Handling(),
) -> list[int]:
    """Account for a batch and move the cursor to `up_to`. Returns the ids of emails that wait for a brief.

    `backfill`: they were there before us, and the mailbox says what becomes of such mail (`Mailbox.older`); `moves` names
    which end of the cursor moves. The caller commits, and sends hints only after that. Raises LeaseLostError when another poller owns
    the mailbox now.
    """
    mailboxes.renew(session, lease, seconds=lease_seconds)
    moment = now(session)
    how = _Handling(handling, backfill, _older(session, cursor.mailbox_id) if backfill else "open")
    known = known_uids(session, cursor, (a.fetched.uid for a in arrivals))
    fresh = [a for a in sorted(arrivals, key=lambda a: a.fetched.uid) if a.fetched.uid not in known]
    hashes = {a.fetched.uid: digest for a in fresh if (digest := a.digest) is not None}
    held = _held(session, cursor.mailbox_id, hashes.values())
    unknown = [a for a in fresh if hashes.get(a.fetched.uid) not in held]
    others = forms.held_in_another_form(session, cursor.mailbox_id, unknown, hashes)
    held |= {digest: email.id for digest, email in others.items()}

    # Rows go out in a few large INSERTs without objects: one by one they cost more than parsing the mail.
    entries = {a.fetched.uid: _entry(cursor, a, moment) for a in fresh}
    accepted, refused, sightings = [], [], []
    taken = set(held)
    for arrival in fresh:
        digest = hashes.get(arrival.fetched.uid)
        if digest in taken:
            sightings.append(arrival)
        elif digest is None or arrival.parsed is None:
            refused.append(arrival)
        else:
            taken.add(digest)
            accepted.append(arrival)
    emails = _store_emails(session, cursor.mailbox_id, accepted, hashes, moment, how)
    held |= {email.sha256: email.id for email in emails}
    for arrival, email in zip(accepted, emails, strict=True):
        state, reason = _end_of(email, how)
        entries[arrival.fetched.uid].update(email_id=email.id, state=state, reason=reason)
    for arrival in sightings:
        digest = hashes[arrival.fetched.uid]
        state, reason = _OTHER_FORM if digest in others else _SIGHTING
        entries[arrival.fetched.uid].update(email_id=held[digest], state=state, reason=reason)
    for arrival in refused:
        state, reason = _why_refused(arrival)
        entries[arrival.fetched.uid].update(state=state, reason=reason)
    ids = rows.insert(session, LedgerEntry, list(entries.values()))
    ledger_ids = dict(zip(entries, ids, strict=True))
    for arrival in refused:
        uid = arrival.fetched.uid
        _dead_letter(session, ledger_ids[uid], entries[uid], arrival, hashes.get(uid))
    session.exec(
        update(FolderCursor)
        .where(col(FolderCursor.id) == cursor.id, col(getattr(FolderCursor, moves)) < up_to)
        .values({moves: up_to})
    )
    return [email.id for email in emails if email.work_state == WorkState.WAITING]


def revive(
    session: Session,
    letter: DeadLetter,
    raw: bytes,
    parsed: ParsedEmail,
    *,
    actor: str,
    left: LeftOnServer | None = None,
    handling: Handling = Handling(),
) -> list[int]:
    """Give a dead letter of the fetch or parse stage its place after all. Returns the emails that wait for a brief."""
    entry = session.get_one(LedgerEntry, letter.ledger_id)
    digest, moment = sha256(raw).hexdigest(), now(session)
    email_id = _held(session, entry.mailbox_id, [digest]).get(digest)
    if email_id is not None:
        entry.state, entry.reason = _SIGHTING
    else:
        arrival = Arrival(FetchedEmail(entry.uid, raw, internal_date=entry.internal_date, left=left), parsed)
        how = _Handling(handling)
        [email] = _store_emails(session, entry.mailbox_id, [arrival], {entry.uid: digest}, moment, how)
        entry.state, entry.reason = _end_of(email, how)
        email_id = email.id
    entry.email_id = email_id
    session.add(entry)
    dead_letters.resolve(session, letter, f"{letter.stage} succeeded at a retry", actor=actor)
    return [email_id] if entry.state == LedgerState.QUEUED else []


def raw_bytes(session: Session, raw_id: int) -> bytes:
    """The bytes as the server gave them."""
    row = session.get_one(RawEmail, raw_id)
    return zlib.decompress(row.data)


def left_on_server(session: Session, raw_id: int) -> LeftOnServer | None:
    """What of these bytes' email stayed on the server; None where nothing did. For parse_email."""
    left = session.get_one(RawEmail, raw_id).left
    return LeftOnServer.model_validate(left) if left else None


# --- one arrival


def _held(session: Session, mailbox_id: int, digests: Iterable[str]) -> dict[str, int]:
    """Ids of the emails with these bytes, by sha256."""
    found = session.exec(
        select(Email.sha256, Email.id).where(
            Email.mailbox_id == mailbox_id, col(Email.sha256).in_(list(digests))
        )
    )
    return dict(found.all())


def _entry(cursor: FolderCursor, arrival: Arrival, moment: datetime) -> dict[str, Any]:
    fetched = arrival.fetched
    return {
        "mailbox_id": cursor.mailbox_id,
        "folder": cursor.folder,
        "uidvalidity": cursor.uidvalidity,
        "generation": cursor.generation,
        "uid": fetched.uid,
        "state": LedgerState.QUEUED,
        "email_id": None,
        "reason": "",
        "size": forms.size_of(fetched),
        "internal_date": fetched.internal_date,
        "seen_at": moment,
    }


def _why_refused(arrival: Arrival) -> tuple[LedgerState, str]:
    if arrival.fetched.raw is not None:
        return LedgerState.DEAD, arrival.problem or "cannot be parsed"
    if arrival.fetched.problem == "gone":
        return LedgerState.GONE, "listed by the server, then withdrawn before it was received"
    return LedgerState.DEAD, arrival.fetched.problem


def _dead_letter(
    session: Session, ledger_id: int, entry: Mapping[str, Any], arrival: Arrival, digest: str | None
) -> None:
    if entry["state"] != LedgerState.DEAD:
        return
    [raw_id] = rows.insert(session, RawEmail, [_raw(arrival, digest)]) if digest is not None else [None]
    session.add(
        DeadLetter(
            stage="fetch" if raw_id is None else "parse",
            mailbox_id=entry["mailbox_id"],
            ledger_id=ledger_id,
            raw_id=raw_id,
            reason=entry["reason"],
            created_at=entry["seen_at"],
        )
    )


@dataclass(frozen=True, slots=True)
class _Handling:
    """What becomes of the mail of one batch."""

    rules: Handling
    backfill: bool = False
    older: str = "open"  # Mailbox.older

    @property
    def closed(self) -> bool:
        """Nobody waits for an answer: it was there before us."""
        return self.backfill and self.older != "open"

    def is_briefed(self, parsed: ParsedEmail) -> bool:
        return parsed.kind in self.rules.brief_kinds and not (self.backfill and self.older == "closed")


def _older(session: Session, mailbox_id: int) -> str:
    return session.exec(select(Mailbox.older).where(Mailbox.id == mailbox_id)).one()


def _end_of(email: "_Stored", how: _Handling) -> tuple[LedgerState, str]:
    if email.work_state == WorkState.NONE:
        if email.kind in how.rules.brief_kinds:
            return LedgerState.SKIPPED, OLDER
        return LedgerState.SKIPPED, f"{email.kind}: {email.kind_reason}"
    return LedgerState.QUEUED, ""


@dataclass(slots=True)
class _Stored:
    """A new email as far as this batch asks about it; `id` from when it is stored."""

    sha256: str
    from_name: str
    from_address: str
    subject: str
    kind: str
    kind_reason: str
    received_at: datetime
    created_at: datetime
    work_state: WorkState
    conversation_id: int | None = None
    id: int = 0


def _store_emails(
    session: Session,
    mailbox_id: int,
    arrivals: Sequence[Arrival],
    hashes: Mapping[int, str],
    moment: datetime,
    how: _Handling,
) -> list[_Stored]:
    """Bytes, then conversations, then emails, in the order given; all of them are parsed."""
    digests = [hashes[arrival.fetched.uid] for arrival in arrivals]
    raw_ids = rows.insert(
        session, RawEmail, [_raw(arrival, digest) for arrival, digest in zip(arrivals, digests, strict=True)]
    )
    read = [
        (a.parsed, _stored(a, a.parsed, d, moment, how))
        for a, d in zip(arrivals, digests, strict=True)
        if a.parsed
    ]
    turns = threads.place(session, mailbox_id, read, handling=how.rules, closed=how.closed)
    values = [
        {
            "mailbox_id": mailbox_id,
            "raw_id": raw_id,
            "message_id": parsed.message_id,
            "language": parsed.language,
            "backfill": how.backfill,
            "parsed": JSONText(arrival.json or parsed.to_store()),
            "not_before": moment,
            **{name: getattr(email, name) for name in _STORED},
        }
        for raw_id, arrival, (parsed, email) in zip(raw_ids, arrivals, read, strict=True)
    ]
    emails = [email for _, email in read]
    for email, id_ in zip(emails, rows.insert(session, Email, values), strict=True):
        email.id = id_
    search.note(session, [email.id for email in emails])
    threads.record_turns(session, turns)
    return emails


_STORED = tuple(name for name in _Stored.__dataclass_fields__ if name != "id")


def _stored(arrival: Arrival, parsed: ParsedEmail, digest: str, moment: datetime, how: _Handling) -> _Stored:
    return _Stored(
        sha256=digest,
        from_name=parsed.sender.name,
        from_address=parsed.sender.address,
        subject=parsed.subject,
        kind=parsed.kind,
        kind_reason=parsed.kind_reason,
        received_at=arrival.fetched.internal_date or moment,
        created_at=moment,
        work_state=WorkState.WAITING if how.is_briefed(parsed) else WorkState.NONE,
    )


def _raw(arrival: Arrival, digest: str) -> dict[str, Any]:
    raw, left = arrival.fetched.raw or b"", arrival.fetched.left
    return {
        "sha256": digest,
        "size": len(raw),
        "data": pack(raw),
        "left": left.model_dump(mode="json") if left else {},
    }
