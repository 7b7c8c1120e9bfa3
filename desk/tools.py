"""What the desk needs of other stages and may not import: the command line hands it over (briefbox/cli/desk_tools.py)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from briefbox.connecting import Found, ServerGuess, SignInCode
from briefbox.schemas import BriefRequest, Category
from briefbox.tables import Mailbox


class EmailReader(Protocol):
    """Reads stored emails again: their attachments and their original HTML."""

    def attachment(self, email_id: int, number: int) -> tuple[str, Iterator[bytes]]:
        """Name and bytes of an attachment, counted from 0. Raises NotFoundError, MailboxError."""
        ...

    def original_html(self, email_id: int) -> str | None:
        """The HTML as the sender wrote it, decoded and not cleaned; None where there is none. Raises NotFoundError."""
        ...

    def inline_images(self, email_id: int) -> dict[str, str]:
        """Pictures that the mail brings along, as data: addresses by their Content-ID. Raises NotFoundError."""
        ...


class MailboxTools(Protocol):
    """Connects to mailbox servers: to look, never to change. Everything raises MailboxError, InvalidValueError."""

    def guess(self, address: str) -> ServerGuess:
        """The most likely server of an address."""
        ...

    def oauth_config(self, choices: Mapping[str, str]) -> dict[str, str]:
        """An application's configuration, as `Mailbox.oauth` holds it."""
        ...

    def ask_for_code(self, config: Mapping[str, Any], client_secret: str) -> SignInCode:
        """Begin a sign-in on any device."""
        ...

    def signed_in(self, config: Mapping[str, Any], client_secret: str, code: SignInCode) -> str | None:
        """What `Mailbox.oauth_encrypted` is to hold; None while nobody has signed in."""
        ...

    def app_signed_in(self, config: Mapping[str, Any], client_secret: str) -> str:
        """The same for an application that signs in itself."""
        ...

    def look(self, row: Mailbox) -> Found:
        """What is in a mailbox that is not stored yet."""
        ...

    def newest_requests(
        self, row: Mailbox, categories: tuple[Category, ...], *, limit: int
    ) -> list[BriefRequest]:
        """What the model would be asked about its newest mails."""
        ...

    def retry(self, letter_id: int, *, actor: str) -> str:
        """Try a dead letter again; says what came of it. Raises BriefboxError."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """Both of them. None in a desk that was started without."""

    reader: EmailReader | None = None
    mailboxes: MailboxTools | None = None
