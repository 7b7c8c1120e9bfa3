"""Reading the audit log: newest first, by person, action, object and time, in keyset pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from briefbox.tables import AuditEntry

# The actions that are offered to choose from are those of so many newest entries.
LOOK_BACK = 2_000


@dataclass(frozen=True, slots=True)
class Filter:
    """What is looked for; what is empty does not matter."""

    actor: str = ""
    action: str = ""
    object: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        found: list[ColumnElement[bool]] = []
        for column, value in (
            (AuditEntry.actor, self.actor),
            (AuditEntry.action, self.action),
            (AuditEntry.object, self.object),
        ):
            if value:
                found.append(col(column) == value)
        if self.since is not None:
            found.append(col(AuditEntry.at) >= self.since)
        if self.until is not None:
            found.append(col(AuditEntry.at) < self.until)
        return found


def entries(session: Session, filter: Filter, *, before: int | None, limit: int) -> list[AuditEntry]:
    """The newest entries that match; `before` is the id where the page before ended."""
    query = select(AuditEntry).where(*filter.conditions())
    if before is not None:
        query = query.where(col(AuditEntry.id) < before)
    return list(session.exec(query.order_by(col(AuditEntry.id).desc()).limit(limit)))


def every(session: Session, filter: Filter, *, limit: int, chunk: int = 1_000) -> Iterator[AuditEntry]:
    """All of them up to `limit`, newest first, few at a time in memory."""
    before: int | None = None
    left = limit
    while left > 0:
        found = entries(session, filter, before=before, limit=min(chunk, left))
        yield from found
        if len(found) < min(chunk, left):
            return
        before, left = found[-1].id, left - len(found)
        session.expunge_all()


def recent_words(session: Session) -> tuple[list[str], list[str]]:
    """Actors and actions of the newest entries, to choose from."""
    rows = session.exec(
        select(AuditEntry.actor, AuditEntry.action).order_by(col(AuditEntry.id).desc()).limit(LOOK_BACK)
    ).all()
    return sorted({actor for actor, _ in rows}), sorted({action for _, action in rows})
