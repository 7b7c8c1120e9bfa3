"""Whose token it is and what it may do: the first request of a new program."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from desk.api import answers
from desk.api.access import Reading
from desk.api.models import Model, Moment

router = APIRouter(tags=["me"])


class Me(Model):
    """The token and its owner."""

    user_id: int
    email: str
    name: str
    role: str = Field(description="agent, reviewer or admin.")
    scopes: list[str] = Field(description="read, write, admin: what this token may do.")
    token_name: str
    expires_at: Moment | None
    mailbox_ids: list[int] | None = Field(description="The mailboxes that the owner sees. null: all.")


@router.get("/me", response_model=Me, summary="Whose token this is, and what it may do")
def get_me(request: Request, caller: Reading) -> Response:
    """The first request of a new program."""
    seen = caller.sight.mailboxes
    return answers.one(
        request,
        Me(
            user_id=caller.user.id,
            email=caller.user.email,
            name=caller.user.name,
            role=caller.user.role,
            scopes=caller.token.scopes,
            token_name=caller.token.name,
            expires_at=caller.token.expires_at,
            mailbox_ids=None if seen is None else sorted(seen),
        ),
    )
