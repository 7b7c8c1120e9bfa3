"""What becomes of a folder that the server renumbers, restores, renames, deletes or swaps, and of mail from before us."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import FolderMissingError, MailboxError, MailboxPausedError, NotFoundError
from briefbox.schemas import Fingerprint
from briefbox.settings import Settings
from briefbox.store import accounting, alerts, folders, mailboxes
from briefbox.tables import Conversation, DeadLetter, Email, FolderCursor, LedgerEntry, MailboxEvent
from briefbox.tables import Mailbox as MailboxRow
from ingest.again import retry
from ingest.fake_mailbox import FakeMailbox
from ingest.folder import Folder
from ingest.renamed import follow
from tests.conftest import make_email

MakeFolder = Callable[..., Folder]
LONG_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(days=400)


@pytest.fixture
def make_folder(database: Database, settings: Settings, mailbox: MailboxRow) -> MakeFolder:
    """A folder as it is after a (re)connect: nothing remembered but what the database holds."""

    def make(**changes: object) -> Folder:
        with database.write() as session:
            row = session.get_one(MailboxRow, mailbox.id)
            row.start_at = str(changes.pop("start_at", row.start_at))
            row.older = str(changes.pop("older", row.older))
            row.lease_until = None
            session.add(row)
            session.flush()
            lease = mailboxes.claim(session, mailbox.id, owner="test", seconds=60)
        assert lease is not None
        name = str(changes.pop("name", "INBOX"))
        return Folder(database, settings.model_copy(update=changes), lease, name, lambda _: None)

    return make


@pytest.fixture
def server() -> FakeMailbox:
    fake = FakeMailbox()
    fake.open()
    return fake


def states(database: Database) -> Counter[str]:
    """Ledger rows of the current cursors by state."""
    with database.read() as session:
        total: Counter[str] = Counter()
        for balance in accounting.balances(session):
            total.update(balance.states)
        return total


def events(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.exec(select(MailboxEvent.kind).order_by(MailboxEvent.id)))  # type: ignore[arg-type]


def subjects(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(session.exec(select(Email.subject)))


def is_clean(database: Database) -> bool:
    with database.read() as session:
        return not any(finding.broken for finding in accounting.audit(session))


# --- UIDVALIDITY


def test_a_renumbered_folder_is_recognised_without_fetching_it_again_and_new_mail_in_it_is_found(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(5):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.append(make_email(5))
    server.renumber(9)
    server.fetched.clear()
    result = make_folder().reconcile(server, in_full=True)
    assert states(database) == {"sighting": 5, "queued": 1}
    assert sum(server.fetched.values()) == 1, "known mail was fetched again"
    assert result.num_waiting == 1
    assert events(database) == ["renumbered"]
    assert len(set(subjects(database))) == 6
    assert is_clean(database)


def test_mail_without_an_id_is_told_by_its_bytes(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    server.append(b"From: a@b.example\r\nSubject: one\r\n\r\nHello\r\n")
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.renumber(9)
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"sighting": 1}
    assert subjects(database) == ["one"]


def test_the_same_id_with_another_date_or_size_is_another_mail(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    server.append(make_email(1), internal_date=LONG_AGO)
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.renumber(9)
    server.append(make_email(1).replace(b"Question", b"Different question"), internal_date=LONG_AGO)
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"sighting": 1, "queued": 1}


def test_uidvalidity_zero_is_a_number_like_others(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    server.renumber(0)
    server.append(make_email(1))
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.append(make_email(2))
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"queued": 2}
    assert events(database) == []


def test_mail_from_before_the_connection_stays_unread_when_its_folder_is_renumbered(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(3):
        server.append(make_email(n), internal_date=LONG_AGO)
    make_folder(start_at="now").reconcile(server, in_full=True)
    assert states(database) == {}
    server.append(make_email(3))
    make_folder().reconcile(server, in_full=True)
    server.renumber(9)
    server.append(make_email(4))
    server.fetched.clear()
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"skipped": 3, "sighting": 1, "queued": 1}
    assert sum(server.fetched.values()) == 1
    assert is_clean(database)


def test_a_renumbering_that_is_killed_goes_on_where_it_was(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(20):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.renumber(9)
    folder = make_folder(fetch_batch=2)
    folder.step(server, in_full=True)
    folder.step_back(server)  # and then the process dies
    assert states(database) == {"sighting": 8}
    make_folder(fetch_batch=2).reconcile(server, in_full=True)
    assert states(database) == {"sighting": 20}
    assert events(database) == ["renumbered"]


def test_a_folder_that_keeps_changing_is_paused_with_its_reason_and_can_be_resumed(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    server.append(make_email(1))
    make_folder(start_at="all").reconcile(server, in_full=True)
    for uidvalidity in (2, 1, 2):
        server.renumber(uidvalidity)
        make_folder().reconcile(server, in_full=True)
    server.renumber(1)
    with pytest.raises(MailboxPausedError, match="4 times within the hour"):
        make_folder().reconcile(server, in_full=True)
    with database.write() as session:
        row = session.exec(select(MailboxRow)).one()
        assert row.paused_at is not None
        assert "other UIDs 4 times" in row.paused_reason
        assert [a.key for a in alerts.open_alerts(session)] == [f"mailbox {row.name}: paused"]
        mailboxes.resume(session, row.name, actor="test")
        assert alerts.open_alerts(session) == []
    server.append(make_email(2))
    make_folder().reconcile(server, in_full=True)
    assert len(subjects(database)) == 2
    assert is_clean(database)


# --- the same UIDVALIDITY, other mail


def test_a_server_restored_from_a_backup_gives_old_uids_to_new_mail_and_none_of_it_is_lost(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(6):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.renumber(1)  # as last night: UIDs 1 to 3
    for uid in (4, 5, 6):
        server.remove(uid)
    server._folders["INBOX"].uidnext = 4
    for n in (10, 11, 12, 13):  # UIDs 4 to 7, of which three are in the ledger with other mail
        server.append(make_email(n))
    make_folder().reconcile(server, in_full=True)
    assert events(database) == ["restored"]
    assert len(subjects(database)) == 10
    assert states(database) == {"sighting": 3, "queued": 4}
    assert is_clean(database)


def test_a_backup_that_has_seen_no_new_mail_yet_is_noticed_by_uidnext(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(3):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    for uid in (1, 2, 3):
        server.remove(uid)
    server._folders["INBOX"].uidnext = 1
    make_folder().reconcile(server, in_full=True)
    server.append(make_email(7))
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"queued": 1}
    assert events(database) == ["restored"]


def test_another_account_behind_the_same_name_is_noticed(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(4):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    other = FakeMailbox()
    other.open()
    for n in range(20, 26):
        other.append(make_email(n))
    make_folder().reconcile(other, in_full=True)
    assert len(subjects(database)) == 10
    assert states(database) == {"queued": 6}
    assert events(database) == ["restored"]


def test_mail_that_others_delete_and_read_is_no_other_folder(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(8):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    for uid in (6, 7, 8):
        server.remove(uid)
    server.append(make_email(9))
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"queued": 9}
    assert events(database) == []


def test_a_mail_that_was_taken_in_part_is_compared_in_part(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    uid = server.append(make_email(1, body="word " * 300_000))
    make_folder(start_at="all", max_email_bytes=10_000).reconcile(server, in_full=True)
    # A server that tells the header in another way than it gives the mail.
    server.fingerprints = lambda uids: {n: Fingerprint("<other@example.org>") for n in uids}  # type: ignore[method-assign]
    server.append(make_email(2))
    make_folder(max_email_bytes=10_000).reconcile(server, in_full=True)
    assert events(database) == []
    assert states(database) == {"queued": 2}
    folder = server._folders["INBOX"]
    other = make_email(3, body="another word " * 300_000)
    folder.emails[uid] = replace(folder.emails[uid], raw=other, size=len(other))
    server.append(make_email(4))
    make_folder(max_email_bytes=10_000).reconcile(server, in_full=True)
    assert events(database) == ["restored"]
    assert len(subjects(database)) == 4


# --- renamed, deleted


def test_a_renamed_folder_is_read_on_under_its_new_name(
    database: Database, make_folder: MakeFolder, mailbox: MailboxRow
) -> None:
    fake = FakeMailbox(["INBOX", "Shop"])
    fake.open()
    with database.write() as session:
        session.get_one(MailboxRow, mailbox.id).folders = ["Shop"]
    for n in range(3):
        fake.append(make_email(n), folder="Shop")
    folder = make_folder(start_at="all", name="Shop")
    folder.reconcile(fake, in_full=True)
    fake._folders["Shop (old)"] = fake._folders.pop("Shop")
    fake.append(make_email(4), folder="Shop (old)")
    with pytest.raises(FolderMissingError):
        make_folder(name="Shop").reconcile(fake, in_full=True)
    assert follow(database, fake, folder.lease, "Shop") == "Shop (old)"
    with database.read() as session:
        assert session.get_one(MailboxRow, mailbox.id).folders == ["Shop (old)"]
    make_folder(name="Shop (old)").reconcile(fake, in_full=True)
    assert states(database) == {"queued": 4}
    assert events(database) == ["folder renamed"]
    assert is_clean(database)


def test_a_deleted_folder_is_not_taken_for_another_one_and_goes_on_when_it_is_back(
    database: Database, make_folder: MakeFolder, mailbox: MailboxRow
) -> None:
    fake = FakeMailbox(["INBOX", "Shop"])
    fake.open()
    fake.append(make_email(1), folder="Shop")
    folder = make_folder(start_at="all", name="Shop")
    folder.reconcile(fake, in_full=True)
    kept = fake._folders.pop("Shop")
    fake.append(make_email(2), folder="INBOX")
    assert follow(database, fake, folder.lease, "Shop") == ""
    with database.write() as session:
        cursor = folders.current(session, mailbox.id, "Shop")
        assert cursor is not None
        for _ in range(2):
            folders.note_missing(session, cursor, "There is no folder 'Shop'.")
    assert events(database) == ["folder missing"], "it is told once"
    fake._folders["Shop"] = kept
    fake.append(make_email(3), folder="Shop")
    make_folder(name="Shop").reconcile(fake, in_full=True)
    assert states(database) == {"queued": 2}
    with database.read() as session:
        assert session.exec(select(FolderCursor)).one().missing_since is None


# --- where reading begins


def test_the_last_days_are_read_and_what_is_older_is_not(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for days, n in ((400, 0), (40, 1), (6, 2), (1, 3)):
        server.append(make_email(n), internal_date=datetime.now(UTC) - timedelta(days=days))
    make_folder(start_at="14 days").reconcile(server, in_full=True)
    assert states(database) == {"queued": 2}
    server.append(make_email(5), internal_date=LONG_AGO)  # somebody moves an old mail here: it is new to us
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"queued": 3}


@pytest.mark.parametrize(
    ("older", "state", "work"),
    [("closed", "done", "none"), ("briefed", "done", "waiting"), ("open", "open", "waiting")],
)
def test_older_mail_becomes_what_the_admin_chose_and_new_mail_is_new(
    database: Database, make_folder: MakeFolder, server: FakeMailbox, older: str, state: str, work: str
) -> None:
    server.append(make_email(1), internal_date=LONG_AGO)
    folder = make_folder(start_at="all", older=older)
    folder.step(server, in_full=True)
    server.append(make_email(2))
    assert folder.step(server, in_full=False).num_waiting == 1, "new mail goes first"
    folder.reconcile(server, in_full=True)
    with database.read() as session:
        found = {
            email.subject: (conversation.state, email.work_state)
            for email, conversation in session.exec(
                select(Email, Conversation).where(Email.conversation_id == Conversation.id)
            )
        }
    first, second = sorted(found)
    assert found[first] == (state, work)
    assert found[second] == ("open", "waiting")
    assert is_clean(database)


def test_a_first_sync_that_is_killed_goes_on_and_reads_nothing_twice(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for n in range(40):
        server.append(make_email(n))
    folder = make_folder(start_at="all", fetch_batch=2)
    folder.step(server, in_full=True)
    for _ in range(2):
        folder.step_back(server)
    server.fail_next(MailboxError("the line is down"))
    with pytest.raises(MailboxError):
        folder.step_back(server)
    assert 0 < states(database)["queued"] < 40
    again = make_folder(fetch_batch=2)
    again.reconcile(server, in_full=True)
    assert not again.has_older
    assert states(database) == {"queued": 40}
    assert sum(server.fetched.values()) <= 42, "the batch that broke is the only one asked for twice"


def test_an_unchanged_folder_is_not_listed_again(make_folder: MakeFolder, server: FakeMailbox) -> None:
    for n in range(3):
        server.append(make_email(n))
    make_folder(start_at="all").reconcile(server, in_full=True)
    make_folder().reconcile(server, in_full=True)
    before, asked = server.calls["uids_above"], server.calls["fingerprints"]
    folder = make_folder()
    folder.reconcile(server, in_full=True)
    assert server.calls["uids_above"] == before, "the answer to EXAMINE says that nothing is new"
    assert server.calls["fingerprints"] == asked + 1, "a new connection may lead to another mailbox"
    folder.reconcile(server, in_full=True)
    assert server.calls["fingerprints"] == asked + 1
    server.remove(1)
    folder.reconcile(server, in_full=True)
    assert server.calls["uids_above"] > before


def test_to_look_at_an_unchanged_folder_again_asks_the_database_nothing(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    server.append(make_email(1))
    folder = make_folder(start_at="all")
    folder.reconcile(server, in_full=True)
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    assert folder.step(server, in_full=True).is_complete
    assert asked == []
    cursor_id = folder.take_unchanged()
    assert cursor_id is not None
    assert folder.take_unchanged() is None, "it is noted once"
    with database.read() as session:
        before = session.get_one(FolderCursor, cursor_id)
    with database.write() as session:
        folders.note_unchanged(session, [cursor_id])
    with database.read() as session:
        after = session.get_one(FolderCursor, cursor_id)
    assert after.reconciled_at > before.reconciled_at
    assert after.listed_at == before.listed_at


@pytest.mark.parametrize("is_asked", [True, False])
def test_mail_that_no_count_tells_of_is_found_once_a_day_or_when_somebody_asks(
    database: Database,
    make_folder: MakeFolder,
    server: FakeMailbox,
    monkeypatch: pytest.MonkeyPatch,
    is_asked: bool,
) -> None:
    for uid in (5, 9):
        server.append(make_email(uid), uid=uid)
    folder = make_folder(start_at="all")
    folder.reconcile(server, in_full=True)
    server.remove(5)
    server.append(make_email(7), uid=7)  # as many messages as before, and UIDNEXT is the same
    folder.step(server, in_full=True)
    assert states(database) == {"queued": 2}
    if not is_asked:
        monkeypatch.setattr("ingest.folder.LIST_AT_LEAST_EVERY", timedelta(0))
    folder.step(server, in_full=True, list_all=is_asked)
    assert states(database) == {"queued": 3}


def test_mail_that_appears_below_the_cursor_is_found(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for uid in (5, 6, 9):
        server.append(make_email(uid), uid=uid)
    folder = make_folder(start_at="all")
    folder.reconcile(server, in_full=True)
    server.append(make_email(7), uid=7)  # no server should, some do after a move
    folder.reconcile(server, in_full=True)
    with database.read() as session:
        assert sorted(session.exec(select(LedgerEntry.uid))) == [5, 6, 7, 9]


def test_what_a_comparison_found_is_found_again_when_the_line_breaks_before_it_is_read(
    database: Database, make_folder: MakeFolder, server: FakeMailbox
) -> None:
    for uid in (5, 9):
        server.append(make_email(uid), uid=uid)
    make_folder(start_at="all").reconcile(server, in_full=True)
    server.append(make_email(7), uid=7)  # below the cursor: UIDNEXT does not tell of it
    server.fail_next(MailboxError("the line is down"))
    with pytest.raises(MailboxError):
        make_folder().step(server, in_full=True)
    make_folder().reconcile(server, in_full=True)
    assert states(database) == {"queued": 3}


def test_a_dead_letter_is_not_answered_with_another_mail_that_got_its_uid(
    database: Database,
    settings: Settings,
    make_folder: MakeFolder,
    server: FakeMailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoiled, _ = server.append(make_email(1)), server.append(make_email(2))
    server.bad_on_fetch[spoiled] = "spoiled"
    make_folder(start_at="all").reconcile(server, in_full=True)
    restored = FakeMailbox()
    restored.open()
    for n in (10, 11):
        restored.append(make_email(n))
    make_folder().reconcile(restored, in_full=True)
    assert events(database) == ["restored"]
    monkeypatch.setattr("ingest.again.account_of", lambda *_: None)
    monkeypatch.setattr("ingest.again.IMAPMailbox", lambda _: restored)
    with database.read() as session:
        letter = session.exec(select(DeadLetter)).one()
    with pytest.raises(NotFoundError, match="renumbered"):
        retry(database, settings, letter.id, actor="test")
    with database.read() as session:
        assert session.exec(select(DeadLetter)).one().resolved_at is None
