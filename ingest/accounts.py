"""The account of a stored mailbox: its row, with the secrets decrypted."""

from pathlib import Path

from briefbox.db import Database
from briefbox.errors import NotFoundError
from briefbox.settings import Settings
from briefbox.store import secrets
from briefbox.tables import Mailbox
from ingest.mailbox import Account
from ingest.oauth import AccessTokens


def account_of(row: Mailbox, settings: Settings, database: Database | None = None) -> Account:
    """How to reach the mailbox of this row. Raises SettingsError, and NotFoundError when it was removed.

    Renewed tokens of OAuth2 are stored in `database`; only a mailbox that is not stored yet has none.
    """
    if row.removed_at is not None:
        raise NotFoundError(
            f"Mailbox {row.name} is no longer read, and its password or tokens were erased when it was removed; connect it again with: briefbox mailbox add"
        )
    cipher = secrets.cipher(settings)
    by_token = row.auth == "oauth2"
    networks = settings.private_networks if row.vetted else None
    return Account(
        host=row.host,
        port=row.port,
        username=row.username,
        password="" if by_token else cipher.decrypt(row.name, row.password_encrypted),
        auth="oauth2" if by_token else "password",
        token=AccessTokens(row, cipher, database, networks) if by_token else None,
        networks=networks,
        name=row.name,
        security=row.security,  # type: ignore[arg-type]  # the column holds one of the three words
        ca_file=Path(row.ca_file) if row.ca_file else None,
        timeout=settings.imap_timeout_seconds,
        max_email_bytes=settings.max_email_bytes,
    )
