"""The admin's categories: the list, its order, and merges that conversations follow in batches."""

from collections.abc import Callable

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log, categories, work
from briefbox.tables import AuditEntry, Category, Conversation
from tests.conftest import make_email

Deliver = Callable[..., list[int]]


def names(database: Database) -> list[str]:
    with database.read() as session:
        return [c.name for c in work.active_categories(session)]


def id_of(database: Database, name: str) -> int:
    with database.read() as session:
        return session.exec(select(Category.id).where(Category.name == name)).one()


def give(database: Database, name: str, ids: list[int]) -> None:
    with database.write() as session:
        for row in session.exec(select(Conversation).order_by(Conversation.id)).all()[: len(ids)]:
            row.category = name
            session.add(row)


def categories_of(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.exec(select(Conversation.category).order_by(Conversation.id)))  # type: ignore[arg-type]


def test_a_new_one_stands_before_the_last(database: Database) -> None:
    last = names(database)[-1]
    with database.write() as session:
        categories.add(session, "  data   protection ", "copies, erasure", actor="ada@x.example")
    assert names(database)[-2:] == ["data protection", last]
    with database.read() as session:
        assert session.exec(select(AuditEntry)).all()[-1].action == "category added"
        assert audit_log.broken_links(session) == []


@pytest.mark.parametrize(
    ("name", "description", "says"),
    [
        ("", "", "has 0 characters"),
        ("x" * 61, "", "has 61 characters"),
        ("a\x07b", "", "can be printed"),
        ("BILLING", "", "“billing” is there already"),
        ("fine", "x" * 161, "at most 160"),
    ],
)
def test_odd_names_are_refused_in_words(database: Database, name: str, description: str, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says), database.write() as session:
        categories.add(session, name, description, actor="ada")
    assert len(names(database)) == 10


def test_order_and_description(database: Database) -> None:
    first, second, *_ = names(database)
    with database.write() as session:
        categories.move(session, id_of(database, second), up=True, actor="ada")
        categories.move(session, id_of(database, second), up=True, actor="ada")  # at the top: nothing
        categories.describe(session, id_of(database, first), " money  matters ", actor="ada")
    assert names(database)[:2] == [second, first]
    with database.read() as session:
        assert categories.get(session, id_of(database, first)).description == "money matters"
        with pytest.raises(NotFoundError):
            categories.get(session, 9999)


def test_retired_ones_stay_with_their_conversations(database: Database, deliver: Deliver) -> None:
    ids = deliver(make_email(1))
    give(database, "billing", ids)
    with database.write() as session:
        categories.retire(session, id_of(database, "billing"), actor="ada")
    assert "billing" not in names(database)
    assert categories_of(database) == ["billing"]
    with database.read() as session:
        assert not categories.any_to_move(session)
        [view] = [v for v in categories.counted(session) if v.category.name == "billing"]
        assert (view.num_open, view.num_all) == (1, 1)
    with database.write() as session:
        categories.bring_back(session, id_of(database, "billing"), actor="ada")
    assert "billing" in names(database)


def test_two_at_least_stay(database: Database) -> None:
    keep, also, *others = names(database)
    with database.write() as session:
        for name in others:
            categories.retire(session, id_of(database, name), actor="ada")
    for change in (
        lambda s: categories.retire(s, id_of(database, keep), actor="ada"),
        lambda s: categories.merge(s, id_of(database, keep), id_of(database, also), actor="ada"),
    ):
        with pytest.raises(ConflictError, match="at least 2 are needed"), database.write() as session:
            change(session)
    assert names(database) == [keep, also]


def test_conversations_follow_a_merge_in_batches(
    database: Database, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(database, "returns", deliver(*map(make_email, range(1, 6))))
    with database.write() as session:
        monkeypatch.setattr(categories, "move_merged", lambda session: 0)
        categories.merge(session, id_of(database, "returns"), id_of(database, "shipping"), actor="ada")
    monkeypatch.undo()
    assert categories_of(database) == ["returns"] * 5
    with database.write() as session:
        assert categories.any_to_move(session)
        assert categories.move_merged(session, limit=2) == 2
    assert sorted(categories_of(database)) == ["returns"] * 3 + ["shipping"] * 2
    with database.write() as session:
        assert categories.move_merged(session) == 3
        assert categories.move_merged(session) == 0
        assert not categories.any_to_move(session)
    with database.read() as session:
        assert len({c.version for c in session.exec(select(Conversation))}) == 1


def test_what_was_merged_before_follows_along(database: Database, deliver: Deliver) -> None:
    ids = deliver(make_email(1))
    with database.write() as session:
        categories.merge(session, id_of(database, "returns"), id_of(database, "shipping"), actor="ada")
        categories.merge(session, id_of(database, "shipping"), id_of(database, "other"), actor="ada")
    with database.read() as session:
        assert categories.merged_names(session) == {"returns": "other", "shipping": "other"}
    # A brief that was asked for under the old list comes late.
    give(database, "returns", ids)
    with database.write() as session:
        assert categories.move_merged(session) == 1
    assert categories_of(database) == ["other"]
    with pytest.raises(InvalidValueError, match="retired"), database.write() as session:
        categories.merge(session, id_of(database, "billing"), id_of(database, "returns"), actor="ada")
    with pytest.raises(InvalidValueError, match="itself"), database.write() as session:
        categories.merge(session, id_of(database, "other"), id_of(database, "other"), actor="ada")


def test_a_new_name_keeps_place_and_description(database: Database, deliver: Deliver) -> None:
    give(database, "returns", deliver(make_email(1)))
    before = names(database)
    with database.write() as session:
        old = categories.get(session, id_of(database, "returns"))
        row = categories.rename(session, old.id, "money back", actor="ada")
        assert row.description == old.description
    assert names(database) == [("money back" if n == "returns" else n) for n in before]
    assert categories_of(database) == ["money back"]
