"""The same email in another form: once whole and once in part, because the admin's choice or the limit changed.

Its bytes differ then, so their hash does not tell. Where one of the two is in part, Message-ID, INTERNALDATE and the
server's size together do; for mail that is whole in both places nothing but its bytes counts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlmodel import Session, col, select

from briefbox.schemas import FetchedEmail
from briefbox.tables import Email, LedgerEntry, RawEmail

if TYPE_CHECKING:
    from briefbox.store.ledger import Arrival

# Smaller mail is not fetched in part, and most mail is smaller: it is not looked for.
LEAST_SIZE = 50_000


def held_in_another_form(
    session: Session, mailbox_id: int, arrivals: Sequence["Arrival"], hashes: Mapping[int, str]
) -> dict[str, Email]:
    """Emails that are held and are the same as one of these, by the sha256 of the arriving one."""
    wanted = [a for a in arrivals if _may_have_another(a)]
    if not wanted:
        return {}
    ids = {a.parsed.message_id for a in wanted if a.parsed}
    query = (
        select(Email, LedgerEntry.size, LedgerEntry.internal_date, RawEmail.left)
        .join(LedgerEntry, col(LedgerEntry.email_id) == Email.id)
        .join(RawEmail, col(RawEmail.id) == Email.raw_id)
        .where(Email.mailbox_id == mailbox_id, col(Email.message_id).in_(ids))
    )
    found: dict[str, Email] = {}
    rows = session.exec(query).all()
    for arrival in wanted:
        fetched = arrival.fetched
        for email, size, date, left in rows:
            is_same = (size, date) == (size_of(fetched), fetched.internal_date)
            if (
                is_same
                and (left or fetched.left)
                and arrival.parsed
                and email.message_id == arrival.parsed.message_id
            ):
                found[hashes[fetched.uid]] = email
    return found


def _may_have_another(arrival: "Arrival") -> bool:
    parsed, fetched = arrival.parsed, arrival.fetched
    is_told = parsed is not None and parsed.message_id and fetched.internal_date
    return bool(is_told and (fetched.left or (size_of(fetched) or 0) >= LEAST_SIZE))


def size_of(fetched: FetchedEmail) -> int | None:
    """Bytes of the email: as they came, or as the server states them where not all of them did."""
    return len(fetched.raw) if fetched.raw is not None and fetched.left is None else fetched.size
