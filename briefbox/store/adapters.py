"""The registry of adapters: what was trained, what is in use, what is on trial, and the way back.

    candidate --promote--> champion --another is promoted, or roll-back--> retired
        |  ^                                                                  |
        v  | trial ended                                                      | promote, roll-back
      shadow                                                               champion

Every way into use goes through `_admit`: promotion, the adapter of a single mailbox, from the command line, the
desk or a training run. Workers read these rows before each batch, so that a change here is all there is to do.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, or_, select

from briefbox.db import now
from briefbox.errors import ConflictError, NotFoundError
from briefbox.store import audit_log, events
from briefbox.tables import Adapter, Dataset, Mailbox, Promotion, TrainingRun, User

CHOOSE = "Choose another of: briefbox adapters list"
# Never put in use, and never gone back to.
UNUSABLE = ("rejected", "removed")


# --- look


def all_of(session: Session, *, removed: bool = False) -> list[Adapter]:
    """Every adapter, newest first; with `removed` also those whose files are gone."""
    query = select(Adapter).order_by(col(Adapter.id).desc())
    return list(session.exec(query if removed else query.where(col(Adapter.state) != "removed")))


def get(session: Session, name: str) -> Adapter:
    """Raises NotFoundError, which lists the names there are."""
    adapter = session.exec(select(Adapter).where(Adapter.name == name)).first()
    if adapter is None:
        names = ", ".join(a.name for a in all_of(session)) or "none yet; make one with: briefbox train"
        raise NotFoundError(f"There is no adapter named {name}. Adapters: {names}.")
    return adapter


def champion(session: Session) -> Adapter | None:
    """The adapter in use; None means the bare base model."""
    return session.exec(select(Adapter).where(Adapter.state == "champion")).first()


def named(session: Session, names: Iterable[str]) -> list[Adapter]:
    """The champion, the shadow, and the adapters of these names, newest first."""
    wanted = or_(col(Adapter.state).in_(("champion", "shadow")), col(Adapter.name).in_(list(names)))
    return list(session.exec(select(Adapter).where(wanted).order_by(col(Adapter.id).desc())))


def promotions(session: Session, name: str | None = None) -> list[Promotion]:
    """Every change of the champion, oldest first; with a name those in which it came or went."""
    query = select(Promotion).order_by(col(Promotion.id))
    if name is not None:
        query = query.where(or_(col(Promotion.adapter) == name, col(Promotion.before) == name))
    return list(session.exec(query))


def origin(session: Session, adapter: Adapter) -> tuple[TrainingRun | None, Dataset | None]:
    """The run that made an adapter and what it learned from; None for one that came another way."""
    run = session.get(TrainingRun, adapter.training_run_id) if adapter.training_run_id else None
    return run, session.get(Dataset, run.dataset_id) if run is not None else None


# --- put in use


def promote(session: Session, name: str, *, actor: str, four_eyes: bool = True, reason: str = "") -> Adapter:
    """Put an adapter in use. The one before it is kept as retired.

    A `reason` lets an adapter through that the gate has not judged, and is recorded; a rejected one stays out.
    With `four_eyes` whoever started its training run is refused (see `_admit`). Raises NotFoundError, ConflictError.
    """
    adapter = get(session, name)
    before = champion(session)
    if before is not None and before.id == adapter.id:
        return adapter  # asked for twice
    notes = _admit(session, adapter, actor=actor, four_eyes=four_eyes, reason=reason)
    _switch(session, before, adapter)
    _note(session, "promote", before, adapter, actor, notes)
    return adapter


def assign(
    session: Session,
    mailbox: Mailbox,
    name: str | None,
    *,
    actor: str,
    four_eyes: bool = True,
    reason: str = "",
) -> None:
    """Give a mailbox's mail an adapter of its own, or the champion again (None).

    It passes the same gate as a champion does. Raises NotFoundError, ConflictError.
    """
    notes: dict[str, Any] = {}
    if name is not None:
        adapter = get(session, name)
        if adapter.state != "champion":
            notes = _admit(session, adapter, actor=actor, four_eyes=four_eyes, reason=reason)
    mailbox.adapter = name or ""
    session.add(mailbox)
    audit_log.record(session, actor, "adapter assigned", mailbox.name, adapter=mailbox.adapter, **notes)


def shadow(session: Session, name: str | None, *, actor: str) -> Adapter | None:
    """Let an adapter brief live mail unseen, in place of the one that does so now; None ends it.

    One that the gate has not judged may be tried: nobody sees what it says. Raises NotFoundError; ConflictError
    for the champion and for a rejected or removed adapter.
    """
    adapter = get(session, name) if name is not None else None
    if adapter is not None:
        _refuse_unusable(adapter)
        if adapter.state == "champion":
            raise ConflictError(f"The adapter {name} is in use already and cannot run as a shadow. {CHOOSE}")
    for before in session.exec(select(Adapter).where(Adapter.state == "shadow")):
        before.state = "retired" if before.promoted_at else "candidate"
        session.add(before)
    if adapter is not None:
        adapter.state = "shadow"
        session.add(adapter)
    session.flush()
    audit_log.record(session, actor, "adapter in shadow" if adapter else "shadow ended", name or "")
    return adapter


def usable(session: Session, name: str) -> Adapter:
    """The adapter of this name. Raises NotFoundError; ConflictError when it was rejected or removed."""
    adapter = get(session, name)
    _refuse_unusable(adapter)
    return adapter


def note_merged(session: Session, name: str, folder: str, *, actor: str) -> None:
    """Write down that a whole model was made of an adapter, and where."""
    audit_log.record(session, actor, "adapter merged", name, folder=folder)


def decision(adapter: Adapter) -> str:
    """What the gate said: promoted (it passed), rejected, not enough data; "" where it was never judged."""
    return str(adapter.card.get("verdict", {}).get("decision", ""))


def _admit(session: Session, adapter: Adapter, *, actor: str, four_eyes: bool, reason: str) -> dict[str, Any]:
    """The gate in front of every use. Returns what must be recorded with the change. Raises ConflictError."""
    notes: dict[str, Any] = {}
    _refuse_unusable(adapter)
    if decision(adapter) != "promoted":
        if not reason.strip():
            found = decision(adapter) or "never judged"
            raise ConflictError(
                f"The gate has not passed the adapter {adapter.name} ({found}); train on more corrections, or put it in use on your own judgement with: --force --reason TEXT"
            )
        notes["forced"] = reason.strip()
    run, _ = origin(session, adapter)
    if four_eyes and run is not None and run.created_by == actor:
        if others := _others(session, actor):
            raise ConflictError(
                f"You started the training run {run.id} that made {adapter.name}, so somebody else puts it in use, for example {others[0]}; or set BRIEFBOX_PROMOTION=automatic to leave it to the gate."
            )
        notes["only_admin"] = True  # nobody else could
    return notes


def _is_unusable(adapter: Adapter) -> bool:
    return adapter.state in UNUSABLE or decision(adapter) == "rejected"


def _refuse_unusable(adapter: Adapter) -> None:
    if _is_unusable(adapter):
        why = "removed" if adapter.state == "removed" else "rejected"
        raise ConflictError(f"The adapter {adapter.name} was {why} and is not put in use. {CHOOSE}")


def _others(session: Session, actor: str) -> list[str]:
    """Reviewers and admins who can sign in and are not the actor, admins first.

    The only one of an installation is its shell's user too.
    """
    active = (
        col(User.role).in_(("reviewer", "admin")),
        col(User.disabled_at).is_(None),
        User.password_hash != "",
    )
    people = list(session.exec(select(User.email).where(*active).order_by(col(User.role), col(User.id))))
    if "@" in actor:
        return [email for email in people if email != actor]
    return people if len(people) > 1 else []


# --- the way back


def way_back(session: Session) -> list[str]:
    """What roll-back would put in use, nearest first; "" at the end is the bare base. Empty when that is in use.

    The history is read as a pile: a promotion puts its adapter on top, a roll-back takes off all above the one
    it returned to. So a second roll-back goes further back, and never to what the first one left.
    """
    current = champion(session)
    if current is None:
        return []
    pile: list[str] = []
    for row in promotions(session):
        if row.kind == "rollback":
            pile = pile[: pile.index(row.adapter) + 1] if row.adapter in pile else []
            continue
        # What was in use without a promotion on record was still in use.
        if row.before and row.before not in pile:
            pile.append(row.before)
        pile = [name for name in pile if name != row.adapter] + [row.adapter]
    if current.name in pile:
        pile = pile[: pile.index(current.name)]
    rows = {row.name: row for row in named(session, pile)}
    usable = [name for name in pile if name in rows and not _is_unusable(rows[name])]
    return [*reversed(usable), ""]


def destination(session: Session, to: str | None = None) -> str:
    """Where roll-back leads: to what was in use before the champion, or `to` if that is on the way. "" is the base.

    Raises ConflictError when the bare base is in use already, or there is no way back to `to`.
    """
    current = champion(session)
    if current is None:
        raise ConflictError(
            "The bare base model is in use, so there is nothing to roll back. Put an adapter in use with: briefbox adapters promote NAME"
        )
    back = way_back(session)
    if to is not None and to not in back:
        known = ", ".join(name or "base (the bare base model)" for name in back)
        raise ConflictError(
            f"Roll-back cannot return to {to}: it was not in use before {current.name}, or was rejected or removed. It can return to: {known}."
        )
    return back[0] if to is None else to


def rollback(
    session: Session,
    *,
    actor: str,
    to: str | None = None,
    leaving: str | None = None,
    proof: dict[str, Any] | None = None,
) -> Promotion:
    """Put back in use what `destination` says, and return its entry in the history. The champion is retired.

    `leaving` is the champion that the caller saw. Raises ConflictError when it is another one by now, and as
    `destination` does.
    """
    name = destination(session, to)
    current = champion(session)
    if leaving is not None and current is not None and leaving != current.name:
        raise ConflictError(
            f"The adapter {current.name} was put in use in the meantime, in place of {leaving}; nothing was rolled back. Look at: briefbox adapters list"
        )
    adapter = get(session, name) if name else None
    _switch(session, current, adapter)
    return _note(session, "rollback", current, adapter, actor, proof or {})


def _switch(session: Session, before: Adapter | None, after: Adapter | None) -> None:
    """Raises ConflictError when somebody else changed the champion at the same moment."""
    if before is not None:
        before.state = "retired"
        session.add(before)
        session.flush()  # at most one champion at any moment: the unique index would refuse the other order
    if after is not None:
        after.state, after.promoted_at = "champion", now(session)
        session.add(after)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(
            "Another adapter was put in use at the same moment; look at: briefbox adapters list"
        ) from error


def _note(
    session: Session,
    kind: str,
    before: Adapter | None,
    after: Adapter | None,
    actor: str,
    proof: dict[str, Any],
) -> Promotion:
    """Into the history, which roll-back reads, and into the audit log."""
    came, went = after.name if after else "", before.name if before else ""
    row = Promotion(adapter=came, before=went, kind=kind, actor=actor, proof=proof, created_at=now(session))
    session.add(row)
    session.flush()
    audit_log.record(
        session,
        actor,
        "adapter promoted" if kind == "promote" else "adapter rolled back",
        came,
        before=went,
        sha256=after.weights_sha256 if after else "",
        **proof,
    )
    events.adapter_event(session, "promoted" if kind == "promote" else "rolled_back", before, after, actor)
    return row


# --- remove


def remove(session: Session, name: str, *, actor: str, force: bool = False) -> Adapter:
    """Mark an adapter as removed; its row stays for the history, its folder is the caller's business.

    Raises NotFoundError; ConflictError while it is in use anywhere, on trial, or (unless `force`) what roll-back
    would return to.
    """
    adapter = get(session, name)
    if adapter.state == "removed":
        return adapter
    if adapter.state in ("champion", "shadow"):
        where, instead = (
            ("in use", "rollback") if adapter.state == "champion" else ("on trial", "shadow --none")
        )
        raise ConflictError(
            f"The adapter {name} is {where} and is not removed. End that first with: briefbox adapters {instead}"
        )
    users = list(session.exec(select(Mailbox.name).where(Mailbox.adapter == name)))
    if users:
        raise ConflictError(
            f"The adapter {name} briefs the mailbox {users[0]} and is not removed. End that first with: briefbox adapters assign --none --mailbox {users[0]}"
        )
    if not force and name in way_back(session)[:1]:
        raise ConflictError(
            f"Roll-back would return to the adapter {name}, so it is kept. Remove it all the same with: --force"
        )
    adapter.state = "removed"
    session.add(adapter)
    session.flush()
    audit_log.record(session, actor, "adapter removed", name, sha256=adapter.weights_sha256, forced=force)
    return adapter
