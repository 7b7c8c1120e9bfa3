"""All errors that briefbox raises on purpose.

BriefboxError                 anything a person is told about in one sentence
├── SettingsError             a setting is missing or wrong; the process does not start
├── DatabaseError             the database cannot be used as it is
│   └── DatabaseBusyError     locked or unreachable now; trying again helps
├── QueueError                Redis cannot be reached; work waits in the database
├── MailboxError              the mailbox server said no, or nothing
│   ├── MailboxLoginError     wrong user or password
│   ├── MailboxTLSError       the certificate does not verify, or TLS is missing
│   ├── FolderMissingError    the folder does not exist
│   ├── MailboxProtocolError  the server answered what no server should
│   └── MailboxPausedError    reading was stopped until somebody looks
├── ParseError                these bytes are no email that we can read
├── ModelError                base model or adapter cannot be used
│   ├── AdapterError          an adapter is refused, with the reason
│   ├── OutOfMemoryError      the batch did not fit
│   └── ServerAwayError       the model's server cannot be used now; trying again helps
├── LeaseLostError            another process owns this row now
├── ConflictError             somebody else changed it first
├── InvalidValueError         a value outside what is allowed
├── NotFoundError             no such mailbox, user, adapter, dataset...
└── TrainingError             a training run cannot be made

Messages say what was found, what was expected, and which setting or command
fixes it. `permanent` is the one thing retry loops look at.
"""


class BriefboxError(Exception):
    """Base of every expected error: the CLI prints the message and exits 1."""

    permanent = True


class SettingsError(BriefboxError):
    """A setting is missing or wrong."""


class DatabaseError(BriefboxError):
    """The database cannot be used as it is."""


class DatabaseBusyError(DatabaseError):
    """The database is locked or unreachable now."""

    permanent = False


class QueueError(BriefboxError):
    """Redis cannot be reached; work waits safely in the database."""

    permanent = False


class MailboxError(BriefboxError):
    """The mailbox server refused or failed. `kind` says how, where that is known; `said` is what it said itself."""

    permanent = False

    def __init__(self, sentence: str, *, kind: str = "", said: str = "") -> None:
        super().__init__(sentence)
        self.kind, self.said = kind, said


class MailboxLoginError(MailboxError):
    """The server refused the user name or password."""

    permanent = True


class MailboxTLSError(MailboxError):
    """The connection is not encrypted as asked, or the certificate does not verify."""

    permanent = True


class FolderMissingError(MailboxError):
    """The mailbox has no such folder."""

    permanent = True


class MailboxProtocolError(MailboxError):
    """The server's answer cannot be understood."""


class MailboxPausedError(MailboxError):
    """Reading the mailbox was stopped until somebody looks."""

    permanent = True


class ParseError(BriefboxError):
    """The bytes cannot be read as an email."""


class ModelError(BriefboxError):
    """The base model cannot be used."""


class AdapterError(ModelError):
    """The adapter is refused."""


class OutOfMemoryError(ModelError):
    """The batch did not fit into the device's memory."""

    permanent = False


class ServerAwayError(ModelError):
    """The model's server cannot be used now; no email is to blame."""

    permanent = False


class LeaseLostError(BriefboxError):
    """The row is leased by another process now, so nothing was written."""


class ConflictError(BriefboxError):
    """Somebody else changed the same thing first."""


class InvalidValueError(BriefboxError):
    """The value is none of those allowed."""


class NotFoundError(BriefboxError):
    """The named thing does not exist."""


class TrainingError(BriefboxError):
    """A training run cannot be made from what is there."""


class TrainingCancelledError(TrainingError):
    """Somebody cancelled the training run."""
