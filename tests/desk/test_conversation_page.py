"""The conversation page: corrections in place, two agents at once, notes, history, states, next and back."""

import re
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.schemas import Address, EmailKind
from briefbox.store import presence
from briefbox.tables import Activity, Confirmation, Correction, Email, Note, Presence, User
from tests.desk.conftest import Inbox

HOSTILE = "<script>window.__xss=1</script>\u202e<img src=x onerror=alert(1)>"
JSON = {"accept": "application/json"}
VERA = Address(name="Vera", address="vera@example.org")


def shown(client: TestClient, address: str) -> str:
    """The page as text of one line."""
    answer = client.get(address)
    while answer.status_code == 303:
        answer = client.get(answer.headers["location"])
    assert answer.status_code == 200, answer.text[:500]
    return " ".join(answer.text.split())


def later_brief(inbox: Inbox, number: int, **brief: str) -> None:
    """A newer mail of the same customer, and its brief."""
    first = next(email for email in inbox.all(Email) if email.conversation_id == number)
    inbox.receive("Again", sender=VERA, in_reply_to=(first.message_id,), age=-timedelta(seconds=5))
    newest = inbox.all(Email)[-1]
    assert newest.conversation_id == number
    inbox.brief(newest.id, **brief)


# --- corrections


def test_the_models_value_stays_struck_through_after_two_agents(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    number = inbox.receive(brief={"headline": "The model's"})
    form = {"field": "headline", "value": "Ana's", "reason": "misses the point"}
    as_ana.post(f"/conversations/{number}/correct", data=form)
    as_ada.post(f"/conversations/{number}/correct", data={**form, "value": "Ada's", "reason": "too long"})
    page = shown(as_ana, f"/conversations/{number}")
    assert '<s dir="auto">The model&#39;s</s>' in page
    assert re.search(r"corrected by <bdi>Ada</bdi>.{0,300}<bdi>too long</bdi>", page)
    assert re.search(r"1 earlier.{0,200}<s dir=\"auto\">Ana&#39;s</s>.{0,300}misses the point", page)


def test_the_five_reasons_are_offered_and_older_ones_stay_readable(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    page = shown(as_ana, f"/conversations/{number}")
    for reason in ("wrong", "too long", "too short", "misses the point", "wrong language"):
        assert f"<option >{reason}</option>" in page
    form = {"field": "summary", "value": "Better", "reason": "something is missing"}
    as_ana.post(f"/conversations/{number}/correct", data=form)
    assert "<bdi>something is missing</bdi>" in shown(as_ana, f"/conversations/{number}")


def test_a_correction_is_undone_by_the_button_beside_saved(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={"priority": "normal"})
    answer = as_ana.post(f"/conversations/{number}/correct", data={"field": "priority", "value": "urgent"})
    page = shown(as_ana, answer.headers["location"])
    assert "Saved. It will be used in the next training." in page
    found = re.search(r'id="note">.*?name="activity" value="(\d+)".*?name="back" value="([^"]+)"', page)
    assert found is not None
    answer = as_ana.post("/undo", data={"activity": found[1], "back": found[2]})
    assert answer.headers["location"] == f"/conversations/{number}"
    row = inbox.get(number)
    assert (row.priority, row.touched, row.priority_rank) == ("normal", [], 2)
    page = shown(as_ana, f"/conversations/{number}")
    assert "undone" in page
    assert 'data-key="z"' not in page
    assert [c.undone_at is not None for c in inbox.all(Correction)] == [True]


def test_a_later_brief_is_a_suggestion_that_is_taken_or_dismissed(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(sender=VERA, brief={"headline": "First", "summary": "One."})
    for field in ("headline", "summary"):
        as_ana.post(f"/conversations/{number}/correct", data={"field": field, "value": f"Ana's {field}"})
    later_brief(inbox, number, headline="Second", summary="Two.")
    page = shown(as_ana, f"/conversations/{number}")
    assert "Ana&#39;s headline" in page
    assert 'The brief of a newer mail says:</span> <span dir="auto">Second</span>' in page
    as_ana.post(f"/conversations/{number}/correct", data={"field": "headline", "value": "Second"})
    as_ana.post(f"/conversations/{number}/dismiss", data={"field": "summary"})
    row = inbox.get(number)
    assert (row.headline, row.summary, row.suggestion) == ("Second", "Ana's summary", {})
    page = shown(as_ana, f"/conversations/{number}")
    assert "The brief of a newer mail says" not in page
    assert "kept the summary against a newer brief" in page
    # Dismissing is undone as well, and nothing is dismissed twice.
    assert as_ana.post(f"/conversations/{number}/dismiss", data={"field": "summary"}).status_code == 404
    as_ana.post("/undo")
    assert inbox.get(number).suggestion == {"summary": "Two."}


def test_undoing_a_correction_brings_what_the_newest_brief_says(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(sender=VERA, brief={"headline": "First"})
    as_ana.post(f"/conversations/{number}/correct", data={"field": "headline", "value": "Ana's"})
    later_brief(inbox, number, headline="Second")
    as_ana.post("/undo")
    row = inbox.get(number)
    assert (row.headline, row.touched, row.suggestion) == ("Second", [], {})


def test_right_as_it_is_says_nothing_of_a_brief_that_nobody_saw(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(sender=VERA, brief={"headline": "First"})
    seen = inbox.get(number).brief_id
    later_brief(inbox, number, headline="Second")
    answer = as_ana.post(f"/conversations/{number}/confirm", data={"brief": str(seen)})
    assert answer.status_code == 409
    assert "A newer mail was briefed in the meantime" in answer.text
    assert inbox.all(Confirmation) == []
    assert as_ana.post(f"/conversations/{number}/confirm", data={"brief": "x"}).status_code == 303


# --- two agents at once


def test_the_second_writer_gets_both_versions_and_decides(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    number = inbox.receive(brief={"summary": "Old."})
    form = {"field": "summary", "before": "Old.", "reason": "too short"}
    as_ada.post(f"/conversations/{number}/correct", data={**form, "value": "Ada's."})
    answer = as_ana.post(f"/conversations/{number}/correct", data={**form, "value": "Ana's."})
    assert answer.status_code == 409
    page = " ".join(answer.text.split())
    assert "Summary: two versions" in page
    assert "<bdi>Ada</bdi> changed it while you were writing" in page
    clash = page[page.index('id="clash"') : page.index('class="brief"')]
    assert "Ada&#39;s." in clash
    assert "Ana&#39;s.</textarea>" in clash
    assert "<option selected>too short</option>" in clash
    assert inbox.get(number).summary == "Ada's."
    before = re.search(r'name="before" value="([^"]*)"', clash)
    key = re.search(r'name="idempotency_key" value="([^"]*)"', clash)
    assert before is not None
    assert key is not None
    again = {**form, "value": "Ana's.", "before": before[1].replace("&#39;", "'"), "idempotency_key": key[1]}
    assert as_ana.post(f"/conversations/{number}/correct", data=again).status_code == 303
    assert inbox.get(number).summary == "Ana's."


def test_two_who_say_the_same_do_not_clash(inbox: Inbox, as_ana: TestClient, as_ada: TestClient) -> None:
    number = inbox.receive(brief={"priority": "low"})
    form = {"field": "priority", "value": "high", "before": "low"}
    for client in (as_ada, as_ana):
        assert client.post(f"/conversations/{number}/correct", data=form).status_code == 303
    assert len(inbox.all(Correction)) == 1
    answer = as_ana.post(f"/conversations/{number}/correct", data={**form, "value": "urgent"})
    assert answer.status_code == 409
    assert "Priority: two versions" in answer.text


def test_who_else_is_here_and_what_they_write(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient, ana: User, database: Database
) -> None:
    number = inbox.receive(brief={})
    here = f"/conversations/{number}/here"
    assert as_ana.post(here, data={"editing": "", "seconds": "0"}).json() == {"others": []}
    told = as_ada.post(here, data={"editing": "summary", "seconds": "not a number"}).json()
    assert told == {"others": [{"name": "Ana", "doing": "is here"}]}
    assert as_ana.post(here).json() == {"others": [{"name": "Ada", "doing": "is editing the summary"}]}
    assert as_ada.post(here, data={"editing": "note"}).status_code == 200
    assert "<bdi>Ada</bdi> is writing a note" in shown(as_ana, f"/conversations/{number}")
    assert as_ana.post("/conversations/999/here").status_code == 404
    assert "agents’ time" not in shown(as_ana, f"/conversations/{number}")
    with database.write() as session:
        presence.here(session, number, ana, "", 0)
        row = session.get_one(Presence, 1)
        row.seconds = 3900.0
        session.add(row)
    assert "1 h 5 min of agents’ time so far" in shown(as_ana, f"/conversations/{number}")


# --- notes, history, states


def test_a_note_stands_between_the_mails_and_is_no_mail(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(text="The mail.", brief={})
    answer = as_ana.post(f"/conversations/{number}/note", data={"text": f"Call him.\n{HOSTILE}"})
    page = shown(as_ana, answer.headers["location"])
    assert "Noted. Only agents see it." in page
    note = page[page.index('class="agent-note"') :]
    assert "only agents see this" in note
    assert "Call him. &lt;script&gt;" in note
    assert note.index("Call him.") < note.index("The mail.")
    assert "<script>window" not in page


@pytest.mark.parametrize("text", ["", "   ", "x" * 10_001])
def test_a_note_that_is_none_is_refused_and_kept(inbox: Inbox, as_ana: TestClient, text: str) -> None:
    number = inbox.receive(brief={})
    answer = as_ana.post(f"/conversations/{number}/note", data={"text": text})
    assert answer.status_code == 400
    assert "expected 1 to 10,000" in answer.text
    assert text in answer.text
    assert inbox.all(Note) == []
    assert as_ana.post(f"/conversations/{number}/note", data={"text": text}, headers=JSON).status_code == 400


def test_the_history_says_who_did_what(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient, ana: User, ada: User
) -> None:
    number = inbox.receive(brief={"priority": "low"})
    base = f"/conversations/{number}"
    as_ana.post(f"{base}/assign", data={"to": str(ada.id)})
    as_ada.post(f"{base}/assign", data={"to": "me"})
    as_ana.post(f"{base}/assign", data={"to": "me"})
    as_ana.post(f"{base}/correct", data={"field": "priority", "value": "high"})
    as_ana.post(f"{base}/snooze", data={"until": "tomorrow"})
    as_ada.post(f"{base}/done")
    as_ada.post(f"{base}/reopen")
    page = shown(as_ana, base)
    for said in (
        "<bdi>Ana</bdi> gave it to <bdi>Ada</bdi>",
        "<bdi>Ana</bdi> took it",
        "set the priority to <bdi>high</bdi>",
        "(was <bdi>low</bdi>)",
        "put it off until <bdi>tomorrow 09:00</bdi>",
        "<bdi>Ada</bdi> finished it",
        "<bdi>Ada</bdi> put it back into the queue",
        "5 more",
    ):
        assert said in page, said
    assert "You have it." in page


def test_what_was_said_of_a_merged_conversation_belongs_to_the_other(
    inbox: Inbox, as_ana: TestClient, ana: User, database: Database
) -> None:
    one, other = inbox.receive("One", brief={}), inbox.receive("Other", brief={})
    as_ana.post(f"/conversations/{one}/note", data={"text": "Said of the one."})
    as_ana.post(f"/conversations/{one}/assign", data={"to": "me"})
    as_ana.post(f"/conversations/{one}/merge", data={"into": str(other)})
    page = shown(as_ana, f"/conversations/{other}")
    assert "Said of the one." in page
    assert f"merged into this <bdi>number {one}</bdi>" in page
    assert "<bdi>Ana</bdi> took it" in page
    as_ana.post(f"/conversations/{one}/unmerge")
    assert "Said of the one." not in shown(as_ana, f"/conversations/{other}")
    assert "Said of the one." in shown(as_ana, f"/conversations/{one}")


def test_states_are_said_with_what_can_be_done(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    base = f"/conversations/{number}"
    page = shown(as_ana, base)
    assert "Put back into the queue" not in page
    assert "Tomorrow, 09:00" in page
    as_ana.post(f"{base}/snooze", data={"until": "tomorrow"})
    page = shown(as_ana, base)
    assert "put off until tomorrow 09:00" in page
    assert "Put back into the queue" in page
    as_ana.post(f"{base}/done")
    page = shown(as_ana, base)
    assert "done by <bdi>Ana</bdi>" in page
    assert ">Done <kbd>" not in page


def test_our_own_mail_is_told_apart(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(sender=VERA, message_id="a@x", brief={}, age=timedelta(hours=2))
    ours = Address(name="Support", address="support@larkspur.example")
    inbox.receive("Re: it", "On its way.", sender=ours, to=(VERA,), kind=EmailKind.OWN, in_reply_to=("a@x",))
    page = shown(as_ana, f"/conversations/{number}")
    assert 'class="mail ours"' in page
    assert "Sent by us" in page
    assert "answered by a mail of ours" in page


# --- next and back


@pytest.fixture
def three(inbox: Inbox) -> list[int]:
    """Three that wait, the first one longest."""
    return [
        inbox.receive(f"mail {n}", age=timedelta(hours=5 - n), brief={"headline": f"Headline {n}"})
        for n in range(3)
    ]


def test_next_and_previous_are_those_of_the_list(three: list[int], as_ana: TestClient) -> None:
    page = as_ana.get(f"/conversations/{three[1]}?from=/?priority=normal").text
    assert f'href="/conversations/{three[0]}?from=%2F%3Fpriority%3Dnormal" data-key="k"' in page
    assert f'href="/conversations/{three[2]}?from=%2F%3Fpriority%3Dnormal" data-key="j"' in page
    assert 'href="/?priority=normal" data-key="u"' in page
    page = as_ana.get(f"/conversations/{three[1]}?from=/?priority=urgent").text
    assert 'data-key="j"' not in page
    page = as_ana.get(f"/conversations/{three[2]}").text
    assert f'href="/conversations/{three[1]}" data-key="k"' in page
    assert 'data-key="j"' not in page


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/account",
        "/?state=nonsense",
        "x",
        "/\n",
        "?x",
    ],
)
def test_a_list_is_never_another_page(three: list[int], as_ana: TestClient, address: str) -> None:
    page = as_ana.get(f"/conversations/{three[0]}", params={"from": address})
    assert page.status_code == 200
    assert 'href="/" data-key="u"' in page.text
    answer = as_ana.post(f"/conversations/{three[0]}/done", data={"from": address})
    assert answer.headers["location"] == f"/?done={three[0]}"


def test_the_list_is_known_from_where_the_link_was(three: list[int], as_ana: TestClient) -> None:
    here = {"referer": "http://testserver/?assigned=none&did=3"}
    page = as_ana.get(f"/conversations/{three[0]}", headers=here).text
    assert 'href="/?assigned=none" data-key="u"' in page
    page = as_ana.get(
        f"/conversations/{three[0]}", headers={"referer": "http://evil.example/?state=done"}
    ).text
    assert 'href="/" data-key="u"' in page


def test_after_done_the_next_one_of_the_list_follows(
    three: list[int], inbox: Inbox, as_ana: TestClient
) -> None:
    answer = as_ana.post(f"/conversations/{three[0]}/done", data={"from": "/?assigned=none"})
    location = answer.headers["location"]
    assert location.startswith(f"/conversations/{three[1]}?from=%2F%3Fassigned%3Dnone&did=")
    page = shown(as_ana, location)
    assert "Done: “Headline 0”." in page
    found = re.search(r'name="activity" value="(\d+)"><input type="hidden" name="back" value="([^"]+)"', page)
    assert found is not None
    answer = as_ana.post("/undo", data={"activity": found[1], "back": found[2].replace("&amp;", "&")})
    assert answer.headers["location"].startswith(f"/conversations/{three[0]}?from=")
    assert inbox.get(three[0]).state == "open"
    for number in three:
        answer = as_ana.post(f"/conversations/{number}/done", data={"from": "/?assigned=none"})
    assert answer.headers["location"] == f"/?assigned=none&done={three[-1]}"


def test_nothing_of_the_page_is_seen_without_its_mailbox(
    inbox: Inbox, as_ana: TestClient, ana: User, database: Database
) -> None:
    number = inbox.receive(brief={})
    with database.write() as session:
        row = session.get_one(User, ana.id)
        row.all_mailboxes = False
        session.add(row)
    assert as_ana.get(f"/conversations/{number}").status_code == 404
    for name in ("correct", "confirm", "note", "done", "reopen", "dismiss", "here"):
        assert as_ana.post(f"/conversations/{number}/{name}", data={"text": "x"}).status_code == 404
    for name in ("original", "attachments/0"):
        assert as_ana.get(f"/emails/1/{name}").status_code == 404
    assert inbox.all(Activity) == []
