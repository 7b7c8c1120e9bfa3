"""Who else has a conversation open: each page says every few seconds that it is there, and hears who else is."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from sqlmodel import Session

from briefbox.store import conversations, presence
from briefbox.tables import User
from desk.access import SignedIn
from desk.context import Fields, TheDesk

router = APIRouter()

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("/conversations/{conversation_id}/here")
def here(desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """A sign of life: `editing` is the field being written, `seconds` how long it was looked at since the last one."""
    with desk.database.write() as session:
        standing = conversations.standing(session, conversation_id).id
        presence.here(session, standing, user, fields.get("editing", ""), _seconds(fields.get("seconds", "")))
        return JSONResponse({"others": others(session, standing, user)})


def others(session: Session, conversation_id: int, user: User) -> list[dict[str, str]]:
    """Who else is there: the name, and what they are doing."""
    return [
        {"name": person.name or person.email, "doing": _doing(editing)}
        for person, editing in presence.others(session, conversation_id, user)
    ]


def _doing(editing: str) -> str:
    if editing == presence.NOTE:
        return "is writing a note"
    return f"is editing the {editing}" if editing else "is here"


def _seconds(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
