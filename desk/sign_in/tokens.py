"""API tokens: everybody makes and revokes their own, admins see and revoke all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.store import api_tokens
from briefbox.tables import APIToken, User
from desk.access import Admin, SignedIn, Verified
from desk.context import Desk, TheDesk, answer, page, wants_json

router = APIRouter()

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

SCOPES = {
    "read": "Look: conversations, emails, briefs, corrections, training runs, adapters",
    "write": "Correct and confirm briefs, assign, put off, finish, leave notes",
    "admin": "Look after mailboxes, training and adapters",
}
DAYS = {"30": "30 days", "90": "90 days", "365": "a year", "": "until it is revoked"}
NOTES = {"revoked": "The token is revoked. Programs that use it are refused from now on."}


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token with whose it is, and whether its time is over."""

    token: APIToken
    user: User
    is_over: bool


@router.get("/account/tokens")
def tokens_page(request: Request, desk: TheDesk, user: SignedIn, note: str = "") -> Response:
    """One's own tokens, and a form for a new one."""
    return _page(request, desk, user, note=NOTES.get(note, ""))


@router.post("/account/tokens")
async def make(request: Request, desk: TheDesk, user: SignedIn, _proved: Verified) -> Response:
    """Make a token. It is shown in this answer and never again."""
    form = await request.form(max_files=0, max_fields=20)
    name, days = str(form.get("name", "")), str(form.get("days", ""))
    scopes = [str(scope) for scope in form.getlist("scope")]
    try:
        if days not in DAYS:
            raise InvalidValueError(f"The time “{days[:20]}” is none of those offered.")
        with desk.database.write() as session:
            row, text = api_tokens.create(
                session, user, name=name, scopes=scopes, days=int(days) if days else None
            )
    except InvalidValueError as error:
        if wants_json(request):
            raise
        return _page(request, desk, user, problem=str(error), name=name, scopes=scopes, days=days)
    return _page(request, desk, user, made=text, made_name=row.name)


@router.post("/account/tokens/{token_id}/revoke")
def revoke(request: Request, desk: TheDesk, token_id: Id, user: SignedIn) -> Response:
    """End one of one's own."""
    with desk.database.write() as session:
        api_tokens.revoke(session, token_id, actor=user)
    return answer(request, "/account/tokens?note=revoked")


@router.get("/admin/tokens")
def all_tokens(request: Request, desk: TheDesk, user: Admin, note: str = "") -> Response:
    """Everybody's tokens."""
    with desk.database.read() as session:
        tokens = _views(session, api_tokens.all_of(session))
        return page(request, "admin_tokens.html", tokens=tokens, note=NOTES.get(note, ""), scopes=SCOPES)


@router.post("/admin/tokens/{token_id}/revoke")
def revoke_any(request: Request, desk: TheDesk, token_id: Id, user: Admin) -> Response:
    """End anybody's."""
    with desk.database.write() as session:
        api_tokens.revoke(session, token_id, actor=user)
    return answer(request, "/admin/tokens?note=revoked")


def _page(
    request: Request,
    desk: Desk,
    user: User,
    *,
    note: str = "",
    problem: str = "",
    made: str = "",
    made_name: str = "",
    name: str = "",
    scopes: Sequence[str] = ("read",),
    days: str = "90",
) -> Response:
    offered = {key: text for key, text in SCOPES.items() if key != api_tokens.ADMIN or user.role == "admin"}
    with desk.database.read() as session:
        tokens = _views(session, [(row, user) for row in api_tokens.of_user(session, user.id)])
        return page(
            request,
            "tokens.html",
            status=400 if problem else 200,
            tokens=tokens,
            note=note,
            problem=problem,
            made=made,
            made_name=made_name,
            name=name,
            chosen=scopes,
            days=days,
            scopes=offered,
            choices=DAYS,
            is_verified=request.state.login.is_verified,
            address=desk.settings.desk_address,
        )


def _views(session: Session, found: Sequence[tuple[APIToken, User]]) -> list[TokenView]:
    moment = now(session)
    return [
        TokenView(token, user, token.expires_at is not None and token.expires_at <= moment)
        for token, user in found
    ]
