"""People and their one-time links. Of a link's token (256 bits of chance) only the sha256 is stored, and no log has it.

Their passwords are passwords.py, their browsers login_sessions.py, second factors second_factor.py, accounts elsewhere
identities.py; what admins change of them is people.py.
"""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, or_, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import Identity, SignInLink, User

# Each may do what the one before it may.
ROLES = ("agent", "reviewer", "admin")
MAX_NAME = 100
# Holds the first admin's place until they say who they are; it has no password, and nobody can sign in with it.
UNKNOWN_ADMIN = "admin@localhost"
USED_LINK = "This sign-in link is not valid: it was used already, has expired, or was replaced by a newer one. Ask an admin for a new link (briefbox user link)."


def create(
    session: Session, *, email: str, name: str, role: str = "agent", actor: str, link_hours: float = 24
) -> tuple[User, str]:
    """Add a person. Returns them with the token of their first sign-in link.

    Raises ConflictError if the address exists, InvalidValueError if it is none or the role is unknown.
    """
    address = _address(email)
    check_role(role)
    if find(session, address) is not None:
        raise ConflictError(
            f"A user with the address {address} exists already. Make a new sign-in link for them instead."
        )
    user = User(email=address, name=" ".join(name.split()), role=role, created_at=now(session))
    session.add(user)
    session.flush()
    audit_log.record(session, actor, "user added", address, role=role)
    return user, new_link(session, user, hours=link_hours, actor=actor)


def get(session: Session, email: str) -> User:
    """The person with this address. Raises NotFoundError."""
    user = find(session, email.strip().lower())
    if user is None:
        raise NotFoundError(f"There is no user with the address {email.strip()}.")
    return user


def by_id(session: Session, user_id: int) -> User:
    """The person with this id. Raises NotFoundError."""
    user = session.get(User, user_id)
    if user is None:
        raise NotFoundError(f"There is no user {user_id}.")
    return user


def find(session: Session, address: str) -> User | None:
    """The person with this address, in lower case, if there is one."""
    return session.exec(select(User).where(User.email == address)).first()


def check_role(role: str) -> None:
    """Raises InvalidValueError for what is no role."""
    if role not in ROLES:
        raise InvalidValueError(f"The role “{role}” is none of {', '.join(ROLES)}.")


def all_of(session: Session) -> list[User]:
    """Everybody, by address."""
    return list(session.exec(select(User).order_by(User.email)))


def any_user(session: Session) -> bool:
    """Whether anybody was added yet."""
    return session.exec(select(User.id).limit(1)).first() is not None


# --- the first admin


def first_link(session: Session, *, actor: str = "start") -> str | None:
    """While nobody has signed in yet: a one-time link for the first admin, who states name and address on it."""
    if session.exec(select(User.id).where(_can_sign_in()).limit(1)).first() is not None:
        return None
    first = session.exec(select(User).where(User.role == "admin").order_by(col(User.id)).limit(1)).first()
    if first is None:
        return create(session, email=UNKNOWN_ADMIN, name="", role="admin", actor=actor)[1]
    return new_link(session, first, actor=actor)


def needs_address(user: User) -> bool:
    """Whether this is the first admin, before they said who they are."""
    return user.email == UNKNOWN_ADMIN


def introduce(session: Session, user: User, *, email: str, name: str) -> None:
    """The first admin says who they are. Raises InvalidValueError, ConflictError."""
    address, name = _address(email), " ".join(name.split())[:MAX_NAME]
    if not name:
        raise InvalidValueError("The name is empty; expected what the others call you.")
    if address == UNKNOWN_ADMIN:
        raise InvalidValueError(f"{UNKNOWN_ADMIN} stands for nobody; expected your own address.")
    if find(session, address) is not None:
        raise ConflictError(f"A user with the address {address} exists already.")
    user.email, user.name = address, name
    session.add(user)
    session.flush()
    audit_log.record(session, address, "first admin set up", address)


def _can_sign_in() -> ColumnElement[bool]:
    has_identity = select(Identity.id).where(Identity.user_id == col(User.id)).exists()
    return or_(col(User.password_hash) != "", has_identity)


# --- one-time links


def new_link(session: Session, user: User, *, hours: float = 24, actor: str = "cli") -> str:
    """Make a one-time link and end the earlier ones. Returns its token, which is stored nowhere."""
    end_links(session, user)
    token = secrets.token_urlsafe(32)
    session.add(
        SignInLink(
            user_id=user.id,
            token_hash=_hash(token),
            expires_at=now(session) + timedelta(hours=hours),
        )
    )
    audit_log.record(session, actor, "sign-in link made", user.email, hours=hours)
    return token


def peek_link(session: Session, token: str) -> User:
    """Whose link this is; it stays usable. Raises NotFoundError."""
    user = session.exec(
        select(User)
        .join(SignInLink, col(SignInLink.user_id) == col(User.id))
        .where(*_usable(token, now(session)), col(User.disabled_at).is_(None))
    ).first()
    if user is None:
        raise NotFoundError(USED_LINK)
    return user


def use_link(session: Session, token: str) -> User:
    """Use a link up. Raises NotFoundError when it was used, has expired or never existed."""
    user = peek_link(session, token)
    moment = now(session)
    changed = session.exec(
        update(SignInLink).where(*_usable(token, moment)).values(used_at=moment)
    )  # two clicks at once: the row count tells the first from the second
    if not changed.rowcount:
        raise NotFoundError(USED_LINK)
    audit_log.record(session, user.email, "sign-in link used", user.email)
    return user


def _usable(token: str, moment: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        col(SignInLink.token_hash) == _hash(token),
        col(SignInLink.used_at).is_(None),
        col(SignInLink.expires_at) > moment,
    )


def end_links(session: Session, user: User) -> None:
    """No link of this person works any more."""
    session.exec(
        update(SignInLink)
        .where(col(SignInLink.user_id) == user.id, col(SignInLink.used_at).is_(None))
        .values(used_at=now(session))
    )


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def _address(email: str) -> str:
    address = email.strip().lower()
    local, _, domain = address.rpartition("@")
    if (
        not local
        or not domain
        or len(address) > 200
        or any(c.isspace() or not c.isprintable() for c in address)
    ):
        raise InvalidValueError(
            f"“{email.strip()}” is no email address; expected something like ana@example.org."
        )
    return address
