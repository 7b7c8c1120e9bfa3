"""What is found by full text, and that no question is a wrong one."""

import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlmodel import col, select, update

from briefbox.db import Database
from briefbox.store import actions, conversations, queue, search
from briefbox.store import found as found_module
from briefbox.store.filters import Filter
from briefbox.store.search_words import Term, fold, question, words
from briefbox.tables import Brief, Conversation, Email, Mailbox, SearchPending, User
from tests.conftest import make_email

Deliver = Callable[..., list[int]]


def brief_of(email_id: int, conversation_id: int, **said: str) -> Brief:
    return Brief(
        email_id=email_id,
        conversation_id=conversation_id,
        headline=said.get("headline", "A customer asks"),
        summary=said.get("summary", "A customer asks something."),
        priority="normal",
        priority_confidence=0.9,
        category="other",
        category_confidence=0.9,
        engine="fake",
        base_model="fake",
        adapter=said.get("adapter", ""),
        prompt_version="1",
        created_at=datetime.now(UTC),
    )


def index(database: Database) -> None:
    while search.index_pending(database, limit=3):
        pass


def found(database: Database, text: str, **wanted: object) -> list[int]:
    """Conversations in their order, a few a page."""
    wanted = {"state": "", **wanted}
    ids: list[int] = []
    after = ""
    asked = Filter(text=text, **wanted)  # type: ignore[arg-type]
    with database.read() as session:
        for _ in range(100):
            page = queue.page(session, asked, after=after, limit=2)
            ids += [c.id for c in page.conversations]
            after = page.next
            if not after:
                return ids
    raise AssertionError("the pages have no end")


# --- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße ÀÉÎ Øre", "strasse aei øre"),
        ("İstanbul ΣΊΣΥΦΟΣ", "istanbul σισυφοσ"),
        ("ﬁn ① Ｆｕｌｌ", "fin 1 full"),
        ("プロ フロ", "プ ロ フ ロ"),
        ("订单 1001 한국", "订 单 1001 한 국"),
        ("order-1001, a_b's <x@y.org>", "order 1001 a b s x y org"),
        ("हिन्दी", "हनद"),
        ("", ""),
    ],
)
def test_texts_are_cut_into_the_same_words_everywhere(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected
    assert words(fold(text)) == words(text)


def test_a_question_is_words_phrases_and_beginnings() -> None:
    assert question("Refund Invoice").terms == (Term(("refund",)), Term(("invoice",), beginning=True))
    assert question("order 1001").terms[-1] == Term(("1001",)), "numbers are asked for as they stand"
    assert question('refund "not yet"').terms == (Term(("refund",)), Term(("not", "yet")))
    assert question("deliver* order-1001 ok").terms == (
        Term(("deliver",), beginning=True),
        Term(("order", "1001")),
        Term(("ok",)),
    )
    assert question("“smart quotes” 订单").terms == (Term(("smart", "quotes")), Term(("订", "单")))
    for nothing in ("", '"', "***", "AND", "-- ; ()"):
        assert all(term.words == ("and",) for term in question(nothing).terms)


# --- what is found


def test_subject_sender_text_and_brief_are_found(database: Database, deliver: Deliver) -> None:
    deliver(
        make_email(1, subject="Kühlschrank defekt", body="Er kühlt nicht mehr seit Montag.\n"),
        make_email(
            2,
            subject="Parcel",
            body="The parcel AB-77 was not yet delivered.\n",
            From="Zoë <zoe@example.net>",
        ),
        make_email(3, subject="包裹", body="我的订单还没有到。\n"),
    )
    assert found(database, "parcel") == []
    index(database)
    assert found(database, "kuhlschrank") == [1]
    assert found(database, "KÜHLSCHRANK montag") == [1]
    assert found(database, "zoe") == [2]
    assert found(database, "zoe@example.net") == [2]
    assert found(database, "ab-77") == [2]
    assert found(database, '"not yet"') == [2]
    assert found(database, '"yet not"') == []
    assert found(database, "deliv") == [2], "the last word may be the beginning of one"
    assert found(database, "deliv parcel") == []
    assert found(database, "deliv* parcel") == [2]
    assert found(database, "订单") == [3]
    assert found(database, "单订") == []
    assert found(database, "!!!") == []
    with database.write() as session:
        brief = brief_of(2, 2, headline="A lost shipment")
        session.add(brief)
        session.flush()
        conversations.show_brief(session, brief)
    index(database)
    assert found(database, "lost shipment") == [2]
    assert found(database, "ab-77") == [2]


def test_a_corrected_brief_is_found_by_its_new_words_and_undone_by_its_old_ones(
    database: Database, deliver: Deliver, ana: User
) -> None:
    deliver(make_email(1))
    with database.write() as session:
        brief = brief_of(1, 1, headline="Broken kettle")
        session.add(brief)
        session.flush()
        conversations.show_brief(session, brief)
    index(database)
    assert found(database, "kettle") == [1]
    with database.write() as session:
        conversations.correct(session, 1, "headline", "Broken toaster", user=ana)
    index(database)
    assert (found(database, "kettle"), found(database, "toaster")) == ([], [1])
    with database.write() as session:
        activity = actions.last_undoable(session, ana)
        assert activity is not None
        actions.undo(session, activity.id, user=ana)
    index(database)
    assert (found(database, "kettle"), found(database, "toaster")) == ([1], [])


def test_a_shadow_brief_is_not_found(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    with database.write() as session:
        brief = brief_of(1, 1, headline="Unseen kettle", adapter="other")
        brief.shadow = True
        session.add(brief)
        search.note(session, [1])
    index(database)
    assert found(database, "kettle") == []


def test_what_agents_wrote_before_any_brief_is_found(database: Database, deliver: Deliver, ana: User) -> None:
    deliver(make_email(1))
    with database.write() as session:
        conversations.correct(session, 1, "headline", "Written by hand", user=ana)
    index(database)
    assert found(database, "written by hand") == [1]


def test_a_conversation_is_found_once_by_its_newest_mail_over_all_pages(
    database: Database, deliver: Deliver
) -> None:
    # Conversation 1 has a matching mail at both ends.
    deliver(*(make_email(n, subject=f"Kettle {n}", body="About my kettle.\n") for n in range(1, 8)))
    deliver(
        make_email(
            9,
            subject="Re: Kettle 1",
            body="kettle!\n",
            In_Reply_To="<mail-1@example.org>",
            From="Customer 1 <customer1@example.org>",
        )
    )
    with database.read() as session:
        assert session.exec(select(Email.conversation_id).order_by(col(Email.id))).all() == [*range(1, 8), 1]
    index(database)
    assert found(database, "kettle") == [1, 7, 6, 5, 4, 3, 2]


def test_filters_add_to_a_question(database: Database, deliver: Deliver, ana: User) -> None:
    deliver(*(make_email(n, subject="Kettle") for n in range(1, 5)))
    with database.write() as session:
        conversations.finish(session, 2, user=ana)
        actions.assign(session, 3, ana.id, user=ana)
        session.exec(
            update(Conversation).where(col(Conversation.id) == 4).values(state="merged", merged_into=1)
        )
    index(database)
    assert found(database, "kettle") == [3, 2, 1]
    assert found(database, "kettle", assigned=str(ana.id)) == [3]
    with database.read() as session:
        done = queue.page(session, Filter(state="done", text="kettle"))
        assert [c.id for c in done.conversations] == [2]
        assert queue.count(session, Filter(state="", text="kettle")) == 3
        assert queue.count(session, Filter(state="", text="kettle"), cap=2) == 2


def test_a_search_looks_at_a_bounded_number_of_mails_and_says_where_to_go_on(
    database: Database, deliver: Deliver, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found_module, "MAX_MATCHES", 3)
    monkeypatch.setattr(search, "_FIRST_BATCH", 2)
    monkeypatch.setattr(queue, "MAX_FEW", 0)
    monkeypatch.setattr(search, "_SMALL", 2)
    monkeypatch.setattr(search, "_LARGE", 4)
    deliver(*(make_email(n, subject="Kettle") for n in range(1, 31)))
    with database.write() as session:
        actions.assign(session, 1, ana.id, user=ana)
        search.write_entries(session, range(1, 31))
    assert found(database, "kettle", assigned=str(ana.id)) == [1]
    assert found(database, "kettle") == [*range(30, 0, -1)]
    monkeypatch.setattr(found_module, "MAX_MATCHES", 900)
    monkeypatch.setattr(search, "MAX_RARE", 2)
    monkeypatch.setattr(search, "MAX_SINGLY", 4)
    monkeypatch.setattr(search, "_SINGLY", 2)
    assert found(database, "kettle") == [*range(30, 0, -1)]
    monkeypatch.setattr(queue, "MAX_FEW", 9)
    assert found(database, "kettle", assigned=str(ana.id)) == [1]
    assert found(database, "kettle", assigned=str(ana.id), state="open") == [1]
    assert found(database, "kett", assigned=str(ana.id), state="open") == [1]
    monkeypatch.setattr(queue, "MAX_FEW", 900)
    assert found(database, "kettle", state="open", assigned="none") == [*range(30, 1, -1)]
    assert found(database, "30") == [30]
    assert found(database, "1001") == [1]


def test_odd_places_are_refused_in_words(database: Database) -> None:
    with database.read() as session:
        for after in ("x", "-1", "1-2", "9" * 40, "²"):
            with pytest.raises(queue.InvalidValueError, match="no place in this list"):
                queue.page(session, Filter(text="kettle"), after=after)


def test_no_question_is_a_wrong_one(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1, subject="NEAR the OR gate", body="a AND b NOT c: x^2 {y}\n"))
    index(database)
    chance = random.Random(7)
    pieces = [
        *"\"*()^:{}+-~&|!<>\\'%_;,.\0 \t\n",
        "AND",
        "OR",
        "NOT",
        "NEAR(",
        "subject:",
        ":*",
        "<->",
        "''",
        "é",
        "订",
        "\U0001f600",
        "\ud7ff",
        "٣",
        "ǅ",
        "a",
        "b",
        "1",
    ]
    with database.read() as session:
        for _ in range(400):
            text = "".join(chance.choices(pieces, k=chance.randint(1, 12)))
            queue.page(session, Filter(state="", text=text.replace("\0", "") or "x"), limit=3)
    assert found(database, "NEAR the OR gate AND NOT") == [1]
    assert found(database, "subject:gate") == []


# --- the notes


def test_entries_are_written_once_whoever_asks_and_however_often(
    database: Database, deliver: Deliver, mailbox: Mailbox
) -> None:
    deliver(*(make_email(n, subject="Kettle") for n in range(1, 6)))
    assert search.index_pending(database, limit=3)
    assert not search.index_pending(database, limit=3)
    assert not search.index_pending(database)
    with database.write() as session:
        search.note(session, [1, 1, 2])
    index(database)
    with database.read() as session:
        assert session.exec(select(SearchPending)).all() == []
    assert found(database, "kettle") == [5, 4, 3, 2, 1]


def test_nothing_is_noted_where_the_transaction_fails(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    index(database)
    with pytest.raises(ZeroDivisionError), database.write() as session:
        search.note(session, [1])
        _ = 1 / 0
    with database.read() as session:
        assert session.exec(select(SearchPending)).all() == []


def test_very_long_mail_is_found_by_its_beginning(database: Database, deliver: Deliver) -> None:
    body = "first " + " ".join(f"w{n}" for n in range(30_000)) + " last\n"
    deliver(make_email(1, body=body), make_email(2, body="x" * 5_000 + "\n"))
    index(database)
    assert found(database, "first w1") == [1]
    assert found(database, "w29999") == []
    assert found(database, "x" * 5_000) == [2]
