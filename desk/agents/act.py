"""What agents do with conversations from the list and from a conversation: assign, put off, undo, and all of it in bulk.

Judging a brief and finishing are in desk/agents/conversation.py. Everything here is a plain form; a program that asks for
JSON gets JSON.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from briefbox.db import now
from briefbox.errors import InvalidValueError, NotFoundError
from briefbox.store import actions, bulk, told
from briefbox.store.bulk import Action, BulkResult
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight
from briefbox.tables import User
from desk.access import Seen, SignedIn
from desk.agents import said
from desk.context import Desk, Fields, TheDesk, answer
from desk.cookies import local
from desk.times import parse_snooze

router = APIRouter()

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

# So many in one transaction: nobody else waits long for the right to write.
TOGETHER = 1000
MAX_SELECTED = 1000
_TOLD = ("did", "failed", "done", "note")
NOTHING_LEFT = "There is nothing of yours to undo. What was done more than an hour ago stays."


@router.post("/conversations/{conversation_id}/assign")
def assign(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Give it to somebody (`to`: a user's number), to oneself (me) or to nobody (none)."""
    with desk.database.write() as session:
        before = actions.last_undoable(session, user, conversation_id=conversation_id)
        actions.assign(session, conversation_id, _whom(fields.get("to", ""), user), user=user)
        last = actions.last_undoable(session, user, conversation_id=conversation_id)
        # It may be so already: then nothing was done, and nothing is said of what was done before.
        activity_id = last.id if last is not None and (before is None or before.id != last.id) else 0
    return _done(request, desk, user, conversation_id, fields, activity_id)


@router.post("/conversations/{conversation_id}/snooze")
def snooze(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Put it off: `until` is later, tomorrow, monday, or a date and time in the desk's time zone."""
    with desk.database.write() as session:
        until = parse_snooze(_until(fields), now(session), desk.settings.timezone)
        actions.snooze(session, conversation_id, until, user=user)
        last = actions.last_undoable(session, user, conversation_id=conversation_id)
        activity_id = last.id if last is not None else 0
    return _done(request, desk, user, conversation_id, fields, activity_id)


@router.post("/undo")
def undo(request: Request, desk: TheDesk, user: SignedIn, sight: Seen, fields: Fields) -> Response:
    """Take back what the person did last, or the `activity` that is named, with all of the same bulk action."""
    activity_id = _number(fields["activity"], "activity") if fields.get("activity") else None
    with desk.database.write() as session:
        if activity_id is None:
            last = actions.last_undoable(session, user)
            if last is None:
                raise NotFoundError(NOTHING_LEFT)
            activity_id = last.id
        before = told.told(session, user, activity_id)
        undone = actions.undo(session, activity_id, user=user)
        for (
            conversation_id
        ) in undone:  # of mailboxes that the person does not see any more, nothing is undone
            sight.check_conversation(session, conversation_id)
    number = len(undone)
    text = f"Undone: {number:,} are as they were." if number > 1 else "Undone."
    if before is not None and number < before.number:
        rest = before.number - number
        text += f" {rest:,} {'stays' if rest == 1 else 'stay'}, because somebody changed {'it' if rest == 1 else 'them'} since."
    back = _with(local(fields.get("back") or "/"))
    return answer(request, back, said=text, number=number, conversations=undone[:MAX_SELECTED])


# --- in bulk


async def _bulk_fields(request: Request) -> list[tuple[str, str]]:
    form = await request.form(max_files=1, max_fields=MAX_SELECTED + 50)
    return [(name, value.replace("\0", "")) for name, value in form.multi_items() if isinstance(value, str)]


BulkFields = Annotated[list[tuple[str, str]], Depends(_bulk_fields)]


@router.post("/bulk")
def in_bulk(request: Request, desk: TheDesk, user: SignedIn, sight: Seen, pairs: BulkFields) -> Response:
    """Do one thing (`do`) with the selected rows (`id`, several), or with `all` that the filter `query` matches.

    `do` is done, reopen, assign:WHOM, snooze:UNTIL, priority:NAME or category:NAME. Raises InvalidValueError.
    """
    fields = dict(pairs)
    action, values = _what(desk, fields, user)
    with desk.database.read() as session:
        if fields.get("all") == "1":
            wanted = Filter.from_query(fields.get("query", ""), me=user.id)
            ids = bulk.matching(session, wanted, sight)
        else:
            ids = [_number(value, "id") for name, value in pairs if name == "id"]
    if not ids:
        raise InvalidValueError("No row is selected. Go back and select some, then say what to do with them.")
    result = _apply(desk, ids, action, values, user, sight)
    with desk.database.read() as session:
        note = said.note(session, user, result.activity_id or 0, result.num_failed, desk.settings.timezone)
    text = note.text if note is not None else "Nothing was changed: all of them were so already."
    back = local(fields.get("back") or "/")
    to = _with(back, did=result.activity_id or 0, failed=result.num_failed)
    return answer(
        request,
        to,
        said=text,
        why=next(iter(result.failed.values()), ""),
        changed=result.changed,
        failed=result.num_failed,
        activity=result.activity_id,
    )


def _what(desk: Desk, fields: dict[str, str], user: User) -> tuple[Action, dict[str, Any]]:
    """The action, and what it is done with."""
    name, _, value = fields.get("do", "").partition(":")
    if name in ("done", "reopen"):
        finished: Literal["done", "reopen"] = "done" if name == "done" else "reopen"
        return finished, {}
    if name == "assign":
        return "assign", {"to": _whom(value, user)}
    if name == "snooze":
        with desk.database.read() as session:
            moment = now(session)
        given = fields.get("at", "") if value == "at" else value
        return "snooze", {"until": parse_snooze(given, moment, desk.settings.timezone)}
    if name in ("priority", "category"):
        labelled: Literal["priority", "category"] = "priority" if name == "priority" else "category"
        return labelled, {"value": value}
    raise InvalidValueError(
        f"“{name[:50]}” is nothing to do with conversations; expected one of {', '.join(bulk.ACTIONS)}."
    )


def _apply(
    desk: Desk, ids: Sequence[int], action: Action, values: dict[str, Any], user: User, sight: Sight
) -> BulkResult:
    """A transaction for each few of them; all are one group, so that they are undone together."""
    whole = BulkResult(uuid4().hex)
    for at in range(0, len(ids), TOGETHER):
        with desk.database.write() as session:
            part = bulk.apply(
                session, ids[at : at + TOGETHER], action, user=user, sight=sight, group=whole.group, **values
            )
        whole.changed += part.changed
        whole.unchanged += part.unchanged
        whole.num_failed += part.num_failed
        whole.failed.update(part.failed)
        whole.activity_id = whole.activity_id or part.activity_id
    return whole


# --- small parts


def _done(
    request: Request,
    desk: Desk,
    user: User,
    conversation_id: int,
    fields: dict[str, str],
    activity_id: int,
) -> Response:
    """Back to where the form was, with what was done."""
    with desk.database.read() as session:
        note = said.note(session, user, activity_id, 0, desk.settings.timezone)
    back = local(fields.get("back") or f"/conversations/{conversation_id}")
    text = note.text if note is not None else "It is so already; nothing was changed."
    return answer(request, _with(back, did=activity_id), said=text, activity=activity_id or None)


def _with(address: str, **values: int) -> str:
    """An address with these numbers in its query, where there are any; what it told before is gone."""
    path, _, query = address.partition("?")
    pairs = [(name, value) for name, value in parse_qsl(query) if name not in _TOLD]
    pairs += [(name, str(value)) for name, value in values.items() if value]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _whom(value: str, user: User) -> int | None:
    if value in ("me", "none"):
        return user.id if value == "me" else None
    return _number(value, "to")


def _until(fields: dict[str, str]) -> str:
    until = fields.get("until", "")
    return fields.get("at", "") if until == "at" else until


def _number(value: str, name: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 11 and 0 < int(value) < 2**31):
        raise InvalidValueError(f"{name}: “{value[:50]}” is not a number that stands for one.")
    return int(value)
