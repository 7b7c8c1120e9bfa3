"""What the desk asks of mailbox servers: guess, sign in, look, fetch a few for a trial, retry. It changes nothing there.

All of it goes to hosts that somebody named in the browser, so all of it goes to vetted addresses (briefbox/net.py).
What fails is a MailboxError or InvalidValueError with a sentence for a page.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from briefbox.connecting import Found, FoundEmail, FoundFolder, ServerGuess, SignInCode
from briefbox.db import Database
from briefbox.errors import BriefboxError, InvalidValueError, MailboxError
from briefbox.schemas import BriefRequest, Category, EmailKind, ParsedEmail
from briefbox.settings import Settings
from briefbox.store import dead_letters, mailboxes
from briefbox.store.requests import request_for_one
from briefbox.tables import Mailbox as MailboxRow
from ingest import again, oauth, parser_process, token_endpoint
from ingest.accounts import account_of
from ingest.browser_words import in_browser
from ingest.guess import get_document, guess
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import Account, fetch_one
from ingest.partial import SMALL_EMAIL
from ingest.token_endpoint import Client, RefusedError

NUM_NEWEST = 5
# Of the newest mails so many are looked at for a trial, since not all are a customer's.
LOOKED_AT = 4
MAX_FOLDERS = 200
# What a folder of sent mail is called where the server does not say \Sent (RFC 6154).
_SENT_NAMES = (
    "sent", "sent items", "sent mail", "sent messages", "gesendet", "gesendete objekte", "gesendete elemente", "envoyés", "éléments envoyés",
    "messages envoyés", "enviados", "elementos enviados", "correo enviado", "posta inviata", "inviati", "verzonden", "verzonden items", "skickat", "sendt", "отправленные",
)  # fmt: skip


class DeskMailboxes:
    """Implements desk.tools.MailboxTools."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Nothing is connected yet."""
        self._database, self._settings = database, settings

    # --- where it is, and who signs in

    def guess(self, address: str) -> ServerGuess:
        """The most likely server of an address. Raises InvalidValueError when it is no address."""
        found = guess(address, http=partial(get_document, networks=self._settings.private_networks))
        return ServerGuess(**asdict(found))

    def oauth_config(self, choices: Mapping[str, str]) -> dict[str, str]:
        """The configuration of an application, as it is stored. Raises InvalidValueError."""
        try:
            return oauth.configure(**choices)
        except InvalidValueError as error:
            raise InvalidValueError(in_browser(error)) from None

    def ask_for_code(self, config: Mapping[str, Any], client_secret: str) -> SignInCode:
        """Begin a sign-in on any device. Raises MailboxError, InvalidValueError."""
        client = self._client(config, client_secret)
        with _said_by(client):
            return SignInCode(**asdict(token_endpoint.ask_for_device_code(client)))

    def signed_in(self, config: Mapping[str, Any], client_secret: str, code: SignInCode) -> str | None:
        """The tokens as `Mailbox.oauth_encrypted` holds them, in the clear; None while nobody has signed in. Raises MailboxError."""
        client = self._client(config, client_secret)
        with _said_by(client):
            grant = token_endpoint.ask_once(client, token_endpoint.DeviceCode(**asdict(code)))
        if grant is None:
            return None
        return json.dumps(asdict(oauth.OAuthSecrets(client_secret=client_secret).with_grant(grant)))

    def app_signed_in(self, config: Mapping[str, Any], client_secret: str) -> str:
        """The tokens of an application that signs in itself, as signed_in() gives them. Raises MailboxError."""
        client = self._client(config, client_secret)
        with _said_by(client):
            grant = token_endpoint.client_credentials(client)
        return json.dumps(asdict(oauth.OAuthSecrets(client_secret=client_secret).with_grant(grant)))

    def _client(self, config: Mapping[str, Any], client_secret: str) -> Client:
        return oauth.client_of(config, client_secret, networks=self._settings.private_networks)

    # --- what is there

    def look(self, row: MailboxRow) -> Found:
        """Connect to a mailbox that is not stored: folders, counts, newest mail. Raises MailboxError, InvalidValueError."""
        with self._opened(row) as mailbox:
            listed = mailbox.listed()[:MAX_FOLDERS]
            sent = _sent_folder(listed)
            folders, newest = [], []
            for name, _ in listed:
                with suppress(MailboxError):
                    folders.append(FoundFolder(name, mailbox.open_folder(name).exists, name == sent))
            if folders:
                mailbox.open_folder(folders[0].name)
                for uid in reversed(mailbox.uids_above(0)[-NUM_NEWEST:]):
                    email = fetch_one(mailbox, uid, SMALL_EMAIL)
                    parsed = _parsed(email.raw)
                    if email.raw is not None:
                        sender = (parsed.sender.name or parsed.sender.address) if parsed else ""
                        subject = parsed.subject if parsed else "(cannot be read)"
                        newest.append(FoundEmail(sender, subject, email.internal_date))
            return Found(
                server=f"{row.host}:{row.port}",
                folders=tuple(folders),
                newest=tuple(newest),
                idle="IDLE" in mailbox.capabilities,
            )

    def newest_requests(
        self, row: MailboxRow, categories: tuple[Category, ...], *, limit: int
    ) -> list[BriefRequest]:
        """What the model would be asked about the newest mails of customers. Raises as look() does."""
        folder = (row.folders or ["INBOX"])[0]
        own = frozenset(a.strip().lower() for a in (row.address, *row.addresses) if "@" in a)
        written_in = "" if self._settings.brief_language == "email" else self._settings.brief_language
        wanted: list[BriefRequest] = []
        with self._opened(row) as mailbox:
            mailbox.open_folder(folder)
            for uid in reversed(mailbox.uids_above(0)[-LOOKED_AT * limit :]):
                parsed = _parsed(fetch_one(mailbox, uid, SMALL_EMAIL).raw, own)
                if parsed is None or parsed.kind not in {EmailKind.CUSTOMER, *self._settings.brief_kinds}:
                    continue
                wanted.append(request_for_one(parsed, categories, written_in=written_in))
                if len(wanted) == limit:
                    break
        return wanted

    @contextmanager
    def _opened(self, row: MailboxRow) -> Iterator[IMAPMailbox]:
        account: Account | None = None
        try:
            account = account_of(row, self._settings)
            with IMAPMailbox(account) as mailbox:
                yield mailbox
        except MailboxError as error:
            raise MailboxError(in_browser(error, account), kind=error.kind, said=error.said) from error

    # --- dead letters

    def retry(self, letter_id: int, *, actor: str) -> str:
        """Try again what was given up on; says what came of it. Raises BriefboxError."""
        try:
            return again.retry(self._database, self._settings, letter_id, actor=actor)
        except MailboxError as error:
            raise MailboxError(in_browser(error, self._account_of_letter(letter_id))) from error

    def _account_of_letter(self, letter_id: int) -> Account | None:
        with suppress(BriefboxError), self._database.read() as session:
            row = mailboxes.get_by_id(session, dead_letters.get(session, letter_id).mailbox_id)
            return account_of(row, self._settings, self._database)
        return None


@contextmanager
def _said_by(client: Client) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        worded = oauth.refused_error("", client, error)
        raise MailboxError(in_browser(worded), kind=worded.kind, said=worded.said) from None
    except MailboxError as error:
        raise MailboxError(in_browser(error), kind=error.kind, said=error.said) from None


def _parsed(raw: bytes | None, own: frozenset[str] = frozenset()) -> ParsedEmail | None:
    """In a process of its own, as all mail: the desk must not die of one."""
    if raw is None:
        return None
    [outcome] = parser_process.shared().submit([raw], own).result()
    return outcome.parsed


def _sent_folder(listed: list[tuple[str, frozenset[str]]]) -> str:
    for name, flags in listed:
        if "\\sent" in flags:
            return name
    for wanted in _SENT_NAMES:
        for name, _ in listed:
            # "INBOX.Sent" and "[Gmail]/Sent Mail", whatever stands between.
            last = name.replace("/", ".").rpartition(".")[2]
            if last.lower() == wanted:
                return name
    return ""
