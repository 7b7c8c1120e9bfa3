"""What is told to webhooks, and how its sending is kept track of: on SQLite and PostgreSQL."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlmodel import Session, col, select, update

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import (
    actions,
    alerts,
    bulk,
    conversations,
    deliveries,
    events,
    folders,
    mailboxes,
    webhooks,
)
from briefbox.store.secrets import Cipher
from briefbox.tables import Conversation, Mailbox, User, Webhook, WebhookDelivery

CIPHER = Cipher(Fernet.generate_key().decode())
ALL = tuple(events.EVENTS)


@pytest.fixture
def conversation(database: Database, mailbox: Mailbox) -> Conversation:
    """An open one."""
    moment = datetime.now(UTC)
    with database.write() as session:
        row = Conversation(
            mailbox_id=mailbox.id,
            subject="Where is it?",
            customer_address="cara@example.org",
            headline="Asks where it is",
            waiting_since=moment,
            opened_at=moment,
            updated_at=moment,
        )
        session.add(row)
        session.flush()
        return row


@pytest.fixture
def add(database: Database) -> Callable[..., Webhook]:
    """Adds a webhook that is told everything."""

    def make(name: str = "hook", **values: Any) -> Webhook:
        with database.write() as session:
            options = {"url": "https://example.org/hook", "wanted": ALL, "actor": "test"} | values
            return webhooks.add(session, CIPHER, name=name, **options)[0]

    return make


def rows(database: Database) -> list[WebhookDelivery]:
    with database.read() as session:
        return list(session.exec(select(WebhookDelivery).order_by(col(WebhookDelivery.id))))


def make_due(database: Database) -> None:
    """As if time had gone by."""
    with database.write() as session:
        session.exec(update(WebhookDelivery).values(not_before=datetime.now(UTC) - timedelta(seconds=1)))


def claim(database: Database) -> list[deliveries.Due]:
    with database.write() as session:
        return deliveries.claim(session, CIPHER, address="https://desk.example")


def record(database: Database, due: deliveries.Due, status: int | None, answer: str = "") -> bool:
    with database.write() as session:
        return deliveries.record(session, due, status, answer)


def change(database: Database, conversation: Conversation, user: User, priority: str = "urgent") -> None:
    with database.write() as session:
        conversations.correct(session, conversation.id, "priority", priority, user=user)


# --- what is told


def test_nobody_listens_and_nothing_is_written(
    database: Database, conversation: Conversation, ana: User
) -> None:
    change(database, conversation, ana)
    assert rows(database) == []


def test_a_change_is_told_in_its_own_transaction(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    add()
    with pytest.raises(RuntimeError), database.write() as session:
        conversations.finish(session, conversation.id, user=ana)
        raise RuntimeError("rolled back")
    assert rows(database) == []
    change(database, conversation, ana)
    [row] = rows(database)
    said = json.loads(row.body)
    assert (said["type"], said["data"]["priority"]) == ("conversation.changed", "urgent")
    assert said["data"]["links"] == {"desk": "/conversations/1", "api": "/api/v1/conversations/1"}
    assert "Where is it" not in row.body and "cara" not in row.body  # noqa: PT018


def test_changes_within_a_second_are_told_as_one(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    add()
    for priority in ("urgent", "high", "low"):
        change(database, conversation, ana, priority)
    [row] = rows(database)
    assert json.loads(row.body)["data"]["priority"] == "low"
    assert row.not_before > row.created_at
    make_due(database)
    [due] = claim(database)
    change(database, conversation, ana, "urgent")  # it is being sent: the next one is another message
    assert [json.loads(row.body)["data"]["priority"] for row in rows(database)] == ["low", "urgent"]
    assert record(database, due, 200)


def test_a_webhook_is_told_what_it_asks_for(
    database: Database, conversation: Conversation, ana: User, mailbox: Mailbox, add: Callable[..., Webhook]
) -> None:
    with database.write() as session:
        other = Mailbox(
            name="other",
            address="o@example.org",
            host="h",
            port=1,
            username="u",
            created_at=datetime.now(UTC),
        )
        session.add(other)
        session.flush()
    add("other events", wanted=("mailbox.stopped",))
    add("other mailbox", mailbox_ids=(other.id,))
    full = add("full", mailbox_ids=(mailbox.id,), full=True)
    change(database, conversation, ana)
    [row] = rows(database)
    assert row.webhook_id == full.id
    said = json.loads(row.body)["data"]
    assert (said["subject"], said["customer_address"]) == ("Where is it?", "cara@example.org")


def test_the_same_event_has_one_id_for_all(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    add("one"), add("two")
    change(database, conversation, ana)
    one, two = rows(database)
    assert one.event_id == two.event_id
    assert one.webhook_id != two.webhook_id


def test_a_mailbox_that_stops_and_one_that_is_read_again(
    database: Database, mailbox: Mailbox, add: Callable[..., Webhook]
) -> None:
    add()
    with database.write() as session:
        folders.note_event(session, mailbox.id, "INBOX", "stopped", "The server says no.")
        folders.note_event(session, mailbox.id, "INBOX", "renumbered", "nobody is told")
        folders.note_event(session, mailbox.id, "INBOX", "recovered", "It is read again.")
        mailboxes.pause(session, "support", reason="by hand", actor="test")
        mailboxes.resume(session, "support", actor="test")
        mailboxes.pause(session, "support", reason="it went round in circles", actor="poller", alert=True)
        mailboxes.resume(session, "support", actor="test")
    said = [json.loads(row.body) for row in rows(database)]
    assert [one["type"] for one in said] == ["mailbox.stopped", "mailbox.recovered"] * 2
    assert said[0]["data"]["text"] == "The server says no."
    assert (said[0]["data"]["mailbox"], said[0]["data"]["folder"]) == ("support", "INBOX")


def test_a_bulk_action_and_its_undoing_are_told(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    add()
    with database.write() as session:
        result = bulk.apply(session, [conversation.id], "done", user=ana)
    [row] = rows(database)
    assert json.loads(row.body)["data"]["state"] == "done"
    make_due(database)
    claim(database)
    with database.write() as session:
        assert result.activity_id is not None
        actions.undo(session, result.activity_id, user=ana)
    assert [json.loads(row.body)["data"]["state"] for row in rows(database)] == ["done", "open"]


# --- what admins do


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": " "}, "0 characters"),
        ({"wanted": ()}, "Choose what it is told"),
        ({"wanted": ("everything",)}, "Choose what it is told"),
        ({"url": ""}, "0 characters"),
        ({"url": "https://" + "x" * 2000}, "2008 characters"),
        ({"mailbox_ids": (4711,)}, "no mailbox 4711"),
    ],
)
def test_odd_webhooks_are_refused(add: Callable[..., Webhook], values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        add(**values)


def test_a_name_is_taken_once(add: Callable[..., Webhook]) -> None:
    add()
    with pytest.raises(ConflictError, match="exists already"):
        add()


def test_a_new_secret_signs_beside_the_old_one_for_a_day(
    database: Database, add: Callable[..., Webhook]
) -> None:
    hook = add()
    with database.write() as session:
        [old] = webhooks.secrets_of(webhooks.get(session, hook.id), CIPHER, datetime.now(UTC))
        new = webhooks.new_secret(session, CIPHER, hook.id, actor="test")
    with database.read() as session:
        row = webhooks.get(session, hook.id)
        assert old not in row.secret_encrypted + row.old_secret_encrypted
        moment = datetime.now(UTC)
        assert webhooks.secrets_of(row, CIPHER, moment) == [new, old]
        assert webhooks.secrets_of(row, CIPHER, moment + timedelta(days=1, seconds=1)) == [new]
    assert old.startswith("whsec_")


def test_who_is_switched_off_is_told_nothing(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    hook = add()
    change(database, conversation, ana)
    with database.write() as session:
        webhooks.disable(session, hook.id, "not needed", actor="test")
    assert [row.state for row in rows(database)] == ["failed"]
    change(database, conversation, ana, "low")
    assert len(rows(database)) == 1
    with database.write() as session:
        with pytest.raises(ConflictError, match="switched off"):
            webhooks.test(session, hook.id, actor="test")
        webhooks.enable(session, hook.id, actor="test")
        assert webhooks.replay_failed(session, hook.id, datetime(2020, 1, 1, tzinfo=UTC), actor="test") == 1
        assert webhooks.replay_failed(session, hook.id, datetime(2020, 1, 1, tzinfo=UTC), actor="test") == 0
    old, new = rows(database)
    assert (new.event_id, new.body, new.replay_of, new.state) == (old.event_id, old.body, old.id, "waiting")


def test_one_is_sent_again(database: Database, mailbox: Mailbox, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        first = webhooks.test(session, hook.id, actor="test")
        with pytest.raises(ConflictError, match="waits"):
            webhooks.replay(session, hook.id, first.id, actor="test")
    [due] = claim(database)
    assert record(database, due, 204)
    with database.write() as session:
        again = webhooks.replay(session, hook.id, first.id, actor="test")
        assert again.event_id == first.event_id
        with pytest.raises(NotFoundError):
            webhooks.replay(session, hook.id, 4711, actor="test")
        with pytest.raises(NotFoundError):
            webhooks.replay(session, 4711, first.id, actor="test")


# --- sending


def test_links_lead_to_the_desk(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    add()
    hostile = 'a "desk": "/evil" \\ headline'
    with database.write() as session:
        conversations.correct(session, conversation.id, "headline", hostile, user=ana)
    make_due(database)
    [due] = claim(database)
    said = json.loads(due.body)["data"]
    assert said["links"]["desk"] == "https://desk.example/conversations/1"
    assert said["headline"] == hostile
    assert rows(database)[0].body == due.body


def test_two_processes_send_nothing_twice(database: Database, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        for _ in range(6):
            webhooks.test(session, hook.id, actor="test")
    first, second, third = claim(database), claim(database), claim(database)
    assert [len(first), len(second), len(third)] == [deliveries.AT_ONCE, 6 - deliveries.AT_ONCE, 0]
    assert not {due.id for due in first} & {due.id for due in second}


def test_who_died_before_writing_it_down_sends_it_again_under_the_same_id(
    database: Database, add: Callable[..., Webhook]
) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test")
    [lost] = claim(database)
    assert claim(database) == []
    with database.write() as session:
        session.exec(update(WebhookDelivery).values(lease_until=datetime.now(UTC) - timedelta(seconds=1)))
    with database.read() as session:
        assert deliveries.any_due(session)
    [again] = claim(database)
    assert (again.event_id, again.body) == (lost.event_id, lost.body)
    assert again.token != lost.token
    assert record(database, lost, 200) is False  # it came back after all: its lease is another's
    assert record(database, again, 200) is True
    assert [(row.state, row.attempts) for row in rows(database)] == [("done", 2)]


def test_tries_grow_rare_over_a_day_and_end(database: Database, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test")
    waits = []
    for _ in range(len(deliveries.WAITS)):
        [due] = claim(database)
        before = datetime.now(UTC)
        assert record(database, due, 503, "later\0")
        [row] = rows(database)
        assert (row.state, row.status, row.answer) == ("waiting", 503, "later")
        waits.append((row.not_before - before).total_seconds())
        make_due(database)
    for wait, meant in zip(waits, deliveries.WAITS, strict=True):
        assert 0.75 * meant < wait < 1.25 * meant + 5
    assert timedelta(hours=20) < timedelta(seconds=sum(deliveries.WAITS)) < timedelta(hours=30)
    [due] = claim(database)
    assert record(database, due, None, "There was no answer.")
    [row] = rows(database)
    assert (row.state, row.status, row.attempts) == ("failed", None, len(deliveries.WAITS) + 1)
    assert row.finished_at is not None


def test_gone_switches_it_off_and_says_so(database: Database, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test")
    [due] = claim(database)
    assert record(database, due, 410)
    with database.read() as session:
        row = webhooks.get(session, hook.id)
        assert row.disabled_at is not None
        assert "410" in row.disabled_reason
        [alert] = alerts.open_alerts(session)
        assert "hook" in alert.text
    with database.write() as session:
        webhooks.enable(session, hook.id, actor="test")
        assert alerts.open_alerts(session) == []


def fail(session: Session, hook: Webhook, times: int, since: timedelta) -> None:
    session.exec(
        update(Webhook)
        .where(col(Webhook.id) == hook.id)
        .values(num_failures=times, failing_since=datetime.now(UTC) - since)
    )


@pytest.mark.parametrize(
    ("times", "days", "is_off"), [(100, 1, False), (5, 10, False), (deliveries.GIVE_UP_FAILURES, 4, True)]
)
def test_many_failures_over_days_switch_it_off(
    database: Database, add: Callable[..., Webhook], times: int, days: int, *, is_off: bool
) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test")
        fail(session, hook, times, timedelta(days=days))
    [due] = claim(database)
    assert record(database, due, 500, "broken")
    with database.read() as session:
        assert (webhooks.get(session, hook.id).disabled_at is not None) is is_off
        assert bool(alerts.open_alerts(session)) is is_off


def test_one_success_forgives_all(database: Database, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test")
        fail(session, hook, 15, timedelta(days=2))
    [due] = claim(database)
    assert record(database, due, 200)
    with database.read() as session:
        row = webhooks.get(session, hook.id)
        assert (row.num_failures, row.failing_since) == (0, None)


def test_another_key_is_told_in_words(database: Database, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test")
        [due] = deliveries.claim(session, Cipher(Fernet.generate_key().decode()), address="")
    assert "make a new one" in due.problem
    assert due.secrets == ()


def test_old_ones_are_forgotten(database: Database, add: Callable[..., Webhook]) -> None:
    hook = add()
    with database.write() as session:
        webhooks.test(session, hook.id, actor="test"), webhooks.test(session, hook.id, actor="test")
    for due in claim(database):
        record(database, due, 200)
    with database.write() as session:
        long_ago = datetime.now(UTC) - timedelta(days=31)
        session.exec(update(WebhookDelivery).where(col(WebhookDelivery.id) == 1).values(finished_at=long_ago))
        assert deliveries.forget_old(session) == 1
    assert len(rows(database)) == 1


def test_new_mail_and_a_snooze_are_told(
    database: Database, conversation: Conversation, ana: User, add: Callable[..., Webhook]
) -> None:
    add()
    with database.write() as session:
        until = datetime.now(UTC) + timedelta(hours=1)
        actions.snooze(session, conversation.id, until, user=ana)
        events.changed_by_id(session, conversation.mailbox_id, [conversation.id])
    [row] = rows(database)
    assert json.loads(row.body)["data"]["state"] == "snoozed"
