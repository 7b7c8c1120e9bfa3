"""What an agent filters the queue by, and how it stands in the queue's address."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from briefbox.errors import InvalidValueError
from briefbox.schemas import PRIORITIES, STATES

MAX_TEXT = 200
MAX_VALUES = 50
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for. Empty is "any"; values of one field are alternatives, fields add up."""

    state: str = "open"  # open, snoozed, answered, done; "" is all of them
    mailboxes: tuple[int, ...] = ()
    priorities: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    assigned: str = ""  # "none", a user's id, or "me" until somebody is known to ask
    needs_human: bool = False
    overdue: bool = False  # beyond the target of its priority
    text: str = ""  # full text: subject, sender, what the mail and its brief say

    @property
    def assigned_id(self) -> int:
        """The user who has them. Raises InvalidValueError where nobody is named."""
        return _id("assigned", self.assigned)

    @property
    def is_only_state(self) -> bool:
        """Whether nothing but the state and the text is asked for."""
        return self == Filter(state=self.state, text=self.text)

    @classmethod
    def from_query(
        cls, params: str | Mapping[str, str] | Iterable[tuple[str, str]], *, me: int | None = None
    ) -> "Filter":
        """As it stands in an address: state, mailbox, priority, category, assigned, human, overdue, q.

        Other fields are somebody else's; a field without a value says nothing. `me` is who asks: without, "me" stays
        as it is. With `q` and no state, all states are meant. Raises InvalidValueError.
        """
        given: dict[str, list[str]] = {}
        for name, value in _pairs(params):
            if value.strip():
                given.setdefault(name, []).append(value.strip())
        text = " ".join(given.get("q", [""])[-1].split())
        if len(text) > MAX_TEXT:
            raise InvalidValueError(
                f"The question has {len(text)} characters; expected no more than {MAX_TEXT}."
            )
        return cls(
            state=_state(given.get("state", [""])[-1], text),
            mailboxes=tuple(sorted({_id("mailbox", value) for value in _some(given, "mailbox")})),
            priorities=_priorities(_some(given, "priority")),
            categories=tuple(sorted(set(_some(given, "category")))),
            assigned=_assigned(given.get("assigned", [""])[-1], me),
            needs_human=_yes("human", given.get("human", [""])[-1]),
            overdue=_yes("overdue", given.get("overdue", [""])[-1]),
            text=text,
        )

    def to_query(self, *, me: int | None = None) -> str:
        """The same as text of an address, in one order, without what is usual. The id `me` is written as "me"."""
        pairs: list[tuple[str, Any]] = []
        if self.state != ("" if self.text else "open"):
            pairs.append(("state", self.state or "all"))
        pairs += [("mailbox", id_) for id_ in self.mailboxes]
        pairs += [("priority", name) for name in self.priorities]
        pairs += [("category", name) for name in self.categories]
        if self.assigned:
            pairs.append(("assigned", "me" if me is not None and self.assigned == str(me) else self.assigned))
        pairs += [
            (name, 1) for name, wanted in (("human", self.needs_human), ("overdue", self.overdue)) if wanted
        ]
        if self.text:
            pairs.append(("q", self.text))
        return urlencode(pairs)


def _pairs(params: str | Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    if isinstance(params, str):
        return parse_qsl(params.lstrip("?"), max_num_fields=500)
    # A form's and an address's fields may come several times, which a plain mapping does not say.
    several = getattr(params, "multi_items", None)
    if several is not None:
        return list(several())
    return list(params.items()) if isinstance(params, Mapping) else list(params)


def _some(given: dict[str, list[str]], name: str) -> list[str]:
    values = given.get(name, [])
    if len(values) > MAX_VALUES or any(len(value) > MAX_TEXT or "\0" in value for value in values):
        raise InvalidValueError(
            f"{name}: expected no more than {MAX_VALUES} values of {MAX_TEXT} characters."
        )
    return values


def _state(value: str, text: str) -> str:
    if not value:
        return "" if text else "open"
    if value != "all" and value not in STATES:
        raise InvalidValueError(f"The state “{value[:50]}” is none of {', '.join(STATES)}, all.")
    return "" if value == "all" else value


def _priorities(values: list[str]) -> tuple[str, ...]:
    for value in values:
        if value not in PRIORITIES:
            raise InvalidValueError(f"The priority “{value[:50]}” is none of {', '.join(PRIORITIES)}.")
    return tuple(name for name in PRIORITIES if name in values)


def _assigned(value: str, me: int | None) -> str:
    if value == "me" and me is not None:
        return str(me)
    if value in ("", "none", "me"):
        return value
    return str(_id("assigned", value))


def _id(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 11 and int(value) <= _MAX_ID):
        words = "me, none or a user's number" if name == "assigned" else f"a {name}'s number"
        raise InvalidValueError(f"{name}: “{value[:50]}” is not {words}.")
    return int(value)


def _yes(name: str, value: str) -> bool:
    if value.lower() not in ("", "0", "1", "on", "yes", "no", "true", "false"):
        raise InvalidValueError(f"{name}: “{value[:50]}” is neither 1 nor 0.")
    return value.lower() in ("1", "on", "yes", "true")
