"""All mailboxes at a glance, and each with its ledger, its trouble and what can be done about it. For admins."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response

from briefbox.errors import BriefboxError, InvalidValueError, NotFoundError
from briefbox.store import alerts, dead_letters, ledger, mailboxes
from briefbox.tables import DeadLetter
from desk.access import Admin
from desk.admin.connect_draft import ATTACHMENTS, MAX_TEXT, TheForm, address_of, one_of, tools_of
from desk.admin.mailbox_view import full_view, view_of
from desk.context import Desk, TheDesk, page

router = APIRouter(prefix="/admin/mailboxes")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
# After it went live the page follows what happens, for so long.
REFRESH_SECONDS = 3
NOTES = {
    "live": "It is live. The poller takes it up within seconds; this page follows.",
    "cancelled": "Nothing of it was kept.",
    "paused": "Paused. Mail waits on its server.",
    "resumed": "It is read on where it stopped.",
    "asked": "Asked for. The poller compares every folder now; reload this page in a moment.",
    "changed": "Saved. The poller follows within seconds.",
    "same": "Nothing was changed.",
    "signed-in": "The new sign-in works and is stored.",
    "retried": "Tried again; it has its place now or waits for its brief.",
    "removed": "It is read no more. What it brought stays.",
}


@router.get("")
def list_page(request: Request, desk: TheDesk, user: Admin, note: str = "") -> Response:
    """All of them."""
    with desk.database.read() as session:
        return page(
            request,
            "mailboxes.html",
            note=NOTES.get(note, ""),
            views=[view_of(session, row) for row in mailboxes.active(session)],
            removed=[row for row in mailboxes.all_of(session) if row.removed_at],
        )


@router.get("/{mailbox_id}")
def mailbox_page(request: Request, desk: TheDesk, mailbox_id: Id, user: Admin, note: str = "") -> Response:
    """One of them."""
    response = _page(request, desk, mailbox_id, note=note)
    if note == "live":
        response.headers["Refresh"] = str(REFRESH_SECONDS)
    return response


def _page(
    request: Request, desk: Desk, mailbox_id: int, *, note: str = "", trouble: str = "", status: int = 200,
    typed: dict[str, str] | None = None,
) -> Response:  # fmt: skip
    with desk.database.read() as session:
        row = mailboxes.get_by_id(session, mailbox_id)
        beginning = mailboxes.alert_key(row.name, "")
        return page(
            request,
            "mailbox.html",
            status=status,
            note=NOTES.get(note, ""),
            follows=note == "live",
            trouble=trouble,
            typed=typed or {},
            found=full_view(session, row),
            row=row,
            alerts=[alert for alert in alerts.open_alerts(session) if alert.key.startswith(beginning)],
            can_connect=desk.tools.mailboxes is not None,
        )


def _back(mailbox_id: int, note: str) -> Response:
    return RedirectResponse(f"/admin/mailboxes/{mailbox_id}?note={note}", status_code=303)


# --- what is done with it


@router.post("/{mailbox_id}/compare")
def compare(desk: TheDesk, mailbox_id: Id, user: Admin) -> Response:
    """Have the poller compare every folder with the ledger."""
    with desk.database.write() as session:
        row = mailboxes.get_by_id(session, mailbox_id)
        mailboxes.ask_to_reconcile(session, row.name, actor=user.email)
    return _back(mailbox_id, "asked")


@router.post("/{mailbox_id}/pause")
def pause(desk: TheDesk, mailbox_id: Id, user: Admin, form: TheForm) -> Response:
    """Stop reading until somebody resumes it."""
    reason = form.text("reason")
    with desk.database.write() as session:
        row = mailboxes.get_by_id(session, mailbox_id)
        mailboxes.pause(session, row.name, reason=reason, actor=user.email)
    return _back(mailbox_id, "paused")


@router.post("/{mailbox_id}/resume")
def resume(desk: TheDesk, mailbox_id: Id, user: Admin) -> Response:
    """Read on."""
    with desk.database.write() as session:
        row = mailboxes.get_by_id(session, mailbox_id)
        mailboxes.resume(session, row.name, actor=user.email)
    return _back(mailbox_id, "resumed")


@router.post("/{mailbox_id}/settings")
def change(request: Request, desk: TheDesk, mailbox_id: Id, user: Admin, form: TheForm) -> Response:
    """Folders, our addresses, attachments, adapter."""
    try:
        values: dict[str, Any] = {
            "folders": form.lines("folders", called="folder"),
            "sent_folder": form.text("sent_folder", called="folder of sent mail"),
            "addresses": [address_of(line) for line in form.lines("addresses", called="address")],
            "attachments": one_of(form.text("attachments"), ATTACHMENTS, "choice for attachments"),
            "adapter": form.text("adapter", most=MAX_TEXT),
        }
        if not values["folders"]:
            raise InvalidValueError("No folder is named; expected at least one, usually INBOX.")
        if values["sent_folder"] in values["folders"]:
            raise InvalidValueError(
                f"{values['sent_folder']} cannot be watched for answers while it is read for customers' mail."
            )
        with desk.database.write() as session:
            if values["adapter"]:
                _check_adapter(full_view(session, mailboxes.get_by_id(session, mailbox_id)).adapters, values)
            changed = mailboxes.change(session, mailbox_id, values, actor=user.email)
    except InvalidValueError as error:
        typed = {name: form.raw(name) for name in ("folders", "sent_folder", "addresses")}
        return _page(request, desk, mailbox_id, trouble=str(error), status=400, typed=typed)
    return _back(mailbox_id, "changed" if changed else "same")


def _check_adapter(known: Any, values: dict[str, Any]) -> None:
    if values["adapter"] not in [adapter.name for adapter in known]:
        raise InvalidValueError(f"There is no adapter {values['adapter']} that could be used.")


@router.get("/{mailbox_id}/remove")
def remove_page(request: Request, desk: TheDesk, mailbox_id: Id, user: Admin) -> Response:
    """What removing it means."""
    with desk.database.read() as session:
        return page(request, "mailbox_remove.html", row=mailboxes.get_by_id(session, mailbox_id))


@router.post("/{mailbox_id}/remove")
def remove(desk: TheDesk, mailbox_id: Id, user: Admin) -> Response:
    """Read it no more."""
    with desk.database.write() as session:
        row = mailboxes.get_by_id(session, mailbox_id)
        mailboxes.remove(session, row.name, actor=user.email)
    return RedirectResponse("/admin/mailboxes?note=removed", status_code=303)


# --- dead letters


@router.get("/{mailbox_id}/letters/{letter_id}/raw")
def raw(desk: TheDesk, mailbox_id: Id, letter_id: Id, user: Admin) -> Response:
    """The bytes as the server gave them: to be saved, never to be shown."""
    with desk.database.read() as session:
        letter = _letter(session, mailbox_id, letter_id)
        if letter.raw_id is None:
            raise NotFoundError("The server never gave the bytes of this mail. Try it again.")
        data = ledger.raw_bytes(session, letter.raw_id)
    name = f"dead-letter-{letter_id}.eml"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.post("/{mailbox_id}/letters/{letter_id}/retry")
def retry(request: Request, desk: TheDesk, mailbox_id: Id, letter_id: Id, user: Admin) -> Response:
    """Try again what was given up on."""
    with desk.database.read() as session:
        _letter(session, mailbox_id, letter_id)
    try:
        tools_of(desk).retry(letter_id, actor=user.email)
    except NotFoundError as error:
        return _page(request, desk, mailbox_id, trouble=str(error), status=404)
    except BriefboxError as error:
        return _page(request, desk, mailbox_id, trouble=f"It did not work this time: {error}", status=409)
    return _back(mailbox_id, "retried")


def _letter(session: Any, mailbox_id: int, letter_id: int) -> DeadLetter:
    letter = dead_letters.get(session, letter_id)
    if letter.mailbox_id != mailbox_id:
        raise NotFoundError(f"There is no dead letter {letter_id} of this mailbox.")
    return letter
