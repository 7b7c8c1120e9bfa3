"""`briefbox audit`: the promise as queries. Each line is one invariant with the number of rows that break it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.schemas import LedgerState, WorkState
from briefbox.store import audit_log
from briefbox.tables import (
    Adapter,
    AuditEntry,
    Brief,
    Conversation,
    DeadLetter,
    Email,
    FolderCursor,
    LedgerEntry,
    RawEmail,
)

# Work older than this and still not ended is stuck (the promise: within 10 minutes after any fault).
STUCK_AFTER = timedelta(minutes=10)
# Bytes are hashed again for this many of the newest emails; `--all-bytes` takes them all.
NUM_HASHED = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant: how many rows it looked at and how many break it (with the first few of them)."""

    name: str
    checked: int
    broken: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderBalance:
    """One folder: what the server held when we last compared, and what the ledger holds."""

    mailbox_id: int
    folder: str
    uidvalidity: int
    last_uid: int
    ledger: int
    states: dict[str, int]


def audit(session: Session, *, all_bytes: bool = False) -> list[Finding]:
    """Check every invariant that the database alone can show."""
    checks: tuple[Callable[[Session], Finding], ...] = (
        _every_entry_has_its_end,
        _every_queued_mail_is_in_the_queue,
        _every_skip_is_one,
        _every_merge_leads_somewhere,
        _nothing_twice,
        _nothing_stuck,
        _every_dead_email_has_its_letter,
        _every_brief_has_its_email,
        _cursor_covers_ledger,
        lambda s: _bytes_unaltered(s, None if all_bytes else NUM_HASHED),
        _at_most_one_champion,
        _audit_chain,
    )
    return [check(session) for check in checks]


def balances(session: Session) -> list[FolderBalance]:
    """Ledger rows by state for each current folder."""
    result = []
    for cursor in session.exec(
        select(FolderCursor)
        .where(col(FolderCursor.current))
        .order_by(col(FolderCursor.mailbox_id), FolderCursor.folder)
    ):
        rows = session.exec(
            select(LedgerEntry.state, func.count())
            .where(
                LedgerEntry.mailbox_id == cursor.mailbox_id,
                LedgerEntry.folder == cursor.folder,
                LedgerEntry.uidvalidity == cursor.uidvalidity,
                LedgerEntry.generation == cursor.generation,
            )
            .group_by(LedgerEntry.state)
        ).all()
        states = dict(rows)
        result.append(
            FolderBalance(
                cursor.mailbox_id,
                cursor.folder,
                cursor.uidvalidity,
                cursor.last_uid,
                sum(states.values()),
                states,
            )
        )
    return result


def _finding(name: str, checked: int, broken: list[str]) -> Finding:
    return Finding(name, checked, len(broken), tuple(broken[:5]))


def _count(session: Session, table: type, *where: object) -> int:
    return session.exec(select(func.count()).select_from(table).where(*where)).one()  # type: ignore[arg-type]


def _every_entry_has_its_end(session: Session) -> Finding:
    states = [s.value for s in LedgerState]
    needs_email = (LedgerState.QUEUED, LedgerState.SIGHTING)
    unknown = session.exec(select(LedgerEntry.id).where(col(LedgerEntry.state).not_in(states))).all()
    orphans = session.exec(
        select(LedgerEntry.id).where(
            col(LedgerEntry.email_id).is_(None),
            col(LedgerEntry.state).in_(needs_email)
            # Mail that was there before us is skipped without being fetched: it has its reason, and no bytes.
            | ((LedgerEntry.state == LedgerState.SKIPPED) & (LedgerEntry.reason == "")),
        )
    ).all()
    letters = select(DeadLetter.ledger_id).where(col(DeadLetter.ledger_id).is_not(None))
    silent = session.exec(
        select(LedgerEntry.id).where(
            LedgerEntry.state == LedgerState.DEAD, col(LedgerEntry.id).not_in(letters)
        )
    ).all()
    return _finding(
        "unaccounted: every message seen has one end",
        _count(session, LedgerEntry),
        [f"ledger {i}" for i in (*unknown, *orphans, *silent)],
    )


def _every_queued_mail_is_in_the_queue(session: Session) -> Finding:
    queued = (
        select(LedgerEntry.id)
        .join(Email, col(LedgerEntry.email_id) == col(Email.id))
        .where(LedgerEntry.state == LedgerState.QUEUED)
    )
    lost = session.exec(queued.where(col(Email.conversation_id).is_(None))).all()
    return _finding(
        "unaccounted: every queued mail stands in a conversation",
        _count(session, LedgerEntry, LedgerEntry.state == LedgerState.QUEUED),
        [f"ledger {i}" for i in lost],
    )


def _every_skip_is_one(session: Session) -> Finding:
    """What the ledger says of a mail and whether a worker will brief it are the same."""
    ended = select(LedgerEntry.id).join(Email, col(LedgerEntry.email_id) == col(Email.id))
    briefed = session.exec(
        ended.where(LedgerEntry.state == LedgerState.SKIPPED, Email.work_state != WorkState.NONE)
    ).all()
    never = session.exec(
        ended.where(LedgerEntry.state == LedgerState.QUEUED, Email.work_state == WorkState.NONE)
    ).all()
    silent = session.exec(
        ended.where(LedgerEntry.state == LedgerState.SKIPPED, col(LedgerEntry.reason) == "")
    ).all()
    return _finding(
        "skipped: never briefed, each with its reason, and no other mail is left out",
        _count(session, LedgerEntry, LedgerEntry.state == LedgerState.SKIPPED),
        [f"ledger {i}" for i in (*briefed, *never, *silent)],
    )


def _every_merge_leads_somewhere(session: Session) -> Finding:
    merged = select(Conversation.id).where(Conversation.state == "merged")
    standing = select(Conversation.id).where(Conversation.state != "merged")
    lost = session.exec(
        merged.where(col(Conversation.merged_into).is_(None) | col(Conversation.merged_into).not_in(standing))
    ).all()
    left = session.exec(select(Email.id).where(col(Email.conversation_id).in_(merged))).all()
    return _finding(
        "merged: each leads to a conversation that stands, and holds no mail itself",
        _count(session, Conversation, Conversation.state == "merged"),
        [f"conversation {i}" for i in lost] + [f"email {i}" for i in left],
    )


def _nothing_twice(session: Session) -> Finding:
    emails = session.exec(
        select(Email.sha256).group_by(col(Email.mailbox_id), Email.sha256).having(func.count() > 1)
    ).all()
    queued = session.exec(
        select(LedgerEntry.email_id)
        .where(LedgerEntry.state == LedgerState.QUEUED)
        .group_by(col(LedgerEntry.email_id))
        .having(func.count() > 1)
    ).all()
    briefs = session.exec(
        select(Brief.email_id)
        .group_by(col(Brief.email_id), Brief.engine, Brief.base_model, Brief.adapter, Brief.prompt_version)
        .having(func.count() > 1)
    ).all()
    broken = [f"bytes {d[:12]}" for d in emails] + [f"email {i}" for i in (*queued, *briefs)]
    return _finding("duplicate: no mail and no brief is there twice", _count(session, Email), broken)


def _nothing_stuck(session: Session) -> Finding:
    before = now(session) - STUCK_AFTER
    # Mail that was there before us waits until no other does, however long that takes.
    waiting = session.exec(
        select(Email.id).where(
            Email.work_state == WorkState.WAITING,
            col(Email.not_before) < before,
            col(Email.backfill).is_(False),
        )
    ).all()
    running = session.exec(
        select(Email.id).where(Email.work_state == WorkState.RUNNING, col(Email.lease_until) < before)
    ).all()
    open_work = _count(session, Email, col(Email.work_state).in_((WorkState.WAITING, WorkState.RUNNING)))
    return _finding(
        f"stuck: no work waits longer than {STUCK_AFTER.seconds // 60} minutes",
        open_work,
        [f"email {i}" for i in (*waiting, *running)],
    )


def _every_dead_email_has_its_letter(session: Session) -> Finding:
    letters = select(DeadLetter.email_id).where(
        col(DeadLetter.email_id).is_not(None), col(DeadLetter.resolved_at).is_(None)
    )
    silent = session.exec(
        select(Email.id).where(Email.work_state == WorkState.DEAD, col(Email.id).not_in(letters))
    ).all()
    return _finding(
        "dead letters: each has its reason and its retry",
        _count(session, Email, Email.work_state == WorkState.DEAD),
        [f"email {i}" for i in silent],
    )


def _every_brief_has_its_email(session: Session) -> Finding:
    # A brief by an adapter on trial is never shown, so it does not count.
    shown = col(Brief.shadow).is_(False)
    briefs = select(Brief.email_id).where(shown)
    missing = session.exec(
        select(Email.id).where(Email.work_state == WorkState.DONE, col(Email.id).not_in(briefs))
    ).all()
    dangling = session.exec(
        select(Conversation.id).where(
            col(Conversation.brief_id).is_not(None),
            col(Conversation.brief_id).not_in(select(Brief.id).where(shown)),
        )
    ).all()
    broken = [f"email {i}" for i in missing] + [f"conversation {i}" for i in dangling]
    return _finding("briefs: every email that is done has one", _count(session, Brief, shown), broken)


def _cursor_covers_ledger(session: Session) -> Finding:
    ahead = session.exec(
        select(LedgerEntry.id)
        .join(
            FolderCursor,
            (col(FolderCursor.mailbox_id) == col(LedgerEntry.mailbox_id))
            & (col(FolderCursor.folder) == col(LedgerEntry.folder))
            & (col(FolderCursor.uidvalidity) == col(LedgerEntry.uidvalidity))
            & (col(FolderCursor.generation) == col(LedgerEntry.generation)),
            isouter=True,
        )
        .where(col(FolderCursor.id).is_(None) | (col(LedgerEntry.uid) > col(FolderCursor.last_uid)))
    ).all()
    return _finding(
        "cursor: it stands at or behind what is stored, never ahead of it",
        _count(session, FolderCursor),
        [f"ledger {i}" for i in ahead],
    )


def _bytes_unaltered(session: Session, limit: int | None) -> Finding:
    query = select(RawEmail).order_by(col(RawEmail.id).desc()).execution_options(yield_per=50)
    checked, broken = 0, []
    for row in session.exec(query if limit is None else query.limit(limit)):
        checked += 1
        try:
            intact = sha256(zlib.decompress(row.data)).hexdigest() == row.sha256
        except zlib.error:
            intact = False
        if not intact:
            broken.append(f"raw {row.id}")
    return _finding("bytes: what is stored is what the server gave", checked, broken)


def _at_most_one_champion(session: Session) -> Finding:
    champions = session.exec(select(Adapter.name).where(Adapter.state == "champion")).all()
    return _finding("adapters: at most one is in use", _count(session, Adapter), list(champions)[1:])


def _audit_chain(session: Session) -> Finding:
    return _finding(
        "audit log: no entry changed or missing",
        _count(session, AuditEntry),
        [f"entry {i}" for i in audit_log.broken_links(session)],
    )
