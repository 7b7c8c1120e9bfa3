"""Parsing in a process that a mail may end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import BriefboxError, ParseError
from briefbox.schemas import EmailKind
from briefbox.settings import Settings
from briefbox.store import mailboxes
from briefbox.tables import DeadLetter, LedgerEntry
from briefbox.tables import Mailbox as MailboxRow
from ingest import parser_process
from ingest.fake_mailbox import FakeMailbox
from ingest.folder import Folder
from ingest.parse import parse_email
from ingest.parser_process import ParserProcess
from tests.conftest import make_email

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parser() -> Iterator[ParserProcess]:
    process = ParserProcess()
    yield process
    process.close()


@pytest.fixture
def breaking() -> Iterator[ParserProcess]:
    process = ParserProcess("tests.ingest.breaking_parser", memory=2**29, cpu_seconds=1, wall_seconds=3)
    yield process
    process.close()


def break_by(how: str) -> bytes:
    return b"X-Break: " + how.encode() + b"\r\n" + make_email(99)


def test_it_says_what_the_parser_says(parser: ParserProcess) -> None:
    raws = [make_email(n, body="Grüße, wo ist 我的 lamp?\n" * 5) for n in range(30)]
    outcomes = parser.submit(raws).result()
    assert [o.parsed for o in outcomes] == [parse_email(raw) for raw in raws]
    assert type(outcomes[0].parsed).model_validate_json(outcomes[0].json) == outcomes[0].parsed


def test_a_mail_that_cannot_be_parsed_has_its_reason(parser: ParserProcess) -> None:
    good, bad = parser.submit([make_email(1), b"  "]).result()
    assert good.parsed is not None
    assert (bad.parsed, bad.problem) == (None, "The email is empty (2 bytes).")
    with pytest.raises(ParseError, match="The email is empty"):
        parser.parse(b"  ")


def test_own_addresses_are_passed_on(parser: ParserProcess) -> None:
    raw = make_email(1, From="Us <sales@larkspur.example>")
    assert parser.parse(raw).kind == EmailKind.CUSTOMER
    assert parser.parse(raw, {"sales@larkspur.example"}).kind == EmailKind.OWN


def test_more_than_the_pipes_hold_goes_through(parser: ParserProcess) -> None:
    raws = [make_email(n, body="A long line of words.\n" * 40_000) for n in range(12)]
    assert [o.parsed and o.parsed.subject for o in parser.submit(raws).result()] == [
        f"Question number {n}" for n in range(12)
    ]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("lie", "what came of it is none"),
        ("die", "ended the process that parses mail (SIGSEGV)"),
        ("spin", "took too much processor time"),
        ("hang", "it took too long"),
        ("fill", "MemoryError"),
    ],
)
def test_good_mails_around_one_that_breaks_the_parser_come_through(
    breaking: ParserProcess, how: str, words: str
) -> None:
    raws = [make_email(1), make_email(2), break_by(how), make_email(3), make_email(4)]
    outcomes = breaking.submit(raws).result()
    assert [o.parsed is not None for o in outcomes] == [True, True, False, True, True]
    assert [o.parsed.message_id for o in outcomes if o.parsed] == [
        f"mail-{n}@example.org" for n in (1, 2, 3, 4)
    ]
    assert outcomes[2].problem.startswith("The email cannot be parsed: ")
    assert words in outcomes[2].problem


def test_a_mail_that_ends_the_parser_is_a_dead_letter_with_its_bytes(
    database: Database, settings: Settings, mailbox: MailboxRow, breaking: ParserProcess
) -> None:
    server = FakeMailbox()
    server.open()
    for raw in (make_email(1), break_by("die"), make_email(2), break_by("exit"), make_email(3)):
        server.append(raw)
    with database.write() as session:
        session.get_one(MailboxRow, mailbox.id).start_at = "all"
        lease = mailboxes.claim(session, mailbox.id, owner="test", seconds=60)
    assert lease is not None
    folder = Folder(database, settings, lease, "INBOX", lambda ids: None, parser=breaking)
    assert folder.reconcile(server, in_full=True).num_waiting == 3
    with database.read() as session:
        states = dict(session.exec(select(LedgerEntry.uid, LedgerEntry.state)).all())
        letters = session.exec(select(DeadLetter)).all()
    assert states == {1: "queued", 2: "dead", 3: "queued", 4: "dead", 5: "queued"}
    assert all(letter.stage == "parse" and letter.raw_id for letter in letters)
    assert "SIGSEGV" in letters[0].reason


def test_a_parser_that_cannot_start_condemns_no_mail() -> None:
    process = ParserProcess("tests.ingest.no_such_module")
    with pytest.raises(BriefboxError, match="did not start"):
        process.submit([make_email(1)]).result()
    process.close()


def test_it_ends_with_its_parent_however_that_ends() -> None:
    script = (
        "import time; from ingest.parser_process import ParserProcess; p = ParserProcess();"
        "p.submit([b'Subject: x\\n\\ny']).result(); print(p._child._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.send_signal(signal.SIGKILL)
    _wait_until(lambda: not _runs(child))


def test_it_knows_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIEFBOX_DATABASE_URL", "postgresql://secret")
    process = ParserProcess()
    process.submit([make_email(1)]).result()
    assert process._child is not None
    environment = Path(f"/proc/{process._child._process.pid}/environ").read_bytes()
    process.close()
    assert b"BRIEFBOX" not in environment


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def _wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_that_ended_between_two_mails_is_no_mails_fault(parser: ParserProcess) -> None:
    raw = make_email(1)
    parser.parse(raw)
    assert parser._child is not None
    process = parser._child._process
    process.kill()
    process.wait(10)
    [outcome] = parser.submit([raw]).result()
    assert outcome.problem == ""
    assert outcome.parsed == parse_email(raw)


def test_a_single_mail_is_tried_a_second_time(
    breaking: ParserProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Counted(parser_process._Child):
        def __init__(self, command: Sequence[str]) -> None:
            super().__init__(command)
            started.append(self)

    monkeypatch.setattr(parser_process, "_Child", Counted)
    [outcome] = breaking.submit([break_by("exit")]).result()
    assert "exit code 3" in outcome.problem
    assert len(started) == 2
