from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest
from imapclient import IMAPClient
from sqlmodel import func, select

from briefbox.db import Database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings
from briefbox.store import mailboxes, processes, secrets
from briefbox.tables import Email, Mailbox
from ingest.look import compare, look
from ingest.poller import Poller
from tests.conftest import make_email
from tests.flow.conftest import PASSWORD, USER, wait_for


@pytest.fixture
def imap() -> Iterator[EmbeddedIMAP]:
    with EmbeddedIMAP({USER: PASSWORD}) as server:
        yield server


@pytest.fixture
def poll(database: Database, settings: Settings) -> Iterator[Callable[..., list[int]]]:
    """Run a poller in a thread; gives the list that its hints are put into."""
    stop, threads = Event(), []

    def start(**changes: object) -> list[int]:
        hints: list[int] = []
        values = {"reconcile_seconds": 1.0, "mailbox_lease_seconds": 2.0, **changes}
        poller = Poller(
            database, settings.model_copy(update=values), processes.this_process("poll"), hints.extend
        )
        threads.append(Thread(target=poller.run, args=(stop,)))
        threads[-1].start()
        return hints

    yield start
    stop.set()
    for thread in threads:
        thread.join(20)


Poll = Callable[..., list[int]]


def connect(database: Database, settings: Settings, port: int, **changes: object) -> Mailbox:
    values = {"name": "support", "password": PASSWORD, "folders": ["INBOX"], **changes}
    name, password = str(values.pop("name")), str(values.pop("password"))
    row = Mailbox(
        name=name,
        address=USER,
        host="127.0.0.1",
        port=port,
        security="none",
        username=USER,
        password_encrypted=secrets.cipher(settings).encrypt(name, password),
        start_at="all",
        **values,
    )
    with database.write() as session:
        return mailboxes.add(session, row, actor="test", replace=True)


def append(port: int, *numbers: int, folder: str = "INBOX") -> None:
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(USER, PASSWORD)
        if not client.folder_exists(folder):
            client.create_folder(folder)
        for number in numbers:
            client.append(folder, make_email(number))


def num_emails(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(Email)).one()


def last_error(database: Database, name: str = "support") -> str:
    with database.read() as session:
        return mailboxes.get(session, name).last_error


def test_several_folders_are_watched(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    append(imap.port, 1)
    append(imap.port, 2, folder="Web forms")
    row = connect(database, settings, imap.port, folders=["INBOX", "Web forms"])
    hints = poll()
    wait_for(lambda: len(hints) == 2, "two mails")
    append(imap.port, 3, folder="Web forms")
    wait_for(lambda: len(hints) == 3, "a later mail in the second folder")
    assert [(c.folder, c.server, c.ledger, c.missing) for c in compare(database, settings, row)] == [
        ("INBOX", 1, 1, ()),
        ("Web forms", 2, 2, ()),
    ]


def test_a_wrong_password_is_told_and_the_other_mailbox_goes_on(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    append(imap.port, 1)
    connect(database, settings, imap.port, name="wrong", password="nope")
    connect(database, settings, imap.port)
    hints = poll()
    wait_for(lambda: len(hints) == 1 and bool(last_error(database, "wrong")), "one mail and one told error")
    assert "password" in last_error(database, "wrong")
    assert last_error(database) == ""


def test_a_server_that_comes_back_is_read_to_its_end(
    database: Database, settings: Settings, poll: Poll
) -> None:
    with EmbeddedIMAP({USER: PASSWORD}) as first:
        port = first.port
        append(port, 1)
        connect(database, settings, port)
        hints = poll()
        wait_for(lambda: len(hints) == 1, "the first mail")
    wait_for(lambda: bool(last_error(database)), "the outage to be told")
    with EmbeddedIMAP({USER: PASSWORD}, port=port):
        append(port, 2, 3)  # a new server with a new UIDVALIDITY
        wait_for(lambda: len(hints) == 3, "the mails of the outage")
        wait_for(lambda: last_error(database) == "", "the recovery to be told")


def test_two_pollers_do_not_read_one_mailbox_together(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    connect(database, settings, imap.port)
    one, two = poll(), poll()
    append(imap.port, *range(1, 21))
    wait_for(lambda: num_emails(database) == 20, "twenty mails")
    assert sorted(len(h) for h in (one, two)) == [0, 20]


def test_a_mailbox_added_later_is_noticed(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    append(imap.port, 1)
    hints = poll()
    connect(database, settings, imap.port)
    wait_for(lambda: len(hints) == 1, "the new mailbox's mail")


def test_looking_shows_the_newest_and_changes_nothing(
    database: Database, settings: Settings, imap: EmbeddedIMAP
) -> None:
    append(imap.port, 1, 2)
    facts = look(connect(database, settings, imap.port), settings)
    assert [m["subject"] for m in facts["newest"]] == ["Question number 2", "Question number 1"]
    assert facts["folders"][0] == {"name": "INBOX", "messages": 2, "watched": True}
    assert num_emails(database) == 0
