"""Split, merge, skip and brief after all, as a person does it in the desk."""

import re
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from briefbox.queue import Hints
from briefbox.schemas import Address, EmailKind
from briefbox.tables import AuditEntry, Conversation, Email
from tests.desk.conftest import Inbox

ANA = Address(name="Ana", address="ana@example.org")
JSON = {"accept": "application/json"}


@pytest.fixture(autouse=True)
def hinted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids that hints were sent for."""
    sent: list[int] = []
    monkeypatch.setattr(Hints, "brief", lambda _self, ids: sent.extend(ids) or True)
    return sent


@pytest.fixture
def thread(inbox: Inbox) -> int:
    """Three mails of Ana."""
    number = inbox.receive("Broken lamp", sender=ANA, message_id="a@x", brief={"headline": "A lamp"})
    for n, headline in ((2, "An invoice"), (1, "Any news")):
        inbox.receive(
            f"Re: {headline}",
            f"text of {headline}",
            sender=ANA,
            age=timedelta(seconds=-n),
            in_reply_to=("a@x",),
            brief={"headline": headline},
        )
    return number


def test_a_mail_is_split_off_and_merged_back(inbox: Inbox, thread: int, as_ana: TestClient) -> None:
    page = as_ana.get(f"/conversations/{thread}").text
    assert page.count("Split from here") == 3
    answer = as_ana.post(f"/conversations/{thread}/split", data={"email": "2", "with_later": ""})
    assert answer.status_code == 303
    new = answer.headers["location"].partition("?")[0]
    assert "conversation of its own" in as_ana.get(answer.headers["location"]).text
    assert [c.num_emails for c in inbox.all(Conversation)] == [2, 1]

    offered = as_ana.get(new).text
    assert f'name="into" value="{thread}"' in offered
    asked = as_ana.get(f"{new}/merge?into={thread}").text
    assert "Merge these two?" in asked
    assert "two customers" not in asked
    answer = as_ana.post(f"{new}/merge", data={"into": str(thread)})
    assert answer.headers["location"] == f"/conversations/{thread}?note=merged"
    page = as_ana.get(answer.headers["location"]).text
    assert "Take apart again" in page
    assert as_ana.get(new).headers["location"] == f"/conversations/{thread}?note=merged"
    assert {a.actor for a in inbox.all(AuditEntry) if a.action.startswith("conversation ")} == {
        "ana@larkspur.example"
    }


def test_a_merge_of_two_customers_says_so_and_is_undone(inbox: Inbox, as_ana: TestClient) -> None:
    one, other = inbox.receive("One"), inbox.receive("Other")
    asked = as_ana.get(
        f"/conversations/{one}/merge", params={"into": f" http://desk/conversations/{other}?note=x"}
    )
    assert "They are of two customers" in asked.text
    assert as_ana.post(f"/conversations/{one}/merge", data={"into": f"#{other}"}, headers=JSON).json() == {
        "ok": True,
        "conversation_id": other,
    }
    refused = as_ana.post(
        f"/conversations/{one}/correct", data={"field": "priority", "value": "low"}, headers=JSON
    )
    assert refused.status_code == 409
    assert f"merged into {other}" in refused.json()["error"]
    assert (
        as_ana.post(f"/conversations/{one}/unmerge").headers["location"].startswith(f"/conversations/{one}?")
    )
    assert [c.state for c in inbox.all(Conversation)] == ["open", "open"]


def test_a_correction_sent_to_a_merged_conversation_is_shown_beside_the_one_that_stands(
    inbox: Inbox, as_ana: TestClient
) -> None:
    one, other = inbox.receive("One"), inbox.receive("Other", brief={"headline": "The standing one"})
    as_ana.post(f"/conversations/{one}/merge", data={"into": str(other)})
    page = as_ana.post(f"/conversations/{one}/correct", data={"field": "headline", "value": "What I typed"})
    assert page.status_code == 409
    for shown in ("The standing one", "What I typed", f"merged into {other}"):
        assert shown in page.text


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/conversations/1/split", {"email": "x"}),
        ("/conversations/1/split", {"email": "1"}),
        ("/conversations/1/merge", {"into": "1"}),
        ("/conversations/1/merge", {"into": "99"}),
        ("/conversations/1/merge", {"into": "٣"}),
        ("/conversations/1/unmerge", {}),
        ("/emails/1/brief", {}),
        ("/emails/99/brief", {}),
        ("/emails/1/skip", {"kind": "customer", "reason": "x"}),
        ("/emails/1/skip", {"kind": "spam", "reason": " "}),
    ],
)
def test_what_cannot_be_done_is_answered_in_words_and_changes_nothing(
    inbox: Inbox, as_ana: TestClient, path: str, form: dict[str, str]
) -> None:
    inbox.receive("One", brief={})
    answer = as_ana.post(path, data=form)
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text
    assert [c.state for c in inbox.all(Conversation)] == ["open"]


@pytest.mark.parametrize(
    "path", ["/conversations/1/split", "/conversations/1/merge", "/emails/1/brief", "/emails/1/skip"]
)
def test_nobody_does_it_without_a_session_or_from_another_site(
    inbox: Inbox, nobody: TestClient, as_ana: TestClient, path: str
) -> None:
    inbox.receive("One")
    assert nobody.post(path).status_code in (303, 401)
    assert as_ana.post(path, headers={"sec-fetch-site": "cross-site"}).status_code == 403


# --- skipped mail


def test_skipped_mail_is_listed_with_its_reason_and_briefed_after_all(
    inbox: Inbox, as_ana: TestClient, hinted: list[int]
) -> None:
    inbox.receive("Twelve <b>offers</b>", kind=EmailKind.NEWSLETTER, kind_reason="List-Unsubscribe is set.")
    inbox.receive("Our own", kind=EmailKind.OWN, kind_reason="From is ours.")
    page = as_ana.get("/skipped").text
    for shown in ("Twelve &lt;b&gt;offers", "List-Unsubscribe is set.", "newsletter 1", "/skipped?kind=own"):
        assert shown in page
    assert "From is ours." not in page
    assert "From is ours." in as_ana.get("/skipped?kind=own").text
    assert "Nothing was skipped as spam" in as_ana.get("/skipped?kind=spam").text
    assert re.search(r'<a href="/skipped">skipped mail</a></dt><dd>1</dd>', as_ana.get("/status").text)

    answer = as_ana.post("/emails/1/brief", data={"stay": "yes"})
    assert "It waits for its brief in" in as_ana.get(answer.headers["location"]).text
    assert hinted == [1]
    assert inbox.all(Email)[0].work_state == "waiting"
    assert "Twelve" in as_ana.get("/").text
    assert as_ana.get("/skipped?kind=nonsense").status_code == 400


def test_a_long_list_of_skipped_mail_has_pages(inbox: Inbox, as_ana: TestClient) -> None:
    for number in range(53):
        inbox.receive(f"offer {number:02}", kind=EmailKind.NEWSLETTER)
    first = as_ana.get("/skipped?kind=newsletter").text
    found = re.search(r'href="(/skipped\?before=[^"]+)"', first)
    assert found is not None
    second = as_ana.get(found[1].replace("&amp;", "&")).text
    assert ("offer 52" in first, "offer 02" in first) == (True, False)
    assert ("offer 52" in second, "offer 02" in second, "Older" in second) == (False, True, False)


def test_a_mail_is_taken_out_of_the_queue_and_put_back(
    inbox: Inbox, as_ana: TestClient, hinted: list[int]
) -> None:
    number = inbox.receive("Cheap lamps", brief={"headline": "A sales pitch"})
    assert as_ana.post("/emails/1/skip", data={"kind": "spam", "reason": "a pitch"}).status_code == 303
    assert "A sales pitch" not in as_ana.get("/").text
    page = as_ana.get(f"/conversations/{number}").text
    assert "Spam, not briefed: By hand, by ana@larkspur.example: a pitch" in page
    assert as_ana.post("/emails/1/brief", headers=JSON).json() == {"ok": True, "conversation_id": number}
    assert hinted == [1]
    assert "Cheap lamps" in as_ana.get("/").text


def test_a_mail_of_our_own_shows_that_it_was_answered(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive("Broken lamp", sender=ANA, message_id="a@x", age=timedelta(hours=3), brief={})
    inbox.receive(
        "Re: Broken lamp",
        sender=Address(address="support@larkspur.example"),
        to=(ANA,),
        in_reply_to=("a@x",),
        kind=EmailKind.OWN,
        age=timedelta(hours=2),
    )
    assert "answered</span>" in as_ana.get("/?state=answered").text
    page = as_ana.get(f"/conversations/{number}").text
    for shown in ("answered by a mail of ours", "Sent by us"):
        assert shown in page
