"""The brief queue: claim a batch under a lease, write results under its fencing token.

    waiting --claim--> running --finish--> done
       ^                  |
       |    fail, retry   |-- fail for the last time, or died too often --> dead (a dead letter says why)
       +------------------+

An attempt is counted when work is claimed, so that an email which kills the process is counted too.
After a first failure an email is claimed alone: a poisonous one must not take its neighbours along.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, func, select, update

from briefbox.db import now
from briefbox.schemas import Brief as BriefValue
from briefbox.schemas import BriefRequest, Omission, WorkState
from briefbox.schemas import Category as CategoryValue
from briefbox.store import conversations
from briefbox.store.requests import requests_for
from briefbox.tables import Brief, Category, DeadLetter, Email, Mailbox


@dataclass(frozen=True, slots=True)
class ClaimedEmail:
    """An email leased to this worker, and what to ask the model."""

    email_id: int
    attempt: int
    request: BriefRequest
    adapter: str = ""  # the adapter of its mailbox; "" is the champion
    omitted: tuple[Omission, ...] = ()  # what the request leaves out, unseen by the model


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch under one lease. `token` goes with every write."""

    token: str
    emails: tuple[ClaimedEmail, ...]


def claim(
    session: Session, *, owner: str, limit: int, seconds: float, max_attempts: int, written_in: str = ""
) -> Claim | None:
    """Lease the oldest emails that wait, `limit` at most, for `seconds`. None when nothing waits.

    `written_in` is the ISO 639-1 code of the language of their briefs; "" is each email's own.
    """
    moment = now(session)
    # Two queries, because each can read its rows in the index's order; one with OR sorts all that wait.
    waiting = col(Email.work_state) == WorkState.WAITING, col(Email.not_before) <= moment
    lapsed = col(Email.work_state) == WorkState.RUNNING, col(Email.lease_until) < moment
    rows: list[Email] = []
    for ready in (waiting, lapsed):
        query = (
            select(Email)
            .where(*ready, col(Email.attempts) < max_attempts)
            .order_by(col(Email.backfill), col(Email.received_at), col(Email.id))
            .with_for_update(skip_locked=True)  # PostgreSQL; SQLite holds the write lock since BEGIN
        )
        rows += session.exec(query.limit(limit))
    rows = sorted(rows, key=lambda row: (row.backfill, row.received_at, row.id))[:limit]
    if not rows:
        return None
    rows = rows[:1] if rows[0].attempts else [row for row in rows if not row.attempts]
    token = uuid4().hex
    for row in rows:
        row.work_state, row.attempts = WorkState.RUNNING, row.attempts + 1
        row.lease_owner, row.lease_token, row.lease_until = owner, token, moment + timedelta(seconds=seconds)
        session.add(row)
    session.flush()
    requests = requests_for(session, rows, active_categories(session), written_in=written_in)
    mailboxes = {row.mailbox_id for row in rows}
    adapters = dict(
        session.exec(select(Mailbox.id, Mailbox.adapter).where(col(Mailbox.id).in_(mailboxes))).all()
    )
    return Claim(
        token,
        tuple(
            ClaimedEmail(row.id, row.attempts, request, adapters.get(row.mailbox_id, ""), omitted)
            for row, (request, omitted) in zip(rows, requests, strict=True)
        ),
    )


def renew(session: Session, token: str, *, seconds: float) -> int:
    """Prolong the lease of a batch. Returns how many emails are still ours."""
    return _write(session, token, lease_until=now(session) + timedelta(seconds=seconds))


def finish(session: Session, token: str, item: ClaimedEmail, brief: BriefValue) -> bool:
    """Store a brief and show it in the queue. False, and nothing written, when the lease is no longer ours."""
    if not _write(session, token, item.email_id, work_state=WorkState.DONE, **_no_lease(), last_error=""):
        return False
    email = session.get_one(Email, item.email_id)
    same = _same_maker(session, email.id, brief)
    if same is not None and same.shadow:
        # The adapter was on trial when it briefed this email; now it is in use, and its brief is shown.
        session.delete(same)
        session.flush()
        same = None
    row = same or _row(session, email, _with_omissions(brief, item.omitted), item.request, item.attempt)
    if brief.instructions_found:
        email.instructions_found = True
        session.add(email)
    session.flush()
    conversations.show_brief(session, row)
    return True


def finish_shadow(session: Session, email_id: int, brief: BriefValue, request: BriefRequest) -> bool:
    """Keep what an adapter on trial says about an email, for comparison only: nothing that agents see changes.

    False when its brief of this email is held already, or the email is gone.
    """
    email = session.get(Email, email_id)
    if email is None or _same_maker(session, email_id, brief) is not None:
        return False
    try:
        with session.begin_nested():
            _row(session, email, brief, request, 1, shadow=True)
    except IntegrityError:
        return False  # another worker kept the same one a moment ago
    return True


def _same_maker(session: Session, email_id: int, brief: BriefValue) -> Brief | None:
    """The brief of this email by the same engine, model, adapter and prompt, where there is one."""
    by = brief.provenance
    query = select(Brief).where(
        Brief.email_id == email_id,
        Brief.engine == by.engine,
        Brief.base_model == by.base_model,
        Brief.adapter == by.adapter,
        Brief.prompt_version == by.prompt_version,
    )
    return session.exec(query).first()


def _row(
    session: Session,
    email: Email,
    brief: BriefValue,
    request: BriefRequest,
    attempt: int,
    *,
    shadow: bool = False,
) -> Brief:
    assert email.conversation_id is not None
    row = Brief(
        email_id=email.id,
        conversation_id=email.conversation_id,
        headline=brief.headline,
        summary=brief.summary,
        priority=brief.priority.label,
        priority_confidence=brief.priority.confidence,
        priority_scores=brief.priority.scores,
        category=brief.category.label,
        category_confidence=brief.category.confidence,
        category_scores=brief.category.scores,
        language=brief.language,
        needs_human=list(brief.needs_human),
        grounding=brief.grounding.model_dump(mode="json"),
        instructions_found=brief.instructions_found,
        cut=brief.cut,
        omitted=[omission.model_dump(mode="json") for omission in brief.omitted],
        shadow=shadow,
        request=request.model_dump(mode="json"),
        attempt=attempt,
        created_at=now(session),
        **brief.provenance.model_dump(),
    )
    session.add(row)
    session.flush()
    return row


def _with_omissions(brief: BriefValue, more: tuple[Omission, ...]) -> BriefValue:
    """The brief with what its request left out, each part named once."""
    if not more:
        return brief
    parts: dict[str, Omission] = {}
    for new in (*brief.omitted, *more):
        old = parts.get(new.part)
        emails, tokens = (old.emails, old.tokens) if old else (0, 0)
        # The newest and the original email are one each, however often they were cut.
        emails = emails + new.emails if new.part == "earlier" else 1
        parts[new.part] = Omission(part=new.part, emails=emails, tokens=tokens + new.tokens)
    return brief.model_copy(update={"cut": True, "omitted": tuple(parts.values())})


def fail(
    session: Session,
    token: str,
    item: ClaimedEmail,
    reason: str,
    *,
    max_attempts: int,
    permanent: bool = False,
) -> bool:
    """Put the email back for a later try, or park it as a dead letter. False when the lease is no longer ours."""
    last = permanent or item.attempt >= max_attempts
    moment = now(session)
    state = WorkState.DEAD if last else WorkState.WAITING
    retry_at = moment + timedelta(seconds=min(60.0, 2.0**item.attempt))
    if not _write(
        session, token, item.email_id, work_state=state, not_before=retry_at, last_error=reason, **_no_lease()
    ):
        return False
    if last:
        _dead_letter(session, session.get_one(Email, item.email_id), reason, moment)
    return True


def give_back(session: Session, token: str) -> int:
    """Return unfinished emails at a clean stop, not counting the attempt."""
    return _write(session, token, work_state=WorkState.WAITING, attempts=Email.attempts - 1, **_no_lease())


def park_exhausted(session: Session, *, max_attempts: int) -> int:
    """Make dead letters of emails whose worker died for the last time. Returns how many."""
    moment = now(session)
    dead = session.exec(
        select(Email)
        .where(
            Email.work_state == WorkState.RUNNING,
            col(Email.lease_until) < moment,
            col(Email.attempts) >= max_attempts,
        )
        .with_for_update(skip_locked=True)
    ).all()
    for email in dead:
        email.work_state, email.last_error = (
            WorkState.DEAD,
            f"the worker died {email.attempts} times while briefing it",
        )
        email.lease_owner, email.lease_token, email.lease_until = "", "", None
        session.add(email)
        _dead_letter(session, email, email.last_error, moment)
    return len(dead)


def num_waiting(session: Session) -> int:
    """Emails that have no brief yet but should get one."""
    states = (WorkState.WAITING, WorkState.RUNNING)
    return session.exec(
        select(func.count()).select_from(Email).where(col(Email.work_state).in_(states))
    ).one()


def active_categories(session: Session) -> tuple[CategoryValue, ...]:
    """The admin's categories in their order."""
    rows = session.exec(
        select(Category)
        .where(col(Category.retired_at).is_(None))
        .order_by(col(Category.position), col(Category.id))
    )
    return tuple(CategoryValue(name=row.name, description=row.description) for row in rows)


def _write(session: Session, token: str, email_id: int | None = None, /, **values: object) -> int:
    """The fenced write: it changes nothing unless this lease still owns the rows."""
    statement = update(Email).where(
        col(Email.lease_token) == token, col(Email.work_state) == WorkState.RUNNING
    )
    if email_id is not None:
        statement = statement.where(col(Email.id) == email_id)
    return int(session.exec(statement.values(**values)).rowcount)


def _no_lease() -> dict[str, str | None]:
    return {"lease_owner": "", "lease_token": "", "lease_until": None}


def _dead_letter(session: Session, email: Email, reason: str, moment: datetime) -> None:
    session.add(
        DeadLetter(
            stage="brief",
            mailbox_id=email.mailbox_id,
            email_id=email.id,
            raw_id=email.raw_id,
            reason=reason,
            attempts=email.attempts,
            created_at=moment,
        )
    )
    conversations.touch(session, email.conversation_id, moment)
