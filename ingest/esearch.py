"""UID SEARCH whose answer names ranges (RFC 4731): "1:100000" instead of 100,000 numbers."""

import re
from collections.abc import Iterator

from imapclient import IMAPClient

_ALL = re.compile(rb"(?:^|\s)ALL\s+([\d:,]+)", re.IGNORECASE)
# More than any folder holds; a lying server must not fill the memory with one short line.
MAX_UIDS = 5_000_000


class ESearchError(Exception):
    """The server's answer is none that RFC 4731 knows."""


def search_in_ranges(client: IMAPClient, uid_set: str) -> list[int]:
    """The UIDs that exist in `uid_set`. Raises ESearchError, and imaplib's errors."""
    answer = client._raw_command_untagged(
        b"SEARCH", [b"RETURN", b"(ALL)", b"UID", uid_set.encode()], response_name="ESEARCH"
    )
    lines = [line for line in answer if isinstance(line, bytes)]
    if not lines:
        raise ESearchError("no ESEARCH line")
    found = _ALL.search(lines[-1])
    return list(_expand(found[1])) if found else []


def _expand(ranges: bytes) -> Iterator[int]:
    total = 0
    for part in ranges.split(b","):
        low, _, high = part.partition(b":")
        try:
            ends = sorted((int(low), int(high or low)))
        except ValueError as error:
            raise ESearchError(f"{part[:40]!r} is no range") from error
        total += ends[1] - ends[0] + 1
        if total > MAX_UIDS:
            raise ESearchError(f"more than {MAX_UIDS} UIDs")
        yield from range(ends[0], ends[1] + 1)
