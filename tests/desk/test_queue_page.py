"""The queue page: lists, filters, views, rows; and that nobody sees anything of a mailbox that is not theirs."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.schemas import Attachment
from briefbox.store import actions, conversations, mailboxes, presence, search, sla
from briefbox.tables import Mailbox, MailboxAccess, User, View
from tests.desk.conftest import Inbox, browser, person, session_for

HOSTILE = "<script>window.__xss=1</script>"
JSON = {"accept": "application/json"}


def text_of(client: TestClient, address: str = "/") -> str:
    """A page that works, with runs of spaces as one."""
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return " ".join(unescape(answer.text).split())


def shown(client: TestClient, address: str = "/") -> list[int]:
    """The conversations of a list, in its order."""
    return [int(id_) for id_ in re.findall(r'id="row-(\d+)"', client.get(address).text)]


def hrefs(page: str) -> list[str]:
    """Where a page leads to."""
    return [unescape(href) for href in re.findall(r'href="([^"]+)"', page)]


@pytest.fixture
def other(database: Database, inbox: Inbox) -> Mailbox:
    """A second mailbox."""
    with database.write() as session:
        row = Mailbox(
            name="billing",
            address="billing@larkspur.example",
            host="mail.larkspur.example",
            port=993,
            username="b",
        )
        return mailboxes.add(session, row, actor="test")


@pytest.fixture
def move(database: Database, other: Mailbox) -> Callable[[int], None]:
    """Puts a conversation and its mail into the second mailbox."""

    def moved(conversation_id: int) -> None:
        with database.write() as session:
            row = conversations.get(session, conversation_id)
            row.mailbox_id = other.id
            for email in conversations.emails(session, conversation_id):
                email.mailbox_id = other.id
                session.add(email)
            conversations.changed(session, row)

    return moved


@pytest.fixture
def rita(database: Database, inbox: Inbox) -> User:
    """An agent who sees the first mailbox only."""
    user = person(database, "rita@larkspur.example", "Rita")
    with database.write() as session:
        row = session.get_one(User, user.id)
        row.all_mailboxes = False
        session.add_all([row, MailboxAccess(user_id=user.id, mailbox_id=inbox.mailbox.id)])
    return user


@pytest.fixture
def as_rita(app: FastAPI, database: Database, rita: User) -> TestClient:
    """Her browser."""
    return browser(app, session_for(database, rita))


# --- rows


def test_a_row_says_what_an_agent_needs(
    inbox: Inbox, as_ana: TestClient, database: Database, ana: User
) -> None:
    attachments = (Attachment(name="a.pdf", type="application/pdf", size=1),) * 3
    number = inbox.receive(
        age=timedelta(minutes=100),
        attachments=attachments,
        brief={"priority": "urgent", "sure": 0.3, "instructions_found": True},
    )
    with database.write() as session:
        sla.set_target(session, "urgent", 60, "test")
        actions.assign(session, number, ana.id, user=ana)
    page = text_of(as_ana)
    for part in (
        "needs a human: priority, category",
        "addresses an assistant",
        '3<span class="unseen"> attached',
        "40 min overdue",
        "Ana has it",
        'class="sla late"',
        "1 h",
    ):
        assert part in page, part


def test_who_else_looks_at_it_is_said(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient, database: Database, ada: User
) -> None:
    number = inbox.receive()
    with database.write() as session:
        presence.here(session, number, session.get_one(User, ada.id), "", 1)
    assert '<bdi class="present-who">Ada</bdi> is here' in text_of(as_ana)
    assert 'class="present-who">Ada' not in as_ada.get("/").text


def test_no_target_no_clock(inbox: Inbox, as_ana: TestClient, database: Database) -> None:
    inbox.receive(brief={"priority": "low"})
    assert "due in" in text_of(as_ana)
    with database.write() as session:
        sla.set_target(session, "low", None, "test")
    assert "data-due" not in text_of(as_ana)


def test_a_mail_without_a_brief_is_marked(inbox: Inbox, as_ana: TestClient) -> None:
    inbox.give_up(inbox.receive("cannot be read"))
    assert "No brief could be written" in text_of(as_ana)


def test_each_list_has_its_own_order_and_time(
    inbox: Inbox, as_ana: TestClient, database: Database, ana: User
) -> None:
    first, second, open_ = inbox.receive("one"), inbox.receive("two"), inbox.receive("three")
    moment = datetime.now(UTC)
    with database.write() as session:
        actions.snooze(session, first, moment + timedelta(days=3), user=ana)
        actions.snooze(session, second, moment + timedelta(days=2), user=ana)
    assert shown(as_ana) == [open_]
    assert shown(as_ana, "/?state=snoozed") == [second, first]
    page = text_of(as_ana, "/?state=snoozed")
    assert "What comes back soonest stands first." in page
    assert "back</span> <time datetime=" in page
    with database.write() as session:
        for number in (first, second):
            conversations.finish(session, number, user=ana)
    assert shown(as_ana, "/?state=done") == [second, first]
    assert 'data-count="done">2<' in text_of(as_ana)


# --- filters


def test_filters_chips_and_how_they_come_off(
    inbox: Inbox, as_ana: TestClient, ana: User, database: Database
) -> None:
    mine = inbox.receive(brief={"priority": "high", "category": "refund"})
    inbox.receive(brief={"priority": "high", "category": "order"})
    urgent = inbox.receive(brief={"priority": "urgent", "category": "refund"})
    with database.write() as session:
        actions.assign(session, mine, ana.id, user=ana)
    assert shown(as_ana, "/?category=refund&priority=high") == [mine]
    assert shown(as_ana, "/?assigned=me") == [mine]
    assert urgent in shown(as_ana, "/?assigned=none")
    page = as_ana.get("/?category=refund&priority=high&assigned=me").text
    for without in (
        "/?priority=high&assigned=me",
        "/?category=refund&assigned=me",
        "/?priority=high&category=refund",
    ):
        assert without in hrefs(page)
    assert "Clear all" in page
    # The tabs keep the filter.
    assert "/?state=done&priority=high&category=refund&assigned=me" in hrefs(page)


def test_an_empty_list_says_why_and_what_to_do(inbox: Inbox, as_ana: TestClient) -> None:
    assert "Nobody is waiting." in text_of(as_ana)
    assert "Nothing is put off." in text_of(as_ana, "/?state=snoozed")
    assert "Clear all filters" in text_of(as_ana, "/?category=refund")
    assert "Nothing is found for “<bdi>nowhere</bdi>”" in text_of(as_ana, "/?q=nowhere")


def test_mail_is_searched(inbox: Inbox, as_ana: TestClient, database: Database) -> None:
    number = inbox.receive(
        "A broken lamp", "The shade is cracked", brief={"headline": "Lamp arrived damaged"}
    )
    inbox.receive("Something else")
    while search.index_pending(database):
        pass
    for word in ("lamp", "cracked", "damaged"):
        assert shown(as_ana, f"/?q={word}") == [number]
    assert "Search all mail" in text_of(as_ana, "/?q=lamp")


@pytest.mark.parametrize(
    "query", ["state=x", "assigned=abc", "priority=asap", "human=perhaps", "after=x", "q=" + "x" * 300]
)
def test_an_odd_address_is_answered_in_words(inbox: Inbox, as_ana: TestClient, query: str) -> None:
    answer = as_ana.get(f"/?{query}")
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


def test_pages_follow_each_other_by_key(inbox: Inbox, as_ana: TestClient) -> None:
    numbers = [
        inbox.receive(f"mail {n}", age=timedelta(minutes=200 - n), brief={"category": "order"})
        for n in range(53)
    ]
    first = as_ana.get("/?category=order").text
    [following] = [href for href in hrefs(first) if "after=" in href]
    assert following.startswith("/?category=order&after=")
    assert shown(as_ana, "/?category=order") + shown(as_ana, following) == numbers
    assert "Back to the first page" in as_ana.get(following).text


# --- views


def test_a_view_is_saved_shown_with_its_count_and_removed(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    inbox.receive(brief={"category": "refund"})
    page = text_of(as_ana, "/?category=refund")
    assert "Save this view" in page
    form = {"query": "category=refund", "name": HOSTILE, "shared": "1"}
    answer = as_ana.post("/views", data=form)
    assert answer.headers["location"] == "/?category=refund"
    [view] = inbox.all(View)
    for client in (as_ana, as_ada):
        page = client.get("/").text
        assert "<script>window" not in page
        assert '&lt;script&gt;window.__xss=1&lt;/script&gt;</bdi> <span class="count">1</span>' in page
    assert "Shared by Ana" in as_ada.get("/").text
    page = text_of(as_ana, "/?category=refund")
    assert "Remove this view for everybody" in page
    assert "Save this view" not in page
    assert as_ana.post(f"/views/{view.id}/remove").status_code == 303
    assert inbox.all(View) == []


def test_a_name_that_is_taken_is_refused_and_kept(as_ana: TestClient, inbox: Inbox) -> None:
    form = {"query": "category=refund", "name": "Refunds"}
    as_ana.post("/views", data=form)
    answer = as_ana.post("/views", data={**form, "query": "category=order", "shared": "1"})
    assert answer.status_code == 409
    page = unescape(answer.text)
    assert "You have a view “Refunds” already" in page
    assert 'value="Refunds"' in page
    assert len(inbox.all(View)) == 1


def test_nobody_removes_the_view_of_somebody_else(
    as_ana: TestClient, app: FastAPI, database: Database, inbox: Inbox
) -> None:
    as_ana.post("/views", data={"query": "category=refund", "name": "Refunds", "shared": "1"})
    [view] = inbox.all(View)
    eve = browser(app, session_for(database, person(database, "eve@larkspur.example", "Eve")))
    assert eve.post(f"/views/{view.id}/remove").status_code == 404
    assert "Remove this view" not in eve.get("/?category=refund").text
    assert len(inbox.all(View)) == 1


# --- mailboxes that somebody does not see


def test_nothing_of_a_mailbox_that_is_not_hers(
    inbox: Inbox,
    as_rita: TestClient,
    as_ana: TestClient,
    database: Database,
    move: Callable[[int], None],
    ada: User,
) -> None:
    seen = inbox.receive("A lamp for Rita", brief={"priority": "urgent"})
    hidden = inbox.receive(
        "A lamp for billing", brief={"priority": "urgent", "headline": "A hidden headline"}
    )
    move(hidden)
    while search.index_pending(database):
        pass
    with database.write() as session:
        presence.here(session, hidden, session.get_one(User, ada.id), "", 1)
    assert sorted(shown(as_ana)) == [seen, hidden]
    for address in ("/", "/?state=all", "/?q=lamp", "/?priority=urgent&assigned=none", "/?mailbox=2"):
        page = text_of(as_rita, address)
        assert "hidden headline" not in page
        assert f'id="row-{hidden}"' not in page
        assert 'data-count="open">1<' in page
        assert "billing" not in page.replace("/?category=billing", "").replace(
            "category:billing", ""
        ).replace(">billing</option>", "").replace(">billing</button>", "")
    assert shown(as_rita, "/?q=lamp") == [seen]
    assert as_rita.get(f"/conversations/{hidden}/row").status_code == 404
    for action, form in (("assign", {"to": "me"}), ("snooze", {"until": "tomorrow"}), ("done", {})):
        assert as_rita.post(f"/conversations/{hidden}/{action}", data=form).status_code == 404
    answer = as_rita.post("/bulk", data={"do": "done", "id": [str(seen), str(hidden)]}, headers=JSON).json()
    assert (answer["changed"], answer["failed"]) == (1, 1)
    assert inbox.get(hidden).state == "open"
    as_rita.post("/bulk", data={"do": "done", "all": "1", "query": "state=all"})
    assert inbox.get(hidden).state == "open"
