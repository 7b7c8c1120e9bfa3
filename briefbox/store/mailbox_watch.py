"""Whether every mailbox is read: looked at from outside, since a poller that is dead cannot say so.

A mailbox that was not read to its end for too long, although nobody paused it, raises an alert; when it is read again the
alert is over, and both are told among the mailbox's events.
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.settings import Settings
from briefbox.store import alerts, folders, mailboxes
from briefbox.tables import Alert, Mailbox, MailboxEvent

SILENT = "not read"


def limit(settings: Settings) -> timedelta:
    """How long a mailbox may go without being read: never less than two rounds of a poller that has nothing to do."""
    quiet = min(max(settings.idle_seconds, settings.poll_seconds), settings.reconcile_seconds)
    return timedelta(seconds=max(60 * settings.mailbox_silence_minutes, 2 * quiet))


def look(session: Session, longest: timedelta) -> list[str]:
    """Raise and resolve alerts. Returns the names of mailboxes whose reading stopped or recovered. Any process may do it."""
    moment = now(session)
    changed = []
    for row in mailboxes.active(session):
        if row.paused_at is not None:
            continue
        since = _read_at(session, row)
        key = mailboxes.alert_key(row.name, SILENT)
        if moment - since <= longest:
            if row.last_success_at is not None and alerts.resolve(session, key):
                folders.note_event(session, row.id, "", "recovered", f"The mailbox {row.name} is read again.")
                changed.append(row.name)
        elif not _is_told(session, row, key):
            text = _words(row, since, longest)
            if alerts.raise_alert(session, key, text):
                folders.note_event(session, row.id, "", "stopped", text)
                changed.append(row.name)
    return changed


def is_any_due(session: Session, longest: timedelta) -> bool:
    """Whether look() may have something to say: asked without the right to write."""
    moment = now(session)
    for row in mailboxes.active(session):
        late = row.paused_at is None and moment - _read_at(session, row) > longest
        if late != _is_open(session, mailboxes.alert_key(row.name, SILENT)):
            return True
    return False


def _read_at(session: Session, row: Mailbox) -> datetime:
    """When it was read last, or could have been from."""
    resumed = session.exec(
        select(func.max(MailboxEvent.created_at)).where(
            MailboxEvent.mailbox_id == row.id, MailboxEvent.kind == "resumed"
        )
    ).one()
    return max(filter(None, (row.last_success_at, row.created_at, resumed)))


def _words(row: Mailbox, since: datetime, longest: timedelta) -> str:
    minutes = int(longest.total_seconds() // 60)
    last = f"the last time on {since:%Y-%m-%d at %H:%M} UTC" if row.last_success_at else "never yet"
    why = f" The last error: {row.last_error}" if row.last_error else " Look whether `briefbox poll` runs."
    return f"The mailbox {row.name} was not read to its end for over {minutes} minutes ({last}). Mail waits on its server.{why}"


def _is_told(session: Session, row: Mailbox, key: str) -> bool:
    """Whether an alert says already why it is not read; one that is silent is raised again, so that it counts."""
    beginning = mailboxes.alert_key(row.name, "")
    others = select(Alert.id).where(
        col(Alert.key).startswith(beginning, autoescape=True),
        Alert.key != key,
        col(Alert.resolved_at).is_(None),
    )
    return session.exec(others).first() is not None or _is_open(session, key)


def _is_open(session: Session, key: str) -> bool:
    query = select(Alert.id).where(Alert.key == key, col(Alert.resolved_at).is_(None))
    return session.exec(query).first() is not None
