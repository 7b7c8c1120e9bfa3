import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from imapclient import IMAPClient
from sqlmodel import Session, col, func, select, update

from briefbox.db import Database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import Settings
from briefbox.store import alerts, folders, mailboxes, processes, secrets
from briefbox.store.processes import ProcessName
from briefbox.tables import Email, Mailbox, ProcessBeat
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


@pytest.fixture
def many() -> Iterator[EmbeddedIMAP]:
    """A server with several inboxes."""
    with EmbeddedIMAP(dict.fromkeys((USER, *(f"{USER}{n}" for n in range(1, 6))), PASSWORD)) as server:
        yield server


def connect(database: Database, settings: Settings, port: int, **changes: object) -> Mailbox:
    values = {"name": "support", "password": PASSWORD, "folders": ["INBOX"], **changes}
    name, password = str(values.pop("name")), str(values.pop("password"))
    row = Mailbox(
        name=name,
        address=USER,
        host="127.0.0.1",
        port=port,
        security="none",
        username=str(values.pop("username", USER)),
        password_encrypted=secrets.cipher(settings).encrypt(name, password),
        start_at="all",
        **values,
    )
    with database.write() as session:
        return mailboxes.add(session, row, actor="test", replace=True)


def append(port: int, *numbers: int, folder: str = "INBOX", user: str = USER) -> None:
    with IMAPClient("127.0.0.1", port=port, ssl=False) as client:
        client.login(user, PASSWORD)
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


def test_a_mailbox_that_is_paused_while_we_look_ends_nothing(
    database: Database,
    settings: Settings,
    imap: EmbeddedIMAP,
    poll: Poll,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append(imap.port, 1)
    row = connect(database, settings, imap.port)
    with database.write() as session:
        session.get_one(Mailbox, row.id).reconcile_at = datetime.now(UTC)
    get_many, looks = mailboxes.get_many, Counter[str]()

    def gone_at_first(session: Session, mailbox_ids: Sequence[int]) -> list[Mailbox]:
        looks["made"] += 1
        return [] if looks["made"] == 1 else get_many(session, mailbox_ids)

    monkeypatch.setattr("ingest.poller.mailboxes.get_many", gone_at_first)
    hints = poll()
    wait_for(lambda: len(hints) == 1, "the mail at the next look")
    assert looks["made"] == 2


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


def test_a_mailbox_with_very_much_mail_takes_turns_with_the_others(
    database: Database, settings: Settings, many: EmbeddedIMAP, poll: Poll
) -> None:
    append(many.port, *range(1, 201))
    append(many.port, 500, user=f"{USER}1")
    connect(database, settings, many.port, name="large")
    small = connect(database, settings, many.port, name="small", username=f"{USER}1")
    poll(fetch_batch=5, poller_threads=2, backfill_per_second=0)
    wait_for(lambda: num_emails(database) == 201, "all mail")
    with database.read() as session:
        boxes = list(session.exec(select(Email.mailbox_id).order_by(col(Email.id))))
    assert boxes.index(small.id) < 150, "the small mailbox waited for the large one"


def test_more_folders_than_connections_are_all_read_in_turn(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    names = ["INBOX", *(f"Team {n}" for n in range(1, 6))]
    for number, name in enumerate(names):
        append(imap.port, number, folder=name)
    connect(database, settings, imap.port, folders=names)
    poll(connections_per_account=2, poll_seconds=0.3)
    wait_for(lambda: num_emails(database) == 6, "a mail of each folder")
    for number, name in enumerate(names):
        append(imap.port, 10 + number, folder=name)
    wait_for(lambda: num_emails(database) == 12, "a later mail of each folder")


def test_a_server_that_answers_nothing_holds_nobody_up(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for number in range(4):
            connect(database, settings, silent.getsockname()[1], name=f"silent{number}")
        connect(database, settings, imap.port, name="well")
        poll(poller_threads=4, imap_timeout_seconds=2)
        wait_for(lambda: "did not answer" in last_error(database, "silent0"), "the silence to be told")
        for number in range(5):
            append(imap.port, number)
            started = time.monotonic()
            wait_for(
                lambda number=number: num_emails(database) == number + 1, "the mail of the other mailbox"
            )  # type: ignore[misc]
            assert time.monotonic() - started < 10


def test_pollers_share_the_mailboxes_and_one_that_dies_hands_its_own_over(
    database: Database, settings: Settings, many: EmbeddedIMAP
) -> None:
    users = [USER, *(f"{USER}{n}" for n in range(1, 6))]
    for user in users:
        connect(database, settings, many.port, name=user, username=user)
    changes = {"reconcile_seconds": 1.0, "mailbox_lease_seconds": 3.0}
    names = [ProcessName("poll", f"poll@host:{n}") for n in (1, 2)]
    pollers = [Poller(database, settings.model_copy(update=changes), name, lambda _: None) for name in names]
    stops = [Event(), Event()]
    threads = [Thread(target=p.run, args=(s,)) for p, s in zip(pollers, stops, strict=True)]
    for thread in threads:
        thread.start()

    def owners() -> list[int]:
        with database.read() as session:
            owned = Counter(row.lease_owner.split("#")[0] for row in mailboxes.all_of(session))
        return [owned[name.name] for name in names]

    try:
        wait_for(lambda: owners() == [3, 3], "three mailboxes for each")
        pollers[0]._look = lambda: None  # type: ignore[method-assign]  # it renews nothing any more
        pollers[0]._dispatch = lambda: None  # type: ignore[method-assign]  # and reads nothing: as good as dead
        with database.write() as session:
            session.exec(update(ProcessBeat).values(seen_at=datetime.now(UTC) - timedelta(minutes=5)))
        wait_for(lambda: owners() == [0, 6], "all mailboxes at the one that lives")
        for number, user in enumerate(users):
            append(many.port, number, user=user)
        wait_for(lambda: num_emails(database) == 6, "the mail of all")
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join(20)


def test_a_mailbox_that_stopped_is_told_with_an_alert_and_so_is_that_it_goes_on(
    database: Database, settings: Settings, imap: EmbeddedIMAP, poll: Poll
) -> None:
    connect(database, settings, imap.port, password="nope")
    poll()
    wait_for(lambda: bool(alert_texts(database)), "the alert")
    assert "password" in alert_texts(database)[0]
    row = connect(database, settings, imap.port)
    wait_for(lambda: not alert_texts(database), "the end of the alert")
    with database.read() as session:
        assert [event.kind for event in folders.events(session, row.id)][-1] == "stopped"


def alert_texts(database: Database) -> list[str]:
    with database.read() as session:
        return [alert.text for alert in alerts.open_alerts(session)]
