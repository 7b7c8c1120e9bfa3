"""What admins change of people: role, mailboxes, whether they may sign in. Every change says what was before.

There is always somebody left who is an admin and may sign in.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, delete, func, select

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log, login_sessions, users
from briefbox.tables import Identity, Mailbox, MailboxAccess, SignInLink, User

LAST_ADMIN = "This is the last admin who can sign in. Make somebody else an admin first."


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as admins see them."""

    user: User
    mailboxes: tuple[str, ...] | None  # names of those that are seen; None is all
    seen_at: datetime | None
    num_sessions: int
    num_identities: int
    invited_until: datetime | None  # their link is not used yet

    @property
    def has_second_factor(self) -> bool:
        """Whether a second factor is asked for."""
        return bool(self.user.totp_encrypted)

    @property
    def can_sign_in(self) -> bool:
        """Whether they have a way to, apart from links."""
        return bool(self.user.password_hash) or self.num_identities > 0


def all_of(session: Session) -> list[Person]:
    """Everybody: who may sign in first, then by address."""
    names = _mailbox_names(session)
    seen = login_sessions.last_seen(session)
    identities = _counts(session, Identity.user_id)
    links = dict(
        session.exec(
            select(SignInLink.user_id, func.max(SignInLink.expires_at))
            .where(col(SignInLink.used_at).is_(None), SignInLink.expires_at > now(session))
            .group_by(col(SignInLink.user_id))
        ).all()
    )
    found = session.exec(select(User).order_by(col(User.disabled_at).is_not(None), col(User.email))).all()
    return [
        Person(
            user,
            None if _sees_all(user) else tuple(names.get(user.id, ())),
            seen.get(user.id),
            login_sessions.num_sessions(session, user),
            identities.get(user.id, 0),
            links.get(user.id),
        )
        for user in found
    ]


def one(session: Session, user_id: int) -> Person:
    """One of them. Raises NotFoundError."""
    for person in all_of(session):
        if person.user.id == user_id:
            return person
    raise NotFoundError(f"There is no user {user_id}.")


def mailboxes(session: Session) -> list[Mailbox]:
    """The mailboxes that can be given to people."""
    query = select(Mailbox).where(col(Mailbox.removed_at).is_(None)).order_by(Mailbox.name)
    return list(session.exec(query))


def mailbox_ids(session: Session, user: User) -> set[int]:
    """Those that were given to this person by name."""
    return set(session.exec(select(MailboxAccess.mailbox_id).where(MailboxAccess.user_id == user.id)))


def change(
    session: Session,
    user: User,
    *,
    role: str,
    all_mailboxes: bool,
    mailbox_ids: Collection[int] = (),
    actor: str,
) -> bool:
    """Give somebody a role and mailboxes. True when anything changed; another role ends their sessions.

    Raises InvalidValueError, NotFoundError for an unknown mailbox, ConflictError for the last admin.
    """
    users.check_role(role)
    before, after = _state(session, user), None
    if user.role == "admin" and role != "admin":
        _keep_an_admin(session, user)
    was, user.role, user.all_mailboxes = user.role, role, all_mailboxes
    session.add(user)
    _give(session, user, () if all_mailboxes else mailbox_ids)
    after = _state(session, user)
    if after == before:
        return False
    if role != was:
        login_sessions.end_all(session, user)
    audit_log.record(session, actor, "user changed", user.email, before=before, after=after)
    return True


def rename(session: Session, user: User, name: str, *, actor: str) -> bool:
    """Another name. True when it is one. Raises InvalidValueError for an empty one."""
    name = " ".join(name.split())[: users.MAX_NAME]
    if not name:
        raise InvalidValueError("The name is empty; expected what the others call them.")
    if name == user.name:
        return False
    before, user.name = user.name, name
    session.add(user)
    audit_log.record(session, actor, "user renamed", user.email, before=before, after=name)
    return True


def disable(session: Session, user: User, *, actor: str) -> None:
    """They cannot sign in any more, and are signed out now; what they did stays theirs.

    Raises ConflictError for the last admin, InvalidValueError for who is disabled already.
    """
    if user.disabled_at is not None:
        raise InvalidValueError(f"{user.email} is disabled already.")
    if user.role == "admin":
        _keep_an_admin(session, user)
    user.disabled_at = now(session)
    session.add(user)
    users.end_links(session, user)
    ended = login_sessions.end_all(session, user)
    audit_log.record(session, actor, "user disabled", user.email, role=user.role, sessions=ended)


def enable(session: Session, user: User, *, actor: str) -> None:
    """They can sign in again. Raises InvalidValueError for who can."""
    if user.disabled_at is None:
        raise InvalidValueError(f"{user.email} is not disabled.")
    user.disabled_at = None
    session.add(user)
    audit_log.record(session, actor, "user enabled", user.email, role=user.role)


def _keep_an_admin(session: Session, user: User) -> None:
    # Locked in one order, so that two admins who demote each other at once take turns.
    admins = session.exec(
        select(User)
        .where(User.role == "admin", col(User.disabled_at).is_(None))
        .order_by(col(User.id))
        .with_for_update()
    ).all()
    linked = set(session.exec(select(Identity.user_id)))
    others = [a for a in admins if a.id != user.id and (a.password_hash or a.id in linked)]
    if not others and user.disabled_at is None:
        raise ConflictError(LAST_ADMIN)


def _give(session: Session, user: User, ids: Collection[int]) -> None:
    known = {mailbox.id for mailbox in mailboxes(session)}
    unknown = sorted(set(ids) - known)
    if unknown:
        raise NotFoundError(f"There is no mailbox {unknown[0]}.")
    session.exec(delete(MailboxAccess).where(col(MailboxAccess.user_id) == user.id))
    session.add_all(MailboxAccess(user_id=user.id, mailbox_id=id_) for id_ in sorted(set(ids)))
    session.flush()


def _state(session: Session, user: User) -> dict[str, Any]:
    names = _mailbox_names(session).get(user.id, [])
    return {"role": user.role, "mailboxes": "all" if user.all_mailboxes else names}


def _sees_all(user: User) -> bool:
    return user.role == "admin" or user.all_mailboxes


def _mailbox_names(session: Session) -> dict[int, list[str]]:
    query = select(MailboxAccess.user_id, Mailbox.name).join(
        Mailbox, col(Mailbox.id) == col(MailboxAccess.mailbox_id)
    )
    names: dict[int, list[str]] = {}
    for user_id, name in session.exec(query.order_by(Mailbox.name)).all():
        names.setdefault(user_id, []).append(name)
    return names


def _counts(session: Session, column: Any) -> dict[int, int]:
    return dict(session.exec(select(column, func.count()).group_by(column)).all())
