"""Encryption of mailbox passwords and tokens at rest. The key lives outside the database."""

import json
import os
from pathlib import Path
from threading import get_ident

from cryptography.fernet import Fernet, InvalidToken

from briefbox.errors import SettingsError
from briefbox.settings import Settings

KEY_FILE = "secret.key"


class Cipher:
    """Encrypts a secret for one row: the row's name is inside, so a ciphertext moved to another row is refused."""

    def __init__(self, key: str) -> None:
        """Raises SettingsError when `key` is no Fernet key."""
        try:
            self._fernet = Fernet(key.encode())
        except ValueError as error:
            raise SettingsError(
                "BRIEFBOX_SECRET_KEY is not a Fernet key (32 bytes in url-safe base64). Restore the key that this database was made with; "
                "for a new installation leave it unset and one is made in the data folder."
            ) from error

    def encrypt(self, row: str, secret: str) -> str:
        """The secret, encrypted and bound to `row`."""
        return self._fernet.encrypt(json.dumps([row, secret]).encode()).decode()

    def decrypt(self, row: str, token: str) -> str:
        """Raises SettingsError when the key is another one or the token belongs to another row."""
        try:
            owner, secret = json.loads(self._fernet.decrypt(token.encode()))
        except InvalidToken as error:
            raise SettingsError(
                f"The stored password or token of {row} cannot be decrypted with this key. Set BRIEFBOX_SECRET_KEY (or {KEY_FILE} in the data folder) "
                f"to the key it was stored with, or enter it again with: briefbox mailbox add {row} --replace"
            ) from error
        if owner != row:
            raise SettingsError(
                f"The stored password or token of {row} was written for {owner}; enter it again with: briefbox mailbox add {row} --replace"
            )
        return str(secret)


def cipher(settings: Settings) -> Cipher:
    """The cipher of this installation; makes the key file (mode 0600) at first use."""
    if settings.secret_key is not None:
        return Cipher(settings.secret_key.get_secret_value())
    path = settings.data_dir / KEY_FILE
    if not path.exists():
        settings.ensure_data_dir()
        _write_new_key(path)
    return Cipher(path.read_text(encoding="ascii").strip())


def _write_new_key(path: Path) -> None:
    # Written aside and linked: of two processes or threads that start together one wins, and nobody reads half a key.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Fernet.generate_key())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
