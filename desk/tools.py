"""What the desk needs of other stages and may not import: the command line hands it over (briefbox/cli/desk_tools.py)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


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
    """Connects to mailbox servers: to look, never to change."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Both of them. None in a desk that was started without."""

    reader: EmailReader | None = None
    mailboxes: MailboxTools | None = None
