"""The list that somebody came from: it travels in the address of a conversation, so that next and back are its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from sqlmodel import Session

from briefbox.errors import InvalidValueError
from briefbox.store import queue
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight
from briefbox.tables import Conversation, User

MAX_ADDRESS = 2000
# What a list told of the moment before is not part of it.
_TOLD = ("did", "failed", "done", "note")


@dataclass(frozen=True, slots=True)
class CameFrom:
    """A list; the queue, where the address names none."""

    address: str = "/"
    wanted: Filter = Filter()  # noqa: RUF009 - it is frozen
    given: bool = False

    def to(self, conversation_id: int, **told: str | int | None) -> str:
        """The address of a conversation's page, from this list; `told` is what it says on top."""
        pairs = [("from", self.address)] if self.given else []
        pairs += [(name, str(value)) for name, value in told.items() if value]
        query = f"?{urlencode(pairs)}" if pairs else ""
        return f"/conversations/{conversation_id}{query}"

    def back(self, **told: str | int | None) -> str:
        """The list's own address."""
        pairs = [(name, str(value)) for name, value in told.items() if value]
        if not pairs:
            return self.address
        return f"{self.address}{'&' if '?' in self.address else '?'}{urlencode(pairs)}"


QUEUE = CameFrom()


def came_from(address: str, user: User) -> CameFrom:
    """The list of an address. Another page's, another site's, or one that is no list's: the queue."""
    if not address or len(address) > MAX_ADDRESS or not address.isprintable():
        return QUEUE
    try:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or parts.path != "/" or not address.startswith("/"):
            return QUEUE
        pairs = [(n, v) for n, v in parse_qsl(parts.query, max_num_fields=200) if n not in _TOLD]
        wanted = Filter.from_query(pairs, me=user.id)
    except (ValueError, InvalidValueError):
        return QUEUE
    return CameFrom(f"/?{urlencode(pairs)}" if pairs else "/", wanted, given=True)


def referring(headers: Mapping[str, str]) -> str:
    """The list that a link was followed from, as browsers tell our own pages; "" where it is no page of ours."""
    try:
        parts = urlsplit(headers.get("referer", ""))
    except ValueError:
        return ""
    if parts.netloc.lower() != headers.get("host", "").lower():
        return ""
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def beside(session: Session, origin: CameFrom, conversation: Conversation, sight: Sight) -> tuple[str, str]:
    """The addresses of the conversations before and after this one in the list; "" where there is none."""
    before, after = queue.beside(session, origin.wanted, conversation, sight=sight)
    return (origin.to(before) if before else ""), (origin.to(after) if after else "")
