"""Mailboxes: how they stand, pause, read on, compare. Nothing here tells how to sign in to one."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field
from sqlmodel import Session

from briefbox.store import mailbox_state, mailboxes
from briefbox.tables import Mailbox
from desk.api import answers
from desk.api.access import Administering, Reading
from desk.api.answers import OnceOnly
from desk.api.models import Id, Model, Moment, Page
from desk.context import TheDesk

router = APIRouter(prefix="/mailboxes", tags=["mailboxes"])


class FolderOut(Model):
    """One folder that is read."""

    folder: str
    ledger: int = Field(description="Messages that have their row in the ledger.")
    states: dict[str, int] = Field(description="Of these: queued, sighting, skipped, dead, gone.")
    compared_at: Moment | None
    missing_since: Moment | None = Field(description="The server has no such folder since then.")


class MailboxOut(Model):
    """A mailbox and how it stands."""

    id: int
    name: str
    address: str
    words: str = Field(description="How it stands, in words.")
    paused_at: Moment | None
    paused_reason: str
    last_success_at: Moment | None
    last_error: str
    last_error_at: Moment | None
    lag_seconds: float | None = Field(description="From the server's receipt to ours, of the newest mail.")
    folders: list[FolderOut]


class Pause(Model):
    """Why it is not to be read."""

    reason: Annotated[str, Field(max_length=500)] = ""


@router.get("", response_model=Page[MailboxOut], summary="List mailboxes")
def list_mailboxes(request: Request, desk: TheDesk, caller: Reading) -> Response:
    """All that the token's owner sees, by name; removed ones are not among them."""
    with desk.database.read() as session:
        rows = [row for row in mailboxes.active(session) if caller.sight.sees(row.id)]
        return answers.page(request, [_out(session, row) for row in rows], None)


@router.get("/{mailbox_id}", response_model=MailboxOut, summary="Get a mailbox")
def get_mailbox(request: Request, desk: TheDesk, caller: Reading, mailbox_id: Id) -> Response:
    """How it stands now."""
    with desk.database.read() as session:
        return answers.one(request, _out(session, mailboxes.get_by_id(session, mailbox_id)))


@router.post("/{mailbox_id}/pause", response_model=MailboxOut, summary="Stop reading a mailbox")
def pause(caller: Administering, once: OnceOnly, mailbox_id: Id, why: Pause = Pause()) -> Response:
    """Until it is resumed. 409 when it is paused already."""

    def change(session: Session) -> MailboxOut:
        name = mailboxes.get_by_id(session, mailbox_id).name
        return _out(session, mailboxes.pause(session, name, reason=why.reason, actor=caller.user.email))

    return once.do(change)


@router.post("/{mailbox_id}/resume", response_model=MailboxOut, summary="Read a mailbox on")
def resume(caller: Administering, once: OnceOnly, mailbox_id: Id) -> Response:
    """Where it stopped. 409 when it is not paused."""

    def change(session: Session) -> MailboxOut:
        name = mailboxes.get_by_id(session, mailbox_id).name
        return _out(session, mailboxes.resume(session, name, actor=caller.user.email))

    return once.do(change)


@router.post(
    "/{mailbox_id}/compare", response_model=MailboxOut, summary="Compare a mailbox with its server in full"
)
def compare(caller: Administering, once: OnceOnly, mailbox_id: Id) -> Response:
    """The poller does it as soon as it can."""

    def change(session: Session) -> MailboxOut:
        name = mailboxes.get_by_id(session, mailbox_id).name
        return _out(session, mailboxes.ask_to_reconcile(session, name, actor=caller.user.email))

    return once.do(change)


def _out(session: Session, row: Mailbox) -> MailboxOut:
    state = mailbox_state.state_of(session, row)
    return MailboxOut(
        id=row.id,
        name=row.name,
        address=row.address,
        words=state.words,
        paused_at=row.paused_at,
        paused_reason=row.paused_reason,
        last_success_at=row.last_success_at,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        lag_seconds=state.lag.total_seconds() if state.lag is not None else None,
        folders=[
            FolderOut(
                folder=one.folder,
                ledger=one.ledger,
                states=one.states,
                compared_at=one.reconciled_at,
                missing_since=one.missing_since,
            )
            for one in state.folders
        ],
    )
