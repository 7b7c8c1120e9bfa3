"""briefbox/store/adapters.py: one gate in front of every use, and a way back that walks backwards."""

from collections.abc import Callable

import pytest
from sqlmodel import Session, select

from briefbox.db import Database, now
from briefbox.errors import ConflictError, NotFoundError
from briefbox.store import adapters
from briefbox.tables import Adapter, AuditEntry, Dataset, Mailbox, TrainingRun, User

PASSED = {"decision": "promoted"}
Make = Callable[..., None]


@pytest.fixture
def make(database: Database) -> Make:
    """`make("a", "b")`: candidates that passed the gate; `verdict` and `state` say otherwise, `by` who trained them."""

    def make(
        *names: str, verdict: dict[str, str] = PASSED, state: str = "candidate", by: str | None = None
    ) -> None:
        with database.write() as session:
            for name in names:
                session.add(
                    Adapter(
                        name=name,
                        path=f"adapters/{name}",
                        base_model="fake",
                        weights_sha256="0",
                        card={"verdict": verdict},
                        state=state,
                        training_run_id=_run(session, by) if by else None,
                        created_at=now(session),
                    )
                )

    return make


def _run(session: Session, by: str) -> int:
    dataset = Dataset(name=by, content_hash=by, path="d", num_examples=1, created_at=now(session))
    session.add(dataset)
    session.flush()
    run = TrainingRun(
        dataset_id=dataset.id, base_model="fake", state="done", created_by=by, created_at=now(session)
    )
    session.add(run)
    session.flush()
    return run.id


def promote(database: Database, *names: str, **options: str) -> None:
    for name in names:
        with database.write() as session:
            adapters.promote(session, name, **{"actor": "ben@x.example"} | options)  # type: ignore[arg-type]


def rollback(database: Database, to: str | None = None) -> str:
    with database.write() as session:
        return adapters.rollback(session, actor="ben@x.example", to=to).adapter


def states(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {row.name: row.state for row in adapters.all_of(session, removed=True)}


def way_back(database: Database) -> list[str]:
    with database.read() as session:
        return adapters.way_back(session)


def history(database: Database) -> list[tuple[str, str, str]]:
    with database.read() as session:
        return [(row.kind, row.adapter, row.before) for row in adapters.promotions(session)]


def last_audit(database: Database) -> AuditEntry:
    with database.read() as session:
        return session.exec(select(AuditEntry).order_by(AuditEntry.id.desc())).first()  # type: ignore[attr-defined,return-value]


# --- the gate


def test_each_change_of_the_champion_is_in_the_history(database: Database, make: Make) -> None:
    make("a", "b")
    promote(database, "a", "b")
    assert history(database) == [("promote", "a", ""), ("promote", "b", "a")]
    assert states(database) == {"a": "retired", "b": "champion"}


def test_a_promotion_delivered_twice_is_one(database: Database, make: Make) -> None:
    make("a")
    promote(database, "a", "a")
    assert history(database) == [("promote", "a", "")]


@pytest.mark.parametrize("verdict", [{}, {"decision": "not enough data"}])
def test_what_the_gate_has_not_passed_needs_a_reason_which_is_kept(
    database: Database, make: Make, verdict: dict[str, str]
) -> None:
    make("a", verdict=verdict)
    with pytest.raises(ConflictError, match="--force --reason"):
        promote(database, "a")
    with pytest.raises(ConflictError, match="has not passed"):
        promote(database, "a", reason="  ")
    promote(database, "a", reason="tried by hand")
    with database.read() as session:
        assert adapters.promotions(session)[0].proof == {"forced": "tried by hand"}
    assert last_audit(database).detail["forced"] == "tried by hand"


@pytest.mark.parametrize(
    ("verdict", "state"), [({"decision": "rejected"}, "candidate"), (PASSED, "rejected"), (PASSED, "removed")]
)
def test_no_reason_and_no_other_door_lets_a_rejected_one_in(
    database: Database, mailbox: Mailbox, make: Make, verdict: dict[str, str], state: str
) -> None:
    make("bad", verdict=verdict, state=state)
    with pytest.raises(ConflictError, match=r"was (rejected|removed)"):
        promote(database, "bad", reason="I like it")
    with database.write() as session, pytest.raises(ConflictError):
        adapters.assign(session, mailbox, "bad", actor="x", reason="I like it")
    with database.write() as session, pytest.raises(ConflictError):
        adapters.shadow(session, "bad", actor="x")
    assert states(database) == {"bad": state}


def test_a_mailbox_and_a_trial_are_no_way_around_the_gate(
    database: Database, mailbox: Mailbox, make: Make
) -> None:
    make("a", verdict={})
    with database.write() as session, pytest.raises(ConflictError, match="never judged"):
        adapters.assign(session, mailbox, "a", actor="x")
    with database.write() as session:
        adapters.shadow(session, "a", actor="x")  # unseen: that is what a trial is for
    with pytest.raises(ConflictError, match="never judged"):
        promote(database, "a")


# --- four eyes


@pytest.fixture
def admins(database: Database) -> Callable[..., None]:
    """`admins("ben")`: these can sign in and are admins; an invited one never signed in."""

    def make(*names: str) -> None:
        with database.write() as session:
            for name in (*names, "invited"):
                session.add(
                    User(
                        email=f"{name}@x.example",
                        role="admin",
                        password_hash="" if name == "invited" else "x",
                        created_at=now(session),
                    )
                )

    return make


@pytest.mark.parametrize("starter", ["ben@x.example", "cli:root"])
def test_whoever_trained_it_does_not_promote_it(
    database: Database,
    mailbox: Mailbox,
    make: Make,
    admins: Callable[..., None],
    starter: str,
) -> None:
    admins("ben", "cleo")
    make("a", by=starter)
    with pytest.raises(ConflictError, match="You started the training run"):
        promote(database, "a", actor=starter, reason="trust me")
    with database.write() as session, pytest.raises(ConflictError, match="somebody else"):
        adapters.assign(session, mailbox, "a", actor=starter)
    promote(database, "a", actor="cleo@x.example")
    assert states(database) == {"a": "champion"}


@pytest.mark.parametrize("starter", ["ben@x.example", "cli:root"])
def test_the_only_admin_may_and_it_is_written_down(
    database: Database, make: Make, admins: Callable[..., None], starter: str
) -> None:
    admins("ben")
    make("a", by=starter)
    promote(database, "a", actor=starter)
    assert last_audit(database).detail["only_admin"] is True


def test_four_eyes_are_not_asked_for_where_the_gate_decides(
    database: Database, make: Make, admins: Callable[..., None]
) -> None:
    admins("ben", "cleo")
    make("a", by="ben@x.example")
    with database.write() as session:
        adapters.promote(session, "a", actor="ben@x.example", four_eyes=False)
    assert "only_admin" not in last_audit(database).detail


# --- roll-back


def test_repeated_roll_backs_walk_to_the_bare_base_and_never_to_and_fro(
    database: Database, make: Make
) -> None:
    make("a", "b", "c")
    promote(database, "a", "b", "c")
    assert way_back(database) == ["b", "a", ""]
    assert [rollback(database) for _ in range(3)] == ["b", "a", ""]
    assert states(database) == {"a": "retired", "b": "retired", "c": "retired"}
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(database)


def test_what_was_left_by_a_roll_back_is_not_returned_to(database: Database, make: Make) -> None:
    make("a", "b", "c")
    promote(database, "a", "b")
    rollback(database)
    promote(database, "c")
    assert way_back(database) == ["a", ""]


def test_one_promoted_twice_stands_once_on_the_way_back(database: Database, make: Make) -> None:
    make("a", "b")
    promote(database, "a", "b", "a")
    assert [rollback(database), rollback(database)] == ["b", ""]


def test_roll_back_passes_over_a_rejected_and_a_removed_one(database: Database, make: Make) -> None:
    make("a", "b", "c", "d")
    promote(database, "a", "b", "c", "d")
    with database.write() as session:
        adapters.get(session, "c").state = "rejected"
        adapters.get(session, "b").card = {"verdict": {"decision": "rejected"}}
    with pytest.raises(ConflictError, match="cannot return to c"):
        rollback(database, "c")
    assert rollback(database) == "a"


def test_roll_back_to_a_name_goes_further_and_only_to_what_was_in_use(database: Database, make: Make) -> None:
    make("a", "b", "c", "never")
    promote(database, "a", "b", "c")
    with pytest.raises(ConflictError, match="It can return to: b, a, base"):
        rollback(database, "never")
    assert rollback(database, "a") == "a"
    assert way_back(database) == [""]
    assert history(database)[-1] == ("rollback", "a", "c")


def test_a_champion_without_history_goes_back_to_the_bare_base(database: Database, make: Make) -> None:
    make("a", state="champion")
    make("b")
    assert way_back(database) == [""]
    promote(database, "b")
    assert way_back(database) == ["a", ""]


def test_a_roll_back_of_what_is_no_longer_in_use_is_refused(database: Database, make: Make) -> None:
    make("a", "b")
    promote(database, "a", "b")
    with database.write() as session, pytest.raises(ConflictError, match="in the meantime"):
        adapters.rollback(session, actor="x", leaving="a")
    assert states(database)["b"] == "champion"


# --- remove


def test_what_is_needed_is_not_removed(database: Database, mailbox: Mailbox, make: Make) -> None:
    make("a", "b", "c", "trial", "own")
    promote(database, "a", "b")
    with database.write() as session:
        adapters.shadow(session, "trial", actor="x")
        adapters.assign(session, session.get_one(Mailbox, mailbox.id), "own", actor="x")
    for name, why in [("a", "--force"), ("b", "in use"), ("trial", "on trial"), ("own", "mailbox support")]:
        with database.write() as session, pytest.raises(ConflictError, match=why):
            adapters.remove(session, name, actor="x")
    for name in ("b", "trial", "own"):
        with database.write() as session, pytest.raises(ConflictError):
            adapters.remove(session, name, actor="x", force=True)
    with database.write() as session:
        adapters.remove(session, "a", actor="x", force=True)
        adapters.remove(session, "c", actor="x")
    assert way_back(database) == [""]
    with database.read() as session:
        assert "c" not in {row.name for row in adapters.all_of(session)}
        with pytest.raises(NotFoundError, match="Adapters: own, trial, b"):
            adapters.get(session, "none")


def test_two_promotions_at_the_same_moment_leave_one_champion(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a", "b")
    promote(database, "a")
    # What the second of two transactions sees that began before the first one was committed.
    monkeypatch.setattr(adapters, "champion", lambda _: None)
    with pytest.raises(ConflictError, match="at the same moment"):
        promote(database, "b")
    assert states(database) == {"a": "champion", "b": "candidate"}
    assert history(database) == [("promote", "a", "")]
