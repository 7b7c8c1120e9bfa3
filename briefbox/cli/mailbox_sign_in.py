"""The OAuth2 half of `briefbox mailbox add`: a person signs in, and the tokens are encrypted into the row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from briefbox.cli.output import console
from briefbox.settings import Settings
from briefbox.store import secrets
from briefbox.tables import Mailbox

# How long a person has for a sign-in in the browser.
SIGN_IN_SECONDS = 600.0
_CHOSEN: tuple[str, ...] = ("provider", "client_id", "tenant", "flow", "login_as")
_NAMES = (*_CHOSEN, "scope", "token_url", "authorize_url", "device_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthOptions:
    """What was given on the command line; "" is not given."""

    provider: str = ""
    client_id: str = ""
    tenant: str = ""
    flow: str = ""
    login_as: str = ""
    scope: str = ""
    token_url: str = ""
    authorize_url: str = ""
    device_url: str = ""
    listen_port: int = 0
    client_secret: str = field(default="", repr=False)


def sign_in(row: Mailbox, settings: Settings, options: OAuthOptions) -> None:
    """Get tokens for this row and put them into it, encrypted. Raises InvalidValueError, MailboxError."""
    from ingest import oauth
    from ingest.token_endpoint import RefusedError

    cipher = secrets.cipher(settings)
    held = oauth.OAuthSecrets.decrypted(cipher, row.name, row.oauth_encrypted)
    config = oauth.configure(**_merged(row.oauth, options))
    secret = options.client_secret
    if not secret and all(config[n] == row.oauth.get(n) for n in ("client_id", "token_url")):
        secret = held.client_secret  # of the same application, and for the same address
    client = oauth.client_of(config, secret, row.ca_file)
    try:
        grant = _run(client, row, options.listen_port)
    except RefusedError as error:
        raise oauth.refused_error(row.name, client, error) from None
    row.oauth = {**config, "granted_at": datetime.now(UTC).isoformat(timespec="seconds")}
    row.oauth_encrypted = (
        oauth.OAuthSecrets(client_secret=secret).with_grant(grant).encrypted(cipher, row.name)
    )
    row.password_encrypted = ""


def _merged(stored: Mapping[str, Any], options: OAuthOptions) -> dict[str, str]:
    """Options over what is stored. What follows from provider, tenant and flow is found anew when one of them changes."""
    given = {name: getattr(options, name) for name in _NAMES}
    changed = {name for name in _NAMES if given[name] and given[name] != stored.get(name)}
    kept = _NAMES
    if "provider" in changed:
        kept = ()
    elif stored.get("provider") != "custom" and changed & {"tenant", "flow"}:
        kept = _CHOSEN
    return {name: value or str(stored.get(name, "") if name in kept else "") for name, value in given.items()}


def _run(client: Any, row: Mailbox, listen_port: int) -> Any:
    from ingest import token_endpoint

    who = (
        f"as {client.login_as}, who has access to {row.username}" if client.login_as else f"as {row.username}"
    )
    if client.flow == "client-credentials":
        return token_endpoint.client_credentials(client)
    if client.flow == "device":
        code = token_endpoint.ask_for_device_code(client)
        console.print(
            f"Open {code.address} on any device, enter the code {code.user_code} and sign in {who}.",
            markup=False,
            soft_wrap=True,
        )
        console.print(f"Waiting for that, {code.expires_in / 60:.0f} minutes at most ...")
        return token_endpoint.wait_for_device(client, code)
    with token_endpoint.CodeSignIn(client, port=listen_port) as answer:
        console.print(f"Open this address in a browser on this machine and sign in {who}:", markup=False)
        console.print(answer.address, markup=False, soft_wrap=True)
        console.print(
            f"On another machine first run: ssh -L {answer.port}:127.0.0.1:{answer.port} THIS-MACHINE",
            markup=False,
        )
        return answer.wait(SIGN_IN_SECONDS)
