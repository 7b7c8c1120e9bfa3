"""What people ask of the training worker on the desk: a look at what would be learned, a run, a roll-back.

    waiting --the worker takes it--> running --> done or failed

The desk has neither the engine nor the harvest. A worker that dies leaves a lease behind, and the next one takes the
request over when it has lapsed. The end is written in the transaction of the effect, and only under one's own lease.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

from sqlmodel import Session, and_, col, or_, select

from briefbox.db import now
from briefbox.errors import ConflictError, LeaseLostError
from briefbox.store import adapters, audit_log
from briefbox.tables import RollBackRequest, TrainingRequest, TrainingRun

Kind = Literal["train", "look"]
Request = TypeVar("Request", TrainingRequest, RollBackRequest)

OPEN = ("waiting", "running")
# Loading a model and asking it the probe set may take minutes on a processor.
LEASE = timedelta(minutes=10)


def ask(session: Session, kind: Kind, *, actor: str) -> TrainingRequest:
    """Ask for a run on a fresh harvest ("train"), or only for what would be in it ("look").

    Asked for twice, it is the same request. Raises ConflictError where a run is under way.
    """
    waiting = session.exec(
        select(TrainingRequest).where(TrainingRequest.kind == kind, col(TrainingRequest.state).in_(OPEN))
    ).first()
    if waiting is not None:
        return waiting
    if kind == "train":
        run = session.exec(select(TrainingRun).where(col(TrainingRun.state).in_(OPEN)).limit(1)).first()
        if run is not None:
            raise ConflictError(
                f"Training run {run.id} is under way. Wait for its end or cancel it; then start another."
            )
    request = TrainingRequest(kind=kind, actor=actor, created_at=now(session))
    session.add(request)
    session.flush()
    if kind == "train":
        audit_log.record(session, actor, "training asked for on the desk", str(request.id))
    return request


def ask_roll_back(session: Session, *, actor: str) -> RollBackRequest:
    """Ask for a roll-back to what was in use before the champion. Asked for twice, it is the same request.

    Raises ConflictError where there is nothing to roll back.
    """
    adapters.destination(session)
    waiting = session.exec(select(RollBackRequest).where(col(RollBackRequest.state).in_(OPEN))).first()
    if waiting is not None:
        return waiting
    request = RollBackRequest(actor=actor, created_at=now(session))
    session.add(request)
    session.flush()
    audit_log.record(session, actor, "roll-back asked for", str(request.id))
    return request


def latest(session: Session, table: type[Request], *conditions: Any) -> Request | None:
    """The newest request of this kind."""
    query = select(table).where(*conditions).order_by(col(table.id).desc()).limit(1)
    return session.exec(query).first()


def any_waiting(session: Session) -> bool:
    """Whether the worker has something to take: asked without the right to write."""
    one = session.exec(_free(session, TrainingRequest).limit(1)).first()
    return one is not None or session.exec(_free(session, RollBackRequest).limit(1)).first() is not None


def claim(session: Session, table: type[Request]) -> Request | None:
    """Take the oldest that waits, or that a dead worker left behind. None when there is none."""
    query = _free(session, table).limit(1).with_for_update(skip_locked=True)
    request: Request | None = session.exec(query).first()
    if request is not None:
        request.state, request.lease_until = "running", now(session) + LEASE
        session.add(request)
    return request


def finish(session: Session, request: TrainingRequest | RollBackRequest, **values: Any) -> None:
    """It is done; `values` are columns that say what came of it. Raises LeaseLostError."""
    _end(session, request, "done", values)


def fail(session: Session, request: TrainingRequest | RollBackRequest, reason: str) -> None:
    """It could not be done, and why. Raises LeaseLostError."""
    _end(session, request, "failed", {"error": reason})


def _free(session: Session, table: type[Request]) -> Any:
    lapsed = and_(col(table.state) == "running", col(table.lease_until) < now(session))
    return select(table).where(or_(col(table.state) == "waiting", lapsed)).order_by(col(table.id))


def _end(
    session: Session, request: TrainingRequest | RollBackRequest, state: str, values: dict[str, Any]
) -> None:
    table = type(request)
    mine = table.id == request.id, table.state == "running", table.lease_until == request.lease_until
    row = session.exec(select(table).where(*mine).with_for_update()).first()
    if row is None:
        raise LeaseLostError(
            f"Another training worker has taken over what {request.actor} asked for; this one wrote nothing."
        )
    for name, value in (values | {"state": state, "lease_until": None, "finished_at": now(session)}).items():
        setattr(row, name, value)
    session.add(row)


def open_requests(session: Session) -> Sequence[TrainingRequest | RollBackRequest]:
    """All that wait or are being done."""
    return [
        *session.exec(select(TrainingRequest).where(col(TrainingRequest.state).in_(OPEN))),
        *session.exec(select(RollBackRequest).where(col(RollBackRequest.state).in_(OPEN))),
    ]
