"""Mailboxes that admins are connecting in the browser, until they go live or lapse. Each is its owner's alone."""

import json
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any

from sqlmodel import Session, col, delete, select

from briefbox.db import now
from briefbox.errors import NotFoundError
from briefbox.store.secrets import Cipher
from briefbox.tables import MailboxDraft, User

LIFE = timedelta(hours=2)


def create(session: Session, user: User, values: dict[str, Any], facts: dict[str, Any]) -> MailboxDraft:
    """Begin to connect a mailbox."""
    moment = now(session)
    draft = MailboxDraft(
        user_id=user.id,
        key=token_urlsafe(24),
        values=values,
        facts=facts,
        created_at=moment,
        expires_at=moment + LIFE,
    )
    session.add(draft)
    session.flush()
    return draft


def get(session: Session, key: str, user: User, *, lock: bool = False) -> MailboxDraft:
    """The draft. Raises NotFoundError when it is another's, or over."""
    query = select(MailboxDraft).where(MailboxDraft.key == key, MailboxDraft.user_id == user.id)
    draft = session.exec(query.with_for_update() if lock else query).first()
    if draft is None or draft.expires_at <= now(session):
        raise NotFoundError(
            "This inbox is not being connected any more: it is live, was given up, or two hours have passed. Begin again under Mailboxes."
        )
    return draft


def locked(session: Session, key: str, user: User) -> MailboxDraft:
    """The same, held against others until the commit."""
    return get(session, key, user, lock=True)


def change(
    session: Session,
    draft: MailboxDraft,
    *,
    values: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write over some of what was entered and found."""
    # New objects: a JSON column does not notice what changes inside it.
    draft.values = {**draft.values, **(values or {})}
    draft.facts = {**draft.facts, **(facts or {})}
    session.add(draft)
    session.flush()


def secret(draft: MailboxDraft, cipher: Cipher) -> dict[str, Any]:
    """What was entered and is secret. Raises SettingsError when the key is another."""
    if not draft.secret_encrypted:
        return {}
    found: dict[str, Any] = json.loads(cipher.decrypt(_bound_to(draft), draft.secret_encrypted))
    return found


def keep_secret(session: Session, draft: MailboxDraft, cipher: Cipher, secret: dict[str, Any]) -> None:
    """Store it encrypted, bound to this draft."""
    draft.secret_encrypted = cipher.encrypt(_bound_to(draft), json.dumps(secret))
    session.add(draft)
    session.flush()


def end(session: Session, draft: MailboxDraft) -> None:
    """It is live, or given up: nothing of it is kept."""
    session.delete(draft)
    session.flush()


def any_lapsed(session: Session) -> bool:
    """Whether the time of one is over: asked without the right to write."""
    query = select(MailboxDraft.id).where(col(MailboxDraft.expires_at) <= now(session))
    return session.exec(query.limit(1)).first() is not None


def end_lapsed(session: Session) -> int:
    """Delete those whose time is over. Returns how many."""
    return session.exec(delete(MailboxDraft).where(col(MailboxDraft.expires_at) <= now(session))).rowcount


def _bound_to(draft: MailboxDraft) -> str:
    return f"draft {draft.key}"
