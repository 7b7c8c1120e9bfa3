"""A connection to an IMAP server: encrypted, signed in, idling, and closed. What goes wrong is said in one sentence.

What is read over it is imap_mailbox.py's.
"""

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, LoginError, ProtocolError
from imapclient.imap4 import IMAP4WithTimeout
from imapclient.tls import IMAP4_TLS, wrap_socket

from briefbox.errors import MailboxError, MailboxLoginError, MailboxProtocolError, MailboxTLSError
from briefbox.net import addresses_of, first_vetted
from ingest import sign_in
from ingest.idle import ByeError, Idle, IdleRefusedError
from ingest.literal import bound_literals
from ingest.mailbox import Account, Openable
from ingest.tls import tls_context

# What IMAPClient's parser raises on answers that no server should give.
PARSER_ERRORS = (ProtocolError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
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


class _Client(IMAPClient):  # type: ignore[misc]
    """IMAPClient that connects to an address under the host's own name: certificates are checked against the name."""

    def __init__(self, host: str, address: str, **options: Any) -> None:
        self._address = address
        super().__init__(host, **options)

    def _create_IMAP4(self) -> Any:
        seconds = getattr(self._timeout, "connect", None)
        if not self.ssl:
            return IMAP4WithTimeout(self._address, self.port, seconds)
        return _TLSConnection(self.host, self._address, self.port, self.ssl_context, seconds)


class _TLSConnection(IMAP4_TLS):  # type: ignore[misc]
    def __init__(self, host: str, address: str, *rest: Any) -> None:
        self._address = address
        super().__init__(host, *rest)

    def _create_socket(self, timeout: float | None = None) -> socket.socket:
        seconds = timeout if timeout is not None else self._timeout
        plain = socket.create_connection((self._address, self.port), timeout=seconds)
        try:
            encrypted: socket.socket = wrap_socket(plain, self.ssl_context, self.host)
        except BaseException:
            plain.close()
            raise
        return encrypted


class IMAPConnection(Openable):
    """One connection, opened and closed as often as need be."""

    def __init__(self, account: Account) -> None:
        """Nothing is connected yet."""
        self.account = account
        self._client: IMAPClient | None = None
        self._broken = False
        self._idle_refused = False
        self._idle: Idle | None = None

    @property
    def capabilities(self) -> frozenset[str]:
        """What the server says that it can do, as it spells it."""
        with self.plain_errors("was asked what it can do") as client:
            return frozenset(words_of(name) for name in client.capabilities())

    def open(self) -> None:
        """Connect, encrypt and sign in, unless that is done. Raises MailboxError and its kinds."""
        if self._client is not None:
            return
        self._check_account()
        self._broken = self._idle_refused = False
        self._idle = None
        try:
            self._client = self._connect()
            self._encrypt()
            if self.account.auth == "oauth2":
                self._sign_in_with_token()
            else:
                self._sign_in()
            if sign_in.wants_a_name(self.account) and "ID" in self._offered():
                with self.plain_errors("was told this program's name") as client:
                    client.id_({"name": "briefbox"})
        except BaseException:
            self._broken = True
            self.close()
            raise

    def close(self) -> None:
        """Sign out and close; a connection that is broken is only closed. Never raises."""
        client, self._client = self._client, None
        if client is None:
            return
        if not self._broken:
            with suppress(Exception):
                client.logout()
                return
        with suppress(Exception):
            client.shutdown()

    def _check_account(self) -> None:
        account = self.account
        if any(ch in text for text in (account.host, account.username, account.password) for ch in "\r\n\0"):
            raise MailboxLoginError(
                "The mailbox's host, user name or password holds a line break, which IMAP cannot carry; set it again with `briefbox mailbox add ...`.",
                kind="line break",
            )
        if account.security == "none" and not account.allow_plaintext and not _is_loopback(account.host):
            raise MailboxTLSError(
                f"Refused to send the password for {self.where} unencrypted: expected TLS for a host that is not this machine; use `briefbox mailbox add ... --security tls` (or starttls).",
                kind="plaintext",
            )

    @property
    def where(self) -> str:
        """The server, as errors name it."""
        return f"{self.account.host}:{self.account.port}"

    def _connect(self) -> IMAPClient:
        account = self.account
        try:
            address = account.host
            if account.networks is not None:
                found = addresses_of(account.host, account.port)
                address = first_vetted(account.host, found, account.networks)
            client = _Client(
                account.host,
                address,
                port=account.port,
                ssl=account.security == "tls",
                ssl_context=tls_context(account.ca_file) if account.security == "tls" else None,
                timeout=account.timeout,
            )
        except ssl.SSLError as error:
            raise self._tls_error(error) from error
        except socket.gaierror as error:
            raise MailboxError(
                f"The mailbox server {account.host} cannot be found ({error.strerror}); expected a host name that DNS knows, set with `briefbox mailbox add ... --host HOST`.",
                kind="no such host",
                said=str(error.strerror),
            ) from error
        except TimeoutError as error:
            hint = (
                "" if account.security == "tls" else " (a port that speaks TLS at once needs --security tls)"
            )
            raise MailboxError(
                f"{self.where} did not answer within {account.timeout:g} seconds; check host, port and firewall, set with `briefbox mailbox add ... --host HOST --port PORT`{hint}.",
                kind="no answer",
            ) from error
        except OSError as error:
            raise MailboxError(
                f"{self.where} cannot be reached ({error.strerror or error}); expected an IMAP server there, set with `briefbox mailbox add ... --host HOST --port PORT`.",
                kind="refused",
                said=str(error.strerror or error),
            ) from error
        except (IMAPClientError, ValueError) as error:
            raise MailboxProtocolError(
                f"{self.where} did not greet as an IMAP server does: {words_of(error) or 'it closed the connection'}; check the port and `--security` with `briefbox mailbox add ...`.",
                kind="no imap",
                said=words_of(error),
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
                f"The certificate of {self.where} does not verify: {error.verify_message}; expected one for {self.account.host} from a known authority, or your own authority given with `briefbox mailbox add ... --ca-file FILE`.",
                kind="certificate",
                said=error.verify_message,
            )
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return MailboxError(
                f"{self.where} closed the connection during the TLS handshake; if that stays so, check the port and `briefbox mailbox add ... --security`.",
                kind="no tls",
            )
        return MailboxTLSError(
            f"{self.where} does not speak TLS as asked ({error.reason or error}); if it offers STARTTLS, use `briefbox mailbox add ... --security starttls`.",
            kind="no tls",
            said=str(error.reason or error),
        )

    def _encrypt(self) -> None:
        """Turn to TLS where STARTTLS was chosen; there is no way around it."""
        if self.account.security != "starttls":
            return
        assert self._client is not None
        if not self._client.has_capability("STARTTLS"):
            raise MailboxTLSError(
                f"{self.where} does not offer STARTTLS; expected an encrypted connection: use `{self.account.command} --security tls` with the TLS port (usually 993).",
                kind="no starttls",
            )
        try:
            with self.plain_errors("was asked for STARTTLS") as client:
                client.starttls(tls_context(self.account.ca_file))
        except ssl.SSLError as error:
            raise self._tls_error(error) from error

    def _sign_in(self) -> None:
        account = self.account
        assert self._client is not None
        plain = sign_in.way_in(account, self._offered()) == "PLAIN"
        try:
            with self.plain_errors("was asked to sign in") as client:
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
            with self.plain_errors("was asked to sign in") as client:
                client.sasl_login(mechanism, answers)
        except LoginError as error:
            return self._login_error(error, token, answers.complaint)
        return None

    def _offered(self) -> frozenset[str]:
        with self.plain_errors("was asked what it can do") as client:
            return frozenset(words_of(name).upper() for name in client.capabilities())

    def _login_error(self, error: LoginError, secret: str, complaint: str = "") -> MailboxError:
        said = words_of(error)
        if secret:
            said, complaint = said.replace(secret, "***"), complaint.replace(secret, "***")
        if isinstance(error.__context__, IMAPClientAbortError):
            return MailboxError(f"{self.where} closed the connection during sign-in: {said}.")
        return sign_in.login_error(self.account, said, passing=passes(said), complaint=complaint)

    @contextmanager
    def plain_errors(self, asked: str) -> Iterator[IMAPClient]:
        """Give the connection, and turn what can go wrong with it into a MailboxError."""
        if self._client is None:
            raise MailboxError(f"The connection to {self.where} is not open.")
        try:
            yield self._client
        except (MailboxError, LoginError, ssl.SSLCertVerificationError):
            raise
        except TimeoutError as error:
            self._broken = True
            raise MailboxError(
                f"{self.where} did not answer within {self.account.timeout:g} seconds when it {asked}.",
                kind="no answer",
            ) from error
        except (IMAPClientAbortError, OSError) as error:
            self._broken = True
            raise MailboxError(
                f"The connection to {self.where} broke when it {asked}: {words_of(error)}."
            ) from error
        except PARSER_ERRORS as error:
            raise MailboxProtocolError(
                f"{self.where} gave an answer that cannot be understood when it {asked}: {words_of(error)}."
            ) from error
        except IMAPClientError as error:
            if sign_in.NOT_CONNECTED in words_of(error).lower():
                raise sign_in.not_connected_error(self.account, words_of(error)) from error
            raise MailboxError(f"{self.where} said no when it {asked}: {words_of(error)}.") from error

    # --- waiting for news

    # --- waiting for news, as Mailbox says

    def start_idle(self) -> bool:
        with self.plain_errors("was asked to announce news") as client:
            if self._idle_refused or not client.has_capability("IDLE"):
                return False
            self._idle = Idle(client, timeout=self.account.timeout)
            try:
                with self._told_goodbye():
                    self._idle.begin()
            except IdleRefusedError as error:
                # A server that is busy may say yes next time; any other refusal is for this connection.
                self._idle_refused = not passes(words_of(error))
                return False
        return True

    def heard(self) -> bool:
        try:
            return self._idle is None or self._idle.heard()
        except (OSError, ValueError):
            return True  # stop_idle() says what is wrong

    def stop_idle(self) -> None:
        with self.plain_errors("was asked to stop announcing"), self._told_goodbye():
            if self._idle is not None and self._idle.is_on:
                self._idle.end()

    @contextmanager
    def _told_goodbye(self) -> Iterator[None]:
        try:
            yield
        except ByeError as error:
            self._broken = True
            raise MailboxError(f"{self.where} ended the connection: {words_of(error)}.") from error

    def fileno(self) -> int:
        return -1 if self._client is None else int(self._client.socket().fileno())

    def abort(self) -> None:
        self._broken = True
        client = self._client
        if client is not None:
            with suppress(Exception):
                client.socket().shutdown(socket.SHUT_RDWR)


def words_of(said: object) -> str:
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


def passes(said: str) -> bool:
    """Whether a refusal in these words is about the server's day."""
    return any(sign in said.lower() for sign in _PASSING)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
