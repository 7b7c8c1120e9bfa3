"""briefbox/store/requests.py: the model is asked about one customer's whole conversation, and nothing else."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import (
    Address,
    BriefRequest,
    EarlierEmail,
    EmailKind,
    FetchedEmail,
    Omission,
    ParsedEmail,
)
from briefbox.store import ledger, mailboxes, requests, work
from briefbox.store.ledger import Arrival
from briefbox.store.requests import QUOTED_HISTORY, quoted_history
from briefbox.tables import Email, Mailbox

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
Receive = Callable[..., None]


@pytest.fixture
def receive(database: Database, mailbox: Mailbox) -> Receive:
    """Commit mails in one batch: `receive(mail("1", "text"), mail("2", "text", answers="1"))`."""
    uids = iter(range(1, 100_000))

    def receive(*mails: ParsedEmail) -> None:
        arrivals = []
        for parsed in mails:
            uid = next(uids)
            raw = f"{uid} {parsed.message_id}".encode()
            when = parsed.sent_at or START + timedelta(seconds=uid)
            arrivals.append(Arrival(FetchedEmail(uid, raw, len(raw), when), parsed))
        with database.write() as session:
            lease = mailboxes.claim(session, mailbox.id, owner="test", seconds=60)
            assert lease is not None
            cursor = ledger.open_folder(session, mailbox.id, "INBOX", 1)
            up_to = max(a.fetched.uid for a in arrivals)
            ledger.commit_batch(session, lease, cursor, arrivals, up_to=up_to, lease_seconds=60)
            mailboxes.release(session, lease)

    return receive


def mail(id_: str, reply: str, *, answers: str = "", sender: str = "Ana", **changes: Any) -> ParsedEmail:
    values = {
        "subject": f"Subject {id_}",
        "sender": Address(name=sender, address=f"{sender.lower()}@example.org"),
        "message_id": id_,
        "in_reply_to": (answers,) if answers else (),
        "text": reply,
        "reply": reply,
    }
    return ParsedEmail.model_validate(values | changes)


def asked(database: Database, **options: Any) -> dict[str, tuple[BriefRequest, tuple[Omission, ...]]]:
    """All requests by subject, and what each leaves out."""
    with database.write() as session:
        claim = work.claim(session, owner="test", limit=500, seconds=60, max_attempts=3, **options)
        assert claim is not None
        work.give_back(session, claim.token)
    return {item.request.subject: (item.request, item.omitted) for item in claim.emails}


def test_the_conversation_before_it_comes_along_oldest_first(database: Database, receive: Receive) -> None:
    receive(
        mail("1", "My parcel is lost."),
        mail("2", "We are looking.", answers="1", sender="Support", subject="Re: Subject 1"),
        mail("3", "And now?", answers="2"),
        mail("4", "A different matter.", sender="Bob"),
    )
    found = asked(database)
    request, omitted = found["Subject 3"]
    assert (request.sender, request.text, omitted) == ("Ana", "And now?", ())
    assert request.earlier == (
        EarlierEmail(sender="Ana", text="My parcel is lost."),
        EarlierEmail(sender="Support", text="We are looking."),
    )
    assert found["Subject 1"][0].earlier == (), "what came later is not known yet"
    assert found["Subject 4"][0].earlier == ()


def test_a_mail_that_was_received_earlier_but_stored_later_counts_as_earlier(
    database: Database, receive: Receive
) -> None:
    receive(mail("1", "first"), mail("3", "third", answers="1"))
    receive(mail("2", "second", answers="1", sent_at=START + timedelta(seconds=1.5)))
    found = asked(database)
    assert [e.text for e in found["Subject 3"][0].earlier] == ["first", "second"]
    assert [e.text for e in found["Subject 2"][0].earlier] == ["first"]


def test_only_the_new_part_of_customer_mail_is_history(database: Database, receive: Receive) -> None:
    receive(
        mail("1", "The question", text="The question\n\n> an older quote"),
        mail("2", "I am on holiday", answers="1", kind=EmailKind.AUTO_REPLY),
        mail("3", "Undeliverable", answers="1", kind=EmailKind.BOUNCE),
        mail("4", "", answers="1"),
        mail("5", "Any news?", answers="1", text="Any news?\n\n> The question\n> an older quote"),
    )
    request, _ = asked(database)["Subject 5"]
    assert request.text == "Any news?"
    assert [e.text for e in request.earlier] == ["The question"]


def test_the_language_of_briefs_is_passed_on(database: Database, receive: Receive) -> None:
    receive(mail("1", "Hallo"))
    assert asked(database)["Subject 1"][0].written_in == ""
    assert asked(database, written_in="de")["Subject 1"][0].written_in == "de"


# --- quoted history


HISTORY = "Please answer.\n\n-- \nAna Lopez\n+34 600 000 000\n\nOn 3 May 2026 Support wrote:\n> Which order?\n>> My parcel is lost.\n"


def test_a_mail_without_stored_history_brings_what_it_quotes(database: Database, receive: Receive) -> None:
    receive(mail("1", "Please answer.", text=HISTORY))
    request, omitted = asked(database)["Subject 1"]
    assert request.text == "Please answer."
    [quoted] = request.earlier
    assert (quoted.sender, omitted) == (QUOTED_HISTORY, ())
    assert quoted.text == "On 3 May 2026 Support wrote:\nWhich order?\nMy parcel is lost."


def test_stored_mail_wins_over_what_is_quoted(database: Database, receive: Receive) -> None:
    receive(mail("0", "My parcel is lost."), mail("1", "Please answer.", text=HISTORY, answers="0"))
    assert [e.sender for e in asked(database)["Subject 1"][0].earlier] == ["Ana"]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Hello", "Hello"),
        ("", "> only a quote"),
        ("Hello", "Hello\n\nSent from my phone"),
        ("Hello", "Hello\n\n-- \nAna\nLopez Ltd\nA street\nA town"),
    ],
)
def test_a_signature_is_no_history(reply: str, text: str) -> None:
    assert quoted_history(ParsedEmail(reply=reply, text=text)) == ""


def test_history_without_quote_marks_is_taken_too() -> None:
    block = "From: Support\nSent: Monday\nSubject: Parcel\n\nWhich order?"
    assert quoted_history(ParsedEmail(reply="This one.", text=f"This one.\n\n{block}")) == block


def test_answers_between_quotes_leave_the_quotes_as_history() -> None:
    text = "> Which order?\nThe first.\n> Which address?\nThe same."
    parsed = ParsedEmail(reply="The first.\nThe same.", text=text)
    assert quoted_history(parsed) == "Which order?\nWhich address?"


def test_a_contact_block_is_no_history() -> None:
    block = "Reed Ltd\n12 Mill Lane\nTel: 0113 496 0000\nwww.reed.example"
    text = f"This one.\n\nRegards,\nAna\n\n{block}\n\nOn Monday, Larkspur wrote:\n> Which order?"
    parsed = ParsedEmail(
        reply="This one.\n\nRegards,\nAna",
        text=text,
        signature=block,
        quoted="On Monday, Larkspur wrote:\n> Which order?",
    )
    assert quoted_history(parsed) == "On Monday, Larkspur wrote:\nWhich order?"
    assert quoted_history(parsed.model_copy(update={"quoted": ""})) == ""


# --- limits


def test_the_original_and_the_nearest_stay_when_there_are_too_many(
    database: Database, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_EMAILS", 5)
    receive(mail("0", "text 0"), *(mail(str(n), f"text {n}", answers="0") for n in range(1, 10)))
    request, omitted = asked(database)["Subject 9"]
    assert [e.text for e in request.earlier] == ["text 0", "text 6", "text 7", "text 8"]
    assert omitted == (Omission(part="earlier", emails=5, tokens=8),)  # 5 texts of 6 characters


def test_the_original_and_the_nearest_stay_when_they_are_too_long(
    database: Database, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_CHARS", 100)
    receive(mail("0", "o" * 30), *(mail(str(n), f"{n}" * 20, answers="0") for n in range(1, 5)))
    request, omitted = asked(database)["Subject 4"]
    assert [e.text for e in request.earlier] == ["o" * 30, "2" * 20, "3" * 20]
    assert request.text == "4" * 20
    assert omitted == (Omission(part="earlier", emails=1, tokens=5),)


def test_one_huge_email_is_cut_and_says_so(
    database: Database, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_CHARS", 100)
    receive(
        mail("0", "o" * 300),
        mail("1", "m" * 50, answers="0"),
        mail("2", "n" * 400, answers="0"),
        mail("3", "x" * 140),
    )
    found = asked(database)
    request, omitted = found["Subject 2"]
    assert (request.text, [e.text for e in request.earlier]) == ("n" * 50, ["o" * 50])
    assert {o.part: (o.emails, o.tokens) for o in omitted} == {
        "newest": (1, 88),
        "original": (1, 63),
        "earlier": (1, 13),
    }
    assert (found["Subject 3"][0].text, found["Subject 3"][1]) == (
        "x" * 100,
        (Omission(part="newest", emails=1, tokens=10),),
    )


def test_a_batch_costs_as_many_statements_as_one_email(database: Database, receive: Receive) -> None:
    def statements() -> int:
        seen: list[str] = []

        def note(*args: Any) -> None:
            if args[2].startswith("SELECT"):
                seen.append(args[2])

        event.listen(database.engine, "before_cursor_execute", note)
        try:
            asked(database)
        finally:
            event.remove(database.engine, "before_cursor_execute", note)
        return len(seen)

    receive(mail("a0", "one"), mail("a1", "two", answers="a0"))
    few = statements()
    receive(*(mail(f"b{n}", "text", answers="b0" if n else "") for n in range(30)))
    assert statements() == few


# --- one customer's conversation only


@pytest.mark.parametrize("seed", range(5))
def test_nothing_of_another_customer_is_ever_in_a_request(
    database: Database, receive: Receive, seed: int
) -> None:
    chance = random.Random(seed)
    customers = [f"customer{n}" for n in range(6)]
    mails: dict[str, list[str]] = {customer: [] for customer in customers}
    batch = []
    for number in range(60):
        customer = chance.choice(customers)
        mine = mails[customer]
        id_ = f"{customer}-{number}"
        # Same subjects, missing and shared Message-IDs, empty references: nothing but an answer joins mails.
        answers = (
            chance.choice(mine) if mine and chance.random() < 0.7 else chance.choice(["", "", "unknown@x"])
        )
        words = f"secret-of-{customer}-{number} " * chance.randint(1, 4)
        text = words + (f"\n\n> quoted-by-{customer}" if chance.random() < 0.3 else "")
        batch.append(
            mail(
                chance.choice([id_, id_, ""]),
                words.strip(),
                answers=answers,
                sender=customer,
                subject="Re: order",
                text=text,
                sent_at=START + timedelta(seconds=chance.randint(0, 30)),
            )
        )
        if batch[-1].message_id:
            mine.append(id_)
    for start in range(0, 60, 13):
        receive(*batch[start : start + 13])
    with database.write() as session:
        claim = work.claim(session, owner="test", limit=500, seconds=60, max_attempts=3)
        assert claim is not None
        senders = dict(session.exec(select(Email.id, Email.from_name)).all())
    assert len(claim.emails) == 60
    assert any(item.request.earlier for item in claim.emails)
    for item in claim.emails:
        told = item.request.model_dump_json()
        others = [customer for customer in customers if customer != senders[item.email_id]]
        assert not [other for other in others if other in told]


def test_half_of_a_request_is_half_of_what_the_model_would_read() -> None:
    earlier = tuple(EarlierEmail(sender="Ana", text=letter * 80) for letter in "abc")
    request = BriefRequest(subject="s", sender="Ana", text="x" * 1000, categories=(), earlier=earlier)
    smaller, omitted = requests.half(request, max_tokens=100)
    assert (smaller.text, [e.text for e in smaller.earlier]) == ("x" * 200, ["a" * 40])
    assert {o.part: (o.emails, o.tokens) for o in omitted} == {
        "newest": (1, 200),
        "original": (1, 10),
        "earlier": (2, 40),
    }
