"""Lists of conversations: filters, orders, pages, counts, targets and saved views."""

import random
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session, col, select

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.schemas import PRIORITIES
from briefbox.store import audit_log, bulk, conversations, queue, sla, views
from briefbox.store.filters import Filter
from briefbox.store.sight import ALL, Sight
from briefbox.tables import AuditEntry, Conversation, Mailbox, User, View

NOW = datetime.now(UTC)
STATES = ("open", "snoozed", "answered", "done", "merged")


@pytest.fixture
def many(database: Database, mailbox: Mailbox, ana: User) -> list[Conversation]:
    """Conversations of all sorts; many have the same times."""
    chance = random.Random(7)
    with database.write() as session:
        other = Mailbox(name="b", address="b@b", host="-", port=1, username="-", folders=[], created_at=NOW)
        session.add(other)
        session.flush()
        for n in range(150):
            state = STATES[n % 5]
            priority = chance.choice([*PRIORITIES, ""])
            at = NOW - timedelta(hours=chance.randrange(1, 40))
            session.add(
                Conversation(
                    mailbox_id=chance.choice((mailbox.id, other.id)),
                    subject=str(n),
                    state=state,
                    snoozed_until=NOW + timedelta(hours=chance.randrange(1, 9))
                    if state == "snoozed"
                    else None,
                    assigned_to=chance.choice((None, ana.id)),
                    priority=priority,
                    priority_rank=conversations.rank(priority),
                    category=chance.choice(("order", "billing")),
                    needs_human=chance.choice(([], ["category"])),
                    waiting_since=at,
                    answered_at=at if state == "answered" else None,
                    opened_at=at,
                    updated_at=at,
                    done_at=at if state == "done" else None,
                )
            )
    with database.read() as session:
        return list(session.exec(select(Conversation)))


def all_pages(session: Session, wanted: Filter, *, limit: int = 7, sight: Sight = ALL) -> list[Conversation]:
    found: list[Conversation] = []
    after = ""
    for _ in range(300):
        page = queue.page(session, wanted, after=after, limit=limit, sight=sight)
        assert len(page.conversations) <= limit
        found += page.conversations
        after = page.next
        if not after:
            return found
    raise AssertionError("the pages have no end")


FILTERS: list[dict[str, Any]] = [
    {},
    {"mailboxes": (1,)},
    {"priorities": ("urgent",)},
    {"priorities": ("urgent", "low")},
    {"categories": ("billing",)},
    {"assigned": "none"},
    {"assigned": "1"},
    {"needs_human": True},
    {"overdue": True},
    {"categories": ("order",), "assigned": "none", "overdue": True, "needs_human": True},
]


@pytest.mark.parametrize("bound", [60_000, 4])
def test_every_list_is_what_its_filter_says_in_its_order_over_all_pages(
    database: Database, many: list[Conversation], monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    monkeypatch.setattr(queue, "MAX_LOOKED", bound)
    monkeypatch.setattr(queue, "MAX_LOOKED_ROWS", bound)
    with database.read() as session:
        targets = sla.targets(session)
        for state, more in product(("open", "snoozed", "answered", "done", ""), FILTERS):
            wanted = Filter(state=state, **more)
            expected = {c.id for c in many if queue.matches(wanted, c, targets)}
            found = all_pages(session, wanted)
            assert len(found) == len(expected), wanted
            assert {c.id for c in found} == expected, wanted
            keys = [queue.order_key(c, wanted) for c in found]
            assert keys == sorted(set(keys)), wanted
            if bound > len(many):
                assert queue.count(session, wanted) == len(expected)
                assert queue.count(session, wanted, cap=3) == min(3, len(expected))
                assert bulk.matching(session, wanted) == [c.id for c in found]
                assert bulk.matching(session, wanted, limit=2) == [c.id for c in found][:2]


def test_the_orders_are_those_that_are_told(database: Database, many: list[Conversation]) -> None:
    with database.read() as session:
        lists = {
            state: all_pages(session, Filter(state=state))
            for state in ("open", "snoozed", "answered", "done")
        }
    open_ = [(c.priority_rank, c.waiting_since) for c in lists["open"]]
    assert open_ == sorted(open_)
    soonest = [c.snoozed_until or NOW for c in lists["snoozed"]]
    assert soonest == sorted(soonest)
    for state, name in (("answered", "answered_at"), ("done", "done_at")):
        newest = [getattr(c, name) for c in lists[state]]
        assert len(newest) == 30
        assert newest == sorted(newest, reverse=True)


def test_a_person_gets_what_they_see(database: Database, many: list[Conversation]) -> None:
    some, nothing = Sight(frozenset({1})), Sight(frozenset())
    with database.read() as session:
        for state in ("open", "done", ""):
            found = all_pages(session, Filter(state=state), sight=some)
            assert {c.mailbox_id for c in found} == {1}
            assert queue.count(session, Filter(state=state), sight=some) == len(found)
            assert all_pages(session, Filter(state=state), sight=nothing) == []
        assert queue.counts(session) == dict.fromkeys(("open", "snoozed", "answered", "done"), 30)
        counted = queue.counts(session, some)
        assert counted == {s: sum(c.state == s and c.mailbox_id == 1 for c in many) for s in counted}
        assert set(queue.counts(session, nothing).values()) == {0}


def test_counting_ends(database: Database, many: list[Conversation], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_COUNTED", 10)
    with database.read() as session:
        assert queue.counts(session) == dict.fromkeys(("open", "snoozed", "answered", "done"), 10)


@pytest.mark.parametrize("state", ["open", "done", "snoozed", "answered", ""])
def test_odd_places_are_refused_in_words(database: Database, state: str) -> None:
    with database.read() as session:
        for after in ("x", "1-2-3-4", "-", "1-x", "0-99999999999999999999999-1", "²-1-1", "1" * 80):
            with pytest.raises(InvalidValueError, match="no place in this list"):
                queue.page(session, Filter(state=state), after=after)
        assert queue.page(session, Filter(), after="9-0-99999999999").conversations == []


def test_lists_stay_on_their_index(database: Database, many: list[Conversation]) -> None:
    """What the planner says, for each list with all filters at once."""
    with database.write() as session:
        run = session.connection().exec_driver_sql
        if not database.is_sqlite:
            for way in ("seqscan", "sort", "bitmapscan"):  # which are quicker for a few rows
                run(f"SET LOCAL enable_{way} = off")
            run("ANALYZE conversations")
        for state in ("open", "snoozed", "answered", "done"):
            wanted = Filter(
                state=state, categories=("order",), assigned="none", needs_human=True, mailboxes=(1,)
            )
            order = queue._ORDERS[state]
            looked = queue._looked(wanted, order, None)
            sql = str(
                select(looked.c.id)
                .where(*queue.conditions(looked.c, wanted, ALL, {}))
                .compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            )
            explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            plan = "\n".join(
                str(row) for row in session.connection().execute(text(explain + sql.replace(":", "\\:")))
            )
            assert f"ix_conversations_{state}" in plan
            assert "B-TREE" not in plan
            assert "Sort" not in plan
            assert "COVERING INDEX" in plan or "Index Only Scan" in plan


# --- filters as text


def test_a_filter_goes_into_an_address_and_back() -> None:
    wanted = Filter(
        state="done",
        mailboxes=(1, 3),
        priorities=("urgent", "low"),
        categories=("a & b", "c=d"),
        assigned="7",
        needs_human=True,
        overdue=True,
        text="„zwei“ wörter",
    )
    query = wanted.to_query()
    assert Filter.from_query(query) == wanted
    assert Filter.from_query("?" + query).to_query() == query
    assert Filter().to_query() == ""
    assert Filter.from_query({"after": "1", "state": "", "priority": " "}) == Filter()
    assert Filter.from_query([("priority", "low"), ("priority", "urgent")]).priorities == ("urgent", "low")


def test_a_question_is_of_all_states_unless_one_is_given() -> None:
    assert Filter.from_query("q=x").state == ""
    assert Filter.from_query("q=x&state=open").state == "open"
    assert Filter.from_query("q=x&state=open").to_query() == "state=open&q=x"
    assert Filter.from_query("state=all").to_query() == "state=all"


def test_me_is_whoever_asks() -> None:
    assert Filter.from_query("assigned=me").assigned == "me"
    assert Filter.from_query("assigned=me", me=7).assigned == "7"
    assert Filter.from_query("assigned=7").to_query(me=7) == "assigned=me"
    assert Filter.from_query("assigned=7").to_query(me=8) == "assigned=7"


@pytest.mark.parametrize(
    "query",
    [
        "state=merged",
        "state=x",
        "mailbox=x",
        "mailbox=-1",
        "mailbox=99999999999",
        "mailbox=²",
        "priority=soon",
        "assigned=ana",
        "human=perhaps",
        "overdue=2",
        "q=" + "x" * 201,
        "category=" + "x" * 201,
        "category=%00",
        "&".join(f"category={n}" for n in range(60)),
    ],
)
def test_odd_values_are_refused_in_words(query: str) -> None:
    with pytest.raises(InvalidValueError, match=r"expected|none of|is not|is neither|characters"):
        Filter.from_query(query)


# --- targets


def test_targets_are_changed_with_an_entry_in_the_audit_log(database: Database) -> None:
    with database.write() as session:
        assert sla.targets(session)["urgent"] == 60
        sla.set_target(session, "urgent", 30, "ada")
        sla.set_target(session, "urgent", 30, "ada")
        sla.set_target(session, "low", None, "ada")
        sla.set_target(session, "low", None, "ada")
        assert sla.targets(session)["urgent"] == 30
        assert "low" not in sla.targets(session)
        sla.set_target(session, "low", 9, "ada")
        entries = session.exec(select(AuditEntry).where(AuditEntry.action == "target changed")).all()
        assert [(e.object, e.detail) for e in entries] == [
            ("urgent", {"before": 60, "after": 30}),
            ("low", {"before": 4320, "after": None}),
            ("low", {"before": None, "after": 9}),
        ]
        assert audit_log.broken_links(session) == []
        for priority, minutes in (("soon", 5), ("low", 0), ("low", sla.MAX_MINUTES + 1)):
            with pytest.raises(InvalidValueError):
                sla.set_target(session, priority, minutes, "ada")


def test_somebody_is_due_only_while_they_wait(many: list[Conversation]) -> None:
    targets = {"urgent": 60}
    for c in many:
        expected = c.priority == "urgent" and c.state in ("open", "snoozed")
        assert sla.due(c, targets) == (c.waiting_since + timedelta(hours=1) if expected else None)


# --- views


def test_views_are_ones_own_and_those_that_are_shared(database: Database, ana: User, ben: User) -> None:
    with database.write() as session:
        views.save(session, ana, " My  urgent ", "?priority=urgent&assigned=me&after=12")
        views.save(session, ana, "All urgent", "priority=urgent", shared=True)
        views.save(session, ben, "My urgent", "priority=urgent&human=1")
        assert [(v.name, v.query) for v in views.of(session, ana)] == [
            ("My urgent", "priority=urgent&assigned=me"),
            ("All urgent", "priority=urgent"),
        ]
        assert [v.name for v in views.of(session, ben)] == ["My urgent", "All urgent"]
        for name in ("my URGENT", "All urgent"):
            with pytest.raises(ConflictError, match="You have a view"):
                views.save(session, ana, name, "")
        for name, query in ((" ", ""), ("x" * 61, ""), ("x", "state=odd")):
            with pytest.raises(InvalidValueError):
                views.save(session, ana, name, query)


def test_only_ones_own_views_are_removed_and_shared_ones_by_admins(
    database: Database, ana: User, ben: User
) -> None:
    with database.write() as session:
        own = views.save(session, ana, "own", "")
        shared = views.save(session, ana, "shared", "", shared=True)
        for view in (own, shared):
            with pytest.raises(NotFoundError):
                views.remove(session, ben, view.id)
        ben.role = "admin"
        with pytest.raises(NotFoundError):
            views.remove(session, ben, own.id)
        views.remove(session, ben, shared.id)
        views.remove(session, ana, own.id)
        assert session.exec(select(View)).all() == []
        actions = session.exec(select(AuditEntry.action).order_by(col(AuditEntry.id))).all()
        assert actions[-2:] == ["view shared", "view removed"]


def test_a_person_has_so_many_views_and_no_more(database: Database, ana: User) -> None:
    with database.write() as session:
        for n in range(views.MAX_VIEWS):
            views.save(session, ana, str(n), "")
        with pytest.raises(InvalidValueError, match="which is the most"):
            views.save(session, ana, "one more", "")


def test_views_are_counted(database: Database, many: list[Conversation], ana: User) -> None:
    with database.read() as session:
        asked = [
            *views.BUILT_IN,
            views.BuiltIn("Done", "state=done&assigned=me"),
            views.BuiltIn("All", "state=all"),
        ]
        counted = views.counts(session, asked, user=ana, sight=ALL)
        one_by_one = [queue.count(session, Filter.from_query(view.query, me=ana.id)) for view in asked]
        assert counted == one_by_one
        assert counted[1] == sum(c.state == "open" and c.assigned_to == ana.id for c in many)
        assert views.counts(session, asked, user=ana, sight=Sight(frozenset())) == [0] * len(asked)
        assert max(views.counts(session, asked, user=ana, sight=ALL, cap=2)) == 2
