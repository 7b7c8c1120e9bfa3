from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from imapclient.exceptions import ProtocolError
from imapclient.response_parser import parse_fetch_response

from ingest import answers
from ingest.answers import Answer, read_answers, uid_set

BODY = b"Subject: x\r\n\r\n(UID 99 \x00\xff {3}"
HEAD = b'7 (UID 5 RFC822.SIZE 30 INTERNALDATE "23-Nov-2026 10:00:00 +0130" BODY[] {%d}' % len(BODY)


def merged(parts: list[Any]) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    for uid, answer in read_answers(parts):
        found.setdefault(uid, {}).update(answer)
    return found


def as_imapclient_reads(parts: list[Any]) -> dict[int, Answer]:
    return {
        uid: {k: v for k, v in answer.items() if k not in {b"SEQ", b"FLAGS", b"MODSEQ"}}
        for uid, answer in parse_fetch_response(parts, normalise_times=False).items()
    }


ORDINARY: list[list[Any]] = [
    [(HEAD, BODY), b")"],
    [(b"7 (UID 5 BODY[] {0}", b""), b")"],
    [(b"7 (BODY[] {3}", b"abc"), b" UID 5)"],
    [(b"7 (UID 5 BODY[] {3}", b"abc"), b' RFC822.SIZE 9 INTERNALDATE " 3-Feb-2024 23:59:59 -0800")'],
    [(b"7 (UID 5 BODY[] {3}", b"abc"), rb" FLAGS (\Seen $x) MODSEQ (12))"],
    [(b"7 (FLAGS () UID 5 BODY[] {3}", b"abc"), b")"],
    [b"7 (UID 5 RFC822.SIZE 12)", b"8 (RFC822.SIZE 13 UID 6)"],
    [(HEAD, BODY), b")", (HEAD.replace(b"UID 5", b"UID 6"), BODY[::-1]), b")", rb"7 (FLAGS (\Seen) UID 5)"],
]


@pytest.mark.parametrize("parts", ORDINARY)
def test_ordinary_answers_are_read_as_imapclient_reads_them(
    parts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = as_imapclient_reads(parts)

    def refuse(group: list[Any]) -> None:
        raise AssertionError(f"not read here: {group}")

    monkeypatch.setattr(answers, "_unusual", refuse)
    assert merged(parts) == expected
    assert expected


UNUSUAL: list[list[Any]] = [
    [b"7 (UID 5 BODY[] NIL)"],
    [b'7 (UID 5 BODY[] "")'],
    [b'7 (UID 5 BODY[] "a (quoted) \\" body")'],
    [(b"7 (uid 5 body[] {3}", b"abc"), b")"],
    [(b"7 (UID 5 X-GM-LABELS ({5}", b"label"), (b") BODY[] {3}", b"abc"), b")"],
    [(b"7 (UID 5 X-GM-LABELS (a b) BODY[] {3}", b"abc"), b")"],
    [(b"7 (UID 5 BODY[]<0> {3}", b"abc"), b")"],
    [(b"7 (UID 5 BODY[HEADER.FIELDS (MESSAGE-ID)] {3}", b"abc"), b")"],
    [(b'7 (UID 5 INTERNALDATE "3-Feb-2024 23:59:59 -0800" BODY[] {3}', b"abc"), b")"],
    [(b"7 (UID 5 INTERNALDATE NIL BODY[] {3}", b"abc"), b")"],
    [b'7 (UID 5 ENVELOPE (NIL "x" NIL NIL NIL NIL NIL NIL NIL "<a@b>"))'],
]


@pytest.mark.parametrize("parts", UNUSUAL)
def test_unusual_answers_are_left_to_imapclient(parts: list[Any]) -> None:
    expected = as_imapclient_reads(parts)
    found = {
        uid: {k: v for k, v in answer.items() if k not in {b"SEQ", b"FLAGS", b"MODSEQ"}}
        for uid, answer in merged(parts).items()
    }
    assert found == expected
    assert set(found) == {5}


@pytest.mark.parametrize(
    "parts",
    [
        [b"7 (UID 5 RFC822.SIZE"],
        [b"7 (UID x RFC822.SIZE 3)"],
        [(b"7 (UID 5 BODY[] {3}", b"abc"), b""],
        [(b"7 (UID 5 BODY[] {3}", b"abc")],
        [(b"7 (UID 5 BODY[] {4}", b"abc"), b")"],
        [b"7 (UID 5 RFC822.SIZE 3 FLAGS)"],
        [b"7"],
    ],
)
def test_what_is_no_answer_is_refused(parts: list[Any]) -> None:
    with pytest.raises((ProtocolError, ValueError)):
        merged(parts)


def test_an_answer_without_a_uid_belongs_to_nobody() -> None:
    assert merged([(b"5 (BODY[] {3}", b"abc"), b")", rb"5 (FLAGS (\Seen))"]) == {}


def test_dates_keep_their_moment() -> None:
    [(_, answer)] = read_answers([(HEAD, BODY), b")"])
    date = answer[b"INTERNALDATE"]
    assert date == datetime(2026, 11, 23, 10, 0, tzinfo=timezone(timedelta(minutes=90)))
    assert answers._date(b"01-Jan-2026 00:00:00 +0000") == datetime(2026, 1, 1, tzinfo=UTC)
    for odd in (b"31-Feb-2026 00:00:00 +0000", b"01-Foo-2026 00:00:00 +0000", b"1-Jan-2026 00:00:00 +0000"):
        assert answers._date(odd) is None


@pytest.mark.parametrize(
    ("uids", "written"),
    [
        ([], ""),
        ([7], "7"),
        ([1, 2, 3, 4], "1:4"),
        ([1, 3, 4, 9], "1,3:4,9"),
        ([4, 3, 2, 2], "4,3,2,2"),
        ([4294967294, 4294967295], "4294967294:4294967295"),
    ],
)
def test_a_set_names_these_uids_and_no_others(uids: list[int], written: str) -> None:
    assert uid_set(uids) == written
