"""One attachment of a stored email as a file: out of the stored bytes, or from the mail server where it stayed.

From the server it comes in pieces, is decoded piece by piece and written as it comes, so that its size does not
matter. The server is asked with BODY.PEEK: nothing there changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sqlmodel import Session, col, select

from briefbox.db import Database
from briefbox.errors import BriefboxError, FolderMissingError, InvalidValueError, NotFoundError
from briefbox.schemas import Attachment, ParsedEmail
from briefbox.settings import Settings
from briefbox.store import ledger
from briefbox.store.mailboxes import get_by_id
from briefbox.tables import Email, FolderCursor, LedgerEntry
from ingest.accounts import account_of
from ingest.imap_mailbox import IMAPMailbox
from ingest.parse import attachment_bytes


def save(database: Database, settings: Settings, email_id: int, wanted: str, path: Path) -> str:
    """Write the attachment that has this name, number (from 1) or section; says in a sentence what was written.

    Raises NotFoundError when there is none, or the server has it no more; InvalidValueError when the file exists
    already or cannot be written; MailboxError.
    """
    with database.read() as session:
        email = session.get(Email, email_id)
        if email is None:
            raise NotFoundError(f"There is no email {email_id}.")
        attachments = ParsedEmail.model_validate(email.parsed).attachments
        number = choose(attachments, email_id, wanted)
        attachment = attachments[number]
        raw = None if attachment.section else ledger.raw_bytes(session, email.raw_id)
        left = ledger.left_on_server(session, email.raw_id)
    if raw is not None:
        num_bytes = _write(path, [attachment_bytes(raw, attachments, number, left)])
        return f"{num_bytes} bytes of {attachment.name!r} written to {path}, from the stored email."
    num_bytes = _write(path, from_server(database, settings, email_id, attachment))
    return f"{num_bytes} bytes of {attachment.name!r} written to {path}, from the mail server."


def choose(attachments: Sequence[Attachment], email_id: int, wanted: str) -> int:
    """Its place in the list, counted from 0. Raises NotFoundError that names what there is."""
    names = [attachment.name for attachment in attachments]
    for known in (names, [str(n + 1) for n in range(len(names))], [one.section for one in attachments]):
        if wanted and wanted in known:
            return known.index(wanted)
    there = ", ".join(f"{n}: {name!r}" for n, name in enumerate(names, 1)) or "none"
    raise NotFoundError(
        f"Email {email_id} has no attachment {wanted!r}; expected the name or the number of one of: {there}."
    )


# --- from the server


def from_server(
    database: Database, settings: Settings, email_id: int, attachment: Attachment
) -> Iterator[bytes]:
    """An attachment in decoded pieces, as they come. Raises NotFoundError, MailboxError, at the first one or later."""
    with database.read() as session:
        entries = _places(session, email_id)
        row = get_by_id(session, session.get_one(Email, email_id).mailbox_id)
    with IMAPMailbox(account_of(row, settings, database)) as mailbox:
        for entry in entries:
            try:
                if mailbox.open_folder(entry.folder).uidvalidity != entry.uidvalidity:
                    continue
            except FolderMissingError:
                continue
            stated = mailbox.sizes([entry.uid]).get(entry.uid)
            # Its size as then: one more sign that it is the same email.
            if stated is not None and entry.size in {None, stated}:
                yield from mailbox.part(entry.uid, attachment.section)
                return
    raise NotFoundError(
        f"{attachment.name!r} stayed on the mail server {row.host}, and email {email_id} is not there any more: it was deleted, or moved to a folder that briefbox does not read."
    )


def _places(session: Session, email_id: int) -> list[LedgerEntry]:
    """Where the email was seen, the latest first; only in folders as they are now."""
    query = (
        select(LedgerEntry)
        .join(
            FolderCursor,
            (col(FolderCursor.mailbox_id) == LedgerEntry.mailbox_id)
            & (col(FolderCursor.folder) == LedgerEntry.folder)
            & (col(FolderCursor.uidvalidity) == LedgerEntry.uidvalidity)
            & (col(FolderCursor.generation) == LedgerEntry.generation),
        )
        .where(LedgerEntry.email_id == email_id, col(FolderCursor.current).is_(True))
        .order_by(col(LedgerEntry.id).desc())
    )
    return list(session.exec(query))


# --- the file


def _write(path: Path, pieces: Iterable[bytes]) -> int:
    """Under another name until it is complete. Returns its size in bytes."""
    unfinished = path.with_name(f"{path.name}.part")
    if path.exists():
        raise InvalidValueError(f"{path} exists already; expected the name of a new file.")
    num_bytes = 0
    try:
        with unfinished.open("wb") as file:
            for piece in pieces:
                num_bytes += file.write(piece)
        unfinished.replace(path)
    except (BriefboxError, OSError) as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, BriefboxError):
            raise
        raise InvalidValueError(f"{path} cannot be written ({error.strerror or error}).") from error
    return num_bytes
