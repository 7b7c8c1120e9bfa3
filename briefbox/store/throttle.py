"""The brake on guessing: failed sign-ins, counted by account, by network address and in all.

Kept in the database, so that a flushed Redis or a restart forgives nothing. What is counted is committed at once, since
the error that follows rolls the caller's transaction back.
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, func, select

from briefbox.db import now
from briefbox.errors import InvalidValueError
from briefbox.store import alerts, audit_log
from briefbox.tables import LoginFailure, LoginSession

# Failures allowed in the window before the account or the network address has to wait. An address
# may be a whole office behind one router.
FAILURE_WINDOW = timedelta(minutes=15)
MAX_ACCOUNT_FAILURES, MAX_ADDRESS_FAILURES = 8, 40
# Beyond so many from everywhere, only addresses where somebody is signed in are listened to.
MAX_FAILURES = 400
# Admins are told of so many.
ALERT_FAILURES = 30
ALERT = "guessing at sign-in"


def locked_until(session: Session, account: str, *, address: str) -> datetime | None:
    """Until when sign-ins to this account or from this network address wait. None when they need not."""
    since = now(session) - FAILURE_WINDOW
    ends = []
    for key, allowed in (
        (_account(account), MAX_ACCOUNT_FAILURES),
        (f"address:{address}", MAX_ADDRESS_FAILURES),
    ):
        times = session.exec(
            select(LoginFailure.at)
            .where(LoginFailure.key == key, LoginFailure.at > since)
            .order_by(col(LoginFailure.at).desc())
            .limit(allowed)
        ).all()
        if len(times) == allowed:
            ends.append(times[-1] + FAILURE_WINDOW)
    flood = session.exec(
        select(LoginFailure.at)
        .where(LoginFailure.at > since, col(LoginFailure.key).startswith("address:"))
        .order_by(col(LoginFailure.at).desc())
        .offset(MAX_FAILURES - 1)
        .limit(1)
    ).first()
    if flood is not None and not _is_known(session, address):
        ends.append(flood + FAILURE_WINDOW)
    return max(ends, default=None)


def check(session: Session, account: str, *, address: str) -> None:
    """Raises InvalidValueError, with how long, where a sign-in has to wait."""
    until = locked_until(session, account, address=address)
    if until is not None:
        raise InvalidValueError(locked_sentence(until - now(session)))


def locked_sentence(remaining: timedelta) -> str:
    """What a person is told who has to wait."""
    minutes = max(1, round(remaining.total_seconds() / 60))
    return f"Too many wrong sign-ins. Try again in {minutes} {'minute' if minutes == 1 else 'minutes'}, or ask an admin for a sign-in link."


def note_failure(session: Session, account: str, *, address: str, what: str = "sign-in refused") -> None:
    """Count a failure, tell the audit log and, where there are many, the admins. Commits."""
    moment = now(session)
    session.exec(delete(LoginFailure).where(col(LoginFailure.at) < moment - FAILURE_WINDOW))
    for key in (_account(account), f"address:{address}"):
        session.add(LoginFailure(key=key, at=moment))
    audit_log.record(session, account, what, account, address=address)
    failures, addresses = _recent(session, moment - FAILURE_WINDOW)
    if failures >= ALERT_FAILURES:
        alerts.raise_alert(
            session,
            ALERT,
            f"{failures} failed sign-ins within 15 minutes from {addresses} network {'address' if addresses == 1 else 'addresses'}. They are slowed down; the audit log has each of them.",
        )
    session.commit()


def forget(session: Session, account: str) -> None:
    """Somebody proved to be who they say: their failures no longer count."""
    session.exec(delete(LoginFailure).where(col(LoginFailure.key) == _account(account)))


def close_alert(session: Session) -> None:
    """Take the alert back when the guessing has ended."""
    failures, _ = _recent(session, now(session) - FAILURE_WINDOW)
    if failures < ALERT_FAILURES:
        alerts.resolve(session, ALERT)


def is_alert_open(session: Session) -> bool:
    """Whether admins are being told of guessing."""
    return any(alert.key == ALERT for alert in alerts.open_alerts(session))


def _recent(session: Session, since: datetime) -> tuple[int, int]:
    query = select(func.count(), func.count(func.distinct(LoginFailure.key))).where(
        LoginFailure.at > since, col(LoginFailure.key).startswith("address:")
    )
    failures, addresses = session.exec(query).one()
    return failures, addresses


def _is_known(session: Session, address: str) -> bool:
    query = select(LoginSession.id).where(
        LoginSession.address == address, LoginSession.expires_at > now(session), ~col(LoginSession.pending)
    )
    return session.exec(query.limit(1)).first() is not None


def _account(account: str) -> str:
    return f"account:{account.strip().lower()[:200]}"
