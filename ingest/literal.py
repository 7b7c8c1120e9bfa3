"""A bound on what one answer of a mailbox server may put into memory.

imaplib reads a literal ({12345} and so many bytes) in one piece, whatever its size: a server that states 4 kB
and sends 40 GB would fill the memory. The size in front of the bytes is looked at before they are read.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imapclient import IMAPClient

# The texts of an email that is fetched in part, and answers without mail in them, must always fit.
LEAST_LITERAL = 16_000_000
# Of one answer: batches are bounded by the sizes that the server states, which are only hints.
LEAST_ANSWER = 256_000_000


def bound_literals(client: "IMAPClient", max_literal: int) -> None:
    """Let this connection break (imaplib's abort) before it reads a literal of more than `max_literal` bytes."""
    imap = client._imap
    most, most_together = max(max_literal, LEAST_LITERAL), max(8 * max_literal, LEAST_ANSWER)
    read = imap.read
    held = 0

    def bounded(size: int) -> bytes:
        nonlocal held
        held = size + (held if "FETCH" in imap.untagged_responses else 0)
        if size > most or held > most_together:
            raise imap.abort(
                f"it began to send {max(size, held)} bytes, more than is taken at once ({most}; {most_together} in one answer)"
            )
        data: bytes = read(size)
        return data

    imap.read = bounded
