from collections.abc import Callable
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import Brief as BriefValue
from briefbox.schemas import LabelScore, Omission, Provenance
from briefbox.store import accounting, conversations, dead_letters, queue, training, work
from briefbox.store.filters import Filter
from briefbox.store.work import Claim
from briefbox.tables import Brief, Conversation, Email, Mailbox, User
from tests.conftest import make_email

Deliver = Callable[..., list[int]]


def a_brief(
    priority: str = "high", headline: str = "Where is order 1001?", *, adapter: str = "", **changes: Any
) -> BriefValue:
    def score(label: str) -> LabelScore:
        return LabelScore(label=label, confidence=0.9, scores={label: 0.9, "rest": 0.1})

    provenance = Provenance(engine="fake", base_model="fake", prompt_version="1", adapter=adapter)
    return BriefValue(
        headline=headline,
        summary="They ask.",
        priority=score(priority),
        category=score("shipping"),
        provenance=provenance,
        **changes,
    )


def claim(database: Database, *, seconds: float = 60, limit: int = 8) -> Claim | None:
    with database.write() as session:
        return work.claim(session, owner="test", limit=limit, seconds=seconds, max_attempts=3)


def finish(database: Database, claimed: Claim, index: int = 0, brief: BriefValue | None = None) -> bool:
    with database.write() as session:
        return work.finish(session, claimed.token, claimed.emails[index], brief or a_brief())


def test_a_claimed_email_is_briefed_once_and_stands_in_the_queue(
    database: Database, deliver: Deliver
) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    assert claimed.emails[0].request.subject == "Question number 1"
    assert claim(database) is None
    assert finish(database, claimed)
    assert not finish(database, claimed)
    with database.read() as session:
        [row] = queue.page(session, Filter()).conversations
        assert (row.priority, row.category, row.headline) == ("high", "shipping", "Where is order 1001?")
        assert session.exec(select(Brief.request)).one()["subject"] == "Question number 1"


def test_a_zombies_late_write_changes_nothing(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    zombie = claim(database, seconds=-1)
    living = claim(database)
    assert zombie is not None
    assert living is not None
    assert not finish(database, zombie, brief=a_brief(headline="from the dead"))
    assert finish(database, living)
    with database.read() as session:
        assert session.exec(select(Brief.headline)).all() == ["Where is order 1001?"]


def test_an_email_that_failed_is_claimed_alone(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1), make_email(2), make_email(3))
    assert claim(database, seconds=-1) is not None
    sizes = []
    while (again := claim(database)) is not None:
        sizes.append(len(again.emails))
    assert sizes == [1, 1, 1]


def test_three_deaths_park_it_and_a_retry_brings_it_back(database: Database, deliver: Deliver) -> None:
    [email_id] = deliver(make_email(1))
    for _ in range(3):
        assert claim(database, seconds=-1) is not None
    assert claim(database) is None
    with database.write() as session:
        assert work.park_exhausted(session, max_attempts=3) == 1
        [letter] = dead_letters.unresolved(session)
        assert "died 3 times" in letter.reason
        assert dead_letters.retry_brief(session, letter, actor="test") == email_id
    assert claim(database) is not None


def test_errors_wait_longer_and_the_third_is_the_last(database: Database, deliver: Deliver) -> None:
    [email_id] = deliver(make_email(1))
    for attempt in (1, 2, 3):
        claimed = claim(database)
        assert claimed is not None
        assert claimed.emails[0].attempt == attempt
        with database.write() as session:
            assert work.fail(session, claimed.token, claimed.emails[0], "out of luck", max_attempts=3)
            email = session.get_one(Email, email_id)
            assert email.not_before > email.created_at
            email.not_before = email.created_at
    with database.read() as session:
        assert session.get_one(Email, email_id).work_state == "dead"
        assert [x.reason for x in dead_letters.unresolved(session)] == ["out of luck"]


def test_a_clean_stop_gives_the_batch_back_uncounted(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        assert work.give_back(session, claimed.token) == 1
    again = claim(database)
    assert again is not None
    assert again.emails[0].attempt == 1


def test_two_workers_never_take_the_same_email(database: Database, deliver: Deliver) -> None:
    deliver(*(make_email(n) for n in range(1, 41)))
    barrier, taken = Barrier(4), []

    def take() -> None:
        barrier.wait()
        while (claimed := claim(database, limit=3)) is not None:
            taken.extend(e.email_id for e in claimed.emails)

    threads = [Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 40


def test_a_doubtful_label_is_marked_for_a_human(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    finish(database, claimed, brief=a_brief(needs_human=("priority", "category")))
    with database.read() as session:
        assert session.exec(select(Conversation.needs_human)).one() == ["priority", "category"]


def test_what_an_agent_touched_is_never_overwritten(database: Database, deliver: Deliver, ana: User) -> None:
    deliver(make_email(1))
    first = claim(database)
    assert first is not None
    finish(database, first)
    with database.write() as session:
        conversations.correct(session, 1, "priority", "low", user=ana)
    deliver(make_email(2, In_Reply_To="<mail-1@example.org>", From="Customer 1 <customer1@example.org>"))
    second = claim(database)
    assert second is not None
    finish(database, second, brief=a_brief("urgent", "Still no order"))
    with database.read() as session:
        row = conversations.get(session, 1)
    assert (row.priority, row.headline) == ("low", "Still no order")
    assert row.suggestion == {"priority": "urgent"}


# --- provenance, omissions, shadow


def test_everything_that_made_a_brief_is_stored(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    brief = a_brief(language="en", instructions_found=True, cut=True)
    brief = brief.model_copy(
        update={
            "omitted": (Omission(part="newest", emails=1, tokens=30),),
            "provenance": brief.provenance.model_copy(update={"tokens_cached": 200, "prefill_seconds": 0.5}),
        }
    )
    finish(database, claimed, brief=brief)
    with database.read() as session:
        row = session.exec(select(Brief)).one()
        assert session.exec(select(Email.instructions_found)).one()
    assert (row.language, row.tokens_cached, row.prefill_seconds) == ("en", 200, 0.5)
    assert (row.instructions_found, row.cut, row.shadow) == (True, True, False)
    assert row.omitted == [{"part": "newest", "emails": 1, "tokens": 30}]


def test_what_the_request_left_out_is_shown_with_what_the_model_left_out(
    database: Database, deliver: Deliver
) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    item = replace(
        claimed.emails[0],
        omitted=(Omission(part="newest", emails=1, tokens=5), Omission(part="earlier", emails=4, tokens=100)),
    )
    brief = a_brief(
        omitted=(Omission(part="newest", emails=1, tokens=30), Omission(part="earlier", emails=2, tokens=10))
    )
    with database.write() as session:
        assert work.finish(session, claimed.token, item, brief)
        row = session.exec(select(Brief)).one()
    assert row.cut
    assert row.omitted == [
        {"part": "newest", "emails": 1, "tokens": 35},
        {"part": "earlier", "emails": 6, "tokens": 110},
    ]


def shadow_of(database: Database, claimed: Claim, headline: str = "By the shadow") -> bool:
    with database.write() as session:
        item = claimed.emails[0]
        brief = a_brief("low", headline, adapter="on-trial")
        return work.finish_shadow(session, item.email_id, brief, item.request)


def test_a_shadow_brief_is_kept_and_changes_nothing_that_agents_see(
    database: Database, deliver: Deliver, ana: User
) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    finish(database, claimed)
    with database.read() as session:
        before = [session.exec(select(table)).one().model_dump() for table in (Conversation, Email)]
    assert shadow_of(database, claimed)
    assert not shadow_of(database, claimed), "one for each email and adapter"
    with database.read() as session:
        assert [session.exec(select(table)).one().model_dump() for table in (Conversation, Email)] == before
        row = session.exec(select(Brief).where(Brief.shadow)).one()
        assert (row.adapter, row.headline, row.request) == (
            "on-trial",
            "By the shadow",
            claimed.emails[0].request.model_dump(mode="json"),
        )
    with database.write() as session:
        conversations.finish(session, 1, user=ana)
        assert [judged.brief.shadow for judged in training.judged_briefs(session)] == [False]
        assert [f.name for f in accounting.audit(session) if f.broken] == []


def test_a_done_email_with_only_a_shadow_brief_is_found_by_the_audit(
    database: Database, deliver: Deliver
) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    shadow_of(database, claimed)
    with database.write() as session:
        session.exec(select(Email)).one().work_state = "done"
    with database.read() as session:
        assert [f.name for f in accounting.audit(session) if f.broken] == [
            "briefs: every email that is done has one"
        ]


def test_a_brief_by_an_adapter_that_was_the_shadow_replaces_its_shadow_brief(
    database: Database, deliver: Deliver
) -> None:
    deliver(make_email(1))
    claimed = claim(database)
    assert claimed is not None
    shadow_of(database, claimed)
    assert finish(database, claimed, brief=a_brief("high", "Shown", adapter="on-trial"))
    with database.read() as session:
        row = session.exec(select(Brief)).one()
        assert (row.shadow, row.headline) == (False, "Shown")
        assert session.exec(select(Conversation.headline)).one() == "Shown"


def test_a_claimed_email_carries_the_adapter_of_its_mailbox(database: Database, deliver: Deliver) -> None:
    deliver(make_email(1))
    with database.write() as session:
        session.exec(select(Mailbox)).one().adapter = "of-support"
    claimed = claim(database)
    assert claimed is not None
    assert [email.adapter for email in claimed.emails] == ["of-support"]
