"""The parser's process with a parser in which mails that say so break it. Run as a module."""

import os
import signal
import time
from collections.abc import Set

from briefbox.schemas import LeftOnServer, ParsedEmail
from ingest import parse, parser_process

_parse_email = parse.parse_email


def _breaking(
    raw: bytes, left: LeftOnServer | None = None, *, own_addresses: Set[str] = frozenset()
) -> ParsedEmail:
    if b"X-Break: lie" in raw:
        return ParsedEmail.model_construct(subject=7)  # type: ignore[arg-type]
    if b"X-Break: die" in raw:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"X-Break: exit" in raw:
        os._exit(3)
    if b"X-Break: spin" in raw:
        while True:
            pass
    if b"X-Break: hang" in raw:
        time.sleep(3600)
    if b"X-Break: fill" in raw:
        filled = []
        while True:
            filled.append(bytearray(50_000_000))
    return _parse_email(raw, left, own_addresses=own_addresses)


if __name__ == "__main__":
    parse.parse_email = _breaking
    parser_process.main()
