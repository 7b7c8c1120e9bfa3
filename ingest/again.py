"""The way back from a dead letter: brief it again, parse its bytes again, or fetch it again."""

from collections.abc import Iterable, Iterator

from briefbox.db import Database
from briefbox.errors import BriefboxError, MailboxError, NotFoundError, ParseError
from briefbox.queue import hints_for
from briefbox.schemas import FetchedEmail
from briefbox.settings import Settings
from briefbox.store import dead_letters, ledger, mailbox_state, mailboxes
from briefbox.store.folders import is_sent
from briefbox.store.handling import Handling
from briefbox.tables import LedgerEntry
from briefbox.tables import Mailbox as MailboxRow
from ingest.accounts import account_of
from ingest.imap_mailbox import IMAPMailbox
from ingest.kind import as_sent
from ingest.mailbox import Mailbox, fetch_one
from ingest.parse import parse_email
from ingest.partial import most_whole


def retry(database: Database, settings: Settings, letter_id: int, *, actor: str) -> str:
    """Try the failed stage again and say in a sentence what came of it.

    Raises NotFoundError when there is nothing to retry, ParseError when it still cannot be parsed.
    """
    with database.read() as session:
        row = mailboxes.get_by_id(session, dead_letters.get(session, letter_id).mailbox_id)
    [(_, outcome)] = retry_all(database, settings, row, [letter_id], actor=actor)
    if isinstance(outcome, BriefboxError):
        raise outcome
    return outcome


def retry_all(
    database: Database, settings: Settings, row: MailboxRow, letter_ids: Iterable[int], *, actor: str
) -> Iterator[tuple[int, str | BriefboxError]]:
    """Try dead letters of one mailbox again, over one connection at most; each with what came of it, as it comes."""
    mailbox: Mailbox | None = None
    try:
        for letter_id in letter_ids:
            try:
                with database.read() as session:
                    needs_server = dead_letters.needs_server(dead_letters.get(session, letter_id))
                if needs_server and mailbox is None:
                    mailbox = IMAPMailbox(account_of(row, settings, database))
                yield letter_id, _retry(database, settings, letter_id, mailbox, actor=actor)
            except BriefboxError as error:
                if mailbox is not None and isinstance(error, MailboxError):
                    mailbox.close()  # the next one gets a new connection
                yield letter_id, error
    finally:
        if mailbox is not None:
            mailbox.close()


def _retry(
    database: Database, settings: Settings, letter_id: int, mailbox: Mailbox | None, *, actor: str
) -> str:
    with database.read() as session:
        letter = dead_letters.get(session, letter_id)
    if letter.resolved_at is not None:
        raise NotFoundError(f"Dead letter {letter_id} is closed already: {letter.resolution}.")
    if letter.stage == "brief":
        with database.write() as session:
            email_id = dead_letters.retry_brief(session, dead_letters.get(session, letter_id), actor=actor)
        hints_for(settings).brief([email_id] if email_id else [])
        return f"Email {email_id} waits for a brief again."
    email = _email(database, settings, letter_id, mailbox)
    raw = email.raw or b""
    with database.read() as session:
        own = mailboxes.own_addresses(session)
        row = mailboxes.get_by_id(session, letter.mailbox_id)
        folder = session.get_one(LedgerEntry, letter.ledger_id).folder
    try:
        parsed = parse_email(raw, email.left, own_addresses=own)
    except ParseError as error:
        raise ParseError(
            f"It still cannot be parsed: {error}. Look at its bytes with: briefbox dead-letters export {letter_id} FILE"
        ) from error
    if is_sent(row, folder):
        parsed = as_sent(parsed, folder)
    with database.write() as session:
        waiting = ledger.revive(
            session,
            dead_letters.get(session, letter_id),
            raw,
            parsed,
            actor=actor,
            left=email.left,
            handling=Handling.of(settings),
        )
    hints_for(settings).brief(waiting)
    return (
        "It is in the queue now and waits for a brief." if waiting else "It is stored now; it needs no brief."
    )


def _email(database: Database, settings: Settings, letter_id: int, mailbox: Mailbox | None) -> FetchedEmail:
    with database.read() as session:
        letter = dead_letters.get(session, letter_id)
        if letter.raw_id is not None:
            left = ledger.left_on_server(session, letter.raw_id)
            return FetchedEmail(0, ledger.raw_bytes(session, letter.raw_id), left=left)
        entry = session.get_one(LedgerEntry, letter.ledger_id)
        row = mailboxes.get_by_id(session, letter.mailbox_id)
        cursor = mailbox_state.newest_cursor(session, row.id, entry.folder, entry.uidvalidity)
    assert mailbox is not None
    mailbox.open()
    status = mailbox.open_folder(entry.folder)
    problem = "the folder was renumbered"
    # Under the UIDs of an earlier generation the server may show other mail now.
    if status.uidvalidity == entry.uidvalidity and cursor and cursor.generation == entry.generation:
        email = fetch_one(mailbox, entry.uid, most_whole(settings, row.attachments))
        if email.raw is not None:
            return email
        problem = email.problem
    raise NotFoundError(f"The server does not give UID {entry.uid} of {entry.folder}: {problem}.")
