"""The mailbox: lists and fetches emails over IMAP and never changes anything on the server.

`Mailbox` is the seam. `IMAPMailbox` is the real one, `FakeMailbox` (fake_mailbox.py) the one for tests and dry runs.
Both know UIDs and raw bytes; neither knows the database, the cursor or what an email means.
"""

import imaplib
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from imapclient import IMAPClient, imap_utf7
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, LoginError, ProtocolError

from briefbox.errors import (
    FolderMissingError,
    MailboxError,
    MailboxLoginError,
    MailboxProtocolError,
    MailboxTLSError,
)
from briefbox.schemas import FetchedEmail, Fingerprint, FolderStatus
from ingest import sign_in
from ingest.answers import fetch_answers
from ingest.esearch import ESearchError, search_in_ranges
from ingest.idle import ByeError, Idle, IdleRefusedError
from ingest.literal import bound_literals
from ingest.parse import message_id_of
from ingest.partial import fetch_in_part
from ingest.pieces import read_part
from ingest.tls import tls_context

# imaplib refuses lines over 1,000,000 bytes, and the answer to UID SEARCH is one line: about 90,000 UIDs.
# The limit is a module global (an attribute of the connection has no effect), so it is raised for the
# process; it stays finite, so that a hostile server cannot fill the memory with one endless line.
imaplib._MAXLINE = max(imaplib._MAXLINE, 10_000_000)  # type: ignore[attr-defined]

# A folder with more emails is searched in windows of UIDs, so that no answer comes near that limit.
SEARCH_WINDOW = 50_000
# Servers limit a command line (8,000 bytes is what RFC 7162 asks for): 500 UIDs of 10 digits fit.
UIDS_PER_COMMAND = 500
_ID_HEADER = "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"
# FetchedEmail.problem of a UID that the server listed and then withdrew.
GONE = "gone"

Security = Literal["tls", "starttls", "none"]
Auth = Literal["password", "oauth2"]
# Gives an access token; called again with one that the server refused, it gives another or raises MailboxLoginError.
GetToken = Callable[[str], str]

# What IMAPClient's parser raises on answers that no server should give.
_PARSER_ERRORS = (ProtocolError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
# A NO with one of these is about the server's day, not about the password or the email.
_PASSING = (
    "[unavailable]",
    "[inuse]",
    "[limit]",
    "[serverbug]",
    "[throttled]",
    "[contactadmin]",
    "temporar",
    "too many",
    "try again",
    "throttled",
    "bandwidth",
    "not connected",
)


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
    max_email_bytes: int = 25_000_000  # no answer with one email may be larger

    @property
    def command(self) -> str:
        """The command that enters this account's sign-in again."""
        return f"briefbox mailbox add {self.name} --replace" if self.name else "briefbox mailbox add ..."


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


class IMAPMailbox:
    """A mailbox on an IMAP server. Opens folders with EXAMINE and fetches with BODY.PEEK[]."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._client: IMAPClient | None = None
        self._broken = False
        self._idle_refused = False
        self._idle: Idle | None = None
        self._counts_in_ranges = True
        self._wire_names: dict[str, str] = {}
        self._status = FolderStatus(uidvalidity=0, exists=0)

    # --- connection

    @property
    def capabilities(self) -> frozenset[str]:
        with self._plain_errors("was asked what it can do") as client:
            return frozenset(_words(name) for name in client.capabilities())

    def open(self) -> None:
        if self._client is not None:
            return
        self._check_account()
        self._broken = self._idle_refused = False
        self._idle, self._counts_in_ranges = None, True
        try:
            self._client = self._connect()
            self._encrypt()
            if self.account.auth == "oauth2":
                self._sign_in_with_token()
            else:
                self._sign_in()
            if sign_in.wants_a_name(self.account) and "ID" in self._offered():
                with self._plain_errors("was told this program's name") as client:
                    client.id_({"name": "briefbox"})
        except BaseException:
            self._broken = True
            self.close()
            raise

    def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if not self._broken:
            with suppress(Exception):
                client.logout()
                return
        with suppress(Exception):
            client.shutdown()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _check_account(self) -> None:
        account = self.account
        if any(ch in text for text in (account.host, account.username, account.password) for ch in "\r\n\0"):
            raise MailboxLoginError(
                "The mailbox's host, user name or password holds a line break, which IMAP cannot carry; set it again with `briefbox mailbox add ...`."
            )
        if account.security == "none" and not account.allow_plaintext and not _is_loopback(account.host):
            raise MailboxTLSError(
                f"Refused to send the password for {self._where} unencrypted: expected TLS for a host that is not this machine; use `briefbox mailbox add ... --security tls` (or starttls)."
            )

    @property
    def _where(self) -> str:
        return f"{self.account.host}:{self.account.port}"

    def _connect(self) -> IMAPClient:
        account = self.account
        try:
            client = IMAPClient(
                account.host,
                port=account.port,
                ssl=account.security == "tls",
                ssl_context=tls_context(account.ca_file) if account.security == "tls" else None,
                timeout=account.timeout,
            )
        except ssl.SSLError as error:
            raise self._tls_error(error) from error
        except socket.gaierror as error:
            raise MailboxError(
                f"The mailbox server {account.host} cannot be found ({error.strerror}); expected a host name that DNS knows, set with `briefbox mailbox add ... --host HOST`."
            ) from error
        except TimeoutError as error:
            hint = (
                "" if account.security == "tls" else " (a port that speaks TLS at once needs --security tls)"
            )
            raise MailboxError(
                f"{self._where} did not answer within {account.timeout:g} seconds; check host, port and firewall, set with `briefbox mailbox add ... --host HOST --port PORT`{hint}."
            ) from error
        except OSError as error:
            raise MailboxError(
                f"{self._where} cannot be reached ({error.strerror or error}); expected an IMAP server there, set with `briefbox mailbox add ... --host HOST --port PORT`."
            ) from error
        except (IMAPClientError, ValueError) as error:
            raise MailboxProtocolError(
                f"{self._where} did not greet as an IMAP server does: {_words(error) or 'it closed the connection'}; check the port and `--security` with `briefbox mailbox add ...`."
            ) from error
        client.normalise_times = False
        # IMAPClient has imaplib write out every byte that it receives for a debug log, whether anybody reads it or not.
        client._imap.debug = 0
        bound_literals(client, account.max_email_bytes)
        connection = client.socket()
        # IMAPClient writes a command in pieces: without NODELAY each one costs up to 45 ms (measured).
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that is gone without a word is noticed by the kernel within two minutes, while nobody asks it anything.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):  # Linux
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        return client

    def _tls_error(self, error: ssl.SSLError) -> MailboxError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return MailboxTLSError(
                f"The certificate of {self._where} does not verify: {error.verify_message}; expected one for {self.account.host} from a known authority, or your own authority given with `briefbox mailbox add ... --ca-file FILE`."
            )
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return MailboxError(
                f"{self._where} closed the connection during the TLS handshake; if that stays so, check the port and `briefbox mailbox add ... --security`."
            )
        return MailboxTLSError(
            f"{self._where} does not speak TLS as asked ({error.reason or error}); if it offers STARTTLS, use `briefbox mailbox add ... --security starttls`."
        )

    def _encrypt(self) -> None:
        """Turn to TLS where STARTTLS was chosen; there is no way around it."""
        if self.account.security != "starttls":
            return
        assert self._client is not None
        if not self._client.has_capability("STARTTLS"):
            raise MailboxTLSError(
                f"{self._where} does not offer STARTTLS; expected an encrypted connection: use `{self.account.command} --security tls` with the TLS port (usually 993)."
            )
        try:
            with self._plain_errors("was asked for STARTTLS") as client:
                client.starttls(tls_context(self.account.ca_file))
        except ssl.SSLError as error:
            raise self._tls_error(error) from error

    def _sign_in(self) -> None:
        account = self.account
        assert self._client is not None
        plain = sign_in.way_in(account, self._offered()) == "PLAIN"
        try:
            with self._plain_errors("was asked to sign in") as client:
                (client.plain_login if plain else client.login)(account.username, account.password)
        except LoginError as error:
            raise self._login_error(error, account.password) from error

    def _sign_in_with_token(self) -> None:
        """XOAUTH2 or OAUTHBEARER; a token that is refused is renewed and tried once more, on a new connection."""
        assert self.account.token is not None
        mechanism = sign_in.way_in(self.account, self._offered())
        token = self.account.token("")
        refusal = self._try_token(mechanism, token)
        if refusal is not None and refusal.permanent:
            token = self.account.token(token)
            # A server may have closed the refused connection, or count what went wrong on it.
            self._broken = True
            self.close()
            self._broken = False
            self._client = self._connect()
            self._encrypt()
            refusal = self._try_token(mechanism, token)
        if refusal is not None:
            raise refusal

    def _try_token(self, mechanism: str, token: str) -> MailboxError | None:
        answers = sign_in.TokenAnswers(mechanism, self.account, token)
        try:
            with self._plain_errors("was asked to sign in") as client:
                client.sasl_login(mechanism, answers)
        except LoginError as error:
            return self._login_error(error, token, answers.complaint)
        return None

    def _offered(self) -> frozenset[str]:
        with self._plain_errors("was asked what it can do") as client:
            return frozenset(_words(name).upper() for name in client.capabilities())

    def _login_error(self, error: LoginError, secret: str, complaint: str = "") -> MailboxError:
        said = _words(error)
        if secret:
            said, complaint = said.replace(secret, "***"), complaint.replace(secret, "***")
        if isinstance(error.__context__, IMAPClientAbortError):
            return MailboxError(f"{self._where} closed the connection during sign-in: {said}.")
        return sign_in.login_error(self.account, said, passing=_passes(said), complaint=complaint)

    @contextmanager
    def _plain_errors(self, asked: str) -> Iterator[IMAPClient]:
        """Give the connection, and turn what can go wrong with it into a MailboxError."""
        if self._client is None:
            raise MailboxError(f"The connection to {self._where} is not open.")
        try:
            yield self._client
        except (MailboxError, LoginError, ssl.SSLCertVerificationError):
            raise
        except TimeoutError as error:
            self._broken = True
            raise MailboxError(
                f"{self._where} did not answer within {self.account.timeout:g} seconds when it {asked}."
            ) from error
        except (IMAPClientAbortError, OSError) as error:
            self._broken = True
            raise MailboxError(
                f"The connection to {self._where} broke when it {asked}: {_words(error)}."
            ) from error
        except _PARSER_ERRORS as error:
            raise MailboxProtocolError(
                f"{self._where} gave an answer that cannot be understood when it {asked}: {_words(error)}."
            ) from error
        except IMAPClientError as error:
            if sign_in.NOT_CONNECTED in _words(error).lower():
                raise sign_in.not_connected_error(self.account, _words(error)) from error
            raise MailboxError(f"{self._where} said no when it {asked}: {_words(error)}.") from error

    # --- folders

    def folders(self) -> list[str]:
        with self._plain_errors("was asked for its folders") as client:
            # Names come as bytes: IMAPClient's own decoding raises on a malformed one and loses all others.
            client.folder_encode = False
            try:
                listed = client.list_folders()
            finally:
                client.folder_encode = True
        names = []
        for flags, _, wire in listed:
            if wire is None or {b"\\noselect", b"\\nonexistent"} & {flag.lower() for flag in flags}:
                continue
            name = _folder_name(wire)
            if isinstance(wire, bytes) and wire.isascii():
                self._wire_names[name] = wire.decode("ascii")
            names.append(name)
        return sorted(set(names), key=lambda name: (name.upper() != "INBOX", name))

    def open_folder(self, name: str) -> FolderStatus:
        if any(ch in name for ch in "\r\n\0"):
            raise FolderMissingError(f"{name!r} cannot be a folder's name: it holds a line break.")
        wire = self._wire_names.get(name, imap_utf7.encode(name).decode("ascii"))
        with self._plain_errors(f"was asked to open the folder {name!r}") as client:
            client.folder_encode = False
            try:
                answer = client.select_folder(wire, readonly=True)
            except IMAPClientAbortError:
                raise
            except IMAPClientError as error:
                raise self._folder_error(name, _words(error)) from error
            finally:
                client.folder_encode = True
        uidvalidity = answer.get(b"UIDVALIDITY")
        if uidvalidity is None:
            raise MailboxProtocolError(
                f"{self._where} opened the folder {name!r} without a UIDVALIDITY, so its emails have no lasting identity; expected an IMAP4rev1 server."
            )
        self._status = FolderStatus(
            uidvalidity=uidvalidity,
            exists=answer.get(b"EXISTS", 0),
            uidnext=answer.get(b"UIDNEXT") or None,
            highest_modseq=answer.get(b"HIGHESTMODSEQ"),
            flags=tuple(_words(flag) for flag in answer.get(b"FLAGS", ())),
        )
        return self._status

    def _folder_error(self, name: str, said: str) -> MailboxError:
        """Missing, or only refused now? The list of folders tells."""
        existing = self.folders()
        if name in existing or name.upper() == "INBOX":
            return MailboxError(f"{self._where} refused to open the folder {name!r}: {said}.")
        return FolderMissingError(
            f"{self._where} has no folder {name!r} ({said}); it has {', '.join(map(repr, existing)) or 'none'}: choose one with `briefbox mailbox add ... --folder NAME`."
        )

    # --- emails

    def uids_above(self, uid: int, *, up_to: int | None = None) -> list[int]:
        found: set[int] = set()
        for low, high in self._windows(uid + 1, up_to):
            found.update(self._search(f"{low}:{high or '*'}"))
        # `n:*` names at least the last email, even when its UID is below n (RFC 3501, 6.4.8).
        return sorted(u for u in found if u > uid and (up_to is None or u <= up_to))

    def _windows(self, low: int, up_to: int | None) -> Iterator[tuple[int, int | None]]:
        """Ranges of UIDs, the last one open when `up_to` is; one for a folder of ordinary size."""
        uidnext = self._status.uidnext
        top = up_to if up_to is not None else uidnext - 1 if uidnext else 0
        if self._status.exists > SEARCH_WINDOW:
            # At most 1,000 commands, however thinly the UIDs are spread.
            width = max(SEARCH_WINDOW, (top - low) // 1000)
            while top - low >= width:
                yield low, low + width - 1
                low += width
        # A range whose ends are swapped means the same to a server, so an empty one is not asked for.
        if up_to is None or low <= up_to:
            yield low, up_to

    def _search(self, uid_set: str) -> list[int]:
        with self._plain_errors("was asked for its list of emails") as client:
            if self._counts_in_ranges and client.has_capability("ESEARCH"):
                try:
                    return search_in_ranges(client, uid_set)
                except (ESearchError, IMAPClientError) as error:
                    if isinstance(error, IMAPClientAbortError):
                        raise
                    self._counts_in_ranges = False  # it says that it can, and cannot
            return [int(uid) for uid in client.search(["UID", uid_set])]

    def uids_since(self, moment: datetime) -> list[int]:
        day = moment.date()
        with self._plain_errors("was asked for its list of emails") as client:
            return sorted(int(uid) for uid in client.search(["SINCE", day]))

    def uidvalidity_of(self, folder: str) -> int | None:
        wire = self._wire_names.get(folder, imap_utf7.encode(folder).decode("ascii"))
        with self._plain_errors(f"was asked about the folder {folder!r}") as client:
            client.folder_encode = False
            try:
                found = client.folder_status(wire, ["UIDVALIDITY"]).get(b"UIDVALIDITY")
            finally:
                client.folder_encode = True
        return found if isinstance(found, int) else None

    def fingerprints(self, uids: Sequence[int]) -> dict[int, Fingerprint]:
        found = {}
        for part in _chunks(uids):
            answers, _ = self._ask(part, [_ID_HEADER, "RFC822.SIZE", "INTERNALDATE"])
            for uid, answer in answers.items():
                size = answer.get(b"RFC822.SIZE")
                header = next((v for k, v in answer.items() if k.startswith(b"BODY[HEADER.FIELDS")), None)
                found[uid] = Fingerprint(
                    message_id_of(header) if isinstance(header, bytes) else "",
                    size if isinstance(size, int) else None,
                    _utc(answer.get(b"INTERNALDATE")),
                )
        return found

    def sizes(self, uids: Sequence[int]) -> dict[int, int]:
        found = {}
        for part in _chunks(uids):
            answers, _ = self._ask(part, ["RFC822.SIZE"])
            for uid, answer in answers.items():
                if isinstance(size := answer.get(b"RFC822.SIZE"), int):
                    found[uid] = size
        return found

    def fetch(self, uids: Sequence[int]) -> list[FetchedEmail]:
        found: dict[int, FetchedEmail] = {}
        for part in _chunks(uids):
            found |= self._bodies(part)
            # Some servers omit an email once (Exchange Online does), so a gap is asked for again.
            if missing := [uid for uid in part if uid not in found]:
                found |= self._bodies(missing)
            if missing := [uid for uid in missing if uid not in found]:
                found |= self._withheld(missing)
        return [found[uid] for uid in uids]

    def fetch_partial(self, uid: int) -> FetchedEmail:
        facts = self._of_one(uid, ["RFC822.SIZE", "INTERNALDATE"])
        found = fetch_in_part(lambda items: self._of_one(uid, items))
        if found is None:
            return self._withheld([uid])[uid]
        size = facts.get(b"RFC822.SIZE")
        return FetchedEmail(
            uid,
            raw=found[0],
            size=size if isinstance(size, int) else None,
            internal_date=_utc(facts.get(b"INTERNALDATE")),
            left=found[1],
        )

    def part(self, uid: int, section: str) -> Iterator[bytes]:
        """The decoded bytes of one part, in pieces of about a megabyte, as it is in Attachment.section."""
        size = self.sizes([uid]).get(uid, 0)
        return read_part(lambda items: self._of_one(uid, items), section, most=size + size // 10 + 1_000_000)

    def _of_one(self, uid: int, items: list[str]) -> dict[bytes, Any]:
        """These items of one email; {} when the server refuses them or its answer cannot be understood."""
        try:
            return self._ask([uid], items)[0].get(uid, {})
        except RecursionError:  # IMAPClient's parser, at a structure nested a thousand deep
            return {}

    def _bodies(self, uids: list[int]) -> dict[int, FetchedEmail]:
        answers, refused = self._ask(uids, ["BODY.PEEK[]", "RFC822.SIZE", "INTERNALDATE"])
        found = {
            uid: FetchedEmail(uid, raw=None, problem=f"{self._where} does not give this email: {why}.")
            for uid, why in refused.items()
        }
        for uid, answer in answers.items():
            raw, size = answer.get(b"BODY[]"), answer.get(b"RFC822.SIZE")
            if isinstance(raw, bytes) and raw:
                found[uid] = FetchedEmail(
                    uid,
                    raw=raw,
                    size=size if isinstance(size, int) else None,
                    internal_date=_utc(answer.get(b"INTERNALDATE")),
                )
        return found

    def _withheld(self, uids: list[int]) -> dict[int, FetchedEmail]:
        """Not given twice: gone if the server does not list it any more, else a problem to be shown."""
        listed = set(self._search(",".join(map(str, uids))))
        problem = f"{self._where} lists this email but gave an empty answer for it, twice."
        return {uid: FetchedEmail(uid, raw=None, problem=problem if uid in listed else GONE) for uid in uids}

    def _ask(self, uids: list[int], items: list[str]) -> tuple[dict[int, dict[bytes, Any]], dict[int, str]]:
        """FETCH; the answers, and why there is none for a UID on which the server or the parser stumbles."""
        if not uids:
            return {}, {}
        with self._plain_errors("was asked for emails") as client:
            try:
                return fetch_answers(client, uids, items), {}
            except IMAPClientAbortError:
                raise
            except (*_PARSER_ERRORS, IMAPClientError) as error:
                # What arrived before the complaint would be mixed into the next answer.
                client._imap.response("FETCH")
                if not isinstance(error, _PARSER_ERRORS) and _passes(_words(error)):
                    raise
                if len(uids) == 1:
                    return {}, self._refusal(client, uids[0], error)
        half = len(uids) // 2
        answers, refused = self._ask(uids[:half], items)
        more_answers, more_refused = self._ask(uids[half:], items)
        return answers | more_answers, refused | more_refused

    def _refusal(self, client: IMAPClient, uid: int, error: Exception) -> dict[int, str]:
        """Is it this email, or is it the server that says no to everything? Then it is no dead letter."""
        if not isinstance(error, _PARSER_ERRORS) and not client.fetch([uid], ["FLAGS"]):
            return {}
        return {uid: _words(error)}

    # --- waiting for news

    def start_idle(self) -> bool:
        with self._plain_errors("was asked to announce news") as client:
            if self._idle_refused or not client.has_capability("IDLE"):
                return False
            self._idle = Idle(client, timeout=self.account.timeout)
            try:
                with self._told_goodbye():
                    self._idle.begin()
            except IdleRefusedError as error:
                # A server that is busy may say yes next time; any other refusal is for this connection.
                self._idle_refused = not _passes(_words(error))
                return False
        return True

    def heard(self) -> bool:
        try:
            return self._idle is None or self._idle.heard()
        except (OSError, ValueError):
            return True  # stop_idle() says what is wrong

    def stop_idle(self) -> None:
        with self._plain_errors("was asked to stop announcing"), self._told_goodbye():
            if self._idle is not None and self._idle.is_on:
                self._idle.end()

    @contextmanager
    def _told_goodbye(self) -> Iterator[None]:
        try:
            yield
        except ByeError as error:
            self._broken = True
            raise MailboxError(f"{self._where} ended the connection: {_words(error)}.") from error

    def fileno(self) -> int:
        return -1 if self._client is None else int(self._client.socket().fileno())

    def abort(self) -> None:
        self._broken = True
        client = self._client
        if client is not None:
            with suppress(Exception):
                client.socket().shutdown(socket.SHUT_RDWR)


def _words(said: object) -> str:
    """A server's or library's own words as one short line of text."""
    if isinstance(said, BaseException):
        said = said.args[0] if len(said.args) == 1 else str(said)
    if isinstance(said, str) and len(said) > 2 and said[:2] in {"b'", 'b"'} and said[-1] == said[1]:
        # IMAPClient formats bytes into some of its messages.
        said = said[2:-1]
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    # imapclient adds a paragraph of advice to some of its messages.
    text = text.strip().split("\n")[0].removeprefix("select failed: ").removeprefix("fetch failed: ")
    return " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())[:300].rstrip(".")


def _passes(said: str) -> bool:
    return any(sign in said.lower() for sign in _PASSING)


def _folder_name(wire: bytes | str) -> str:
    if isinstance(wire, str):
        return wire
    with suppress(UnicodeError):
        return imap_utf7.decode(wire) if wire.isascii() else wire.decode("utf-8")
    return wire.decode("latin-1")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _utc(moment: object) -> datetime | None:
    if not isinstance(moment, datetime):
        return None
    with suppress(ValueError, OverflowError):
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    return None


def _chunks(uids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(uids), UIDS_PER_COMMAND):
        yield list(uids[start : start + UIDS_PER_COMMAND])
