"""The mailbox as a seam: what a source of mail must be able to do, and how one is reached.

`IMAPMailbox` (imap_mailbox.py) is the real one, `FakeMailbox` (fake_mailbox.py) the one for tests and dry runs. Both know
UIDs and raw bytes; neither knows the database, the cursor or what an email means, and neither changes anything.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from briefbox.net import Network
from briefbox.schemas import FetchedEmail, Fingerprint, FolderStatus

# FetchedEmail.problem of a UID that the server listed and then withdrew.
GONE = "gone"

Security = Literal["tls", "starttls", "none"]
Auth = Literal["password", "oauth2"]
# Gives an access token; called again with one that the server refused, it gives another or raises MailboxLoginError.
GetToken = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How to reach one mailbox. The password is left out of repr."""

    host: str
    port: int
    username: str
    password: str = field(default="", repr=False)
    auth: Auth = "password"
    token: GetToken | None = field(default=None, repr=False, compare=False)  # of oauth2
    name: str = ""  # of the stored mailbox, for the command that its errors name
    security: Security = "tls"
    ca_file: Path | None = None
    timeout: float = 30.0
    allow_plaintext: bool = False
    networks: tuple[Network, ...] | None = None  # beside public addresses, only these are reached; None: any
    max_email_bytes: int = 25_000_000  # no answer with one email may be larger

    @property
    def command(self) -> str:
        """The command that enters this account's sign-in again."""
        return f"briefbox mailbox add {self.name} --replace" if self.name else "briefbox mailbox add ..."


class Openable(ABC):
    """Opened at the beginning of a `with` block and closed at its end."""

    @abstractmethod
    def open(self) -> None:
        """As Mailbox.open."""

    @abstractmethod
    def close(self) -> None:
        """As Mailbox.close."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class Mailbox(Protocol):
    """One connection to one mailbox, read-only."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What the server says it can do, in capitals."""

    def open(self) -> None:
        """Connect and sign in; does nothing when that is done already."""

    def close(self) -> None:
        """Leave; never raises."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def folders(self) -> list[str]:
        """Names of the folders that can be opened."""

    def open_folder(self, name: str) -> FolderStatus:
        """Open a folder read-only; FolderMissingError names the folders that exist."""

    def uids_above(self, uid: int, *, up_to: int | None = None) -> list[int]:
        """UIDs greater than `uid` (and not greater than `up_to`) in the open folder, ascending."""

    def sizes(self, uids: Sequence[int]) -> dict[int, int]:
        """Bytes of each email as the server states them: a hint. UIDs without an answer are left out."""

    def fetch(self, uids: Sequence[int]) -> list[FetchedEmail]:
        """One FetchedEmail for each UID, in the order asked, without marking anything as read."""

    def fetch_partial(self, uid: int) -> FetchedEmail:
        """One email without its attachments, `left` telling what stayed; without marking anything as read."""

    def uids_since(self, moment: datetime) -> list[int]:
        """UIDs in the open folder of mail that the server received on that day (its own) or later, ascending."""

    def fingerprints(self, uids: Sequence[int]) -> dict[int, Fingerprint]:
        """What tells these emails from others, without their bodies. UIDs without an answer are left out."""

    def uidvalidity_of(self, folder: str) -> int | None:
        """The UIDVALIDITY of a folder that need not be open; None when the server does not tell."""

    def start_idle(self) -> bool:
        """Ask the server to announce news of the open folder; False when it can't or won't."""

    def heard(self) -> bool:
        """While idling: whether there may be new mail, told at once from what has arrived on `fileno()`."""

    def stop_idle(self) -> None:
        """End the IDLE, so that the connection can be used again."""

    def fileno(self) -> int:
        """The connection's socket, to be watched while idling; -1 when there is none."""

    def abort(self) -> None:
        """Break the connection from another thread: whoever waits on it gets an error. Never raises."""


def fetch_one(mailbox: Mailbox, uid: int, most: int) -> FetchedEmail:
    """One email of the open folder: whole when the server states at most `most` bytes, else in part."""
    if mailbox.sizes([uid]).get(uid, 0) > most:
        return mailbox.fetch_partial(uid)
    return mailbox.fetch([uid])[0]
