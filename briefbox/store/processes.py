"""Signs of life of the long-running processes, so that a person can see who works and who does not."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, select, update

from briefbox.db import now
from briefbox.tables import ProcessBeat

# A process that has been silent this long is shown as gone, and forgotten after a day.
SILENT_AFTER = timedelta(seconds=60)
FORGET_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ProcessName:
    """Who speaks: the kind of process, and a name no other running process has."""

    kind: str
    name: str


def this_process(kind: str) -> ProcessName:
    """The calling process as a lease owner and in the list of processes."""
    return ProcessName(kind, f"{kind}@{socket.gethostname()}:{os.getpid()}")


def beat(session: Session, process: ProcessName, detail: str = "") -> None:
    """Say that the process is alive and what it does."""
    moment = now(session)
    alive = (
        update(ProcessBeat).where(col(ProcessBeat.name) == process.name).values(seen_at=moment, detail=detail)
    )
    if session.exec(alive).rowcount:
        return
    session.exec(delete(ProcessBeat).where(col(ProcessBeat.seen_at) < moment - FORGET_AFTER))
    try:
        with session.begin_nested():
            session.add(
                ProcessBeat(
                    name=process.name, kind=process.kind, detail=detail, started_at=moment, seen_at=moment
                )
            )
    except IntegrityError:
        session.exec(alive)  # another thread of this process said it first


def leave(session: Session, process: ProcessName) -> None:
    """Take the process off the list at a clean stop."""
    session.exec(delete(ProcessBeat).where(col(ProcessBeat.name) == process.name))


def all_of(session: Session) -> list[tuple[ProcessBeat, bool]]:
    """Every known process, and whether it gave a sign of life lately."""
    moment = now(session)
    return [
        (row, moment - row.seen_at < SILENT_AFTER)
        for row in session.exec(select(ProcessBeat).order_by(ProcessBeat.name))
    ]
