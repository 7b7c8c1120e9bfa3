"""What is found out about a mailbox while somebody connects it: small values between ingest and the desk."""

from dataclasses import dataclass, field
from datetime import datetime

# What is promised wherever a mailbox is connected.
PROMISE = "We will not delete, move or mark anything."


@dataclass(frozen=True, slots=True)
class ServerGuess:
    """How a mailbox is probably reached, where that is from, and what to know about it."""

    host: str
    port: int
    security: str
    username: str
    source: str
    auth: tuple[str, ...] = ("password",)
    provider: str = ""  # of OAuth2
    note: str = ""


@dataclass(frozen=True, slots=True)
class FoundFolder:
    """A folder of the server with its number of messages."""

    name: str
    messages: int
    is_sent: bool = False


@dataclass(frozen=True, slots=True)
class FoundEmail:
    """One of the newest mails, as it is shown."""

    sender: str
    subject: str
    date: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a test of a mailbox found."""

    server: str
    folders: tuple[FoundFolder, ...]
    newest: tuple[FoundEmail, ...]
    idle: bool  # the server announces new mail


@dataclass(frozen=True, slots=True)
class SignInCode:
    """A code that a person enters at the provider's address; `device_code` is the secret half."""

    user_code: str
    address: str
    device_code: str = field(repr=False)
    interval: float = 5.0
    expires_in: float = 900.0
