"""Accounts at the OpenID provider with which people sign in: (issuer, subject), never an address.

An address at a provider may be unverified, or somebody else's tomorrow; so an account is linked by the person who is
signed in, or by whoever holds their invitation, and by nothing else.
"""

from sqlmodel import Session, col, delete, select

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import Identity, User


def find_user(session: Session, issuer: str, subject: str) -> User | None:
    """Who signs in with this account, if anybody does and may."""
    return session.exec(
        select(User)
        .join(Identity, col(Identity.user_id) == col(User.id))
        .where(Identity.issuer == issuer, Identity.subject == subject, col(User.disabled_at).is_(None))
    ).first()


def of_user(session: Session, user: User) -> list[Identity]:
    """The accounts that are linked to this person."""
    return list(session.exec(select(Identity).where(Identity.user_id == user.id).order_by(col(Identity.id))))


def link(session: Session, user: User, issuer: str, subject: str) -> None:
    """From now on this account is this person. Raises ConflictError when it is somebody already."""
    known = session.exec(
        select(Identity).where(Identity.issuer == issuer, Identity.subject == subject)
    ).first()
    if known is not None:
        raise ConflictError(
            "That account is linked already, to you or to somebody else. An admin sees whom it belongs to in the audit log."
        )
    session.add(Identity(user_id=user.id, issuer=issuer, subject=subject, created_at=now(session)))
    session.flush()
    audit_log.record(session, user.email, "account linked", user.email, issuer=issuer, subject=subject)


def unlink(session: Session, user: User, identity_id: int) -> None:
    """No longer. Raises NotFoundError, InvalidValueError where the person could not sign in any more."""
    row = session.exec(
        select(Identity).where(Identity.id == identity_id, Identity.user_id == user.id)
    ).first()
    if row is None:
        raise NotFoundError("There is no such linked account.")
    if not user.password_hash and len(of_user(session, user)) == 1:
        raise InvalidValueError(
            "This is the only way in which you can sign in. Choose a password first, or link another account."
        )
    session.exec(delete(Identity).where(col(Identity.id) == identity_id))
    audit_log.record(
        session, user.email, "account unlinked", user.email, issuer=row.issuer, subject=row.subject
    )
