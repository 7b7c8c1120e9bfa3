"""Which conversation a mail joins: each rule, each guard, in any order of arrival, and in how many statements."""

from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from briefbox.db import Database, migrate
from briefbox.schemas import EmailKind, ParsedEmail
from briefbox.store import accounting, regroup
from briefbox.store.handling import Handling
from briefbox.tables import Conversation, Email, LedgerEntry, Mailbox, ThreadId
from ingest.parse import parse_email
from tests.briefbox.mails import LONG, START, SUBJECT, Receive, mail, own, row

pytestmark = pytest.mark.usefixtures("audited")

# --- 1: by ids


def test_an_answer_joins_by_in_reply_to_and_by_references(receive: Receive) -> None:
    [first] = receive(mail("a@x"))
    assert receive(mail("b@x", answers="a@x", subject="And another thing", hours=1)) == [first]
    assert receive(mail("c@x", references=("a@x", "gone@y"), subject="One more", hours=2)) == [first]


def test_the_nearest_of_several_named_mails_decides(receive: Receive) -> None:
    one, two = receive(mail("a@x"), mail("b@x", subject="A wholly different matter", hours=1))
    assert one != two
    assert receive(mail("c@x", references=("a@x", "b@x"), hours=2)) == [two]
    assert receive(mail("d@x", answers="a@x", references=("b@x",), hours=3)) == [one]


@pytest.mark.parametrize(
    "written",
    [
        LONG.upper() + "@mail.gmail.example",
        f"< {LONG}@mail.gmail.example >",
        f"{LONG}@gmail.example",
        LONG,
        f"{LONG[:9]}\r\n {LONG[9:]}@mail.gmail.example",
    ],
)
def test_an_id_that_a_server_rewrote_is_still_known(receive: Receive, written: str) -> None:
    [first] = receive(mail(f"{LONG}@mail.gmail.example"))
    assert receive(mail("b@x", answers=written, subject="Re: something else", hours=1)) == [first]


@pytest.mark.parametrize(
    ("held", "named"), [("1@x", "1@y"), ("20261123100000123456@x", "20261123100000123456@y")]
)
def test_an_id_that_can_be_guessed_needs_its_host(receive: Receive, held: str, named: str) -> None:
    [first] = receive(mail(held))
    assert receive(mail("b@x", answers=named, subject="Re: something else", hours=1)) != [first]


def test_an_id_that_a_server_replaced_counts_as_its_own(receive: Receive) -> None:
    [first] = receive(mail("new@relay", other_ids=("old@x",)))
    assert receive(mail("b@x", answers="old@x", subject="Re: something else", hours=1)) == [first]


def test_mails_of_one_batch_answer_each_other_whatever_their_uids(receive: Receive) -> None:
    third, first, second = receive(
        mail("c@x", answers="b@x", subject="Re: Re: other", hours=2),
        mail("a@x", hours=0),
        mail("b@x", answers="a@x", subject="Re: other", hours=1),
    )
    assert first == second == third


def test_an_answer_that_comes_before_its_original_waits_for_it(receive: Receive) -> None:
    [late] = receive(mail("b@x", answers="a@x", subject="Re: other", hours=1))
    assert receive(mail("a@x", hours=0)) == [late]


# --- 2: what an id alone does not do


def test_empty_ids_join_nobody(receive: Receive) -> None:
    found = receive(
        *(mail("", f"{n}@example.org", subject=f"Matter number {n}", hours=n, answers="<>") for n in range(4))
    )
    assert len(set(found)) == 4


def test_one_id_on_the_mail_of_several_strangers_joins_none_of_them(receive: Receive) -> None:
    found = receive(
        mail("same@x", "ana@example.org"),
        mail("same@x", "bob@example.org", hours=1),
        mail("same@x", "cy@example.org", subject="Something else entirely", hours=2),
    )
    assert len(set(found)) == 3
    assert receive(mail("d@x", "bob@example.org", answers="same@x", subject="Re: x", hours=3)) == [found[1]]


def test_a_sender_whose_mails_all_have_one_id_is_not_glued_together(receive: Receive) -> None:
    found = receive(*(mail("same@x", subject=f"Parcel {n} never came", hours=n) for n in range(30)))
    assert len(set(found)) == 30
    # The same mail once more, by a list: same sender, same id, same subject.
    assert receive(mail("same@x", subject="Parcel 3 never came", hours=40)) == [found[3]]


def test_a_stranger_who_names_a_known_id_opens_a_conversation_of_his_own(receive: Receive) -> None:
    [first] = receive(mail(f"{LONG}@x"))
    forged = mail("b@y", "mallory@elsewhere.example", answers=f"{LONG}@x", subject="Your account", hours=1)
    assert receive(forged) != [first]
    # Nor does what he claimed draw the customer's next mail to him.
    assert receive(mail("c@x", answers=("b@y", f"{LONG}@x"), subject="Re: other", hours=2)) == [first]


def test_a_colleague_in_copy_and_a_forward_under_the_same_subject_join(receive: Receive) -> None:
    [first] = receive(mail("a@x", cc=("Dora@Example.org",)))
    assert receive(mail("b@x", "dora@example.org", answers="a@x", subject="Serial number", hours=1)) == [
        first
    ]
    forward = mail("c@x", "eve@example.org", answers="a@x", subject=f"Fwd: {SUBJECT}", hours=2)
    assert receive(forward) == [first]


def test_two_answers_to_a_mail_that_we_never_saw_meet_only_if_their_people_do(receive: Receive) -> None:
    unseen = f"{LONG}@larkspur.example"
    [ana] = receive(mail("a@x", answers=unseen, subject="Re: Your quote", cc=("dora@example.org",)))
    # A campaign goes to many customers under one id.
    bob = mail("b@x", "bob@example.org", answers=unseen, subject="Re: Your quote", hours=1)
    assert receive(bob) != [ana]
    assert receive(mail("c@x", answers=unseen, subject="P. S.", hours=2)) == [ana]
    assert receive(mail("d@x", "dora@example.org", answers=unseen, subject="For Ana", hours=3)) == [ana]


def test_being_written_to_with_us_in_copy_does_not_make_us_a_participant(receive: Receive) -> None:
    [first] = receive(mail("a@x"))
    own = mail("o@l", "support@larkspur.example", answers="a@x", subject="Offer", kind=EmailKind.OWN, hours=1)
    assert receive(own) == [None]
    assert first is not None


# --- 3: by subject


@pytest.mark.parametrize(
    "subject",
    [f"Re: {SUBJECT}", f"AW: [support] WG: {SUBJECT.upper()}", f"RE[2]: {SUBJECT}", f"回复：{SUBJECT}"],
)
def test_an_answer_without_ids_joins_by_customer_and_subject(receive: Receive, subject: str) -> None:
    [first] = receive(mail("a@x"))
    assert receive(mail("", "Ana@Example.ORG", subject=subject, hours=24 * 13)) == [first]


def test_ids_that_are_new_for_every_recipient_fall_back_to_the_subject(receive: Receive) -> None:
    [first] = receive(mail("JIRA.1.2@x", subject="[TICKET-9] Printer in room 4 is offline"))
    again = mail(
        "JIRA.1.3@x", answers="JIRA.1.2.abc@x", subject="[TICKET-9] Printer in room 4 is offline", hours=5
    )
    assert receive(again) == [first]


def test_the_subject_joins_only_for_a_while_and_never_by_the_date_header(receive: Receive) -> None:
    [first] = receive(mail("a@x", sent_at=datetime(1970, 1, 1, tzinfo=UTC)))
    within = mail("b@x", subject=f"Re: {SUBJECT}", sent_at=datetime(2099, 1, 1, tzinfo=UTC), hours=24 * 10)
    assert receive(within) == [first]
    assert receive(mail("c@x", subject=f"Re: {SUBJECT}", hours=24 * 20)) == [first], "of its last mail"
    late = mail("d@x", subject=f"Re: {SUBJECT}", sent_at=START, hours=24 * 35)
    assert receive(late) != [first]


def test_the_number_of_days_is_a_setting_and_none_switches_it_off(receive: Receive) -> None:
    off = Handling(thread_days=0)
    [first] = receive(mail("a@x"), handling=off)
    assert receive(mail("b@x", subject=f"Re: {SUBJECT}", hours=1), handling=off) != [first]


@pytest.mark.parametrize(
    ("subject", "again"),
    [
        ("", "Re:"),
        ("Hello", "Re: Hello"),
        ("Question about my order", "Re: Question about my order"),
        ("Broken lamp", "Broken lamp"),  # too short to be the same matter without "Re:"
        ("Order [1001] is late", "Re: Order [1002] is late"),
    ],
)
def test_a_subject_that_says_too_little_joins_nothing(receive: Receive, subject: str, again: str) -> None:
    [first] = receive(mail("a@x", subject=subject))
    assert receive(mail("b@x", subject=again, hours=1)) != [first]


def test_the_same_subject_of_another_customer_is_another_conversation(receive: Receive) -> None:
    [first] = receive(mail("a@x"))
    assert receive(mail("b@x", "bob@example.org", subject=f"Re: {SUBJECT}", hours=1)) != [first]


def test_a_web_form_that_writes_for_many_people_is_not_one_customer(receive: Receive) -> None:
    found = receive(
        *(
            mail(f"{n}@x", "no-reply@larkspur.example", subject="New message from the web form", hours=n)
            for n in range(3)
        )
    )
    assert len(set(found)) == 3


def test_people_behind_one_address_are_told_by_their_names(receive: Receive) -> None:
    first, second, third = receive(
        mail("a@x", "hello@shop.example", name="Ana via Shop"),
        mail("b@x", "hello@shop.example", name="Bob via Shop", hours=1),
        mail("c@x", "hello@shop.example", name="Ana via Shop", hours=2),
    )
    assert first == third != second


# --- 4: other kinds


def test_a_bounce_joins_the_mail_that_it_is_about_and_wakes_nobody(
    database: Database, receive: Receive
) -> None:
    [first] = receive(mail("a@x", answers="ours@larkspur.example"))
    with database.write() as session:
        session.get_one(Conversation, first).state = "done"
    bounce = mail(
        "",
        "mailer-daemon@mx.example",
        subject="Undelivered Mail Returned to Sender",
        kind=EmailKind.BOUNCE,
        bounced_id="ours@larkspur.example",
        hours=1,
    )
    assert receive(bounce) == [first]
    assert row(database, first).state == "done"
    assert receive(bounce.model_copy(update={"bounced_id": "never-seen@x"})) == [None]
    # The mail that came back was ours and never seen here, but it answered one that was.
    ours = bounce.model_copy(update={"bounced_id": "never-seen@x", "references": ("a@x",)})
    assert receive(ours) == [first]


@pytest.mark.parametrize(
    "kind", [EmailKind.AUTO_REPLY, EmailKind.NEWSLETTER, EmailKind.CALENDAR, EmailKind.LIST]
)
def test_mail_that_is_not_briefed_joins_by_ids_and_never_opens_or_moves(
    database: Database, receive: Receive, kind: EmailKind
) -> None:
    [first] = receive(mail("a@x"))
    with database.write() as session:
        session.get_one(Conversation, first).state = "done"
    before = row(database, first)
    assert receive(mail("b@x", answers="a@x", subject="Away", kind=kind, hours=1)) == [first]
    assert receive(mail("c@x", subject=f"Re: {SUBJECT}", kind=kind, hours=2)) == [None]
    after = row(database, first)
    assert (after.state, after.waiting_since, after.num_emails) == ("done", before.waiting_since, 2)


def test_spam_joins_nothing(receive: Receive) -> None:
    receive(mail("a@x"))
    assert receive(mail("b@x", answers="a@x", subject=f"Re: {SUBJECT}", kind=EmailKind.SPAM, hours=1)) == [
        None
    ]


def test_a_kind_that_the_settings_name_is_briefed_like_customer_mail(
    database: Database, receive: Receive
) -> None:
    both = Handling(frozenset({"customer", "list"}))
    [first] = receive(mail("a@x", kind=EmailKind.LIST), handling=both)
    assert first is not None
    with database.read() as session:
        assert session.exec(select(Email.work_state)).one() == "waiting"
        assert session.exec(select(LedgerEntry.state)).one() == "queued"
    assert receive(mail("b@x", kind=EmailKind.NEWSLETTER, hours=1), handling=both) == [None]
    with database.read() as session:
        reasons = session.exec(select(LedgerEntry.reason).where(LedgerEntry.state == "skipped")).all()
    assert reasons == ["newsletter: a header said so"]


def test_a_mail_of_our_own_answers_its_conversation(database: Database, receive: Receive) -> None:
    [first] = receive(mail("a@x"))
    assert receive(own("o@l", 2)) == [first]
    answered = row(database, first)
    assert (answered.answered_at, answered.state) == (START + timedelta(hours=2), "answered")
    with database.read() as session:
        assert session.exec(select(Email.work_state).where(Email.kind == "own")).one() == "none"
    # A newer mail of the customer's waits again.
    receive(mail("b@x", answers="o@l", hours=5))
    waiting = row(database, first)
    assert (waiting.answered_at, waiting.waiting_since) == (None, START + timedelta(hours=5))


def test_our_own_mail_that_is_read_after_a_newer_one_of_the_customers_ends_no_waiting(
    database: Database, receive: Receive
) -> None:
    [first] = receive(mail("a@x"), mail("b@x", answers="a@x", hours=5))[:1]
    receive(own("o@l", 2))
    found = row(database, first)
    assert (found.answered_at, found.waiting_since) == (None, START + timedelta(hours=5))
    receive(own("p@l", 6, answers="", subject=f"Re: {SUBJECT}"))
    assert row(database, first).answered_at == START + timedelta(hours=6)


def test_our_own_mail_opens_nothing_and_answers_nobody_else(database: Database, receive: Receive) -> None:
    [first] = receive(mail("a@x"))
    assert receive(own("o@l", 1, answers="", subject="An offer for you")) == [None]
    assert receive(own("p@l", 1, to=("bob@example.org",), subject="Other")) == [None]
    assert row(database, first).answered_at is None


def test_our_own_mail_that_came_first_stands_in_the_conversation_that_answers_it(
    database: Database, receive: Receive
) -> None:
    assert receive(
        own("o@l", 0, answers="", subject="Your quote"), own("p@l", 0, answers="", to=("bob@example.org",))
    ) == [None, None]
    [first] = receive(mail("a@x", answers="o@l", references=("p@l",), subject="Re: Your quote", hours=1))
    with database.read() as session:
        found = session.exec(select(Email.message_id, Email.conversation_id).order_by(Email.id)).all()  # type: ignore[arg-type]
    assert [tuple(f) for f in found] == [("o@l", first), ("p@l", None), ("a@x", first)], "not the one to Bob"
    stored = row(database, first)
    assert (stored.num_emails, stored.answered_at, stored.customer_address) == (2, None, "ana@example.org")
    assert receive(mail("b@x", answers="o@l", subject="One more thing", hours=2)) == [first]


# --- 5: states


def test_a_customer_who_writes_again_reopens_and_one_mail_more_keeps_the_waiting(
    database: Database, receive: Receive
) -> None:
    [first] = receive(mail("a@x"))
    receive(mail("b@x", answers="a@x", hours=1))
    assert row(database, first).waiting_since == START
    with database.write() as session:
        stored = session.get_one(Conversation, first)
        stored.state, stored.done_at = "done", START + timedelta(hours=2)
    receive(mail("c@x", answers="a@x", hours=3))
    again = row(database, first)
    assert (again.state, again.done_at, again.waiting_since) == ("open", None, START + timedelta(hours=3))
    assert again.num_emails == 3


@pytest.mark.parametrize(
    ("older", "state", "work", "entry"),
    [
        ("open", "open", "waiting", "queued"),
        ("briefed", "done", "waiting", "queued"),
        ("closed", "done", "none", "skipped"),
    ],
)
def test_mail_that_was_there_before_us_arrives_as_the_mailbox_says(
    database: Database, mailbox: Mailbox, receive: Receive, older: str, state: str, work: str, entry: str
) -> None:
    with database.write() as session:
        session.get_one(Mailbox, mailbox.id).older = older
    first, same = receive(mail("a@x"), mail("b@x", answers="a@x", hours=1), backfill=True)
    assert first == same
    assert row(database, first).state == state
    with database.read() as session:
        emails = session.exec(select(Email.work_state, Email.backfill)).all()
        entries = session.exec(select(LedgerEntry.state, LedgerEntry.reason)).all()
    assert [tuple(e) for e in emails] == [(work, True)] * 2
    assert {e.state for e in entries} == {entry}
    assert all(bool(e.reason) == (entry == "skipped") for e in entries)
    # Who writes now waits, whatever became of the old mail.
    assert receive(mail("c@x", answers="b@x", hours=9)) == [first]
    after = row(database, first)
    assert (after.state, after.num_emails) == ("open", 3)


def test_old_mail_that_waits_for_its_brief_is_not_stuck(
    database: Database, mailbox: Mailbox, receive: Receive
) -> None:
    with database.write() as session:
        session.get_one(Mailbox, mailbox.id).older = "briefed"
    receive(mail("a@x"), backfill=True)
    for backfill, stuck in ((True, 0), (False, 1)):
        with database.write() as session:
            email = session.exec(select(Email)).one()
            email.backfill, email.not_before = backfill, START - timedelta(days=400)
        with database.read() as session:
            assert [f.broken for f in accounting.audit(session) if f.name.startswith("stuck")] == [stuck]


def test_old_mail_does_not_reopen_what_is_done_nor_move_what_waits(
    database: Database, mailbox: Mailbox, receive: Receive
) -> None:
    with database.write() as session:
        session.get_one(Mailbox, mailbox.id).older = "briefed"
    done, waiting = receive(mail("a@x"), mail("b@x", subject="Another matter altogether", hours=1))
    with database.write() as session:
        session.get_one(Conversation, done).state = "done"
    old = mail("c@x", answers="a@x", hours=-9), mail("d@x", answers="b@x", subject="Re: Another", hours=-9)
    assert receive(*old, backfill=True) == [done, waiting]
    assert row(database, done).state == "done"
    assert row(database, waiting).waiting_since == START + timedelta(hours=1)


def test_the_language_is_stored_with_the_mail(database: Database, receive: Receive) -> None:
    receive(mail("a@x", language="de"))
    with database.read() as session:
        assert session.exec(select(Email.language)).one() == "de"


def test_copies_are_read_from_the_bytes() -> None:
    parsed = parse_email(b"From: a@x.example\r\nTo: b@x.example\r\nCc: Dora <c@x.example>\r\n\r\nHi\r\n")
    assert [a.address for a in parsed.cc] == ["c@x.example"]


# --- beside others


def test_mail_for_a_conversation_that_is_merged_meanwhile_goes_where_its_mail_is(
    database: Database, mailbox: Mailbox, receive: Receive
) -> None:
    one, other = receive(mail("a@x"), mail("b@x", "bob@example.org", subject="Something else", hours=1))
    assert one is not None
    assert other is not None
    begun, go_on = Event(), Event()

    def merge() -> None:
        with database.write() as session:
            regroup.merge(session, other, one, actor="test")
            begun.set()
            # The poller looks while nothing is committed, and waits for the row (SQLite: for the whole database).
            go_on.wait(1)

    merging = Thread(target=merge)
    merging.start()
    assert begun.wait(20)
    found = receive(mail("c@x", "bob@example.org", answers="b@x", hours=2))
    merging.join(20)
    assert found == [one]
    stored = row(database, one)
    assert (stored.num_emails, stored.participants) == (3, ["ana@example.org", "bob@example.org"])
    assert receive(mail("d@x", "bob@example.org", answers="c@x", subject="Re: x", hours=3)) == [one]


def test_mail_that_was_stored_by_an_older_version_is_answered_too(
    database: Database, mailbox: Mailbox, receive: Receive
) -> None:
    [first] = receive(mail(f"{LONG}@mail.x"))
    migrate(database, "0003")
    migrate(database)
    assert row(database, first).subject_key == SUBJECT.lower()
    assert receive(mail("b@x", answers=f"{LONG}@x", hours=1)) == [first]
    assert receive(mail("c@x", subject=f"Re: {SUBJECT}", hours=2)) == [first]


# --- what it costs


def test_a_batch_takes_as_many_statements_as_a_mail(database: Database, receive: Receive) -> None:
    def count_of(*mails: ParsedEmail) -> int:
        seen: list[str] = []

        def note(*arguments: Any) -> None:
            if "conversations" in arguments[2] or "thread_ids" in arguments[2]:
                seen.append(arguments[2])

        event.listen(database.engine, "before_cursor_execute", note)
        try:
            receive(*mails)
        finally:
            event.remove(database.engine, "before_cursor_execute", note)
        return len(seen)

    def batch(size: int, prefix: str) -> list[ParsedEmail]:
        """New conversations, answers to stored and to new ones, mail of our own, by subject."""
        mails = []
        for n in range(size // 5):
            who = f"{prefix}{n}@example.org"
            matter = f"Order {n} of {prefix} did not arrive"
            mails += [
                mail(f"{prefix}-{n}@x", who, subject=matter, hours=1),
                mail(f"{prefix}-{n}b@x", who, subject="More", answers=f"{prefix}-{n}@x", hours=2),
                mail(
                    f"{prefix}-{n}c@x",
                    f"old{n}@example.org",
                    answers=f"old-{n}@x",
                    subject="Re: More",
                    hours=3,
                ),
                mail(
                    f"{prefix}-{n}d@x", f"old{n}@example.org", subject=f"Re: Old matter number {n}", hours=4
                ),
                own(
                    f"{prefix}-{n}e@l",
                    5,
                    to=(f"old{n}@example.org",),
                    answers=f"old-{n}@x",
                    subject="Re: More",
                ),
            ]
        return mails

    receive(
        *(mail(f"old-{n}@x", f"old{n}@example.org", subject=f"Old matter number {n}") for n in range(100))
    )
    few, many = count_of(*batch(50, "few")), count_of(*batch(500, "many"))
    # Emails and ledger rows are the ledger's; these are the statements that place them.
    assert few == many
    assert many <= 10
    with database.read() as session:
        assert len(session.exec(select(Conversation.id)).all()) == 100 + 10 + 100
        assert len(session.exec(select(ThreadId.id).where(ThreadId.held)).all()) == 100 + 50 + 500
