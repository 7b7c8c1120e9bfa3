"""Signing in: which way the server takes, and what its refusal means in plain words.

SASL XOAUTH2 is what Google and Microsoft made first; OAUTHBEARER is its standard (RFC 7628). In both a refusal comes as a
JSON challenge, which the client answers before the server says NO.
"""

import base64
import binascii
import json
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from briefbox.errors import MailboxError, MailboxLoginError, MailboxTLSError

if TYPE_CHECKING:
    from ingest.mailbox import Account

# Microsoft's answer to the first command after a sign-in that it said OK to (wrong rights, a shared mailbox, or too busy).
NOT_CONNECTED = "authenticated but not connected"

# NetEase opens no folder ("Unsafe Login") for a program that does not say its name first (RFC 2971).
_WANTS_A_NAME = ("163.com", "126.com", "yeah.net", "188.com", "netease.com")
_MICROSOFT = ("outlook.com", "office365.com", "hotmail.com", "office365.us", "partner.outlook.cn")
_APP_PASSWORD = ("application-specific password", "app password", "app-specific password")
_IMAP_OFF = (
    "not enabled for imap",
    "imap access is disabled",
    "imap is disabled",
    "imap disabled",
    "imap service is not",
    "service is not open",
    "imap4 is disabled",
)
_TOO_MANY = ("[limit]", "too many", "maximum number of connections", "simultaneous", "connection limit")
_IN_BROWSER = ("web browser", "webalert", "[alert] please log in via your web")
_NO_PASSWORDS = ("basicauthblocked", "basic authentication is disabled", "basic auth is disabled")


def way_in(account: "Account", offered: Collection[str]) -> str:
    """LOGIN, PLAIN, XOAUTH2 or OAUTHBEARER, whichever this server takes. Raises MailboxLoginError, MailboxTLSError.

    `offered` holds the server's capabilities in capitals.
    """
    where = f"{account.host}:{account.port}"
    if account.auth == "oauth2":
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            if f"AUTH={mechanism}" in offered:
                return mechanism
        raise MailboxLoginError(
            f"{where} does not take OAuth2 tokens (it offers {_ways(offered)}); expected XOAUTH2 or OAUTHBEARER: use `{account.command} --auth password`.",
            kind="no oauth2",
            said=_ways(offered),
        )
    can_plain = "AUTH=PLAIN" in offered
    # LOGIN carries ASCII only; AUTHENTICATE PLAIN carries UTF-8.
    if not (account.username + account.password).isascii():
        if can_plain:
            return "PLAIN"
        raise MailboxLoginError(
            f"{where} takes only ASCII in user names and passwords; set another password there, and here with `{account.command}`.",
            kind="ascii only",
        )
    if "LOGINDISABLED" not in offered:
        return "LOGIN"
    if can_plain:
        return "PLAIN"
    if account.security == "none":
        raise MailboxTLSError(
            f"{where} takes no password on an unencrypted connection (LOGINDISABLED); use `{account.command} --security starttls`.",
            kind="encryption wanted",
            said="LOGINDISABLED",
        )
    raise MailboxLoginError(
        f"{where} takes no passwords (LOGINDISABLED; it offers {_ways(offered)}); use `{account.command} --auth oauth2`.",
        kind="no passwords",
        said=_ways(offered),
    )


def _ways(offered: Collection[str]) -> str:
    ways = sorted(name.removeprefix("AUTH=") for name in offered if name.startswith("AUTH="))
    if "LOGINDISABLED" not in offered:
        ways.insert(0, "LOGIN")
    return ", ".join(ways) or "nothing"


class TokenAnswers:
    """Answers the server's challenges of XOAUTH2 or OAUTHBEARER; keeps what it says when it refuses the token."""

    def __init__(self, mechanism: str, account: "Account", token: str) -> None:
        """`mechanism` is XOAUTH2 or OAUTHBEARER."""
        self.complaint = ""
        self._refusal = b"" if mechanism == "XOAUTH2" else b"\x01"
        if mechanism == "XOAUTH2":
            text = f"user={account.username}\x01auth=Bearer {token}\x01\x01"
        else:
            # RFC 5801: "=" and "," in a name are written in another way.
            name = account.username.replace("=", "=3D").replace(",", "=2C")
            text = f"n,a={name},\x01host={account.host}\x01port={account.port}\x01auth=Bearer {token}\x01\x01"
        self._first: bytes | None = text.encode()

    def __call__(self, challenge: bytes) -> bytes:
        """The answer to one challenge: the token first, then the word that ends a refusal."""
        if self._first is not None:
            answer, self._first = self._first, None
            return answer
        self.complaint = complaint_of(challenge)
        return self._refusal


def complaint_of(challenge: bytes) -> str:
    """The JSON of a refusal as words: {"status": "401", "schemes": "bearer"} is "status 401, schemes bearer"."""
    text = challenge
    with suppress(binascii.Error, ValueError):
        text = base64.b64decode(challenge, validate=True)
    with suppress(ValueError):
        said = json.loads(text)
        if isinstance(said, dict):
            return ", ".join(f"{key} {value}" for key, value in said.items())[:200]
    return text.decode("utf-8", "replace")[:200]


def login_error(account: "Account", said: str, *, passing: bool, complaint: str = "") -> MailboxError:
    """What a server's NO to a sign-in means, with its own words `said` and what to do.

    `passing`: the words tell of the server's day, not of the password.
    """
    where = f"{account.host}:{account.port}"
    words, who = said.lower(), repr(account.username)
    if "[privacyrequired]" in words:
        return MailboxTLSError(
            f"{where} wants an encrypted connection before it takes a password ({said}); use `{account.command} --security starttls`.",
            kind="encryption wanted",
            said=said,
        )
    if any(sign in words for sign in _TOO_MANY):
        return MailboxError(
            f"{where} allows no more connections of {who} now: {said}; it is tried again later. Other programs that read this mailbox use them up, too.",
            kind="too many connections",
            said=said,
        )
    if passing:
        return MailboxError(
            f"{where} cannot sign {who} in now: {said}; it is tried again later.", kind="busy", said=said
        )
    if any(sign in words for sign in _IMAP_OFF):
        return MailboxLoginError(
            f"IMAP is switched off for {who} at {where}: {said}; switch it on in the mailbox's settings there (or as its administrator), it is tried again by itself.",
            kind="imap off",
            said=said,
        )
    if any(sign in words for sign in _APP_PASSWORD):
        return MailboxLoginError(
            f"{where} wants an app password of {who}, not the person's own: {said}; make one in the account's security settings and give it with `{account.command}`.",
            kind="app password",
            said=said,
        )
    if any(sign in words for sign in _IN_BROWSER):
        return MailboxLoginError(
            f"{where} wants {who} to sign in once in a web browser: {said}; do so, or use an app password or OAuth2 with `{account.command}`.",
            kind="browser wanted",
            said=said,
        )
    if account.auth == "oauth2":
        more = f" ({complaint})" if complaint else ""
        return MailboxLoginError(
            f"{where} refused the token for {who}: {said}{more}; check that whoever signed in may open this mailbox and that IMAP is allowed, then sign in again with `{account.command}`.",
            kind="token refused",
            said=said,
        )
    if any(sign in words for sign in _NO_PASSWORDS) or account.host.lower().endswith(_MICROSOFT):
        return MailboxLoginError(
            f"{where} refused the password of {who}: {said}; Microsoft takes no passwords over IMAP any more: use `{account.command} --auth oauth2 --provider microsoft`.",
            kind="no passwords",
            said=said,
        )
    return MailboxLoginError(
        f"{where} refused the user name or password of {who}: {said}; set them again with `{account.command}` (many providers want an app password).",
        kind="login",
        said=said,
    )


def wants_a_name(account: "Account") -> bool:
    """Whether the server opens folders only for programs that have said their name."""
    return account.host.lower().endswith(_WANTS_A_NAME)


def not_connected_error(account: "Account", said: str) -> MailboxError:
    """Signed in, and yet not let in: this one mailbox waits longer, and nothing else is touched."""
    return MailboxError(
        f"{account.host}:{account.port} took the sign-in of {account.username!r} but does not open the mailbox ({said}): the account that signed in has no right to it, "
        f"IMAP is off for it, or Microsoft is busy. It is tried again later; if it stays so, give that account full access, or sign in as another with `{account.command}`.",
        kind="not connected",
        said=said,
    )
