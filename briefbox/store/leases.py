"""Which poller reads which mailbox: leases, shared out evenly, renewed in one statement for all of a process."""

from collections.abc import Iterable
from datetime import timedelta

from sqlmodel import Session, col, or_, select, update

from briefbox.db import now
from briefbox.store import mailboxes
from briefbox.store.mailboxes import MailboxLease
from briefbox.tables import Mailbox


def renew_owned(session: Session, owner: str, *, seconds: float) -> dict[int, MailboxLease]:
    """Prolong every lease of `owner`; what it still owns, by mailbox id."""
    session.exec(
        update(Mailbox)
        .where(col(Mailbox.lease_owner) == owner)
        .values(lease_until=now(session) + timedelta(seconds=seconds))
    )
    rows = session.exec(select(Mailbox.id, Mailbox.lease_token).where(Mailbox.lease_owner == owner)).all()
    return {mailbox_id: MailboxLease(mailbox_id, owner, token) for mailbox_id, token in rows}


def claim_free(
    session: Session, mailbox_ids: Iterable[int], *, owner: str, seconds: float, limit: int
) -> dict[int, MailboxLease]:
    """Take up to `limit` of these mailboxes that nobody reads, or whose poller has died."""
    moment = now(session)
    free = or_(col(Mailbox.lease_until).is_(None), col(Mailbox.lease_until) < moment)
    wanted = list(mailbox_ids)
    candidates = session.exec(select(Mailbox.id).where(col(Mailbox.id).in_(wanted), free).limit(limit)).all()
    taken = (mailboxes.claim(session, mailbox_id, owner=owner, seconds=seconds) for mailbox_id in candidates)
    return {lease.mailbox_id: lease for lease in taken if lease is not None}


def release_all(session: Session, owner: str, mailbox_ids: Iterable[int] | None = None) -> None:
    """Give back these mailboxes, or all that `owner` has."""
    gone = update(Mailbox).where(col(Mailbox.lease_owner) == owner)
    if mailbox_ids is not None:
        gone = gone.where(col(Mailbox.id).in_(list(mailbox_ids)))
    session.exec(gone.values(lease_owner="", lease_token="", lease_until=None))
