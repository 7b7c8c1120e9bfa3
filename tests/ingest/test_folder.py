from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import LeaseLostError, MailboxError
from briefbox.settings import Settings
from briefbox.store import mailboxes
from briefbox.store.ledger import left_on_server
from briefbox.tables import DeadLetter, Email, FolderCursor, LedgerEntry
from briefbox.tables import Mailbox as MailboxRow
from ingest.fake_mailbox import FakeMailbox
from ingest.folder import Folder
from tests.conftest import make_email

MakeFolder = Callable[..., Folder]


@pytest.fixture
def hints() -> list[int]:
    return []


@pytest.fixture
def make_folder(database: Database, settings: Settings, mailbox: MailboxRow, hints: list[int]) -> MakeFolder:
    def make(**changes: object) -> Folder:
        with database.write() as session:
            session.get_one(MailboxRow, mailbox.id).start_at = str(changes.pop("start_at", "all"))
            lease = mailboxes.claim(session, mailbox.id, owner="test", seconds=60)
        assert lease is not None
        return Folder(database, settings.model_copy(update=changes), lease, "INBOX", hints.extend)

    return make


@pytest.fixture
def server() -> FakeMailbox:
    mailbox = FakeMailbox()
    mailbox.open()
    for n in range(1, 8):
        mailbox.append(make_email(n))
    return mailbox


def ledger(database: Database) -> dict[int, str]:
    with database.read() as session:
        return {e.uid: e.state for e in session.exec(select(LedgerEntry))}


def test_everything_on_the_server_gets_its_row_and_its_hint(
    database: Database, make_folder: MakeFolder, server: FakeMailbox, hints: list[int]
) -> None:
    before = server.fingerprint()
    result = make_folder(fetch_batch=3).reconcile(server, in_full=True)
    assert (result.num_new, result.num_waiting) == (7, 7)
    assert set(ledger(database).values()) == {"queued"}
    assert len(ledger(database)) == len(hints) == 7
    assert server.fingerprint() == before, "the mailbox was changed"


def test_a_step_that_goes_on_leaves_its_last_batch_to_the_next_step(
    database: Database, make_folder: MakeFolder, server: FakeMailbox, hints: list[int]
) -> None:
    settings = {"fetch_batch": 1, "backfill_per_second": 0.0}
    folder = make_folder(**settings)
    folder.step(server, in_full=True)
    assert not folder.step_back(server).is_complete
    assert sorted(ledger(database)) == [1, 2, 3], "the fourth is still being parsed"
    server.append(make_email(8))
    assert folder.step(server, in_full=True).is_complete
    assert sorted(ledger(database)) == [1, 2, 3, 4, 8]
    while folder.has_older:
        folder.step_back(server)
    assert sorted(ledger(database)) == list(range(1, 9))
    assert len(set(hints)) == len(hints) == 8


def test_a_batch_that_cannot_be_committed_by_the_next_step_is_read_again(
    database: Database, make_folder: MakeFolder, server: FakeMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(fetch_batch=1, backfill_per_second=0.0)
    folder.step(server, in_full=True)
    folder.step_back(server)
    with monkeypatch.context() as broken:
        broken.setattr("ingest.folder.ledger.commit_batch", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            folder.step(server, in_full=True)
    folder.reconcile(server, in_full=False)
    assert sorted(ledger(database)) == list(range(1, 8))


def test_what_was_being_parsed_when_the_folder_was_left_is_fetched_again(
    database: Database, make_folder: MakeFolder, server: FakeMailbox, hints: list[int]
) -> None:
    left = make_folder(fetch_batch=1, backfill_per_second=0.0)
    left.step(server, in_full=True)
    left.step_back(server)
    again = Folder(database, left.settings, left.lease, "INBOX", hints.extend)
    again.reconcile(server, in_full=True)
    assert sorted(ledger(database)) == list(range(1, 8))
    assert len(set(hints)) == len(hints) == 7


def test_nothing_new_fetches_nothing(make_folder: MakeFolder, server: FakeMailbox, hints: list[int]) -> None:
    folder = make_folder()
    folder.reconcile(server, in_full=True)
    server.fail_next(MailboxError("fetch must not be called"), on="fetch")
    assert folder.reconcile(server, in_full=True).num_new == 0
    assert folder.reconcile(server, in_full=False).num_new == 0


def test_a_break_in_the_middle_goes_on_where_it_was(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    folder = make_folder(fetch_batch=2)
    fetched = 0
    original = server.fetch

    def break_at_the_third(uids: list[int]) -> list[object]:
        nonlocal fetched
        fetched += 1
        if fetched == 3:
            raise MailboxError("the connection broke")
        return original(uids)  # type: ignore[return-value]

    server.fetch = break_at_the_third  # type: ignore[method-assign,assignment]
    with pytest.raises(MailboxError):
        folder.reconcile(server, in_full=True)
    assert len(ledger(database)) == 4
    folder.reconcile(server, in_full=False)
    assert len(ledger(database)) == 7


def test_start_now_leaves_older_mail_alone(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    folder = make_folder(start_at="now")
    assert folder.reconcile(server, in_full=True).num_new == 0
    server.append(make_email(8))
    assert folder.reconcile(server, in_full=True).num_new == 1
    assert len(ledger(database)) == 1


def test_a_renumbered_folder_is_read_again_without_duplicates(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    folder = make_folder()
    folder.reconcile(server, in_full=True)
    server.renumber(2)
    assert folder.reconcile(server, in_full=True).num_waiting == 0
    with database.read() as session:
        assert len(session.exec(select(Email)).all()) == 7
        assert {(c.uidvalidity, c.current) for c in session.exec(select(FolderCursor))} == {
            (1, False),
            (2, True),
        }


def test_a_mail_withdrawn_before_the_fetch_is_gone_and_no_gap(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    listed = server.uids_above
    server.open_folder("INBOX")
    gone = listed(0)[2]
    server.uids_above = lambda uid, *, up_to=None: sorted({*listed(uid, up_to=up_to), gone})  # type: ignore[method-assign]
    server.remove(gone)
    make_folder().reconcile(server, in_full=True)
    assert ledger(database)[gone] == "gone"
    assert len(ledger(database)) == 7


def test_a_mail_over_the_limit_is_fetched_in_part_and_says_so(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    uid = server.append(make_email(8, subject="A long one", body="word " * 300_000))
    make_folder(max_email_bytes=10_000).reconcile(server, in_full=True)
    assert (server.calls["fetch_partial"], server.fetched[uid]) == (1, 1)
    with database.read() as session:
        email = session.exec(select(Email).where(Email.subject == "A long one")).one()
        assert not session.exec(select(DeadLetter)).all()
        assert any("bytes were fetched; the rest" in warning for warning in email.parsed["warnings"])
        left = left_on_server(session, email.raw_id)
        entry = session.exec(select(LedgerEntry).where(LedgerEntry.uid == uid)).one()
    assert left is not None
    assert 900_000 < left.first_bytes <= 1_000_000
    assert entry.size is not None
    assert entry.size > 1_400_000, "the ledger tells the size of the mail, not of what was fetched"


def test_a_mail_that_breaks_the_connection_when_it_is_whole_comes_in_part(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    folder = make_folder()
    server.open_folder("INBOX")
    bad, original = server.uids_above(0)[3], server.fetch

    def breaks(uids: list[int]) -> list[object]:
        if bad in uids:
            raise MailboxError("the connection broke: it began to send 40000000000 bytes")
        return original(uids)  # type: ignore[return-value]

    server.fetch = breaks  # type: ignore[method-assign,assignment]
    for _ in range(4):
        with suppress(MailboxError):
            folder.reconcile(server, in_full=True)
    assert set(ledger(database).values()) == {"queued"}
    assert len(ledger(database)) == 7


def test_bytes_that_are_no_email_do_not_stop_the_line(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    server.append(b"X-Long: " + b"a" * 300_000 + b"\r\n\r\nbody")
    server.append(make_email(9))
    make_folder().reconcile(server, in_full=True)
    states = list(ledger(database).values())
    assert (states.count("dead"), states.count("queued")) == (1, 8)


def test_a_lost_lease_writes_nothing(
    database: Database, mailbox: MailboxRow, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    folder = make_folder()
    with database.write() as session:
        session.get_one(MailboxRow, mailbox.id).lease_token = "somebody else"
    with pytest.raises(LeaseLostError):
        folder.reconcile(server, in_full=True)
    assert ledger(database) == {}


def test_a_mail_that_always_breaks_the_connection_does_not_stand_before_the_others(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    folder = make_folder()
    server.open_folder("INBOX")
    bad, original = server.uids_above(0)[3], server.fetch

    def breaks(uids: list[int]) -> list[object]:
        if bad in uids:
            raise MailboxError("the connection broke")
        return original(uids)  # type: ignore[return-value]

    server.fetch = breaks  # type: ignore[method-assign,assignment]
    server.fail_next(MailboxError("the connection broke"), on="fetch_partial", times=2)
    for _ in range(8):
        with suppress(MailboxError):
            folder.reconcile(server, in_full=True)
    assert len(ledger(database)) == 7
    assert [uid for uid, state in ledger(database).items() if state == "dead"] == [bad]
