"""Splitting and merging conversations, and mail that is briefed or skipped by hand: plain forms, each with a second step."""

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from sqlmodel import Session, col, select
from starlette.background import BackgroundTask

from briefbox.errors import InvalidValueError
from briefbox.schemas import EmailKind
from briefbox.settings import Settings
from briefbox.store import activities, conversations, regroup, skips
from briefbox.store.handling import Handling
from briefbox.tables import Conversation
from desk.access import SignedIn
from desk.context import Fields, TheDesk, answer, page

router = APIRouter()

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

# Other conversations of the customer that are offered; any other by its number.
MAX_OFFERED = 5
# What a mail may be called by hand instead of customer mail.
KINDS = (EmailKind.SPAM, EmailKind.NEWSLETTER, EmailKind.LIST, EmailKind.AUTO_REPLY, EmailKind.BOUNCE)


@router.post("/conversations/{conversation_id}/split")
def split(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """A mail leaves for a conversation of its own, which is what the person sees next."""
    email_id = _number(fields.get("email", ""), "email")
    with desk.database.write() as session:
        new = regroup.split(
            session, email_id, actor=user.email, with_later=fields.get("with_later", "") == "yes"
        )
        new_id = new.id
        activities.record(session, new, user, "split", other=conversation_id)
    return answer(request, f"/conversations/{new_id}?note=split", conversation_id=new_id)


@router.get("/conversations/{conversation_id}/merge")
def merge_page(
    request: Request, desk: TheDesk, conversation_id: Id, into: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """Both conversations side by side, and the question."""
    with desk.database.read() as session:
        source = conversations.standing(session, conversation_id)
        target = conversations.standing(session, _number(into, "into"))
        if source.id == target.id:
            raise InvalidValueError(f"Conversation {source.id} cannot be merged into itself.")
        return page(
            request,
            "merge.html",
            source=source,
            target=target,
            same_customer=source.customer_address.lower() == target.customer_address.lower(),
        )


@router.post("/conversations/{conversation_id}/merge")
def merge(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Do it."""
    into = _number(fields.get("into", ""), "into")
    with desk.database.write() as session:
        target = regroup.merge(session, conversation_id, into, actor=user.email)
        activities.record(session, target, user, "merged", other=conversation_id)
    return answer(request, f"/conversations/{into}?note=merged", conversation_id=into)


@router.post("/conversations/{conversation_id}/unmerge")
def unmerge(request: Request, desk: TheDesk, conversation_id: Id, user: SignedIn) -> Response:
    """Undo it; `conversation_id` is the one that was merged into another."""
    with desk.database.write() as session:
        source = regroup.unmerge(session, conversation_id, actor=user.email)
        activities.record(session, source, user, "unmerged")
    return answer(request, f"/conversations/{conversation_id}?note=unmerged", conversation_id=conversation_id)


@router.post("/emails/{email_id}/brief")
def brief(request: Request, desk: TheDesk, email_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Brief a skipped mail after all."""
    with desk.database.write() as session:
        email = skips.overrule(session, email_id, actor=user.email, handling=Handling.of(desk.settings))
        conversation_id = email.conversation_id
    stay = fields.get("stay", "") == "yes"
    to = f"/skipped?briefed={conversation_id}" if stay else f"/conversations/{conversation_id}?note=briefed"
    response = answer(request, to, conversation_id=conversation_id)
    # After the answer: a Redis that is away must not keep a person waiting.
    response.background = BackgroundTask(_hint, desk.settings, email_id)
    return response


@router.post("/emails/{email_id}/skip")
def skip(request: Request, desk: TheDesk, email_id: Id, user: SignedIn, fields: Fields) -> Response:
    """Take a mail out of what is briefed."""
    kind = next((k for k in KINDS if k == fields.get("kind", "")), None)
    if kind is None:
        raise InvalidValueError(f"The kind “{fields.get('kind', '')}” is none of {', '.join(KINDS)}.")
    with desk.database.write() as session:
        email = skips.skip(session, email_id, fields.get("reason", ""), actor=user.email, kind=kind)
        conversation_id = email.conversation_id
    return answer(request, f"/conversations/{conversation_id}?note=skipped", conversation_id=conversation_id)


def offered(session: Session, conversation: Conversation) -> list[Conversation]:
    """Other conversations of the same customer, the newest first."""
    if not conversation.customer_address:
        return []
    query = select(Conversation).where(
        Conversation.mailbox_id == conversation.mailbox_id,
        Conversation.customer_address == conversation.customer_address,
        Conversation.state != "merged",
        Conversation.id != conversation.id,
    )
    return list(session.exec(query.order_by(col(Conversation.id).desc()).limit(MAX_OFFERED)))


def merged_here(session: Session, conversation: Conversation) -> list[Conversation]:
    """Conversations whose mail stands in this one now."""
    query = select(Conversation).where(
        Conversation.merged_into == conversation.id, Conversation.state == "merged"
    )
    return list(session.exec(query.order_by(col(Conversation.id))))


def _number(text: str, name: str) -> int:
    """A conversation's or mail's number, or the address of its page."""
    found = re.fullmatch(r"\s*(?:\S*/conversations/)?#?([0-9]{1,9})(?:[?#]\S*)?\s*", text)
    if found is None:
        raise InvalidValueError(f"{name}: “{text[:80]}” is no number; expected the one on the page.")
    return int(found[1])


def _hint(settings: Settings, email_id: int) -> None:
    # Celery takes a while to load, and most desks never need it.
    from briefbox.queue import hints_for

    hints_for(settings).brief([email_id])
