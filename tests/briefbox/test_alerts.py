"""briefbox/store/alerts.py: one row for each subject, from the first sign until it is over."""

from threading import Barrier, Thread

from sqlmodel import select

from briefbox.db import Database
from briefbox.store import alerts
from briefbox.tables import Alert


def test_an_alert_is_open_until_it_is_resolved(database: Database) -> None:
    with database.write() as session:
        assert alerts.raise_alert(session, "adapter a1", "a1 was altered")
        assert alerts.raise_alert(session, "worker slow", "ten times slower")
    with database.read() as session:
        assert [a.text for a in alerts.open_alerts(session)] == ["a1 was altered", "ten times slower"]
    with database.write() as session:
        assert alerts.resolve(session, "adapter a1")
        assert not alerts.resolve(session, "adapter a1")
        assert not alerts.resolve(session, "never raised")
    with database.read() as session:
        assert [a.key for a in alerts.open_alerts(session)] == ["worker slow"]


def test_raising_it_again_counts_and_keeps_its_beginning(database: Database) -> None:
    for text in ("first reason", "second reason"):
        with database.write() as session:
            assert alerts.raise_alert(session, "adapter a1", text) is (text == "first reason")
    with database.read() as session:
        [row] = alerts.open_alerts(session)
    assert (row.text, row.times) == ("second reason", 2)
    assert row.raised_at < row.seen_at


def test_one_that_comes_back_begins_anew_in_the_same_row(database: Database) -> None:
    with database.write() as session:
        alerts.raise_alert(session, "adapter a1", "altered")
        alerts.raise_alert(session, "adapter a1", "altered")
        alerts.resolve(session, "adapter a1")
    with database.write() as session:
        assert alerts.raise_alert(session, "adapter a1", "gone")
    with database.read() as session:
        [row] = session.exec(select(Alert)).all()
    assert (row.text, row.times, row.resolved_at) == ("gone", 1, None)


def test_two_processes_that_raise_it_at_once_make_one_row(database: Database) -> None:
    barrier = Barrier(4)

    def raise_it() -> None:
        barrier.wait()
        with database.write() as session:
            alerts.raise_alert(session, "adapter a1", "altered")

    threads = [Thread(target=raise_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        [row] = session.exec(select(Alert)).all()
    assert row.times == 4
