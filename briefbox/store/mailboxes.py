"""Mailboxes and their leases: which inboxes there are, and which poller owns each of them now."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from sqlmodel import Session, col, or_, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, LeaseLostError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import Mailbox


@dataclass(frozen=True, slots=True)
class MailboxLease:
    """The right to write what a mailbox shows, until somebody else takes it over."""

    mailbox_id: int
    owner: str
    token: str


def add(session: Session, mailbox: Mailbox, *, actor: str, replace: bool = False) -> Mailbox:
    """Store a mailbox. Raises ConflictError if the name is taken and `replace` is not asked for."""
    existing = session.exec(select(Mailbox).where(Mailbox.name == mailbox.name)).first()
    if existing is not None and not replace:
        raise ConflictError(
            f"A mailbox named {mailbox.name} exists already. Choose another name, or add --replace to change its settings."
        )
    if existing is not None:
        for field in (
            "address",
            "host",
            "port",
            "security",
            "username",
            "password_encrypted",
            "ca_file",
            "folders",
        ):
            setattr(existing, field, getattr(mailbox, field))
        existing.last_error = ""
        mailbox = existing
    else:
        mailbox.created_at = now(session)
    session.add(mailbox)
    session.flush()
    audit_log.record(
        session,
        actor,
        "mailbox replaced" if existing else "mailbox added",
        mailbox.name,
        host=mailbox.host,
        username=mailbox.username,
    )
    return mailbox


def get(session: Session, name: str) -> Mailbox:
    """The mailbox of this name. Raises NotFoundError, which lists the names there are."""
    mailbox = session.exec(select(Mailbox).where(Mailbox.name == name)).first()
    if mailbox is None:
        names = ", ".join(m.name for m in all_of(session)) or "none yet; add one with: briefbox mailbox add"
        raise NotFoundError(f"There is no mailbox named {name}. Mailboxes: {names}.")
    return mailbox


def get_by_id(session: Session, mailbox_id: int) -> Mailbox:
    """Raises NotFoundError."""
    mailbox = session.get(Mailbox, mailbox_id)
    if mailbox is None:
        raise NotFoundError(f"There is no mailbox with the id {mailbox_id}.")
    return mailbox


def all_of(session: Session) -> list[Mailbox]:
    """Every mailbox, by name."""
    return list(session.exec(select(Mailbox).order_by(Mailbox.name)))


def claim(session: Session, mailbox_id: int, *, owner: str, seconds: float) -> MailboxLease | None:
    """Take the mailbox for `seconds`, or None while another poller owns it."""
    moment, token = now(session), uuid4().hex
    free = or_(col(Mailbox.lease_until).is_(None), col(Mailbox.lease_until) < moment)
    changed = session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == mailbox_id, free, col(Mailbox.paused_at).is_(None))
        .values(lease_owner=owner, lease_token=token, lease_until=moment + timedelta(seconds=seconds))
    )
    return MailboxLease(mailbox_id, owner, token) if changed.rowcount else None


def renew(session: Session, lease: MailboxLease, *, seconds: float) -> None:
    """Prolong the lease; inside a transaction this also fences it. Raises LeaseLostError."""
    changed = session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == lease.mailbox_id, col(Mailbox.lease_token) == lease.token)
        .values(lease_until=now(session) + timedelta(seconds=seconds))
    )
    if not changed.rowcount:
        raise LeaseLostError(
            f"Another poller has taken over mailbox {lease.mailbox_id}; this one wrote nothing."
        )


def release(session: Session, lease: MailboxLease) -> None:
    """Give the mailbox back, if it is still ours."""
    session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == lease.mailbox_id, col(Mailbox.lease_token) == lease.token)
        .values(lease_owner="", lease_token="", lease_until=None)
    )


def note_success(session: Session, mailbox_id: int) -> None:
    """The folder was read to its end just now."""
    session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == mailbox_id)
        .values(last_success_at=now(session), last_error="", last_error_at=None)
    )


def note_error(session: Session, mailbox_id: int, sentence: str) -> None:
    """Keep the last failure in words, for the desk and the command line."""
    session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == mailbox_id)
        .values(last_error=sentence, last_error_at=now(session))
    )
