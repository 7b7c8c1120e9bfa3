"""What strangers sent, handed on: attachments as downloads only, and a mail's own HTML as a document behind walls."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from briefbox.errors import MailboxError, NotFoundError
from desk.access import SignedIn, may
from desk.agents.clean_html import clean
from desk.context import Desk, TheDesk
from desk.file_names import as_attachment, safe_name
from desk.problems import problem
from desk.security import sandboxed
from desk.tools import EmailReader

router = APIRouter(prefix="/emails/{email_id}")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]

NOTHING_RUNS = "sandbox; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
ORIGINAL = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


@router.get("/attachments/{number}")
def attachment(
    request: Request,
    desk: TheDesk,
    user: SignedIn,
    email_id: Id,
    number: Annotated[int, Path(ge=0, le=100_000)],
) -> Response:
    """One attachment, counted from 0: always a download, never shown. One that stayed on the server comes from there."""
    name, pieces = _reader(desk).attachment(email_id, number)
    try:
        # The first piece, before anything is answered: what fails until here can still be told.
        pieces = _begun(pieces)
    except MailboxError as error:
        why = f" ({error})" if may(user, "admin") else ""
        said = f"“{safe_name(name)}” stayed on the mail server, which does not give it now{why}. Try again in a while."
        return problem(request, 503, said)
    response = StreamingResponse(
        pieces,
        media_type="application/octet-stream",
        headers={"Content-Disposition": as_attachment(name)},
    )
    return sandboxed(request, response, NOTHING_RUNS)


@router.get("/original")
def original(request: Request, desk: TheDesk, email_id: Id) -> Response:
    """The mail's own HTML, cleaned: a document of its own that runs nothing, loads nothing and leads nowhere."""
    reader = _reader(desk)
    html = reader.original_html(email_id)
    body = clean(html, reader.inline_images(email_id)) if html is not None else ""
    text = desk.pages.get_template("original.html").render(body=body, written_in_html=html is not None)
    return sandboxed(request, HTMLResponse(text), ORIGINAL)


def _reader(desk: Desk) -> EmailReader:
    if desk.tools.reader is None:
        raise NotFoundError("This desk was started without access to the mails' own bytes.")
    return desk.tools.reader


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = next(pieces, b"")
    return chain([first], pieces)
