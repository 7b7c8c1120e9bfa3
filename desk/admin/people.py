"""People, as admins see them: invite, change role and mailboxes, disable, sign out, take a second factor away.

A link is shown once, in the answer to the form itself: it must stand in no address and no log, so that here no redirect
follows. What gives somebody more than before asks the admin first who they are (`Verified`).
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response
from sqlmodel import Session

from briefbox.errors import ConflictError, InvalidValueError
from briefbox.store import login_sessions, people, second_factor, users
from briefbox.tables import User
from desk.access import Admin, Verified
from desk.context import Desk, Fields, TheDesk, answer, page, wants_json
from desk.sign_in.roles import ROLES

router = APIRouter(prefix="/admin/people")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

LINK_HOURS = {"24": "one day", "72": "three days", "168": "a week"}
NOTES = {
    "changed": "Saved.",
    "role": "Saved. With the new role they sign in again.",
    "unchanged": "Nothing was changed.",
    "disabled": "Disabled, and signed out everywhere. What they did stays theirs.",
    "enabled": "They can sign in again.",
    "sessions": "Signed out everywhere.",
    "second-factor": "Their second factor is gone. They can sign in without, and set up another.",
}


async def mailbox_choices(request: Request) -> list[int]:
    """The mailboxes that are ticked. Raises InvalidValueError."""
    form = await request.form(max_files=1, max_fields=2000)
    chosen = [value for value in form.getlist("mailbox") if isinstance(value, str)]
    if not all(value.isascii() and value.isdecimal() and len(value) < 10 for value in chosen):
        raise InvalidValueError("mailbox: expected ids of mailboxes.")
    return [int(value) for value in chosen]


Choices = Annotated[list[int], Depends(mailbox_choices)]


@router.get("")
def people_page(request: Request, desk: TheDesk, user: Admin) -> Response:
    """Everybody."""
    with desk.database.read() as session:
        found = people.all_of(session)
    return page(
        request, "people.html", people=found, roles=ROLES, required=desk.settings.require_second_factor
    )


@router.get("/new")
def new_page(request: Request, desk: TheDesk, user: Admin, _: Verified) -> Response:
    """The form to invite somebody."""
    return _new_page(request, desk, {}, [])


@router.post("/new")
def add(
    request: Request, desk: TheDesk, user: Admin, _: Verified, chosen: Choices, fields: Fields
) -> Response:
    """Add somebody, and show the link that they sign in with first."""
    try:
        with desk.database.write() as session:
            person, token = users.create(
                session,
                email=fields.get("email", ""),
                name=fields.get("name", ""),
                role=fields.get("role", "agent"),
                actor=user.email,
                link_hours=_hours(fields),
            )
            people.change(
                session,
                person,
                role=person.role,
                all_mailboxes=fields.get("sees", "all") == "all",
                mailbox_ids=chosen,
                actor=user.email,
            )
    except (InvalidValueError, ConflictError) as error:
        if wants_json(request):
            raise
        status = 409 if isinstance(error, ConflictError) else 400
        return _new_page(request, desk, fields, chosen, problem=str(error), status=status)
    return _show_link(request, desk, person, token, _hours(fields), new=True)


@router.get("/{user_id}")
def person_page(
    request: Request, desk: TheDesk, user_id: Id, user: Admin, _: Verified, note: str = ""
) -> Response:
    """One of them, with all that can be changed."""
    return _person_page(request, desk, user_id, note=NOTES.get(note, ""))


@router.post("/{user_id}")
def change(
    request: Request, desk: TheDesk, user_id: Id, user: Admin, _: Verified, chosen: Choices, fields: Fields
) -> Response:
    """Name, role, mailboxes."""
    try:
        with desk.database.write() as session:
            person = users.by_id(session, user_id)
            role = person.role
            renamed = people.rename(session, person, fields.get("name", person.name), actor=user.email)
            sees = fields.get("sees", "all" if person.all_mailboxes else "some")
            given = chosen if "sees" in fields else sorted(people.mailbox_ids(session, person))
            changed = people.change(
                session,
                person,
                role=fields.get("role", role),
                all_mailboxes=sees == "all",
                mailbox_ids=given,
                actor=user.email,
            )
            note = "role" if person.role != role else "changed" if changed or renamed else "unchanged"
    except (InvalidValueError, ConflictError) as error:
        if wants_json(request):
            raise
        status = 409 if isinstance(error, ConflictError) else 400
        return _person_page(
            request, desk, user_id, problem=str(error), status=status, typed=fields, chosen=chosen
        )
    return answer(request, f"/admin/people/{user_id}?note={note}")


@router.post("/{user_id}/link")
def new_link(
    request: Request, desk: TheDesk, user_id: Id, user: Admin, _: Verified, fields: Fields
) -> Response:
    """A new sign-in link; the ones before end."""
    hours = _hours(fields)
    with desk.database.write() as session:
        person = users.by_id(session, user_id)
        if person.disabled_at is not None:
            raise InvalidValueError(f"{person.email} is disabled; a link would not work. Enable them first.")
        token = users.new_link(session, person, hours=hours, actor=user.email)
    return _show_link(request, desk, person, token, hours, new=False)


@router.post("/{user_id}/disable")
def disable(request: Request, desk: TheDesk, user_id: Id, user: Admin, _: Verified) -> Response:
    """They cannot sign in any more."""
    return _do(request, desk, user_id, "disabled", lambda s, p: people.disable(s, p, actor=user.email))


@router.post("/{user_id}/enable")
def enable(request: Request, desk: TheDesk, user_id: Id, user: Admin, _: Verified) -> Response:
    """They can again."""
    return _do(request, desk, user_id, "enabled", lambda s, p: people.enable(s, p, actor=user.email))


@router.post("/{user_id}/end-sessions")
def end_sessions(request: Request, desk: TheDesk, user_id: Id, user: Admin) -> Response:
    """Sign somebody out everywhere. Asks for no proof: it takes away, and may be urgent."""
    return _do(
        request, desk, user_id, "sessions", lambda s, p: login_sessions.end_all(s, p, actor=user.email)
    )


@router.post("/{user_id}/second-factor/remove")
def remove_second_factor(request: Request, desk: TheDesk, user_id: Id, user: Admin, _: Verified) -> Response:
    """For somebody whose phone is lost."""
    return _do(
        request, desk, user_id, "second-factor", lambda s, p: second_factor.turn_off(s, p, actor=user.email)
    )


# --- pages


def _do(
    request: Request, desk: Desk, user_id: int, note: str, change: Callable[[Session, User], Any]
) -> Response:
    try:
        with desk.database.write() as session:
            change(session, users.by_id(session, user_id))
    except (InvalidValueError, ConflictError) as error:
        if wants_json(request):
            raise
        status = 409 if isinstance(error, ConflictError) else 400
        return _person_page(request, desk, user_id, problem=str(error), status=status)
    return answer(request, f"/admin/people/{user_id}?note={note}")


def _person_page(
    request: Request,
    desk: Desk,
    user_id: int,
    *,
    note: str = "",
    problem: str = "",
    status: int = 200,
    typed: dict[str, str] | None = None,
    chosen: list[int] | None = None,
) -> Response:
    with desk.database.read() as session:
        person = people.one(session, user_id)
        given = people.mailbox_ids(session, person.user)
        mailboxes = people.mailboxes(session)
    typed = typed or {}
    return page(
        request,
        "person.html",
        status=status,
        person=person,
        mailboxes=mailboxes,
        given=given if chosen is None else set(chosen),
        role=typed.get("role", person.user.role),
        name=typed.get("name", person.user.name),
        sees_all=typed.get("sees", "all" if person.user.all_mailboxes else "some") == "all",
        roles=ROLES,
        hours=LINK_HOURS,
        note=note,
        problem=problem,
    )


def _new_page(
    request: Request,
    desk: Desk,
    typed: dict[str, str],
    chosen: list[int],
    *,
    problem: str = "",
    status: int = 200,
) -> Response:
    with desk.database.read() as session:
        mailboxes = people.mailboxes(session)
    return page(
        request,
        "person_new.html",
        status=status,
        mailboxes=mailboxes,
        given=set(chosen),
        email=typed.get("email", "")[:200],
        name=typed.get("name", "")[:200],
        role=typed.get("role", "agent"),
        sees_all=typed.get("sees", "all") == "all",
        hours_chosen=typed.get("hours", "24"),
        roles=ROLES,
        hours=LINK_HOURS,
        problem=problem,
    )


def _show_link(
    request: Request, desk: Desk, person: User, token: str, hours: float, *, new: bool
) -> Response:
    link = f"{desk.settings.desk_address}/link/{token}"
    if wants_json(request):
        return JSONResponse({"ok": True, "id": person.id, "link": link})
    return page(
        request, "person_link.html", person=person, link=link, life=LINK_HOURS[f"{hours:.0f}"], new=new
    )


def _hours(fields: dict[str, str]) -> float:
    given = fields.get("hours", "24")
    if given not in LINK_HOURS:
        raise InvalidValueError(f"hours: “{given}” is none of {', '.join(LINK_HOURS)}.")
    return float(given)
