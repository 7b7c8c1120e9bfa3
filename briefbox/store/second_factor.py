"""Second factors: six digits of an authenticator (TOTP, RFC 6238), or one of ten recovery codes, each good once.

The secret is encrypted and bound to its person. Of a recovery code (80 bits of chance) only the sha256 is stored.
"""

import hmac
import secrets as chance
from datetime import datetime, timedelta
from hashlib import sha256

import pyotp
from sqlmodel import Session, col, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, SettingsError
from briefbox.store import audit_log, login_sessions, throttle
from briefbox.store.secrets import Cipher
from briefbox.tables import User

STEP_SECONDS, DIGITS = 30, 6
NUM_RECOVERY_CODES, GROUPS, GROUP = 10, 4, 4
# How long somebody may take between seeing a new secret and typing its first code.
OFFER_FOR = timedelta(minutes=30)
WRONG = "That code is not right. It changes every 30 seconds and is good once; check that the clock of your phone is right, or use a recovery code."
# Without letters and digits that look alike.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def is_on(user: User) -> bool:
    """Whether this person has a second factor."""
    return bool(user.totp_encrypted)


# --- set up


def offer(session: Session, cipher: Cipher, user: User) -> str:
    """A new secret for this person, sealed: nothing is stored before they have shown that they can use it."""
    made = int(now(session).timestamp())
    return cipher.encrypt(_offer_row(user), f"{made}:{pyotp.random_base32()}")


def opened(session: Session, cipher: Cipher, user: User, sealed: str) -> str:
    """The secret of an offer. Raises InvalidValueError when it is not this person's, or too old."""
    try:
        made, _, secret = cipher.decrypt(_offer_row(user), sealed).partition(":")
    except SettingsError:
        raise InvalidValueError("This form is not yours, or was cut off. Begin again.") from None
    if datetime.fromtimestamp(int(made), tz=now(session).tzinfo) < now(session) - OFFER_FOR:
        raise InvalidValueError("This form is older than 30 minutes. Begin again.")
    return secret


def uri(user: User, secret: str) -> str:
    """What authenticators read from the square."""
    return pyotp.TOTP(secret, digits=DIGITS, interval=STEP_SECONDS).provisioning_uri(
        name=user.email, issuer_name="briefbox"
    )


def turn_on(session: Session, cipher: Cipher, user: User, secret: str, code: str) -> list[str]:
    """Begin to ask for codes of this secret, after one that is right. Returns the recovery codes, shown only now.

    Raises InvalidValueError for a wrong code, ConflictError where a second factor is there already.
    """
    if user.totp_encrypted:
        raise ConflictError("You have a second factor already. Take it away first.")
    step = _step_of(secret, code, now(session), after=0)
    if step is None:
        raise InvalidValueError(WRONG)
    user.totp_encrypted = cipher.encrypt(_row(user), secret)
    user.totp_step = step
    codes = _new_codes(user)
    session.add(user)
    audit_log.record(session, user.email, "second factor set up", user.email)
    return codes


def new_recovery_codes(session: Session, user: User) -> list[str]:
    """Ten others; the ones before are worth nothing from now on. Raises InvalidValueError without a second factor."""
    if not user.totp_encrypted:
        raise InvalidValueError("You have no second factor; its recovery codes come with it.")
    codes = _new_codes(user)
    session.add(user)
    audit_log.record(session, user.email, "recovery codes made", user.email)
    return codes


def turn_off(session: Session, user: User, *, actor: str, keep_session: str = "") -> None:
    """Ask for no second factor any more, and sign the person out elsewhere. Raises InvalidValueError where there is none."""
    if not user.totp_encrypted:
        raise InvalidValueError(f"{user.email} has no second factor.")
    user.totp_encrypted, user.recovery_hashes = "", []
    session.add(user)
    login_sessions.end_all(session, user, keep=keep_session)
    audit_log.record(session, actor, "second factor removed", user.email)


# --- asked for


def check(session: Session, cipher: Cipher, user: User, code: str, *, address: str, action: str) -> None:
    """Take a code or a recovery code. Raises InvalidValueError in one sentence, and counts the failure (which commits)."""
    throttle.check(session, user.email, address=address)
    if _take_code(session, cipher, user, code):
        audit_log.record(session, user.email, action, user.email, address=address)
    elif _take_recovery_code(session, user, code):
        left = len(user.recovery_hashes)
        audit_log.record(
            session, user.email, action, user.email, address=address, recovery_code=True, left=left
        )
    else:
        throttle.note_failure(session, user.email, address=address, what="second factor refused")
        raise InvalidValueError(WRONG)
    throttle.forget(session, user.email)


def _take_code(session: Session, cipher: Cipher, user: User, code: str) -> bool:
    step = _step_of(_secret(cipher, user), code, now(session), after=user.totp_step)
    if step is None:
        return False
    # Two at once with the same code: the row count tells the first from the second.
    changed = session.exec(
        update(User).where(col(User.id) == user.id, col(User.totp_step) < step).values(totp_step=step)
    )
    return bool(changed.rowcount)


def _take_recovery_code(session: Session, user: User, code: str) -> bool:
    query = select(User).where(User.id == user.id).with_for_update().execution_options(populate_existing=True)
    row = session.exec(query).one()
    wanted = _hash(row, code)
    left = [known for known in row.recovery_hashes if not hmac.compare_digest(known, wanted)]
    if len(left) == len(row.recovery_hashes):
        return False
    row.recovery_hashes = left
    session.add(row)
    session.flush()
    return True


def _step_of(secret: str, code: str, moment: datetime, *, after: int) -> int | None:
    """The 30 seconds that the code belongs to: these, or the ones before or after, since clocks differ."""
    code = code.replace(" ", "").strip()
    if len(code) != DIGITS or not (code.isascii() and code.isdigit()):
        return None
    totp = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_SECONDS)
    this = int(moment.timestamp()) // STEP_SECONDS
    right = [
        step for step in (this - 1, this, this + 1) if hmac.compare_digest(totp.generate_otp(step), code)
    ]
    return next((step for step in right if step > after), None)


def _secret(cipher: Cipher, user: User) -> str:
    try:
        return cipher.decrypt(_row(user), user.totp_encrypted)
    except SettingsError as error:
        raise SettingsError(
            f"The second factor of {user.email} cannot be read with this key. Set BRIEFBOX_SECRET_KEY (or secret.key in the data folder) to the key it was "
            f"stored with, or take it away with: briefbox user second-factor-off {user.email}"
        ) from error


def _new_codes(user: User) -> list[str]:
    codes = [
        "-".join("".join(chance.choice(_ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS))
        for _ in range(NUM_RECOVERY_CODES)
    ]
    user.recovery_hashes = [_hash(user, code) for code in codes]
    return codes


def _hash(user: User, code: str) -> str:
    plain = "".join(c for c in code.lower() if c.isalnum())
    return sha256(f"{user.id}:{plain}".encode("utf-8", "replace")).hexdigest()


def _row(user: User) -> str:
    return f"second factor of user {user.id}"


def _offer_row(user: User) -> str:
    return f"new second factor of user {user.id}"
