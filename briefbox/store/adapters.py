"""The registry of adapters: what was trained, what is in use, what is on trial."""

from collections.abc import Iterable

from sqlmodel import Session, col, or_, select

from briefbox.db import now
from briefbox.errors import ConflictError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import Adapter, Mailbox


def all_of(session: Session) -> list[Adapter]:
    """Every adapter, newest first."""
    return list(session.exec(select(Adapter).order_by(col(Adapter.id).desc())))


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


def shadow(session: Session, name: str | None, *, actor: str) -> Adapter | None:
    """Let an adapter brief live mail unseen, in place of the one that does so now; None ends it.

    Raises NotFoundError; ConflictError for the champion and for a rejected adapter.
    """
    adapter = get(session, name) if name is not None else None
    if adapter is not None and adapter.state in ("champion", "rejected"):
        why = "is in use already" if adapter.state == "champion" else "was rejected"
        raise ConflictError(
            f"The adapter {name} {why} and cannot run as a shadow. Choose another of: briefbox adapters list"
        )
    for before in session.exec(select(Adapter).where(Adapter.state == "shadow")):
        before.state = "candidate"
        session.add(before)
    if adapter is not None:
        adapter.state = "shadow"
        session.add(adapter)
    session.flush()
    audit_log.record(session, actor, "adapter in shadow" if adapter else "shadow ended", name or "")
    return adapter


def assign(session: Session, mailbox: Mailbox, name: str | None, *, actor: str) -> None:
    """Give a mailbox's mail an adapter of its own, or the champion again (None).

    Raises NotFoundError; ConflictError for a rejected adapter.
    """
    if name is not None and get(session, name).state == "rejected":
        raise ConflictError(
            f"The adapter {name} was rejected and is not put in use. Choose another of: briefbox adapters list"
        )
    mailbox.adapter = name or ""
    session.add(mailbox)
    audit_log.record(session, actor, "adapter assigned", mailbox.name, adapter=mailbox.adapter)


def promote(session: Session, name: str, *, actor: str) -> Adapter:
    """Put an adapter in use. The one before it is kept as retired. Raises NotFoundError, ConflictError."""
    adapter = get(session, name)
    if adapter.state == "rejected":
        raise ConflictError(
            f"The adapter {name} was rejected and is not put in use. Choose another of: briefbox adapters list"
        )
    before = champion(session)
    if before is not None and before.id == adapter.id:
        return adapter
    if before is not None:
        before.state = "retired"
        session.add(before)
        session.flush()  # at most one champion at any moment: the unique index would refuse the other order
    adapter.state, adapter.promoted_at = "champion", now(session)
    session.add(adapter)
    session.flush()
    audit_log.record(
        session,
        actor,
        "adapter promoted",
        name,
        before=before.name if before else "",
        sha256=adapter.weights_sha256,
    )
    return adapter
