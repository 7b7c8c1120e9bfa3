"""What the learning loop keeps in the database: dataset versions, and training runs under a lease."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from sqlmodel import Session, and_, col, or_, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, LeaseLostError, NotFoundError
from briefbox.schemas import UNFINISHED, Split, WorkState
from briefbox.store import audit_log
from briefbox.tables import (
    Adapter,
    Brief,
    Confirmation,
    Conversation,
    Correction,
    Dataset,
    Email,
    Exclusion,
    SplitMember,
    TrainingRun,
    User,
)

# --- harvest


@dataclass(frozen=True, slots=True)
class Judged:
    """A brief of a finished conversation, and what agents said about it."""

    brief: Brief
    conversation: Conversation
    corrections: tuple[Correction, ...]
    confirmations: tuple[Confirmation, ...]


def judged_briefs(session: Session) -> list[Judged]:
    """Briefs of finished conversations that an agent corrected or confirmed, oldest first; without what is excluded."""
    rules = exclusions(session)
    corrections: dict[int, list[Correction]] = {}
    for correction in session.exec(
        select(Correction)
        .where(col(Correction.brief_id).is_not(None), col(Correction.undone_at).is_(None))
        .order_by(col(Correction.id))
    ):
        if _is_excluded(correction, rules):
            continue
        corrections.setdefault(correction.brief_id or 0, []).append(correction)
    confirmations: dict[int, list[Confirmation]] = {}
    for confirmation in session.exec(
        select(Confirmation).where(col(Confirmation.undone_at).is_(None)).order_by(col(Confirmation.id))
    ):
        if _is_excluded(confirmation, rules):
            continue
        confirmations.setdefault(confirmation.brief_id, []).append(confirmation)
    rows = session.exec(
        select(Brief, Conversation)
        .join(Conversation, col(Brief.conversation_id) == col(Conversation.id))
        .join(Email, col(Brief.email_id) == col(Email.id))
        # A mail that somebody took out of the queue is no example of customer mail.
        .where(
            Conversation.state == "done",
            col(Brief.shadow).is_(False),
            Email.work_state != WorkState.NONE,
        )
        .order_by(col(Brief.id))
    )
    return [
        Judged(
            brief, conversation, tuple(corrections.get(brief.id, ())), tuple(confirmations.get(brief.id, ()))
        )
        for brief, conversation in rows
        if brief.id in corrections or brief.id in confirmations
    ]


def num_unfinished(session: Session) -> int:
    """Corrected conversations that are not done yet, so that their corrections are not harvested."""
    query = (
        select(Correction.conversation_id)
        .join(Conversation, col(Correction.conversation_id) == col(Conversation.id))
        .where(col(Correction.undone_at).is_(None))
    )
    return len(set(session.exec(query.where(col(Conversation.state).in_(UNFINISHED)))))


# --- datasets


def add_dataset(session: Session, dataset: Dataset, *, actor: str) -> Dataset:
    """Store a dataset version; the one with the same content where it exists already."""
    existing = session.exec(select(Dataset).where(Dataset.content_hash == dataset.content_hash)).first()
    if existing is not None:
        return existing
    dataset.created_at = now(session)
    session.add(dataset)
    session.flush()
    audit_log.record(
        session,
        actor,
        "dataset written",
        dataset.name,
        examples=dataset.num_examples,
        hash=dataset.content_hash,
    )
    return dataset


def get_dataset(session: Session, name: str | None) -> Dataset:
    """The dataset of this name, or the newest. Raises NotFoundError."""
    query = select(Dataset).order_by(col(Dataset.id).desc())
    dataset = session.exec(query.where(Dataset.name == name) if name else query).first()
    if dataset is None:
        found = "There is no dataset yet" if name is None else f"There is no dataset named {name}"
        raise NotFoundError(f"{found}. Make one from what agents corrected with: briefbox dataset harvest")
    return dataset


def take_dataset(session: Session, name: str, folder: Path, *, actor: str) -> Path:
    """The JSONL file of a version, under the data folder `folder`, for somebody to take away: audited as an export.

    Raises NotFoundError when there is no such version, or its file is on another machine.
    """
    dataset = get_dataset(session, name)
    file = folder / dataset.path
    if not file.is_file():
        raise NotFoundError(
            f"The file of {dataset.name} is not in the desk's data folder. It is on the machine that trains: briefbox dataset export {dataset.name} --to FILE.jsonl"
        )
    audit_log.record(session, actor, "dataset exported", dataset.name, examples=dataset.num_examples)
    return file


def datasets(session: Session) -> list[Dataset]:
    """All versions, newest first."""
    return list(session.exec(select(Dataset).order_by(col(Dataset.id).desc())))


def remembered_splits(session: Session) -> dict[str, Split]:
    """The part that each example was given in an earlier version, by example id."""
    return {row.example_id: cast(Split, row.split) for row in session.exec(select(SplitMember))}


def remember_splits(session: Session, splits: Mapping[str, Split], dataset_id: int) -> None:
    """Keep the parts of examples that are new. One that has a part keeps it."""
    known = remembered_splits(session)
    for example_id, split in splits.items():
        if example_id not in known:
            session.add(SplitMember(example_id=example_id, split=split, dataset_id=dataset_id))
    session.flush()


# --- exclusions


def exclude(
    session: Session,
    *,
    user: User | None,
    since: datetime | None,
    until: datetime | None,
    reason: str,
    actor: str,
) -> Exclusion:
    """Keep what an agent (None: everybody) judged in a range of time out of the next datasets.

    Raises InvalidValueError when nothing limits it.
    """
    if user is None and since is None and until is None:
        raise InvalidValueError(
            "An exclusion without agent and time would be of everything; name one of them."
        )
    row = Exclusion(
        user_id=user.id if user is not None else None,
        since=since,
        until=until,
        reason=reason,
        created_by=actor,
        created_at=now(session),
    )
    session.add(row)
    session.flush()
    audit_log.record(
        session,
        actor,
        "judgements excluded",
        str(row.id),
        agent=user.email if user is not None else "",
        since=since.isoformat() if since else "",
        until=until.isoformat() if until else "",
        reason=reason,
    )
    return row


def lift_exclusion(session: Session, exclusion_id: int, *, actor: str) -> None:
    """Let the judgements count again. Raises NotFoundError."""
    row = session.get(Exclusion, exclusion_id)
    if row is None or row.lifted_at is not None:
        raise NotFoundError(f"There is no exclusion {exclusion_id} in force.")
    row.lifted_at = now(session)
    session.add(row)
    audit_log.record(session, actor, "exclusion lifted", str(exclusion_id))


def exclusions(session: Session) -> list[Exclusion]:
    """Those in force."""
    return list(
        session.exec(select(Exclusion).where(col(Exclusion.lifted_at).is_(None)).order_by(col(Exclusion.id)))
    )


def _is_excluded(row: Correction | Confirmation, rules: Sequence[Exclusion]) -> bool:
    return any(
        rule.user_id in (None, row.user_id)
        and (rule.since is None or row.created_at >= rule.since)
        and (rule.until is None or row.created_at < rule.until)
        for rule in rules
    )


# --- runs


def add_run(session: Session, run: TrainingRun, *, actor: str) -> TrainingRun:
    """Ask for a training run. Raises ConflictError when the same one is waiting or running."""
    twin = session.exec(
        select(TrainingRun).where(
            TrainingRun.dataset_id == run.dataset_id,
            TrainingRun.method == run.method,
            col(TrainingRun.state).in_(("waiting", "running")),
        )
    ).first()
    if twin is not None:
        raise ConflictError(
            f"Training run {twin.id} on the same dataset is {twin.state} already. Wait for it, or see it with: briefbox train --status"
        )
    run.created_at, run.created_by = now(session), actor
    session.add(run)
    session.flush()
    audit_log.record(
        session, actor, "training asked for", str(run.id), dataset=run.dataset_id, method=run.method
    )
    return run


def was_trained(session: Session, dataset_id: int, method: str = "lora") -> bool:
    """Whether a run on this dataset is under way or came to its end."""
    states = ("waiting", "running", "done")
    query = select(TrainingRun.id).where(
        TrainingRun.dataset_id == dataset_id,
        TrainingRun.method == method,
        col(TrainingRun.state).in_(states),
    )
    return session.exec(query).first() is not None


def get_run(session: Session, run_id: int) -> TrainingRun:
    """Raises NotFoundError."""
    run = session.get(TrainingRun, run_id)
    if run is None:
        raise NotFoundError(f"There is no training run {run_id}.")
    return run


def runs(session: Session, *, limit: int = 20) -> list[TrainingRun]:
    """The newest runs first."""
    return list(session.exec(select(TrainingRun).order_by(col(TrainingRun.id).desc()).limit(limit)))


def claim_run(
    session: Session, run_id: int | None, *, owner: str, seconds: float, max_attempts: int
) -> tuple[TrainingRun, str] | None:
    """Lease a waiting or abandoned run (this one, or the oldest). None when there is none: a second delivery returns at once."""
    moment, token = now(session), uuid4().hex
    free = or_(
        TrainingRun.state == "waiting",
        and_(TrainingRun.state == "running", col(TrainingRun.lease_until) < moment),
    )
    query = select(TrainingRun).where(free).order_by(col(TrainingRun.id)).with_for_update(skip_locked=True)
    run = session.exec(query.where(TrainingRun.id == run_id) if run_id is not None else query).first()
    if run is None:
        return None
    if run.attempts >= max_attempts:
        run.state, run.error, run.finished_at = (
            "failed",
            f"the process died {run.attempts} times while training",
            moment,
        )
        session.add(run)
        return None
    run.state, run.attempts, run.started_at = "running", run.attempts + 1, run.started_at or moment
    run.lease_owner, run.lease_token, run.lease_until = owner, token, moment + timedelta(seconds=seconds)
    session.add(run)
    return run, token


def waiting_runs(session: Session) -> list[int]:
    """Ids of runs that nobody works on now."""
    moment = now(session)
    free = or_(
        TrainingRun.state == "waiting",
        and_(TrainingRun.state == "running", col(TrainingRun.lease_until) < moment),
    )
    return list(session.exec(select(TrainingRun.id).where(free).order_by(col(TrainingRun.id))))


def progress(session: Session, run_id: int, token: str, *, seconds: float, **values: Any) -> None:
    """Write progress and prolong the lease. Raises LeaseLostError when another process trains this run now."""
    _write(session, run_id, token, lease_until=now(session) + timedelta(seconds=seconds), **values)


def finish_run(
    session: Session, run_id: int, token: str, adapter: Adapter | None, *, verdict: dict[str, Any]
) -> None:
    """Register what was made (None: a whole model, which is no adapter) and end the run, in one transaction.

    Raises LeaseLostError.
    """
    if adapter is not None:
        adapter.created_at, adapter.training_run_id = now(session), run_id
        session.add(adapter)
        session.flush()
    _write(
        session,
        run_id,
        token,
        state="done",
        stage="",
        adapter_id=adapter.id if adapter is not None else None,
        verdict=verdict,
        seconds_left=None,
        finished_at=now(session),
        lease_token="",
        lease_until=None,
    )
    audit_log.record(
        session,
        "training",
        "training run ended",
        str(run_id),
        adapter=adapter.name if adapter is not None else "",
        sha256=adapter.weights_sha256 if adapter is not None else "",
        decision=verdict.get("decision", ""),
        rule=verdict.get("rule", ""),
    )


def cancel_run(session: Session, run_id: int, *, actor: str) -> TrainingRun:
    """End a waiting run, or ask a running one to stop after its step. Raises NotFoundError, ConflictError."""
    run = get_run(session, run_id)
    if run.state not in ("waiting", "running"):
        raise ConflictError(f"Training run {run_id} is {run.state} already; there is nothing to cancel.")
    if run.state == "waiting":
        run.state, run.error, run.finished_at = "cancelled", "cancelled before it began", now(session)
    run.cancel_requested = True
    session.add(run)
    audit_log.record(session, actor, "training cancelled", str(run_id))
    return run


def fail_run(session: Session, run_id: int, token: str, reason: str, *, state: str = "failed") -> None:
    """End the run with its reason. Raises LeaseLostError."""
    _write(
        session,
        run_id,
        token,
        state=state,
        stage="",
        seconds_left=None,
        error=reason,
        finished_at=now(session),
        lease_token="",
        lease_until=None,
    )


def _write(session: Session, run_id: int, token: str, **values: Any) -> None:
    mine = (
        col(TrainingRun.id) == run_id,
        col(TrainingRun.lease_token) == token,
        col(TrainingRun.state) == "running",
    )
    if not session.exec(update(TrainingRun).where(*mine).values(**values)).rowcount:
        raise LeaseLostError(f"Another process has taken over training run {run_id}; this one wrote nothing.")
