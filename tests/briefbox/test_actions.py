"""What agents do besides judging briefs, one conversation or many at a time, and how it is taken back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session, col, select, update

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import actions, activities, audit_log, bulk, conversations, training
from briefbox.store.bulk import BulkResult
from briefbox.store.sight import ALL, Sight
from briefbox.tables import (
    Activity,
    AuditEntry,
    Confirmation,
    Conversation,
    Correction,
    Email,
    Mailbox,
    MailboxAccess,
    Note,
    User,
)
from tests.briefbox.test_search import brief_of
from tests.conftest import make_email

Deliver = Callable[..., list[int]]
SOON = datetime.now(UTC) + timedelta(hours=5)


@pytest.fixture
def one(database: Database, deliver: Deliver) -> int:
    """A conversation with a brief."""
    deliver(make_email(1))
    with database.write() as session:
        show(session, 1)
    return 1


def show(session: Session, id_: int, **said: str) -> None:
    brief = brief_of(id_, id_, **said)
    brief.needs_human = ["priority"]
    session.add(brief)
    session.flush()
    conversations.show_brief(session, brief)


def get(database: Database, id_: int) -> Conversation:
    with database.read() as session:
        return session.get_one(Conversation, id_)


def undo_last(database: Database, user: User) -> list[int]:
    with database.write() as session:
        activity = actions.last_undoable(session, user)
        assert activity is not None
        return actions.undo(session, activity.id, user=user)


def hide_from(database: Database, user: User) -> None:
    """The person sees no mailbox."""
    with database.write() as session:
        session.exec(update(User).where(col(User.id) == user.id).values(all_mailboxes=False))


# --- assign


def test_assign_to_somebody_to_nobody_and_back(database: Database, one: int, ana: User, ben: User) -> None:
    with database.write() as session:
        actions.assign(session, one, ben.id, user=ana)
        before = get_version(session, one)
        actions.assign(session, one, ben.id, user=ana)
        assert get_version(session, one) == before, "nothing changed, so nothing is written"
    assert get(database, one).assigned_to == ben.id
    with database.write() as session:
        actions.assign(session, one, None, user=ana)
    assert undo_last(database, ana) == [one]
    assert get(database, one).assigned_to == ben.id
    with database.read() as session:
        kinds = [activity.kind for activity, _ in activities.of(session, one)]
        assert kinds == ["assigned", "unassigned", "undone"]


def get_version(session: Session, id_: int) -> int:
    return session.exec(select(Conversation.version).where(Conversation.id == id_)).one()


def test_only_who_is_there_and_sees_the_mailbox_can_have_it(
    database: Database, one: int, ana: User, ben: User
) -> None:
    hide_from(database, ben)
    with database.write() as session:
        with pytest.raises(InvalidValueError, match="ben@larkspur.example does not see this mailbox"):
            actions.assign(session, one, ben.id, user=ana)
        with pytest.raises(NotFoundError, match="no user 99"):
            actions.assign(session, one, 99, user=ana)
        session.exec(update(User).where(col(User.id) == ben.id).values(disabled_at=SOON))
    with database.write() as session, pytest.raises(NotFoundError):
        actions.assign(session, one, ben.id, user=ana)


# --- snooze


def test_snooze_and_wake(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        actions.snooze(session, one, SOON, user=ana)
        assert not actions.any_due(session)
        assert actions.wake_due(session) == 0
    assert (get(database, one).state, get(database, one).snoozed_until) == ("snoozed", SOON)
    with database.write() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.exec(update(Conversation).values(snoozed_until=past))
    with database.write() as session:
        assert actions.any_due(session)
        assert actions.wake_due(session) == 1
        assert actions.wake_due(session) == 0
    assert (get(database, one).state, get(database, one).snoozed_until) == ("open", None)


@pytest.mark.parametrize("until", [timedelta(seconds=-1), timedelta(days=401)])
def test_a_time_that_is_past_or_too_far_is_refused(
    database: Database, one: int, ana: User, until: timedelta
) -> None:
    with database.write() as session, pytest.raises(InvalidValueError, match="is no time to put it off"):
        actions.snooze(session, one, datetime.now(UTC) + until, user=ana)
    assert get(database, one).state == "open"


def test_what_was_done_can_be_snoozed_and_undone(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        conversations.finish(session, one, user=ana)
    done_at = get(database, one).done_at
    with database.write() as session:
        actions.snooze(session, one, SOON, user=ana)
    assert get(database, one).done_at is None
    undo_last(database, ana)
    row = get(database, one)
    assert (row.state, row.done_at, row.done_by, row.snoozed_until) == ("done", done_at, ana.id, None)


# --- notes


def test_notes(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        actions.note(session, one, "  He called.  ", user=ana)
        for odd in (" ", "x" * (actions.MAX_NOTE + 1)):
            with pytest.raises(InvalidValueError, match=r"expected 1 to 10,000"):
                actions.note(session, one, odd, user=ana)
    with database.read() as session:
        assert [(note.text, user.name) for note, user in actions.notes(session, one)] == [
            ("He called.", "Ana")
        ]
    with database.write() as session:
        session.exec(update(Note).values(deleted_at=SOON))
        assert actions.notes(session, one) == []
        assert actions.last_undoable(session, ana) is None, "a note is taken back by deleting it"


# --- undo


def test_a_correction_that_is_undone_teaches_nothing_and_leaves_the_field_to_the_model(
    database: Database, one: int, ana: User
) -> None:
    with database.write() as session:
        conversations.correct(session, one, "priority", "urgent", user=ana)
        activity = actions.last_undoable(session, ana)
        assert activity is not None
        conversations.finish(session, one, user=ana)
        assert [judged.corrections[-1].after for judged in training.judged_briefs(session)] == ["urgent"]
        actions.undo(session, activity.id, user=ana)
    row = get(database, one)
    assert (row.priority, row.priority_rank, row.touched, row.needs_human) == ("normal", 2, [], ["priority"])
    assert row.in_doubt
    with database.write() as session:
        assert training.judged_briefs(session) == []
        assert conversations.corrections(session, one) == []
        show(session, one, adapter="later", headline="New")
    assert get(database, one).headline == "New"


def test_undoing_one_field_leaves_what_was_said_of_another(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        conversations.correct(session, one, "priority", "urgent", user=ana)
        first = actions.last_undoable(session, ana)
        assert first is not None
        conversations.correct(session, one, "headline", "By Ana", user=ana)
        actions.undo(session, first.id, user=ana)
    row = get(database, one)
    assert (row.priority, row.headline, row.touched) == ("normal", "By Ana", ["headline"])


def test_after_an_undo_a_later_brief_stands_as_if_nobody_had_come(
    database: Database, one: int, ana: User
) -> None:
    with database.write() as session:
        conversations.correct(session, one, "headline", "By Ana", user=ana)
    with database.write() as session:
        show(session, one, adapter="later", headline="Later")
    assert get(database, one).suggestion == {"headline": "Later"}
    undo_last(database, ana)
    row = get(database, one)
    assert (row.headline, row.touched, row.suggestion) == ("Later", [], {})


def test_a_change_by_somebody_else_since_is_not_overwritten(
    database: Database, one: int, ana: User, ben: User
) -> None:
    with database.write() as session:
        actions.assign(session, one, ana.id, user=ana)
        mine = actions.last_undoable(session, ana)
        actions.assign(session, one, ben.id, user=ben)
    assert mine is not None
    with database.write() as session, pytest.raises(ConflictError, match="changed it since"):
        actions.undo(session, mine.id, user=ana)
    with database.write() as session, pytest.raises(NotFoundError, match="nothing of yours"):
        actions.undo(session, mine.id, user=ben)
    assert get(database, one).assigned_to == ben.id


def test_nothing_is_undone_twice_or_after_an_hour(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        actions.assign(session, one, ana.id, user=ana)
        activity = actions.last_undoable(session, ana, conversation_id=one)
        assert activity is not None
        assert actions.last_undoable(session, ana, conversation_id=one + 1) is None
        actions.undo(session, activity.id, user=ana)
        with pytest.raises(NotFoundError):
            actions.undo(session, activity.id, user=ana)
        actions.assign(session, one, ana.id, user=ana)
        session.exec(update(Activity).values(created_at=datetime.now(UTC) - timedelta(hours=2)))
        assert actions.last_undoable(session, ana) is None


def test_a_merged_conversation_is_not_brought_back(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        conversations.finish(session, one, user=ana)
        session.exec(update(Conversation).values(state="merged", merged_into=1))
    with pytest.raises(ConflictError, match="was merged"):
        undo_last(database, ana)


# --- many at once


@pytest.fixture
def five(database: Database, deliver: Deliver) -> list[int]:
    """Five conversations with briefs."""
    deliver(*(make_email(n) for n in range(1, 6)))
    with database.write() as session:
        for n in range(1, 6):
            show(session, n)
    return [1, 2, 3, 4, 5]


def apply(database: Database, ids: list[int], action: bulk.Action, user: User, **more: Any) -> BulkResult:
    with database.write() as session:
        return bulk.apply(session, ids, action, user=user, **more)


def undo(database: Database, result: BulkResult, user: User) -> list[int]:
    assert result.activity_id is not None
    with database.write() as session:
        return actions.undo(session, result.activity_id, user=user)


MORE: dict[bulk.Action, dict[str, Any]] = {
    "done": {},
    "reopen": {},
    "assign": {"to": 1},
    "snooze": {"until": SOON},
    "priority": {"value": "urgent"},
    "category": {"value": "billing"},
}


def singly(session: Session, id_: int, action: bulk.Action, user: User) -> None:
    if action == "done":
        conversations.finish(session, id_, user=user)
    elif action == "reopen":
        conversations.reopen(session, id_, user=user)
    elif action == "assign":
        actions.assign(session, id_, user.id, user=user)
    elif action == "snooze":
        actions.snooze(session, id_, SOON, user=user)
    else:
        conversations.correct(session, id_, action, MORE[action]["value"], user=user)


@pytest.mark.parametrize("action", bulk.ACTIONS)
def test_a_bulk_action_does_what_the_single_one_does(
    database: Database, five: list[int], ana: User, action: bulk.Action
) -> None:
    if action == "reopen":
        apply(database, five, "done", ana)
    before = [row.model_dump() for row in rows_of(database)]
    with database.write() as session:
        singly(session, 1, action, ana)
    result = apply(database, five, action, ana, **MORE[action])
    assert (result.changed, result.num_failed) == (4, 0)
    columns = (
        "state",
        "snoozed_until",
        "assigned_to",
        "priority",
        "priority_rank",
        "category",
        "touched",
        "needs_human",
        "in_doubt",
        "done_by",
    )
    alone, *others = [{name: getattr(row, name) for name in columns} for row in rows_of(database)]
    assert others == [alone] * 4
    with database.read() as session:
        found = session.exec(select(Activity).order_by(col(Activity.id))).all()
        last = {a.conversation_id: (a.kind, sorted(a.detail), sorted(a.before)) for a in found}
        assert len(set(map(str, last.values()))) == 1
        for table in (Correction, Confirmation):
            said = session.exec(select(table)).all()
            assert (
                len(
                    {
                        one.model_dump_json(
                            exclude={"id", "conversation_id", "brief_id", "idempotency_key", "created_at"}
                        )
                        for one in said
                    }
                )
                <= 1
            )
        entries = session.exec(select(AuditEntry).where(AuditEntry.action == f"bulk {action}")).all()
        assert len(entries) == 1
        assert audit_log.broken_links(session) == []
    assert sorted(undo(database, result, ana)) == [2, 3, 4, 5]
    again = [row.model_dump() for row in rows_of(database)]
    changing = {"version", "updated_at"}
    for id_ in range(1, 5):
        assert {k: v for k, v in again[id_].items() if k not in changing} == {
            k: v for k, v in before[id_].items() if k not in changing
        }


def rows_of(database: Database) -> list[Conversation]:
    with database.read() as session:
        return list(session.exec(select(Conversation).order_by(col(Conversation.id))))


def test_what_fails_is_named_and_stops_nothing(
    database: Database, five: list[int], ana: User, ben: User
) -> None:
    with database.write() as session:
        session.exec(
            update(Conversation).where(col(Conversation.id) == 2).values(state="merged", merged_into=1)
        )
        other = Mailbox(name="b", address="b@b", host="-", port=1, username="-", folders=[], created_at=SOON)
        session.add(other)
        session.flush()
        session.exec(update(Conversation).where(col(Conversation.id) == 3).values(mailbox_id=other.id))
    result = apply(database, [*five, 5, 77], "assign", ana, sight=Sight(frozenset({1})), to=ana.id)
    assert (result.changed, result.unchanged, result.num_failed) == (3, 0, 3)
    assert result.failed == {
        2: "Conversation 2 was merged into 1.",
        3: "There is no conversation 3.",
        77: "There is no conversation 77.",
    }
    hide_from(database, ben)
    with database.write() as session:
        session.add(MailboxAccess(user_id=ben.id, mailbox_id=other.id))
    result = apply(database, [1, 3], "assign", ana, to=ben.id)
    assert (result.changed, list(result.failed)) == (1, [1])
    assert apply(database, [3], "assign", ana, to=ben.id).unchanged == 1


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("assign", {"to": 99}),
        ("snooze", {}),
        ("snooze", {"until": SOON - timedelta(days=9)}),
        ("priority", {"value": "soon"}),
        ("category", {"value": "nothing"}),
        ("delete", {}),
    ],
)
def test_what_can_be_done_with_none_is_refused_as_a_whole(
    database: Database, five: list[int], ana: User, action: Any, more: dict[str, Any]
) -> None:
    with pytest.raises((InvalidValueError, NotFoundError)):
        apply(database, five, action, ana, **more)
    for ids in ([], list(range(bulk.MAX_ROWS + 1))):
        with pytest.raises(InvalidValueError, match="at a time"):
            apply(database, ids, "done", ana)
    assert {row.version for row in rows_of(database)} == {rows_of(database)[0].version}


def test_undoing_many_leaves_what_somebody_changed_since(
    database: Database, five: list[int], ana: User, ben: User
) -> None:
    result = apply(database, five, "assign", ana, to=ana.id)
    with database.write() as session:
        actions.assign(session, 4, ben.id, user=ben)
        session.exec(
            update(Conversation).where(col(Conversation.id) == 5).values(state="merged", merged_into=1)
        )
    assert sorted(undo(database, result, ana)) == [1, 2, 3]
    assert get(database, 4).assigned_to == ben.id


def test_finishing_many_again_confirms_again(database: Database, five: list[int], ana: User) -> None:
    with database.write() as session:
        conversations.correct(session, 1, "priority", "low", user=ana)
    undo(database, apply(database, five, "done", ana), ana)
    apply(database, five, "done", ana)
    with database.read() as session:
        said = session.exec(select(Confirmation).order_by(col(Confirmation.conversation_id))).all()
        assert [(c.conversation_id, c.undone_at) for c in said] == [(n, None) for n in (2, 3, 4, 5)]


# --- sight


def test_who_sees_what(database: Database, one: int, ana: User) -> None:
    with database.write() as session:
        assert Sight.of(session, session.get_one(User, ana.id)) is ALL
        email_id = session.exec(select(Email.id)).one()
        ALL.check_conversation(session, one)
        ALL.check_email(session, email_id)
        with pytest.raises(NotFoundError, match="no conversation 9"):
            ALL.check_conversation(session, 9)
    hide_from(database, ana)
    with database.write() as session:
        nothing = Sight.of(session, session.get_one(User, ana.id))
        assert nothing == Sight(frozenset())
        for check, id_ in ((nothing.check_conversation, one), (nothing.check_email, email_id)):
            with pytest.raises(NotFoundError, match="There is no"):
                check(session, id_)
        with pytest.raises(NotFoundError, match="no mailbox 1"):
            nothing.check_mailbox(1)
        session.add(MailboxAccess(user_id=ana.id, mailbox_id=1))
        session.flush()
        some = Sight.of(session, session.get_one(User, ana.id))
        some.check_conversation(session, one)
        some.check_email(session, email_id)
        some.check_mailbox(1)
        session.exec(update(User).where(col(User.id) == ana.id).values(role="admin"))
        session.expire_all()
        assert Sight.of(session, session.get_one(User, ana.id)) is ALL
