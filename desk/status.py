"""What an operator or an agent wants to know when mail seems late: mailboxes, waiting briefs, dead letters, processes."""

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from sqlalchemy import text
from sqlmodel import Session, col, func, select

from briefbox.errors import DatabaseError
from briefbox.schemas import EmailKind
from briefbox.store import alerts, conversations, dead_letters, mailboxes, processes, skips, work
from briefbox.tables import DeadLetter, Email, Mailbox
from desk.access import Seen, SignedIn
from desk.context import TheDesk, page

public = APIRouter()
router = APIRouter()

MAX_LETTERS = 50


@dataclass(frozen=True, slots=True)
class LetterView:
    """A dead letter with where it leads."""

    letter: DeadLetter
    mailbox: Mailbox
    email: Email | None


@router.get("/status")
def status_page(request: Request, desk: TheDesk, user: SignedIn, seen: Seen) -> Response:
    """Everybody sees whether things run; admins see the reasons of dead letters too."""
    with desk.database.read() as session:
        return page(
            request,
            "status.html",
            alerts=alerts.open_alerts(session),
            counts=conversations.counts(session),
            num_waiting=work.num_waiting(session),
            num_skipped=sum(n for kind, n in skips.num_skipped(session).items() if kind != EmailKind.OWN),
            mailboxes=[box for box in mailboxes.active(session) if seen.sees(box.id)],
            num_letters=_num_letters(session),
            letters=_letters(session) if user.role == "admin" else [],
            processes=processes.all_of(session),
        )


@public.get("/healthz")
def healthz(desk: TheDesk) -> Response:
    """For load balancers: whether this process and its database answer."""
    try:
        with desk.database.read() as session:
            session.connection().execute(text("SELECT 1"))
    except DatabaseError:
        return PlainTextResponse("The database does not answer.\n", status_code=503)
    return PlainTextResponse("ok\n")


def _num_letters(session: Session) -> int:
    return session.exec(
        select(func.count()).select_from(DeadLetter).where(col(DeadLetter.resolved_at).is_(None))
    ).one()


def _letters(session: Session) -> list[LetterView]:
    return [
        LetterView(
            letter,
            session.get_one(Mailbox, letter.mailbox_id),
            session.get(Email, letter.email_id) if letter.email_id else None,
        )
        for letter in dead_letters.unresolved(session, limit=MAX_LETTERS)
    ]
