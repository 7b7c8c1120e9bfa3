"""IDLE (RFC 2177) on one connection, for a loop that watches many: begin, hear, end. Nothing here waits for news.

imapclient's idle_check() is not used: it aborts on half a line, hides the end of the connection, and cannot be asked
whether bytes are already in a buffer, where poll() does not see them.
"""

import re
import socket
import ssl
from io import BufferedReader
from typing import Any

from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientAbortError

# What a server may say without meaning new mail: signs of life, flags, expunges.
_QUIET = re.compile(
    rb"\* (OK\b(?! \[ALERT\])|FLAGS\b|VANISHED\b|\d+ (FETCH|EXPUNGE|RECENT)\b)", re.IGNORECASE
)


class IdleRefusedError(Exception):
    """The server said no to IDLE; `args[0]` is what it said."""


class ByeError(Exception):
    """The server ends the connection; `args[0]` is what it said."""


class Idle:
    """One connection's IDLE."""

    def __init__(self, client: IMAPClient, *, timeout: float) -> None:
        """`timeout` in seconds is the connection's own, for everything that is not a look at the buffer."""
        self._client, self._imap, self._timeout = client, client._imap, timeout
        self._tag = b""
        self._early = False  # the server spoke of new mail before its go-ahead

    @property
    def is_on(self) -> bool:
        """Whether the server is idling for us."""
        return bool(self._tag)

    def begin(self) -> None:
        """Ask for news. Raises IdleRefusedError, ByeError, and imaplib's errors when the connection breaks."""
        self._imap.untagged_responses.clear()
        tag, self._early = self._imap._command("IDLE"), False
        # Untagged lines may come before the go-ahead; imapclient takes them for a refusal.
        while (line := self._imap._get_response()) is not None:
            self._raise_on_bye()
            if done := self._imap.tagged_commands.get(tag):
                raise IdleRefusedError(b" ".join(filter(None, done[1])).decode("utf-8", "replace"))
            self._early = self._early or not _QUIET.match(line)
        self._tag = tag

    def heard(self) -> bool:
        """Whether there may be new mail, told from what has arrived so far; returns at once."""
        if self._early:
            return True
        waiting = self._peek()
        if waiting is None:
            return False
        lines = waiting.split(b"\r\n")
        # The end of the connection, half a line, or anything but noise: whoever ends the IDLE finds out.
        if not waiting or lines.pop() or not all(map(_QUIET.match, lines)):
            return True
        _file(self._imap).read(len(waiting))
        return False

    def end(self) -> None:
        """Stop idling. Raises ByeError and imaplib's errors when the connection breaks."""
        tag, self._tag = self._tag, b""
        self._imap.send(b"DONE\r\n")
        while not self._imap.tagged_commands.get(tag):
            self._imap._get_response()
            self._raise_on_bye()
        kind, said = self._imap.tagged_commands.pop(tag)
        self._imap.untagged_responses.clear()
        if kind != "OK":
            raise IMAPClientAbortError(f"IDLE ended with {kind} {said!r}")

    def _raise_on_bye(self) -> None:
        if said := self._imap.untagged_responses.get("BYE"):
            raise ByeError(said[-1].decode("utf-8", "replace"))

    def _peek(self) -> bytes | None:
        """What lies in the buffers; b"" at the end of the connection, None when nothing came."""
        connection: Any = self._client.socket()
        connection.settimeout(0)
        try:
            found = bytes(_file(self._imap).peek())
            if not found and not isinstance(connection, ssl.SSLSocket):
                # A plain socket's peek() gives b"" for "nothing came" as well; this raises then.
                found = bytes(connection.recv(4096, socket.MSG_PEEK))
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        finally:
            connection.settimeout(self._timeout)
        return found


def _file(imap: Any) -> BufferedReader:
    # Python renamed the attribute.
    reader: BufferedReader = getattr(imap, "_file", None) or imap.file
    return reader
