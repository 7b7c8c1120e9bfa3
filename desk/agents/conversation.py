"""What an agent does on a conversation's page: look, correct, confirm, note, finish, reopen.

Everything works with plain forms (POST, then redirect to the page); a program that asks for JSON gets JSON.
Assigning, putting off and undoing are in desk/agents/act.py, since lists do them too.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from briefbox.errors import ConflictError, InvalidValueError
from briefbox.store import actions, conversations, suggestions
from briefbox.tables import User
from desk.access import Seen, SignedIn
from desk.agents.came_from import CameFrom, beside, came_from, referring
from desk.agents.conversation_page import Said, show
from desk.agents.fields import field_named, same
from desk.context import Fields, TheDesk, answer, wants_json

router = APIRouter(prefix="/conversations/{conversation_id}")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
Number = Annotated[int, Query(ge=0, le=2**31 - 1)]


@router.get("")
def conversation_page(
    request: Request,
    desk: TheDesk,
    user: SignedIn,
    sight: Seen,
    conversation_id: Id,
    note: str = "",
    did: Number = 0,
    from_: Annotated[str, Query(alias="from")] = "",
) -> Response:
    """The page; of one that was merged into another, the other's. `from` is the list that the person came from."""
    origin = came_from(from_ or referring(request.headers), user)
    with desk.database.read() as session:
        standing = conversations.standing(session, conversation_id).id
    if standing != conversation_id:
        return RedirectResponse(origin.to(standing, note="merged"), status_code=303)
    return show(request, desk, user, sight, conversation_id, origin, Said(note=note, did=did))


@router.post("/correct")
def correct(
    request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, sight: Seen, fields: Fields
) -> Response:
    """Write one field. `before` is the value that the agent saw; when that has changed, both are shown."""
    name, value, before = fields.get("field", ""), fields.get("value", ""), fields.get("before")
    reason = fields.get("reason", "")
    try:
        with desk.database.write() as session:
            field = field_named(name)
            standing = getattr(conversations.get(session, conversation_id), field)
            correction = conversations.correct(
                session,
                conversation_id,
                field,
                value,
                user=user,
                before=standing if before is not None and same(before, standing) else before,
                reason=reason,
                idempotency_key=fields.get("idempotency_key", "")[:100],
            )
            correction_id = correction.id if correction is not None else None
    except (ConflictError, InvalidValueError) as error:
        if wants_json(request):
            raise
        return show(
            request, desk, user, sight, conversation_id, _origin(fields, user), _not_saved(error, fields)
        )
    note = "unchanged" if correction_id is None else "corrected"
    return answer(request, _page(fields, user, conversation_id, note=note), correction_id=correction_id)


@router.post("/dismiss")
def dismiss(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Keep what an agent wrote against what a later brief says."""
    with desk.database.write() as session:
        suggestions.dismiss(session, conversation_id, field_named(fields.get("field", "")), user=user)
    return answer(request, _page(fields, user, conversation_id, note="dismissed"))


@router.post("/confirm")
def confirm(
    request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, sight: Seen, fields: Fields
) -> Response:
    """The brief is right as it stands. `brief` is the one that the agent saw."""
    seen = fields.get("brief", "")
    try:
        with desk.database.write() as session:
            confirmation = conversations.confirm(
                session, conversation_id, user=user, brief_id=int(seen) if seen.isdecimal() else None
            )
            confirmation_id = confirmation.id if confirmation is not None else None
    except ConflictError as error:
        if wants_json(request):
            raise
        told = Said(status=409, problem=str(error))
        return show(request, desk, user, sight, conversation_id, _origin(fields, user), told)
    note = "no-brief" if confirmation_id is None else "confirmed"
    return answer(request, _page(fields, user, conversation_id, note=note), confirmation_id=confirmation_id)


@router.post("/note")
def note(
    request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, sight: Seen, fields: Fields
) -> Response:
    """Leave a note for other agents."""
    text = fields.get("text", "")
    try:
        with desk.database.write() as session:
            note_id = actions.note(session, conversation_id, text, user=user).id
    except InvalidValueError as error:
        if wants_json(request):
            raise
        told = Said(status=400, problem=str(error), kept={"note": text})
        return show(request, desk, user, sight, conversation_id, _origin(fields, user), told)
    return answer(request, _page(fields, user, conversation_id, note="noted"), note_id=note_id)


@router.post("/done")
def done(
    request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, sight: Seen, fields: Fields
) -> Response:
    """Finish, and go on with the next one of the list that the person came from; without one, back to the queue."""
    origin = _origin(fields, user)
    with desk.database.write() as session:
        after = ""
        if origin.given:
            _, after = beside(session, origin, conversations.get(session, conversation_id), sight)
        conversations.finish(session, conversation_id, user=user)
        last = actions.last_undoable(session, user, conversation_id=conversation_id)
        did = last.id if last is not None and last.kind == "done" else None
    if not after:
        return answer(request, origin.back(done=conversation_id))
    return answer(request, f"{after}&did={did}" if did else after)


@router.post("/reopen")
def reopen(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Put it back into the queue."""
    with desk.database.write() as session:
        conversations.reopen(session, conversation_id, user=user)
    return answer(request, _page(fields, user, conversation_id, note="reopened"))


# --- small parts


def _origin(fields: dict[str, str], user: User) -> CameFrom:
    return came_from(fields.get("from", ""), user)


def _page(fields: dict[str, str], user: User, conversation_id: int, *, note: str) -> str:
    return _origin(fields, user).to(conversation_id, note=note)


def _not_saved(error: ConflictError | InvalidValueError, fields: dict[str, str]) -> Said:
    """What the page says when a correction was refused: nothing of what was typed is lost."""
    name, value = fields.get("field", ""), fields.get("value", "")
    if isinstance(error, InvalidValueError):
        return Said(status=400, problem=str(error), kept={name: value})
    try:
        clash = {"field": field_named(name), "value": value, "reason": fields.get("reason", "")}
    except InvalidValueError:
        return Said(status=409, problem=str(error))
    return Said(status=409, problem=str(error), clash=clash)
