"""OAuth2 for mailboxes: whom we ask for tokens, and the access token of one mailbox, renewed when it is due.

Several pollers may want the same token at once, and many providers take a refresh token only once and give the next with
it. So a renewal is claimed first, by a conditional write on the stored ciphertext; what comes back is stored before it is
used; the others wait for it. No transaction is open while the provider is asked.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from briefbox.db import Database
from briefbox.errors import DatabaseBusyError, InvalidValueError, MailboxError, MailboxLoginError
from briefbox.net import Network
from briefbox.store import mailboxes
from briefbox.store.secrets import Cipher
from briefbox.tables import Mailbox
from ingest import aadsts, token_endpoint
from ingest.token_endpoint import Client, Grant

PROVIDERS = ("microsoft", "google", "custom")
FLOWS = ("device", "code", "client-credentials")

# A token is renewed this long before its end, or at half its life where that is shorter.
RENEW_BEFORE_SECONDS = 300.0
# RFC 6749, 5.1: a provider should say how long a token lives; this is taken where it does not.
DEFAULT_LIFE_SECONDS = 3600.0
# A poller that died while it renewed a token holds the others up for so long; longer than the provider may take.
CLAIM_SECONDS = 90.0
# A renewed token that cannot be stored at once is kept trying: the old refresh token may be spent.
STORE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.2

_GOOGLE = {
    "authorize_url": "https://accounts.google.com/o/oauth2/v2/auth",
    "token_url": "https://oauth2.googleapis.com/token",
    "scope": "https://mail.google.com/",
}
_MICROSOFT = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/"
_MICROSOFT_SCOPE = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access"
_MICROSOFT_APP_SCOPE = "https://outlook.office365.com/.default"


def configure(
    provider: str,
    *,
    flow: str = "",
    client_id: str,
    tenant: str = "",
    token_url: str = "",
    authorize_url: str = "",
    device_url: str = "",
    scope: str = "",
    login_as: str = "",
) -> dict[str, str]:
    """The configuration as it is stored in `Mailbox.oauth`; it holds no secret. Raises InvalidValueError."""
    if provider not in PROVIDERS:
        raise InvalidValueError(f"--provider is {provider!r}; expected one of {', '.join(PROVIDERS)}.")
    flow = flow or ("code" if provider == "google" else "device")
    if flow not in FLOWS:
        raise InvalidValueError(f"--flow is {flow!r}; expected one of {', '.join(FLOWS)}.")
    if not client_id:
        raise InvalidValueError(
            "--client-id is missing; expected the id of the application that you registered with the provider: docs/mailboxes.md says how."
        )
    if provider == "google" and flow != "code":
        raise InvalidValueError(
            f"--flow is {flow}, with which Google gives no access to mail; expected --flow code."
        )
    known = _endpoints(provider, flow, tenant)
    config = {
        "provider": provider,
        "flow": flow,
        "client_id": client_id,
        "tenant": tenant,
        "login_as": login_as,
        "token_url": token_url or known.get("token_url", ""),
        "authorize_url": authorize_url or known.get("authorize_url", ""),
        "device_url": device_url or known.get("device_url", ""),
        "scope": scope or known.get("scope", ""),
    }
    needed = {"device": "device_url", "code": "authorize_url"}.get(flow)
    for name in ("token_url", *([needed] if needed else ())):
        _check_url(name, config[name])
    return config


def _endpoints(provider: str, flow: str, tenant: str) -> Mapping[str, str]:
    if provider == "google":
        return _GOOGLE
    if provider == "custom":
        return {}
    if flow == "client-credentials" and not tenant:
        raise InvalidValueError(
            "--tenant is missing; expected your Microsoft 365 tenant (its id or domain) for the flow client-credentials."
        )
    authority = _MICROSOFT.format(tenant=quote(tenant or "common", safe=""))
    return {
        "authorize_url": authority + "authorize",
        "device_url": authority + "devicecode",
        "token_url": authority + "token",
        "scope": _MICROSOFT_APP_SCOPE if flow == "client-credentials" else _MICROSOFT_SCOPE,
    }


def _check_url(name: str, url: str) -> None:
    option = "--" + name.replace("_", "-")
    if not url:
        raise InvalidValueError(f"{option} is missing; expected the provider's https address for it.")
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not (parts.scheme == "https" or local) or not parts.hostname:
        raise InvalidValueError(
            f"{option} is {url!r}; expected an address that begins with https://, since secrets are sent there."
        )


def client_of(
    config: Mapping[str, Any],
    client_secret: str = "",
    ca_file: str = "",
    networks: tuple[Network, ...] | None = None,
) -> Client:
    """The registered application of a stored configuration. `networks` as in Account."""
    names = ("provider", "flow", "client_id", "token_url", "authorize_url", "device_url", "scope", "login_as")
    return Client(
        **{name: str(config.get(name, "")) for name in names},
        client_secret=client_secret,
        networks=networks,
        # A private authority counts for one's own provider only, beside the system's.
        ca_file=Path(ca_file) if ca_file and config.get("provider") == "custom" else None,
    )


@dataclass(frozen=True, slots=True)
class OAuthSecrets:
    """What `Mailbox.oauth_encrypted` holds. Left out of repr: all of it opens a mailbox."""

    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    expires_at: float = 0.0  # of the access token, seconds since 1970
    renew_at: float = 0.0
    claimed_until: float = 0.0  # somebody renews it now

    def with_grant(self, grant: Grant) -> "OAuthSecrets":
        """These with fresh tokens; a provider that gives no new refresh token means the old one (RFC 6749, 6)."""
        life = grant.expires_in or DEFAULT_LIFE_SECONDS
        return replace(
            self,
            refresh_token=grant.refresh_token or self.refresh_token,
            access_token=grant.access_token,
            expires_at=grant.at + life,
            renew_at=grant.at + life - min(RENEW_BEFORE_SECONDS, life / 2),
            claimed_until=0.0,
        )

    def encrypted(self, cipher: Cipher, row_name: str) -> str:
        """For the database, bound to the mailbox of this name."""
        return cipher.encrypt(row_name, json.dumps(asdict(self)))

    @classmethod
    def decrypted(cls, cipher: Cipher, row_name: str, stored: str) -> "OAuthSecrets":
        """Raises SettingsError when the key or the mailbox is another."""
        return cls(**json.loads(cipher.decrypt(row_name, stored))) if stored else cls()


class AccessTokens:
    """Gives the access token of one mailbox; safe with any number of pollers and threads."""

    def __init__(
        self,
        row: Mailbox,
        cipher: Cipher,
        database: Database | None,
        networks: tuple[Network, ...] | None = None,
    ) -> None:
        """Without a database (a mailbox that is not stored yet) renewed tokens are kept in `row` alone."""
        self.row, self._cipher, self._database, self._networks = row, cipher, database, networks

    def __call__(self, refused: str = "") -> str:
        """A token that is good for some minutes, and is not the `refused` one.

        Raises MailboxLoginError when somebody has to sign in again, and MailboxError when asking later may help.
        """
        give_up = time.monotonic() + CLAIM_SECONDS + 10
        while time.monotonic() < give_up:
            config, stored, held = self._read()
            moment = time.time()
            if held.access_token and held.access_token != refused and held.renew_at > moment:
                return held.access_token
            if held.claimed_until > moment:
                time.sleep(LOOK_AGAIN_SECONDS)
                continue
            claim = self._swap(stored, replace(held, claimed_until=moment + CLAIM_SECONDS))
            if claim is not None and (token := self._renew(config, claim, held)):
                return token
        raise MailboxError(
            f"The access token of mailbox {self.row.name} is being renewed by another process, which does not come to an end; it is tried again later."
        )

    def _renew(self, config: Mapping[str, Any], claim: str, held: OAuthSecrets) -> str:
        """Ask the provider and store its answer. "" when the mailbox was signed in anew meanwhile."""
        try:
            client = client_of(config, held.client_secret, self.row.ca_file, self._networks)
            grant = self._ask(client, held)
        except BaseException:
            self._swap(claim, replace(held, claimed_until=0.0))
            raise
        fresh = held.with_grant(grant)
        for attempt in Retrying(
            retry=retry_if_exception_type(DatabaseBusyError),
            stop=stop_after_delay(STORE_SECONDS),
            wait=wait_fixed(0.5),
            reraise=True,
        ):
            with attempt:
                if self._swap(claim, fresh) is None:
                    return ""
        return fresh.access_token

    def _ask(self, client: Client, held: OAuthSecrets) -> Grant:
        try:
            if client.flow == "client-credentials":
                return token_endpoint.client_credentials(client)
            if not held.refresh_token:
                raise token_endpoint.RefusedError("invalid_grant", "no refresh token is stored")
            return token_endpoint.refresh(client, held.refresh_token)
        except token_endpoint.RefusedError as error:
            raise refused_error(self.row.name, client, error) from None

    def _read(self) -> tuple[dict[str, Any], str, OAuthSecrets]:
        row = self.row
        if self._database is not None:
            with self._database.read() as session:
                row = mailboxes.get_by_id(session, self.row.id)
        secrets = OAuthSecrets.decrypted(self._cipher, row.name, row.oauth_encrypted)
        return row.oauth, row.oauth_encrypted, secrets

    def _swap(self, old: str, new: OAuthSecrets) -> str | None:
        """Store `new` where `old` still stands; the new ciphertext, or None when another was faster."""
        encrypted = new.encrypted(self._cipher, self.row.name)
        if self._database is None:
            self.row.oauth_encrypted = encrypted
            return encrypted
        with self._database.write() as session:
            swapped = mailboxes.swap_oauth(session, self.row.id, old=old, new=encrypted)
        return encrypted if swapped else None


def refused_error(name: str, client: Client, error: token_endpoint.RefusedError) -> MailboxError:
    """A provider's refusal in words: passing, a wrong registration, or somebody has to sign in again."""
    again = f"briefbox mailbox add {name} --replace"
    where = urlsplit(client.token_url).hostname
    found = aadsts.meaning(str(error))
    meaning = f" {found}" if found else ""
    if error.passing:
        return MailboxError(
            f"{where} gives no token for mailbox {name} now: {error}; it is tried again later.",
            kind="provider busy",
            said=str(error),
        )
    if error.code in ("invalid_client", "unauthorized_client"):
        return MailboxLoginError(
            f"{where} refused the application of mailbox {name}: {error}; its secret may have expired: give a new one with `{again} --client-secret-file FILE`, or check --client-id and --tenant.{meaning}",
            kind="application refused",
            said=str(error),
        )
    if error.code in ("invalid_scope", "invalid_request", "unsupported_grant_type", "invalid_resource"):
        return MailboxLoginError(
            f"{where} refused what mailbox {name} asks for: {error}; check the application's permissions, --scope and --tenant, then `{again}`.{meaning}",
            kind="request refused",
            said=str(error),
        )
    return MailboxLoginError(
        f"The sign-in of mailbox {name} at {where} has ended or was taken back: {error}; sign in again with `{again}`.{meaning}",
        kind="sign-in ended",
        said=str(error),
    )
