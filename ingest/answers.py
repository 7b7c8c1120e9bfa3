"""Answers to UID FETCH: the ordinary shape is read here, every other one by IMAPClient's parser.

IMAPClient's parser goes through every token of every answer, which is most of what a fetch of small mails costs. What
servers send for `BODY.PEEK[] RFC822.SIZE INTERNALDATE` is nearly always one literal with a few plain items around it
(RFC 3501, 7.4.2). Only an answer that is exactly that, whole, is taken by the expressions below.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from imapclient import IMAPClient
from imapclient.response_parser import parse_fetch_response
from imapclient.util import to_unicode

Answer = dict[bytes, Any]

_HEAD = re.compile(rb"\d+ \((.*)BODY\[\] \{(\d+)\}")
_LINE = re.compile(rb"\d+ \((.*)\)")
_ITEM = re.compile(
    rb' *(?:(UID|RFC822\.SIZE) (\d{1,20})|(INTERNALDATE) "([^"\\]*)"|FLAGS \([^()"{]*\)|MODSEQ \(\d+\))(?= |$)'
)
_DATE = re.compile(rb"([ \d]\d)-([A-Z][a-z]{2})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)([0-5]\d)")
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}


def fetch_answers(client: IMAPClient, uids: Sequence[int], items: Sequence[str]) -> dict[int, Answer]:
    """What the server says of these emails, by UID; what it says of others is left out.

    Raises what IMAPClient.fetch raises. An answer without a UID is left out too: its sequence number says nothing.
    """
    imap = client._imap
    tag = imap._command("UID", "FETCH", uid_set(uids), f"({' '.join(items)})")
    kind, data = imap._command_complete("FETCH", tag)
    if kind != "OK":
        raise client.Error(f"fetch failed: {to_unicode(data[0])}")
    parts = imap.untagged_responses.pop("FETCH", ())
    asked = set(uids)
    found: dict[int, Answer] = {}
    for uid, answer in read_answers(parts):
        if uid in asked:
            found.setdefault(uid, {}).update(answer)
    return found


def uid_set(uids: Sequence[int]) -> str:
    """These UIDs and no others, as a sequence set (RFC 3501, 9): runs of them as ranges, which keeps commands short."""
    runs: list[list[int]] = []
    for uid in uids:
        if runs and uid == runs[-1][-1] + 1:
            runs[-1][1:] = [uid]
        else:
            runs.append([uid])
    return ",".join(":".join(map(str, run)) for run in runs)


def read_answers(parts: Iterable[Any]) -> Iterator[tuple[int, Answer]]:
    """(UID, items) of each answer in imaplib's form: lines, and (line, literal) pairs before them.

    Raises ProtocolError and what else IMAPClient's parser raises.
    """
    group: list[Any] = []
    for part in parts:
        group.append(part)
        if isinstance(part, tuple):
            continue  # a literal: the answer goes on
        plain = _plain(group)
        if plain is not None:
            yield plain
        else:
            yield from _unusual(group)
        group = []
    if group:
        yield from _unusual(group)


def _plain(group: list[Any]) -> tuple[int, Answer] | None:
    """Plain items alone, or around one literal that is the whole body; None for anything else."""
    answer: Answer = {}
    texts: tuple[bytes, ...]
    if len(group) == 1 and isinstance(group[0], bytes):
        line = _LINE.fullmatch(group[0])
        texts = (line[1],) if line else ()
    elif len(group) == 2 and isinstance(group[0], tuple) and group[1].endswith(b")"):
        head = _HEAD.fullmatch(group[0][0])
        body = group[0][1]
        if head is None or int(head[2]) != len(body):
            return None
        texts = (head[1].rstrip(b" "), group[1][:-1])
        answer[b"BODY[]"] = body
    else:
        return None
    if not all(_take_items(text, answer) for text in texts):
        return None
    uid = answer.pop(b"UID", None)
    return None if uid is None else (uid, answer)


def _take_items(text: bytes, answer: Answer) -> bool:
    """Put the items into the answer; False if there is one that is not known here."""
    at = 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            return False
        at = item.end()
        if item[1]:
            answer[item[1]] = int(item[2])
        elif item[3]:
            answer[item[3]] = moment = _date(item[4])
            if moment is None:
                return False
    return True


def _date(text: bytes) -> datetime | None:
    """INTERNALDATE as an aware datetime, as IMAPClient gives it; None where it is not written as RFC 3501 says."""
    found = _DATE.fullmatch(text)
    month = _MONTHS.get(found[2]) if found else None
    if found is None or month is None:
        return None
    day, year, hour, minute, second = (int(found[n]) for n in (1, 3, 4, 5, 6))
    offset = timedelta(hours=int(found[8]), minutes=int(found[9]))
    try:
        zone = timezone(-offset if found[7] == b"-" else offset) if offset else UTC
        return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None


def _unusual(group: list[Any]) -> Iterator[tuple[int, Answer]]:
    """Whatever else it is: flags alone, NIL or quoted bodies, several literals, other items."""
    for answer in parse_fetch_response(group, normalise_times=False, uid_is_key=False).values():
        uid = answer.pop(b"UID", None)
        if isinstance(uid, int):
            yield uid, answer
