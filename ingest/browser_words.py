"""What goes wrong while a mailbox is connected, said for somebody in front of a browser: what was found, what to do next.

The errors themselves name commands, which are for whoever has a terminal.
"""

from briefbox.errors import BriefboxError, MailboxError
from ingest import aadsts
from ingest.mailbox import Account

# By MailboxError.kind. {where}, {who} and {host} are the account's, {said} the server's own words.
_SENTENCES = {
    "login": "{where} refused the user name or the password of {who}: “{said}”. Type the password again, and look whether the user name is right. Many providers want an app password here, not the one for their website.",
    "app password": "{where} wants an app password of {who}, not the person's own: “{said}”. Make one in the account's security settings (most want two-step sign-in first) and enter that one.",
    "imap off": "IMAP is switched off for {who} at {where}: “{said}”. Switch it on in the mailbox's settings there, or ask its administrator to; then test again.",
    "browser wanted": "{where} wants {who} to sign in once in a web browser: “{said}”. Do so there, or use an app password or OAuth2.",
    "no passwords": "{where} takes no passwords over IMAP: “{said}”. Choose OAuth2 as the way to sign in.",
    "no oauth2": "{where} takes no OAuth2 tokens (it offers {said}). Choose the password as the way to sign in.",
    "token refused": "{where} refused the sign-in for {who}: “{said}”. The account that signed in must be allowed to open this mailbox, and IMAP must be allowed for it. A shared mailbox has no sign-in of its own: sign in as a person who has full access to it.",
    "not connected": "{where} took the sign-in and does not open the mailbox {who}: “{said}”. Give the account that signed in full access to it, switch IMAP on for it, and wait some minutes: Microsoft takes up to an hour to know of it. A shared mailbox is opened by signing in as a person with full access.",
    "encryption wanted": "{where} takes no password on a connection that is not encrypted: “{said}”. Choose TLS or STARTTLS.",
    "too many connections": "{where} allows no more connections of {who} now: “{said}”. Close other programs that read this mailbox, wait a minute, and test again.",
    "busy": "{where} cannot sign {who} in now: “{said}”. That passes: wait some minutes, and test again.",
    "ascii only": "{where} takes only ASCII in user names and passwords. Set another password there, without letters such as ä or é.",
    "line break": "The host, user name or password holds a line break. Enter it again.",
    "plaintext": "The password is not sent to {host} without encryption. Choose TLS (or STARTTLS).",
    "no such host": "There is no host {host} (“{said}”). Look for a slip of the pen in its name; the provider's help says what it is under IMAP.",
    "no answer": "{where} does not answer. Check the host and the port (993 with TLS, 143 with STARTTLS), and whether a firewall stands between.",
    "refused": "{where} cannot be reached (“{said}”). Check the host and the port (993 with TLS, 143 with STARTTLS).",
    "no imap": "Something answers at {where}, but no IMAP server. Check the port (993 with TLS, 143 with STARTTLS) and the kind of encryption.",
    "certificate": "The certificate of {where} cannot be trusted: “{said}”. Use the name that stands in the certificate as the host. A server with a certificate of your own authority is connected on the command line: briefbox mailbox add … --ca-file FILE.",
    "no tls": "{where} does not speak TLS at this port. Choose STARTTLS with port 143, or TLS with port 993.",
    "no starttls": "{where} does not offer STARTTLS. Choose TLS, usually with port 993.",
    "provider busy": "The provider gives no sign-in now: “{said}”. Wait a minute and try again.",
    "application refused": "The provider refused the application: “{said}”. Check the client id and the tenant; a client secret may have expired.",
    "request refused": "The provider refused what the application asks for: “{said}”. Check its permissions and the tenant.",
    "sign-in ended": "The sign-in did not come about: “{said}”. Try again.",
}


# What the command line calls the fields of the page.
_OPTIONS = {
    "--provider": "The provider",
    "--client-id": "The client id",
    "--tenant": "The tenant",
    "--flow": "The way to sign in",
    "--token-url": "The token address",
    "--device-url": "The device address",
    "--authorize-url": "The authorization address",
}


def in_browser(error: BriefboxError, account: Account | None = None) -> str:
    """The error as a sentence for a page."""
    if not isinstance(error, MailboxError) or error.kind not in _SENTENCES:
        sentence = _without_commands(str(error))
        for option, name in _OPTIONS.items():
            sentence = sentence.replace(option, name)
        return sentence
    sentence = _SENTENCES[error.kind].format(
        where=f"{account.host}:{account.port}" if account else "The server",
        who=account.username if account else "the mailbox",
        host=account.host if account else "the server",
        said=error.said or "no reason given",
    )
    more = aadsts.meaning(error.said)
    return f"{sentence} {more}".rstrip()


def _without_commands(sentence: str) -> str:
    """What stands before the command that would fix it in a terminal."""
    before, mark, _ = sentence.partition("`briefbox")
    if not mark:
        return sentence
    cut = max(before.rfind(";"), before.rfind(": choose"), before.rfind("."))
    return before[:cut].rstrip() + "." if cut > 0 else sentence
