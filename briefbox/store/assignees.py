"""Who can be given a conversation, and what they are called."""

from collections.abc import Iterable

from sqlmodel import Session, col, or_, select

from briefbox.store.sight import Sight
from briefbox.tables import MailboxAccess, User


def who_see(session: Session, mailbox_id: int) -> list[User]:
    """Everybody who sees a mailbox and may sign in, by name."""
    return _by_name(session, Sight(frozenset((mailbox_id,))))


def who_share(session: Session, sight: Sight) -> list[User]:
    """Everybody who sees at least one of the same mailboxes and may sign in, by name."""
    return _by_name(session, sight)


def names(session: Session, ids: Iterable[int | None]) -> dict[int, str]:
    """What these people are called: their name, or else their address."""
    wanted = {id_ for id_ in ids if id_ is not None}
    if not wanted:
        return {}
    query = select(User.id, User.name, User.email).where(col(User.id).in_(wanted))
    return {id_: name or email for id_, name, email in session.exec(query)}


def _by_name(session: Session, sight: Sight) -> list[User]:
    query = select(User).where(col(User.disabled_at).is_(None))
    if sight.mailboxes is not None:
        given = select(MailboxAccess.user_id).where(sight.where(MailboxAccess.mailbox_id))
        query = query.where(or_(col(User.all_mailboxes), User.role == "admin", col(User.id).in_(given)))
    found = session.exec(query).all()
    return sorted(found, key=lambda user: (user.name or user.email).casefold())
