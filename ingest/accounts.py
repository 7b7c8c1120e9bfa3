"""The account of a stored mailbox: its row, with the secrets decrypted."""

from pathlib import Path

from briefbox.settings import Settings
from briefbox.store import secrets
from briefbox.tables import Mailbox
from ingest.mailbox import Account


def account_of(row: Mailbox, settings: Settings) -> Account:
    """How to reach the mailbox of this row. Raises SettingsError."""
    return Account(
        host=row.host,
        port=row.port,
        username=row.username,
        password=secrets.cipher(settings).decrypt(row.name, row.password_encrypted),
        security=row.security,  # type: ignore[arg-type]  # the column holds one of the three words
        ca_file=Path(row.ca_file) if row.ca_file else None,
        timeout=settings.imap_timeout_seconds,
    )
