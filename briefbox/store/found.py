"""Lists of what is found by text: conversations by their newest mail that matches, each of them once."""

from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from briefbox.errors import InvalidValueError
from briefbox.store import rows, search
from briefbox.store.filter_sql import NO_PLACE, conditions, cutoffs, in_state
from briefbox.store.filters import Filter
from briefbox.store.search_words import question
from briefbox.store.sight import Sight
from briefbox.tables import Conversation, Email

# Matching mails that one page looks at.
MAX_MATCHES = 5_000
_MAX_ID = 2**31
_TABLE = rows.table_of(Conversation)


def page(
    session: Session, wanted: Filter, sight: Sight, after: str, limit: int, few: Sequence[int] | None
) -> tuple[list[int], str]:
    """Ids of conversations, and where the next page begins. `few`: all that the filter lets through, where known.

    Raises InvalidValueError for an odd `after`.
    """
    finds = _Finds(session, wanted, sight, _below(session, after), few, again=bool(after))
    shown = list(islice(finds, limit + 1))
    if len(shown) > limit:
        return [id_ for _, id_ in shown[:limit]], str(shown[limit - 1][0])
    return [id_ for _, id_ in shown], str(finds.below) if finds.below else ""


def count(session: Session, wanted: Filter, sight: Sight, cap: int, few: Sequence[int] | None) -> int:
    """How many conversations are found, up to `cap`: of what a page would look at."""
    finds = _Finds(session, wanted, sight, _below(session, ""), few)
    return sum(1 for _ in islice(finds, cap))


def _below(session: Session, after: str) -> int:
    if not after:
        return search.last_email(session) + 1
    if not (after.isascii() and after.isdigit() and len(after) < 11):
        raise InvalidValueError(NO_PLACE)
    return min(int(after), _MAX_ID)


class _Finds:
    """Pairs of a mail that matches and its conversation, newest mail first, each conversation once."""

    def __init__(
        self,
        session: Session,
        wanted: Filter,
        sight: Sight,
        below: int,
        few: Sequence[int] | None,
        *,
        again: bool = False,
    ) -> None:
        self.below = below  # from here on all was looked at; 0: all there is
        self._session = session
        self._asked = search.looked_up(session, question(wanted.text))
        self._start = below if again else None
        self._among = None if few is None else self._emails_of(few)
        self._where = [
            in_state(_TABLE.c, wanted),
            *conditions(_TABLE.c, wanted, sight, cutoffs(session, wanted)),
        ]
        self._seen: set[int] = set()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        looked = 0
        for ids, floor in search.find(self._session, self._asked, self.below, among=self._among):
            pairs = self._conversations(ids)
            self.below = floor
            yield from pairs
            looked += len(ids)
            if looked >= MAX_MATCHES:
                return

    def _emails_of(self, conversation_ids: Sequence[int]) -> set[int]:
        emails = rows.table_of(Email)
        query = select(emails.c.id).where(emails.c.conversation_id.in_(conversation_ids))
        return set(self._session.connection().execute(query).scalars())

    def _conversations(self, email_ids: Sequence[int]) -> list[tuple[int, int]]:
        if not email_ids:
            return []
        emails = rows.table_of(Email)
        query = (
            select(emails.c.id, _TABLE.c.id)
            .join(_TABLE, _TABLE.c.id == emails.c.conversation_id)
            .where(emails.c.id.in_(email_ids), *self._where)
        )
        found = []
        pairs = sorted(((mail, id_) for mail, id_ in self._session.connection().execute(query)), reverse=True)
        for email_id, conversation_id in pairs:
            if conversation_id not in self._seen:
                self._seen.add(conversation_id)
                found.append((email_id, conversation_id))
        return self._without_shown(found)

    def _without_shown(self, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Without those that stood on an earlier page, by a newer mail that matches too."""
        if self._start is None or not found:
            return found
        query = select_rows(Email.id, Email.conversation_id).where(
            col(Email.conversation_id).in_([id_ for _, id_ in found]), Email.id >= self._start
        )
        newer = dict(self._session.exec(query).all())
        shown = {newer[id_] for id_ in search.matching(self._session, self._asked, list(newer))}
        return [(email_id, id_) for email_id, id_ in found if id_ not in shown]
