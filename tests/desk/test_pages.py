"""Each page: works, refuses who has no session, answers odd input in words, escapes what strangers wrote."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.schemas import Attachment, Grounding, Omission, Sentence
from briefbox.store import alerts, conversations, mailboxes, passwords, users
from briefbox.tables import Brief, Confirmation, Correction, User
from tests.desk.conftest import Inbox, browser

HOSTILE = "<script>window.__xss=1</script><img src=x onerror=alert(1)>"
PUBLIC = {
    "/sign-in",
    "/link/{token}",
    "/healthz",
    "/favicon.ico",
    "/static",
    "/api/v1",
}  # the API has keys of its own
JSON = {"accept": "application/json"}


def test_the_queue_shows_what_an_agent_needs_in_its_order(inbox: Inbox, as_ana: TestClient) -> None:
    inbox.receive("calm", brief={"headline": "A calm one", "priority": "low"})
    inbox.receive(
        "new", age=timedelta(hours=3), brief={"headline": "A burning one", "priority": "urgent", "sure": 0.3}
    )
    inbox.receive("waits for its brief")
    page = as_ana.get("/").text
    assert page.index("A burning one") < page.index("A calm one") < page.index("waits for its brief")
    for shown in ("Most urgent first", "needs a human", "Customer 1", "3 h"):
        assert shown in page


def test_a_long_queue_has_pages_by_key(inbox: Inbox, as_ana: TestClient) -> None:
    for number in range(60):
        inbox.receive(f"mail {number:02}", age=timedelta(minutes=60 - number))
    first = as_ana.get("/").text
    found = re.search(r'href="(/?\?[^"]*after=[^"]+)"', first)
    assert found is not None
    second = as_ana.get("/" + found[1].lstrip("/").replace("&amp;", "&")).text
    assert "mail 00" in first
    assert "mail 59" not in first
    assert "mail 59" in second


@pytest.mark.parametrize(
    "address",
    ["/?state=nonsense", "/?after=nonsense", "/conversations/999", "/conversations/abc", "/nowhere"],
)
def test_odd_input_is_answered_in_words(as_ana: TestClient, address: str) -> None:
    answer = as_ana.get(address)
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


def test_the_conversation_shows_brief_and_mail(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(
        text="Hello, where is order 1001?\n\n> quoted history",
        reply="Hello, where is order 1001?",
        brief={"cut": True},
    )
    page = as_ana.get(f"/conversations/{number}").text
    for shown in ("Customer asks where an order is", "where is order 1001", "fake-model", "Right as it is"):
        assert shown in page


def test_an_attachment_that_stayed_on_the_server_says_so(inbox: Inbox, as_ana: TestClient) -> None:
    attachments = (
        Attachment(name="film.mp4", type="video/mp4", size=12_400_000, section="2"),
        Attachment(name="bill.pdf", type="application/pdf", size=20_000),
    )
    number = inbox.receive(attachments=attachments, warnings=("attachments stayed on the mail server",))
    page = as_ana.get(f"/conversations/{number}").text
    assert page.count("stayed on the mail server (12.4 MB)") == 1
    assert page.count("attachments stayed on the mail server") == 1


def test_a_correction_is_stored_and_the_models_value_stays_visible(
    inbox: Inbox, as_ana: TestClient, ana: User
) -> None:
    number = inbox.receive(brief={"priority": "normal"})
    form = {
        "field": "priority",
        "value": "urgent",
        "before": "normal",
        "idempotency_key": "k1",
        "reason": "an outage",
    }
    answer = as_ana.post(f"/conversations/{number}/correct", data=form)
    assert answer.status_code == 303
    [row] = inbox.all(Correction)
    assert (row.before, row.after, row.user_id, row.reason) == ("normal", "urgent", ana.id, "an outage")
    assert inbox.get(number).touched == ["priority"]
    assert re.search(r"<(s|del)\b[^>]*>\s*[^<]*normal", as_ana.get(f"/conversations/{number}").text)


def test_the_second_of_two_agents_sees_the_newer_version(
    inbox: Inbox, as_ana: TestClient, as_ada: TestClient
) -> None:
    number = inbox.receive(brief={"headline": "Old"})
    first = {"field": "headline", "value": "Ada's", "before": "Old"}
    assert as_ada.post(f"/conversations/{number}/correct", data=first).status_code == 303
    answer = as_ana.post(f"/conversations/{number}/correct", data={**first, "value": "Ana's"})
    assert answer.status_code == 409
    assert "Ada&#39;s" in answer.text
    assert "Ana&#39;s" in answer.text
    assert inbox.get(number).headline == "Ada's"


def test_wrong_values_are_refused_in_words(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    for form in ({"field": "priority", "value": "asap"}, {"field": "state", "value": "done"}, {}):
        answer = as_ana.post(f"/conversations/{number}/correct", data=form, headers=JSON)
        assert answer.status_code in (400, 409, 422)
        assert "error" in answer.json()
    assert inbox.all(Correction) == []


def test_right_done_and_reopen(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    assert as_ana.post(f"/conversations/{number}/confirm", headers=JSON).json()["ok"] is True
    assert as_ana.post(f"/conversations/{number}/done").status_code == 303
    assert {c.strength for c in inbox.all(Confirmation)} == {"strong", "weak"}
    assert inbox.get(number).state == "done"
    assert "Customer asks" in as_ana.get("/?state=done").text
    as_ana.post(f"/conversations/{number}/reopen")
    assert inbox.get(number).state == "open"


def test_what_strangers_wrote_is_text_everywhere(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(HOSTILE, HOSTILE, brief={"headline": HOSTILE, "summary": HOSTILE})
    for address in ("/", f"/conversations/{number}"):
        page = as_ana.get(address).text
        assert "<script>window" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;" in page


def test_who_is_not_signed_in_is_led_to_the_form(nobody: TestClient) -> None:
    # That no route answers without a session is test_access.py, for every route there is.
    assert nobody.get("/").headers["location"].startswith("/sign-in")


def test_nothing_is_changed_by_get(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(brief={})
    for action in ("correct", "confirm", "done", "reopen"):
        assert as_ana.get(f"/conversations/{number}/{action}").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_request_from_another_site_is_refused(
    inbox: Inbox, as_ana: TestClient, headers: dict[str, str]
) -> None:
    number = inbox.receive(brief={})
    assert as_ana.post(f"/conversations/{number}/done", headers=headers).status_code == 403
    assert inbox.get(number).state == "open"


def test_every_answer_carries_the_protecting_headers(as_ana: TestClient, nobody: TestClient) -> None:
    for answer in (as_ana.get("/"), nobody.get("/sign-in"), nobody.get("/nowhere")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin")


def test_health_needs_no_session_and_says_when_the_database_is_away(
    app: FastAPI, nobody: TestClient, database: Database
) -> None:
    assert nobody.get("/healthz").status_code == 200
    database.close()
    path = Path(database.address.removeprefix("sqlite:///"))
    path.unlink()
    path.mkdir()
    answer = browser(app).get("/healthz")
    assert answer.status_code == 503
    assert "Traceback" not in answer.text


def test_the_status_page_tells_mailboxes_and_dead_letters(inbox: Inbox, as_ada: TestClient) -> None:
    inbox.give_up(inbox.receive())
    page = as_ada.get("/status").text
    assert "support" in page
    assert "the model ran out of memory" in page


def test_a_removed_mailbox_is_not_among_those_that_are_read(
    inbox: Inbox, as_ada: TestClient, database: Database
) -> None:
    with database.write() as session:
        removed = mailboxes.remove(session, "support", actor="test")
    page = as_ada.get("/status").text
    assert removed.name not in page
    assert "No mailbox is connected yet" in page


def test_a_link_signs_in_once_and_looking_does_not_use_it_up(
    nobody: TestClient, database: Database, ana: User
) -> None:
    with database.write() as session:
        token = users.new_link(session, ana)
    for _ in range(2):  # mail scanners look at links
        assert "Ana" in nobody.get(f"/link/{token}").text
    answer = nobody.post(f"/link/{token}")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert nobody.get("/").status_code == 200
    assert nobody.post(f"/link/{token}").status_code == 404


def test_signing_in_and_out(nobody: TestClient, database: Database, ana: User) -> None:
    with database.write() as session:
        token = users.new_link(session, ana)
    assert nobody.post(f"/link/{token}", data={"password": "short"}).status_code == 400
    assert nobody.post(f"/link/{token}", data={"password": "correct horse battery"}).status_code == 303
    assert nobody.post("/sign-out").status_code == 303
    assert nobody.get("/").status_code == 303
    wrong = {"email": ana.email, "password": "wrong wrong wrong"}
    assert nobody.post("/sign-in", data=wrong).status_code == 401
    assert nobody.post("/sign-in", data={**wrong, "password": "correct horse battery"}).status_code == 303
    assert nobody.get("/").status_code == 200


def test_guessing_is_throttled(nobody: TestClient, ana: User) -> None:
    codes = {
        nobody.post("/sign-in", data={"email": ana.email, "password": f"guess number {n}"}).status_code
        for n in range(30)
    }
    assert codes == {401, 429}


def test_a_sign_in_never_leads_to_another_site(nobody: TestClient, database: Database, ana: User) -> None:
    with database.write() as session:
        passwords.set_password(session, users.get(session, ana.email), "correct horse battery")
    for target in ("https://evil.example", "//evil.example", "/\\evil.example"):
        answer = nobody.post(
            "/sign-in", data={"email": ana.email, "password": "correct horse battery", "next": target}
        )
        assert answer.headers["location"] == "/"


# --- what a brief says beside its values


def _page(client: TestClient, number: int) -> str:
    """The conversation's page, with runs of spaces as one."""
    return " ".join(client.get(f"/conversations/{number}").text.split())


def test_a_foreign_language_is_named_and_the_usual_one_is_not(inbox: Inbox, as_ana: TestClient) -> None:
    usual = [inbox.receive(brief={"language": "en"}) for _ in range(2)]
    german = inbox.receive(brief={"language": "de"})
    unknown = inbox.receive(brief={"language": ""})
    assert "written in German" in _page(as_ana, german)
    for number in (*usual, unknown):
        assert "written in" not in _page(as_ana, number)


def test_confidence_is_shown_only_where_it_is_low_or_unknown(inbox: Inbox, as_ana: TestClient) -> None:
    sure, doubtful, unknown = (inbox.receive(brief={"sure": sure}) for sure in (0.9, 0.3, None))
    assert "confidence" not in _page(as_ana, sure)
    assert "needs a human" not in _page(as_ana, sure)
    assert "the model is 30 % sure" in _page(as_ana, doubtful)
    page = _page(as_ana, unknown)
    assert page.count("confidence unknown") == 2
    assert "needs a human" not in page
    assert "does not tell how likely" in page
    as_ana.post(f"/conversations/{unknown}/correct", data={"field": "priority", "value": "urgent"})
    assert _page(as_ana, unknown).count("confidence unknown") == 1
    assert as_ana.get("/").status_code == 200


def test_a_quotation_is_called_one_until_it_is_corrected(inbox: Inbox, as_ana: TestClient) -> None:
    number = inbox.receive(
        brief={"headline": "where is my order", "grounding": Grounding(quoted=("headline",))}
    )
    assert _page(as_ana, number).count("quoted from the email") == 1
    as_ana.post(f"/conversations/{number}/correct", data={"field": "headline", "value": "Order 1001 is late"})
    assert "quoted from the email" not in _page(as_ana, number)


def test_what_the_model_did_not_read_is_said(inbox: Inbox, as_ana: TestClient) -> None:
    omitted = (
        Omission(part="newest", emails=1, tokens=4000),
        Omission(part="earlier", emails=1, tokens=100),
        Omission(part="earlier", emails=51, tokens=20_000),
    )
    number = inbox.receive(brief={"omitted": omitted})
    said = "The model did not read: about 3,000 words of this mail, about 15,000 words of 52 earlier mails."
    assert said in _page(as_ana, number)


def test_text_for_an_assistant_is_marked_at_the_mail_and_in_the_queue(
    inbox: Inbox, as_ana: TestClient
) -> None:
    number = inbox.receive(brief={"instructions_found": True})
    assert "Contains text addressed to an assistant" in _page(as_ana, number)
    assert as_ana.get("/").text.count("addresses an assistant") == 1
    inbox.receive(brief={})
    assert as_ana.get("/").text.count("addresses an assistant") == 1


def test_how_a_brief_was_made_is_all_there(inbox: Inbox, as_ana: TestClient) -> None:
    facts = {
        "base_revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "prefill_seconds": 0.2,
        "decode_seconds": 0.11,
        "tokens_cached": 180,
        "batch_size": 8,
    }
    number = inbox.receive(brief={**facts, "grounding": Grounding(removed=("order 4711", HOSTILE))})
    page = _page(as_ana, number)
    for shown in (
        "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "0.31 s: 0.20 s to read (prefill), 0.11 s to write (decode), its share of a batch of 8",
        "210 read, 180 of them from the cache; 40 written",
        '<q dir="auto">order 4711</q>',
    ):
        assert shown in page
    assert "<script>window" not in page


def test_a_sentence_leads_to_the_part_of_the_mail_that_supports_it(
    inbox: Inbox, as_ana: TestClient, database: Database
) -> None:
    asked = "Hello, the parcel came\nbroken & wet. Please refund 20 EUR."
    number = inbox.receive(
        text=asked,
        reply="Hello, the  parcel came broken & wet.\n\nPlease refund 20 EUR.",
        brief={
            "summary": "The parcel was broken. They want 20 EUR. They are sad.",
            "grounding": Grounding(
                sentences=(
                    Sentence(text="The parcel was broken.", start=7, end=36),
                    Sentence(text="They want 20 EUR.", start=37, end=len(asked)),
                    Sentence(text="They are sad."),
                )
            ),
        },
    )
    with database.write() as session:  # the model was asked with other line breaks than the page shows
        row = session.get_one(Brief, inbox.get(number).brief_id)
        row.request = {**row.request, "text": asked}
        session.add(row)
    page = as_ana.get(f"/conversations/{number}").text
    assert 'data-supports="0"><span id="support-0"></span>the  parcel came broken &amp; wet.</span>' in page
    assert 'data-supports="1"><span id="support-1"></span>Please refund 20 EUR.</span>' in page
    assert 'href="#support-1" data-sentence="1" title="The mail says: “Please refund 20 EUR.”"' in page
    assert "They are sad.</p>" in page
    # Once an agent wrote the summary, nothing says any more what supports it.
    form = {"field": "summary", "value": "The parcel was broken."}
    as_ana.post(f"/conversations/{number}/correct", data=form)
    assert "data-supports" not in as_ana.get(f"/conversations/{number}").text


def test_a_span_that_is_not_in_the_mail_lights_up_nothing(inbox: Inbox, as_ana: TestClient) -> None:
    # Offsets beyond the text, as after a change of how mail is shown.
    far = Sentence(text="The customer asks where order 1001 is.", start=5000, end=5010)
    number = inbox.receive(brief={"grounding": Grounding(sentences=(far,))})
    page = as_ana.get(f"/conversations/{number}").text
    assert "The customer asks where order 1001 is." in page
    assert "data-sentence" not in page


def test_a_shadow_brief_is_never_shown(inbox: Inbox, as_ana: TestClient, database: Database) -> None:
    number = inbox.receive(brief={"headline": "The champion says this", "adapter": "lora-1"})
    with database.write() as session:
        shown = session.get_one(Brief, inbox.get(number).brief_id)
        shadow = Brief(**{**shown.model_dump(exclude={"id"}), "adapter": "lora-2", "shadow": True})
        shadow.headline, shadow.summary, shadow.language = "The trial says that", "Trial", "de"
        session.add(shadow)
        session.flush()
        conversations.show_brief(session, shadow)
    assert len(inbox.all(Brief)) == 2
    for address in ("/", f"/conversations/{number}"):
        page = as_ana.get(address).text
        assert "The champion says this" in page
        assert "rial" not in page.replace("Arial", "")
        assert "lora-2" not in page


# --- alerts


def test_open_alerts_stand_on_the_status_page_and_above_an_admins_queue(
    as_ana: TestClient, as_ada: TestClient, database: Database
) -> None:
    assert "Needs an admin" not in as_ada.get("/status").text
    with database.write() as session:
        for _ in range(3):
            alerts.raise_alert(session, "adapter lora-3", "The adapter lora-3 is damaged.\nRestore it.")
        alerts.raise_alert(session, "disk", HOSTILE)
    status, queue = as_ada.get("/status").text, as_ada.get("/").text
    assert "The adapter lora-3 is damaged." in status
    assert "3 times" in status
    assert "The adapter lora-3 is damaged." in queue
    assert "and 1 more" in queue
    assert "<script>window" not in status + queue
    assert "2 things need an admin" in as_ana.get("/status").text
    for address in ("/", "/status"):
        assert "lora-3" not in as_ana.get(address).text
    with database.write() as session:
        for key in ("adapter lora-3", "disk"):
            alerts.resolve(session, key)
    assert "lora-3" not in as_ada.get("/status").text + as_ada.get("/").text
