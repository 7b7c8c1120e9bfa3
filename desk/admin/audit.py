"""The audit log: who did what, whether the chain holds, and all of it as a table for other programs."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from briefbox.db import Database
from briefbox.errors import InvalidValueError
from briefbox.store import audit_check, audit_log, audit_search
from briefbox.store.audit_search import Filter
from briefbox.tables import AuditEntry
from desk.access import Admin
from desk.context import Fields, TheDesk, answer, page

router = APIRouter(prefix="/admin/audit")

PAGE_SIZE = 50
MAX_EXPORT = 200_000
COLUMNS = ("id", "at", "actor", "action", "object", "detail", "previous_hash", "hash")

Word = Annotated[str, Query(max_length=200)]


@router.get("")
def audit_page(
    request: Request,
    desk: TheDesk,
    user: Admin,
    actor: Word = "",
    action: Word = "",
    object: Word = "",
    since: Word = "",
    until: Word = "",
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    note: Word = "",
) -> Response:
    """A page of it, newest first. `before` is where the page before it ended."""
    asked = {"actor": actor, "action": action, "object": object, "since": since, "until": until}
    problem = ""
    try:
        filter = _filter(asked)
    except InvalidValueError as error:
        problem, filter = (
            str(error),
            Filter(actor=actor.strip(), action=action.strip(), object=object.strip()),
        )
    with desk.database.read() as session:
        found = audit_search.entries(session, filter, before=before, limit=PAGE_SIZE + 1)
        actors, actions = audit_search.recent_words(session)
        chain = audit_check.state(session)
    kept = {name: value for name, value in asked.items() if value}
    more = len(found) > PAGE_SIZE
    return page(
        request,
        "audit.html",
        status=400 if problem else 200,
        entries=[(entry, detail_in_words(entry)) for entry in found[:PAGE_SIZE]],
        asked=asked,
        problem=problem,
        actors=actors,
        actions=actions,
        chain=chain,
        checking=note == "checking",
        before=before,
        next=urlencode({**kept, "before": found[PAGE_SIZE - 1].id}) if more else "",
        first=urlencode(kept),
    )


@router.post("/check")
def check_again(request: Request, desk: TheDesk, user: Admin) -> Response:
    """Check the chain from its first entry on; a little now, the rest in the background."""
    with desk.database.write() as session:
        audit_check.begin_again(session, actor=user.email)
        audit_check.step(session)
    return answer(request, "/admin/audit?note=checking")


@router.post("/csv")
def export(request: Request, desk: TheDesk, user: Admin, fields: Fields) -> Response:
    """What matches, as CSV. By POST, since an export is itself an entry."""
    asked = {name: fields.get(name, "")[:200] for name in ("actor", "action", "object", "since", "until")}
    filter = _filter(asked)
    with desk.database.write() as session:
        chosen = {name: value for name, value in asked.items() if value}
        audit_log.record(session, user.email, "audit log exported", filter=chosen)
    return StreamingResponse(
        _lines(desk.database, filter),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="briefbox-audit.csv"'},
    )


def check_chain(database: Database) -> bool:
    """A chore: check what was written since the last time. True when more waits."""
    with database.read() as session:
        if not audit_check.is_due(session):
            return False
    with database.write() as session:
        return audit_check.step(session)


def detail_in_words(entry: AuditEntry) -> list[tuple[str, str]]:
    """The details as pairs of words."""
    return [(name.replace("_", " "), _in_words(value)) for name, value in entry.detail.items()]


def _in_words(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_in_words(inner)}" for name, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _filter(asked: dict[str, str]) -> Filter:
    until = _day("until", asked["until"])
    return Filter(
        actor=asked["actor"].strip(),
        action=asked["action"].strip(),
        object=asked["object"].strip(),
        since=_day("from", asked["since"]),
        until=None if until is None else until + timedelta(days=1),
    )


def _day(name: str, text: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        day = datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=UTC)
        return min(day, datetime(9000, 1, 1, tzinfo=UTC))
    except ValueError:
        raise InvalidValueError(f"{name}: “{text}” is no day; expected one like 2026-11-28.") from None


def _lines(database: Database, filter: Filter) -> Iterator[str]:
    yield _line(COLUMNS)
    with database.read() as session:
        for entry in audit_search.every(session, filter, limit=MAX_EXPORT):
            detail = json.dumps(entry.detail, ensure_ascii=False, sort_keys=True)
            yield _line(
                (
                    str(entry.id),
                    entry.at.isoformat(),
                    entry.actor,
                    entry.action,
                    entry.object,
                    detail,
                    entry.previous_hash,
                    entry.hash,
                )
            )


def _line(values: tuple[str, ...]) -> str:
    out = io.StringIO()
    # What begins like a formula would be one in a spreadsheet.
    csv.writer(out).writerow(f"'{value}" if value[:1] in "=+-@\t\r" and value else value for value in values)
    return out.getvalue()
