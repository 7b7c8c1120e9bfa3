"""Mailboxes and their leases: which inboxes there are, and which poller owns each of them now."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Text, cast
from sqlmodel import Session, col, or_, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, LeaseLostError, NotFoundError
from briefbox.store import alerts, audit_log, events, folders
from briefbox.tables import Mailbox

# What an admin sets; all else of a row is what became of it.
SETTINGS = (
    "address",
    "host",
    "port",
    "security",
    "username",
    "password_encrypted",
    "ca_file",
    "folders",
    "sent_folder",
    "vetted",
    "auth",
    "oauth",
    "oauth_encrypted",
    "addresses",
    "start_at",
    "older",
    "attachments",
)
SIGN_IN = ("password_encrypted", "oauth", "oauth_encrypted")


@dataclass(frozen=True, slots=True)
class MailboxLease:
    """The right to write what a mailbox shows, until somebody else takes it over."""

    mailbox_id: int
    owner: str
    token: str


def add(
    session: Session, mailbox: Mailbox, *, actor: str, replace: bool = False, keep_sign_in: bool = False
) -> Mailbox:
    """Store a mailbox. Raises ConflictError if the name is taken and `replace` is not asked for.

    `keep_sign_in` leaves password and tokens as they are stored now: a poller may have renewed them a moment ago.
    """
    existing = session.exec(select(Mailbox).where(Mailbox.name == mailbox.name)).first()
    if existing is not None and not replace:
        raise ConflictError(name_taken(mailbox.name))
    if existing is not None:
        for field in SETTINGS:
            if not (keep_sign_in and field in SIGN_IN):
                setattr(existing, field, getattr(mailbox, field))
        existing.last_error = ""
        # Whatever it was about, it is tried anew, perhaps with other folders.
        alerts.resolve_beginning(session, alert_key(mailbox.name, ""))
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
        auth=mailbox.auth,
    )
    return mailbox


def name_taken(name: str) -> str:
    """Why a mailbox of this name cannot be added."""
    return f"A mailbox named {name} exists already. Choose another name, or add --replace to change its settings."


def check_name_is_free(session: Session, name: str) -> None:
    """Raises InvalidValueError when there is a mailbox of this name."""
    if session.exec(select(Mailbox.id).where(Mailbox.name == name)).first() is not None:
        raise InvalidValueError(f"A mailbox named {name} exists already; choose another name.")


def get(session: Session, name: str) -> Mailbox:
    """The mailbox of this name. Raises NotFoundError, which lists the names there are."""
    mailbox = session.exec(select(Mailbox).where(Mailbox.name == name)).first()
    if mailbox is None:
        names = ", ".join(m.name for m in active(session)) or "none yet; add one with: briefbox mailbox add"
        raise NotFoundError(f"There is no mailbox named {name}. Mailboxes: {names}.")
    return mailbox


def get_by_id(session: Session, mailbox_id: int) -> Mailbox:
    """Raises NotFoundError."""
    mailbox = session.get(Mailbox, mailbox_id)
    if mailbox is None:
        raise NotFoundError(f"There is no mailbox with the id {mailbox_id}.")
    return mailbox


def all_of(session: Session) -> list[Mailbox]:
    """Every mailbox there ever was, by name."""
    return list(session.exec(select(Mailbox).order_by(Mailbox.name)))


def active(session: Session) -> list[Mailbox]:
    """Every mailbox that was not removed, by name; paused ones are among them."""
    query = select(Mailbox).where(col(Mailbox.removed_at).is_(None))
    return list(session.exec(query.order_by(Mailbox.name)))


@dataclass(frozen=True, slots=True)
class Watched:
    """A mailbox to be read, as far as a poller asks every few seconds."""

    version: tuple[Any, ...]  # what, when changed, needs a new connection
    is_asked: bool  # somebody wants it compared


def watched(session: Session) -> dict[int, Watched]:
    """Every mailbox that is neither removed nor paused, by id. Cheap: no object for each."""
    # Not the tokens of OAuth2, which change by themselves.
    at = Mailbox
    named = [at.host, at.port, at.security, at.username, at.auth, at.password_encrypted, at.ca_file]
    named += [at.sent_folder, at.vetted]
    columns = [
        col(at.id),
        col(at.reconcile_at),
        *named,
        *(cast(col(c), Text) for c in (at.oauth, at.folders)),
    ]
    is_read = col(at.removed_at).is_(None), col(at.paused_at).is_(None)
    rows = session.connection().execute(select(*columns).where(*is_read).order_by(at.name))  # type: ignore[call-overload]
    return {row[0]: Watched(tuple(row[2:]), row[1] is not None) for row in rows}


def get_many(session: Session, mailbox_ids: Sequence[int]) -> list[Mailbox]:
    """The mailboxes with these ids, in no order."""
    return list(session.exec(select(Mailbox).where(col(Mailbox.id).in_(mailbox_ids))))


def take_requests(session: Session, mailbox_ids: Sequence[int]) -> None:
    """The comparisons that were asked for are being made."""
    session.exec(update(Mailbox).where(col(Mailbox.id).in_(mailbox_ids)).values(reconcile_at=None))


def alert_key(name: str, about: str) -> str:
    """What an alert about a mailbox is known by; `about` is a folder, or what happened."""
    return f"mailbox {name}: {about}"


def own_addresses(session: Session) -> frozenset[str]:
    """Every address that is ours, of all mailboxes: mail from one of them to another is nobody's question."""
    found: set[str] = set()
    for row in active(session):
        found.update(address.strip().lower() for address in (row.address, *row.addresses) if "@" in address)
    return frozenset(found)


# What an admin changes on the desk without signing in again.
CHANGEABLE = ("folders", "sent_folder", "addresses", "attachments", "adapter")


def change(session: Session, mailbox_id: int, values: Mapping[str, Any], *, actor: str) -> list[str]:
    """Set some of a stored mailbox's settings; the poller follows within seconds. Returns what was changed.

    Raises NotFoundError.
    """
    row = _present(session, get_by_id(session, mailbox_id).name)
    changed = [field for field in CHANGEABLE if field in values and values[field] != getattr(row, field)]
    for field in changed:
        setattr(row, field, values[field])
    if changed:
        session.add(row)
        # A folder that was missing may not be read any more.
        alerts.resolve_beginning(session, alert_key(row.name, ""))
        new = {field: values[field] for field in changed}
        audit_log.record(session, actor, "mailbox changed", row.name, **new)
    return changed


def sign_in_again(session: Session, mailbox_id: int, signed_in: Mailbox, *, actor: str) -> Mailbox:
    """Store where and how a mailbox is signed in to, as it was tried just now. Raises NotFoundError."""
    row = _present(session, get_by_id(session, mailbox_id).name)
    for field in ("host", "port", "security", "username", "auth", "ca_file", "vetted", *SIGN_IN):
        setattr(row, field, getattr(signed_in, field))
    row.last_error, row.last_error_at = "", None
    session.add(row)
    alerts.resolve_beginning(session, alert_key(row.name, ""))
    audit_log.record(
        session,
        actor,
        "mailbox signed in again",
        row.name,
        host=row.host,
        username=row.username,
        auth=row.auth,
    )
    return row


def pause(session: Session, name: str, *, reason: str, actor: str, alert: bool = False) -> Mailbox:
    """Stop reading until `resume`; with an alert when nobody asked for it. Raises NotFoundError, ConflictError when it is paused already."""
    row = _present(session, name)
    if row.paused_at is not None:
        raise ConflictError(f"Mailbox {name} is paused already: {row.paused_reason or 'no reason given'}.")
    row.paused_at, row.paused_reason = now(session), reason
    session.add(row)
    alerts.resolve_beginning(session, alert_key(name, ""))
    if alert:
        alerts.raise_alert(session, alert_key(name, "paused"), reason)
        events.mailbox_event(session, row.id, "stopped", "", reason)
    folders.note_event(session, row.id, "", "paused", reason or "no reason given")
    audit_log.record(session, actor, "mailbox paused", name, reason=reason)
    return row


def resume(session: Session, name: str, *, actor: str) -> Mailbox:
    """Read on where it stopped. Raises NotFoundError, ConflictError when it is not paused."""
    row = _present(session, name)
    if row.paused_at is None:
        raise ConflictError(f"Mailbox {name} is not paused.")
    reason, row.paused_at, row.paused_reason = row.paused_reason, None, ""
    session.add(row)
    if alerts.resolve(session, alert_key(name, "paused")):  # nobody had asked for the pause
        events.mailbox_event(session, row.id, "recovered", "", f"{name} is read on.")
    alerts.resolve_beginning(session, alert_key(name, ""))
    folders.note_event(session, row.id, "", "resumed", f"It was paused: {reason or 'no reason given'}.")
    audit_log.record(session, actor, "mailbox resumed", name)
    return row


def remove(session: Session, name: str, *, actor: str) -> Mailbox:
    """Read it no more, free its name and forget how to sign in. What it brought stays. Raises NotFoundError."""
    row = _present(session, name)
    moment = now(session)
    row.removed_at, row.name = moment, _free_name(session, f"{name} (removed {moment:%Y-%m-%d})")
    # Secrets are bound to the old name, and of no use to a mailbox that is not read.
    row.password_encrypted = row.oauth_encrypted = ""
    # Whoever reads it now finds its lease gone and writes nothing more.
    row.lease_owner, row.lease_token, row.lease_until = "", "", None
    session.add(row)
    alerts.resolve_beginning(session, alert_key(name, ""))
    folders.note_event(session, row.id, "", "removed", f"It was called {name}.")
    audit_log.record(session, actor, "mailbox removed", name, renamed=row.name)
    return row


def ask_to_reconcile(session: Session, name: str, *, actor: str) -> Mailbox:
    """Have the poller compare the mailbox with the server in full. Raises NotFoundError, ConflictError when paused."""
    row = _present(session, name)
    if row.paused_at is not None:
        raise ConflictError(
            f"Mailbox {name} is paused ({row.paused_reason or 'no reason given'}); read it on first with: briefbox mailbox resume {name}"
        )
    row.reconcile_at = now(session)
    session.add(row)
    audit_log.record(session, actor, "mailbox comparison asked for", name)
    return row


def swap_oauth(session: Session, mailbox_id: int, *, old: str, new: str) -> bool:
    """Store the secrets of OAuth2 if nobody has changed them since `old` was read: of two that renew a token one wins."""
    changed = session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == mailbox_id, col(Mailbox.oauth_encrypted) == old)
        .values(oauth_encrypted=new)
    )
    return bool(changed.rowcount)


def _present(session: Session, name: str) -> Mailbox:
    row = get(session, name)
    if row.removed_at is not None:
        raise NotFoundError(f"Mailbox {name} is no longer read: it was removed on {row.removed_at:%Y-%m-%d}.")
    return row


def _free_name(session: Session, wanted: str) -> str:
    taken = set(
        session.exec(select(Mailbox.name).where(col(Mailbox.name).startswith(wanted, autoescape=True)))
    )
    return next(
        name for name in (wanted, *(f"{wanted} {n}" for n in range(2, len(taken) + 3))) if name not in taken
    )


def claim(session: Session, mailbox_id: int, *, owner: str, seconds: float) -> MailboxLease | None:
    """Take the mailbox for `seconds`, or None while another poller owns it."""
    moment, token = now(session), uuid4().hex
    free = or_(col(Mailbox.lease_until).is_(None), col(Mailbox.lease_until) < moment)
    changed = session.exec(
        update(Mailbox)
        .where(
            col(Mailbox.id) == mailbox_id,
            free,
            col(Mailbox.paused_at).is_(None),
            col(Mailbox.removed_at).is_(None),
        )
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


def note_success(session: Session, mailbox_ids: Iterable[int]) -> None:
    """These were read to their end just now, and nothing is wrong with them."""
    session.exec(
        update(Mailbox)
        .where(col(Mailbox.id).in_(list(mailbox_ids)))
        .values(last_success_at=now(session), last_error="", last_error_at=None)
    )


def note_error(session: Session, mailbox_id: int, sentence: str) -> None:
    """Keep the last failure in words, for the desk and the command line."""
    session.exec(
        update(Mailbox)
        .where(col(Mailbox.id) == mailbox_id)
        .values(last_error=sentence, last_error_at=now(session))
    )
