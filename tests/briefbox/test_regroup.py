"""Split, merge, brief after all, skip: where mails, briefs, corrections and later answers end."""

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.schemas import EmailKind
from briefbox.store import actions, conversations, queue, regroup, skips, training, work
from briefbox.store.filters import Filter
from briefbox.tables import (
    AuditEntry,
    Brief,
    Conversation,
    Correction,
    DeadLetter,
    Email,
    LedgerEntry,
    User,
)
from tests.briefbox.mails import START, Receive, mail, own, row
from tests.briefbox.test_work import a_brief, claim, finish

pytestmark = pytest.mark.usefixtures("audited")


def brief_all(database: Database, *headlines: str) -> None:
    """Brief what waits, in its order."""
    claimed = claim(database, limit=50)
    assert claimed is not None
    for index, headline in enumerate(headlines):
        assert finish(database, claimed, index, a_brief(headline=headline))


@pytest.fixture
def thread(database: Database, receive: Receive) -> int:
    """Three briefed mails of Ana in one conversation; the second opens another matter."""
    [first, *_] = receive(
        mail("a@x"),
        mail("b@x", answers="a@x", subject="By the way", hours=1),
        mail("c@x", answers="b@x", hours=2),
    )
    assert first is not None
    brief_all(database, "Lamp is broken", "Invoice is wrong", "Any news?")
    return first


def ids_in(database: Database, conversation_id: int) -> list[int]:
    with database.read() as session:
        return sorted(e.id for e in conversations.emails(session, conversation_id))


# --- split


def test_a_split_takes_mail_brief_and_what_was_said_of_it(
    database: Database, receive: Receive, thread: int, ana: User
) -> None:
    with database.write() as session:
        conversations.correct(session, thread, "headline", "News about the lamp?", user=ana)
        new = regroup.split(session, 2, actor="test").id
    assert (ids_in(database, thread), ids_in(database, new)) == ([1, 3], [2])
    source, target = row(database, thread), row(database, new)
    assert (source.headline, source.touched, source.num_emails) == ("News about the lamp?", ["headline"], 2)
    assert (target.headline, target.touched, target.num_emails) == ("Invoice is wrong", [], 1)
    assert (target.subject, target.customer_address, target.state) == (
        "By the way",
        "ana@example.org",
        "open",
    )
    assert target.waiting_since == START.replace(hour=11)
    # Later answers find the right one.
    assert receive(mail("d@x", answers="b@x", subject="Re: x", hours=3)) == [new]
    assert receive(mail("e@x", answers="c@x", subject="Re: x", hours=4)) == [thread]
    assert receive(mail("f@x", answers="a@x", subject="Re: x", hours=5)) == [thread]


def test_a_split_with_all_later_mail_moves_the_correction_of_the_newest_brief(
    database: Database, receive: Receive, thread: int, ana: User
) -> None:
    with database.write() as session:
        conversations.correct(session, thread, "priority", "urgent", user=ana)
        new = regroup.split(session, 2, actor="test", with_later=True).id
    assert (ids_in(database, thread), ids_in(database, new)) == ([1], [2, 3])
    assert (row(database, thread).priority, row(database, thread).headline) == ("high", "Lamp is broken")
    assert (row(database, new).priority, row(database, new).touched) == ("urgent", ["priority"])
    with database.read() as session:
        assert session.exec(select(Correction.conversation_id)).all() == [new]
    # Merging it back undoes the split.
    with database.write() as session:
        regroup.merge(session, new, thread, actor="test")
    assert ids_in(database, thread) == [1, 2, 3]
    again = row(database, thread)
    assert (again.priority, again.headline, again.touched) == ("urgent", "Any news?", ["priority"])


def test_nothing_is_split_from_a_conversation_of_one_mail(database: Database, receive: Receive) -> None:
    receive(mail("a@x"))
    with pytest.raises(InvalidValueError, match="no other mail"), database.write() as session:
        regroup.split(session, 1, actor="test")
    with pytest.raises(NotFoundError), database.write() as session:
        regroup.split(session, 99, actor="test")


def test_a_split_leaves_the_waiting_of_each_as_its_own_mails_tell_it(
    database: Database, receive: Receive
) -> None:
    [first, *_] = receive(mail("a@x"), mail("b@x", answers="a@x", hours=1))
    receive(own("o@l", 2, answers="b@x"), mail("c@x", answers="o@l", hours=3))
    assert row(database, first).waiting_since == START.replace(hour=13)
    with database.write() as session:
        new = regroup.split(session, 4, actor="test").id
    left, split = row(database, first), row(database, new)
    assert (left.answered_at, left.waiting_since) == (START.replace(hour=12), START)
    assert (split.answered_at, split.waiting_since) == (None, START.replace(hour=13))


# --- merge


@pytest.fixture
def two(database: Database, receive: Receive) -> tuple[int, int]:
    """Two briefed conversations of Ana and Bob."""
    found = receive(mail("a@x"), mail("b@x", "bob@example.org", subject="The same lamp, for Ana", hours=1))
    assert found[0] is not None
    assert found[1] is not None
    brief_all(database, "Ana's lamp", "Bob's lamp")
    return found[0], found[1]


def test_a_merge_moves_everything_and_leads_later_mail_to_the_target(
    database: Database, receive: Receive, two: tuple[int, int], ana: User
) -> None:
    one, other = two
    with database.write() as session:
        for number, value in ((one, "urgent"), (other, "low")):
            conversations.correct(session, number, "priority", value, user=ana, idempotency_key="same")
        conversations.correct(session, other, "category", "billing", user=ana)
        regroup.merge(session, other, one, actor="test")
    target, source = row(database, one), row(database, other)
    # The target keeps what agents said of it; what it lacks comes with the other's brief and corrections.
    assert (target.priority, target.category, target.headline) == ("urgent", "billing", "Bob's lamp")
    assert (target.num_emails, target.participants) == (2, ["ana@example.org", "bob@example.org"])
    assert (source.state, source.merged_into, source.num_emails, source.brief_id) == ("merged", one, 0, None)
    with database.read() as session:
        assert [c.id for c in queue.page(session, Filter()).conversations] == [one]
        assert conversations.counts(session)["open"] == 1
        assert set(session.exec(select(Brief.conversation_id))) == {one}
        assert len(conversations.corrections(session, one)) == 3
    assert receive(mail("c@x", "bob@example.org", answers="b@x", subject="Re: x", hours=2)) == [one]
    again = mail("d@x", "bob@example.org", subject="Re: The same lamp, for Ana", hours=3)
    assert receive(again) != [other], "the merged row takes no mail"


def test_a_merged_conversation_takes_no_corrections_any_more(
    database: Database, two: tuple[int, int], ana: User
) -> None:
    one, other = two
    with database.write() as session:
        regroup.merge(session, other, one, actor="test")
    for act in (
        lambda s: conversations.correct(s, other, "priority", "low", user=ana),
        lambda s: conversations.finish(s, other, user=ana),
        lambda s: conversations.reopen(s, other, user=ana),
        lambda s: regroup.merge(s, other, one, actor="test"),
        lambda s: regroup.merge(s, one, other, actor="test"),
    ):
        with pytest.raises(ConflictError, match=f"merged into {one}"), database.write() as session:
            act(session)


def test_a_merge_is_undone(database: Database, receive: Receive, two: tuple[int, int], ana: User) -> None:
    one, other = two
    with database.write() as session:
        conversations.correct(session, other, "priority", "low", user=ana)
        conversations.finish(session, other, user=ana)
        regroup.merge(session, other, one, actor="test")
    assert row(database, one).priority == "low"
    receive(mail("c@x", answers="a@x", hours=2))
    with database.write() as session:
        regroup.unmerge(session, other, actor="test")
    back, target = row(database, other), row(database, one)
    assert (back.state, back.priority, back.headline, back.merged_into) == ("done", "low", "Bob's lamp", None)
    assert (target.priority, target.headline, target.num_emails) == ("high", "Ana's lamp", 2)
    assert receive(mail("d@x", "bob@example.org", answers="b@x", subject="Re: x", hours=3)) == [other]
    with pytest.raises(ConflictError, match="not merged"), database.write() as session:
        regroup.unmerge(session, other, actor="test")


def test_a_confirmation_that_was_taken_back_leaves_the_doubt(
    database: Database, two: tuple[int, int], ana: User
) -> None:
    one, _ = two
    with database.write() as session:
        brief = session.exec(select(Brief).where(Brief.conversation_id == one)).one()
        brief.needs_human = ["priority"]
        session.add(brief)
        conversations.confirm(session, one, user=ana)
        regroup.show_again(session, conversations.get(session, one))
        assert conversations.get(session, one).needs_human == []
        said = actions.last_undoable(session, ana, conversation_id=one)
        assert said is not None
        actions.undo(session, said.id, user=ana)
        regroup.show_again(session, conversations.get(session, one))
    assert row(database, one).needs_human == ["priority"]


def test_a_merge_into_one_that_is_merged_later_leads_to_the_last(
    database: Database, receive: Receive
) -> None:
    a, b, c = receive(*(mail(f"{n}@x", f"{n}@example.org", hours=n) for n in range(3)))
    assert a is not None and b is not None and c is not None  # noqa: PT018
    with database.write() as session:
        regroup.merge(session, a, b, actor="test")
        regroup.merge(session, b, c, actor="test")
    assert (row(database, a).merged_into, row(database, b).merged_into) == (c, c)
    with database.write() as session:
        regroup.unmerge(session, b, actor="test")
    assert (row(database, a).merged_into, row(database, b).state) == (b, "open")
    assert ids_in(database, b) == [1, 2]


def test_an_open_one_that_is_merged_into_a_done_one_opens_it(
    database: Database, two: tuple[int, int], ana: User
) -> None:
    one, other = two
    with database.write() as session:
        conversations.finish(session, one, user=ana)
        regroup.merge(session, other, one, actor="test")
    assert (row(database, one).state, row(database, one).waiting_since) == ("open", START.replace(hour=11))


def test_what_cannot_be_merged_is_said(database: Database, two: tuple[int, int]) -> None:
    with pytest.raises(InvalidValueError, match="into itself"), database.write() as session:
        regroup.merge(session, two[0], two[0], actor="test")
    with pytest.raises(NotFoundError, match="no conversation 99"), database.write() as session:
        regroup.merge(session, two[0], 99, actor="test")


def test_a_brief_that_is_written_during_a_merge_comes_along(database: Database, receive: Receive) -> None:
    one, other = receive(mail("a@x"), mail("b@x", "bob@example.org", hours=1))
    assert one is not None
    assert other is not None
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        regroup.merge(session, other, one, actor="test")
    assert finish(database, claimed, 0, a_brief(headline="Ana's"))
    assert finish(database, claimed, 1, a_brief(headline="Bob's"))
    assert row(database, one).headline == "Bob's"


def test_the_harvest_finds_what_was_said_before_a_merge(
    database: Database, two: tuple[int, int], ana: User
) -> None:
    one, other = two
    with database.write() as session:
        conversations.correct(session, other, "priority", "low", user=ana)
        regroup.merge(session, other, one, actor="test")
        conversations.finish(session, one, user=ana)
    with database.read() as session:
        judged = {j.brief.headline: j for j in training.judged_briefs(session)}
    assert [c.after for c in judged["Bob's lamp"].corrections] == ["low"]
    assert judged["Bob's lamp"].conversation.id == one
    assert judged["Bob's lamp"].confirmations == (), "it was corrected, so finishing confirms nothing"


# --- brief after all, skip


def skipped(receive: Receive, **changes: object) -> int | None:
    return receive(mail("n@x", kind=EmailKind.NEWSLETTER, subject="News of the week", **changes))[0]  # type: ignore[arg-type]


def test_a_skipped_mail_is_briefed_by_hand(database: Database, receive: Receive) -> None:
    assert skipped(receive) is None
    with database.write() as session:
        skips.overrule(session, 1, actor="ana@larkspur.example")
    with database.read() as session:
        email, entry = session.get_one(Email, 1), session.exec(select(LedgerEntry)).one()
        assert (
            session.exec(select(AuditEntry.action).order_by(AuditEntry.id.desc())).first()
            == "email briefed by hand"
        )  # type: ignore[attr-defined]
    assert (email.kind, email.work_state, entry.state, entry.reason) == ("customer", "waiting", "queued", "")
    assert email.kind_reason == "By hand, by ana@larkspur.example. Before: newsletter: a header said so"
    brief_all(database, "News after all")
    assert row(database, email.conversation_id).headline == "News after all"
    # What answers it finds it.
    assert receive(mail("m@x", answers="n@x", subject="Re: x", hours=1)) == [email.conversation_id]


def test_a_skipped_mail_within_a_conversation_reopens_it(
    database: Database, receive: Receive, ana: User
) -> None:
    [first] = receive(mail("a@x"))
    assert first is not None
    brief_all(database, "Lamp")
    with database.write() as session:
        conversations.finish(session, first, user=ana)
    receive(mail("b@x", answers="a@x", kind=EmailKind.AUTO_REPLY, hours=1))
    with database.write() as session:
        skips.overrule(session, 2, actor="test")
    assert (row(database, first).state, row(database, first).num_emails) == ("open", 2)


def test_only_what_is_skipped_is_briefed_by_hand(database: Database, receive: Receive, thread: int) -> None:
    with pytest.raises(ConflictError, match="has its brief already"), database.write() as session:
        skips.overrule(session, 1, actor="test")
    with pytest.raises(NotFoundError, match="briefbox email list"), database.write() as session:
        skips.overrule(session, 77, actor="test")


def test_a_mail_is_skipped_by_hand_and_its_conversation_is_done(database: Database, receive: Receive) -> None:
    [first] = receive(mail("a@x"))
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        skips.skip(session, 1, "a sales pitch", actor="test")
    assert not finish(database, claimed), "the worker that held it writes nothing"
    with database.read() as session:
        email, entry = session.get_one(Email, 1), session.exec(select(LedgerEntry)).one()
    assert (email.kind, email.work_state) == ("spam", "none")
    assert (entry.state, entry.reason) == ("skipped", "spam: By hand, by test: a sales pitch")
    assert row(database, first).state == "done"
    with pytest.raises(ConflictError, match="not briefed already"), database.write() as session:
        skips.skip(session, 1, "again", actor="test")
    with database.write() as session:
        skips.overrule(session, 1, actor="test")
    assert row(database, first).state == "open"


def test_the_brief_of_a_skipped_mail_leaves_the_queue_and_the_harvest(
    database: Database, thread: int, ana: User
) -> None:
    with database.write() as session:
        conversations.confirm(session, thread, user=ana)
        skips.skip(session, 3, "sent by mistake", actor="test", kind=EmailKind.NEWSLETTER)
    assert (row(database, thread).headline, row(database, thread).state) == ("Invoice is wrong", "open")
    with database.write() as session:
        conversations.finish(session, thread, user=ana)
    with database.read() as session:
        assert [j.brief.headline for j in training.judged_briefs(session)] == ["Invoice is wrong"]


def test_a_dead_letter_of_a_skipped_mail_is_closed(database: Database, receive: Receive) -> None:
    receive(mail("a@x"))
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        work.fail(session, claimed.token, claimed.emails[0], "too odd", max_attempts=3, permanent=True)
    with database.write() as session:
        skips.skip(session, 1, "nonsense", actor="test")
    with database.read() as session:
        assert session.exec(select(DeadLetter.resolution)).one() == "skipped by hand"


@pytest.mark.parametrize(("reason", "kind"), [(" ", EmailKind.SPAM), ("why", EmailKind.CUSTOMER)])
def test_a_skip_needs_a_reason_and_a_kind(
    database: Database, receive: Receive, reason: str, kind: EmailKind
) -> None:
    receive(mail("a@x"))
    with pytest.raises(InvalidValueError), database.write() as session:
        skips.skip(session, 1, reason, actor="test", kind=kind)


def test_stored_mail_is_listed_by_kind_and_state(database: Database, receive: Receive) -> None:
    receive(mail("a@x"), mail("b@x", kind=EmailKind.LIST, hours=1), mail("c@x", kind=EmailKind.SPAM, hours=2))
    with database.read() as session:
        assert [s.email.kind for s in skips.stored(session)] == ["spam", "list", "customer"]
        found = skips.stored(session, state="skipped", limit=1)
        assert [s.email.kind for s in skips.stored(session, state="skipped", before=found[0].entry.id)] == [
            "list"
        ]
        assert [s.entry.reason for s in skips.stored(session, kind="spam")] == ["spam: a header said so"]
        assert skips.num_skipped(session) == {"list": 1, "spam": 1}
        with pytest.raises(InvalidValueError, match="none of"):
            skips.stored(session, kind="nonsense")
        assert session.exec(select(Conversation.id)).all() == [1]
