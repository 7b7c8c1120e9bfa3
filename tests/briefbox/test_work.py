from collections.abc import Callable
from threading import Barrier, Thread

from sqlmodel import select

from briefbox.db import Database
from briefbox.schemas import Brief as BriefValue
from briefbox.schemas import LabelScore, Provenance
from briefbox.store import conversations, dead_letters, work
from briefbox.store.work import Claim
from briefbox.tables import Brief, Conversation, Email, User
from tests.conftest import make_email

Deliver = Callable[..., list[int]]


def a_brief(
    priority: str = "high", confidence: float = 0.9, headline: str = "Where is order 1001?"
) -> BriefValue:
    def score(label: str) -> LabelScore:
        return LabelScore(
            label=label, confidence=confidence, scores={label: confidence, "rest": 1 - confidence}
        )

    provenance = Provenance(engine="fake", base_model="fake", prompt_version="1")
    return BriefValue(
        headline=headline,
        summary="They ask.",
        priority=score(priority),
        category=score("shipping"),
        provenance=provenance,
    )


def claim(database: Database, *, seconds: float = 60, limit: int = 8) -> Claim | None:
    with database.write() as session:
        return work.claim(session, owner="test", limit=limit, seconds=seconds, max_attempts=3)


def finish(database: Database, claimed: Claim, index: int = 0, brief: BriefValue | None = None) -> bool:
    with database.write() as session:
        return work.finish(
            session, claimed.token, claimed.emails[index], brief or a_brief(), needs_human_below=0.5
        )


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
        [row] = conversations.queue(session)
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
    finish(database, claimed, brief=a_brief(confidence=0.3))
    with database.read() as session:
        assert session.exec(select(Conversation.needs_human)).one() == ["priority", "category"]


def test_what_an_agent_touched_is_never_overwritten(database: Database, deliver: Deliver, ana: User) -> None:
    deliver(make_email(1))
    first = claim(database)
    assert first is not None
    finish(database, first)
    with database.write() as session:
        conversations.correct(session, 1, "priority", "low", user=ana)
    deliver(make_email(2, In_Reply_To="<mail-1@example.org>"))
    second = claim(database)
    assert second is not None
    finish(database, second, brief=a_brief("urgent", headline="Still no order"))
    with database.read() as session:
        row = conversations.get(session, 1)
    assert (row.priority, row.headline) == ("low", "Still no order")
    assert row.suggestion == {"priority": "urgent"}
