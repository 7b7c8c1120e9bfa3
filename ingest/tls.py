"""TLS as it is used everywhere: the server's certificate is always verified, against the system's authorities or your own."""

import ssl
from functools import lru_cache
from pathlib import Path

from briefbox.errors import MailboxTLSError


def tls_context(ca_file: Path | None, *, beside_system: bool = False) -> ssl.SSLContext:
    """A context that verifies certificates and names; one is shared by all connections with the same authority file.

    A file replaces the system's authorities, or with `beside_system` is trusted beside them. Raises MailboxTLSError
    when the file cannot be used.
    """
    try:
        changed = ca_file.stat().st_mtime_ns if ca_file else 0
        return _shared(ca_file, changed, beside_system=beside_system)
    except OSError as error:  # ssl.SSLError, for a file that is no PEM, is one
        raise MailboxTLSError(
            f"The certificate authority file {ca_file} cannot be used ({error.strerror or error}); expected a PEM file, set with `briefbox mailbox add ... --ca-file FILE`."
        ) from error


# Loading the system's authorities takes some 30 ms and 1 MB, which 500 mailboxes must not each pay for.
@lru_cache(maxsize=64)
def _shared(ca_file: Path | None, _changed: int, *, beside_system: bool) -> ssl.SSLContext:
    if ca_file is None or not beside_system:
        return ssl.create_default_context(cafile=ca_file)
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca_file)
    return context
