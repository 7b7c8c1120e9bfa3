"""What stands above a list of conversations: tabs, views, the filters that are set, and in what order it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session

from briefbox.schemas import PRIORITIES
from briefbox.store import assignees, mailboxes, views, work
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight
from briefbox.tables import Mailbox, User, View
from desk.agents.shown import say_number

TITLES = {"open": "Open", "snoozed": "Snoozed", "answered": "Answered", "done": "Done", "": "All"}
ORDERS = {
    "open": "Most urgent first, then who has waited longest.",
    "snoozed": "What comes back soonest stands first.",
    "answered": "What was answered last stands first.",
    "done": "What was finished last stands first.",
    "": "The newest conversation stands first.",
}
ORDER_OF_FOUND = "The newest mail that matches stands first."


@dataclass(frozen=True, slots=True)
class Link:
    """A list to go to."""

    name: str
    query: str
    count: str = ""
    current: bool = False
    state: str = ""
    view_id: int | None = None  # of a view that the person may remove
    shared: bool = False
    by: str = ""  # who shares it, if that is somebody else

    @property
    def address(self) -> str:
        """Where it is."""
        return f"/?{self.query}" if self.query else "/"


@dataclass(frozen=True, slots=True)
class Set:
    """Something that the list is filtered by, and the list without it."""

    name: str
    query: str

    @property
    def address(self) -> str:
        """The list without it."""
        return f"/?{self.query}" if self.query else "/"


@dataclass(frozen=True, slots=True)
class Above:
    """Everything above a list."""

    title: str
    order: str
    tabs: Sequence[Link]
    views: Sequence[Link]
    chips: Sequence[Set]
    clear: str  # the address of the same state without any filter
    mailboxes: Sequence[Mailbox]
    categories: Sequence[str]
    people: Sequence[User]
    can_save: bool  # the filter is no view yet

    @property
    def view(self) -> Link | None:
        """The view that this list is, where it is one."""
        return next((view for view in self.views if view.current), None)


def above(session: Session, wanted: Filter, *, user: User, sight: Sight, counts: Mapping[str, str]) -> Above:
    """All of it. `counts` are those of the tabs, in words."""
    people = assignees.who_share(session, sight)
    boxes = [box for box in mailboxes.all_of(session) if sight.sees(box.id)]
    categories = [category.name for category in work.active_categories(session)]
    shown = _views(session, wanted, user, sight)
    view = next((link for link in shown if link.current), None)
    chips = _chips(wanted, user, people, boxes)
    return Above(
        title=view.name if view else "Queue" if wanted.state == "open" else TITLES[wanted.state],
        order=ORDER_OF_FOUND if wanted.text else ORDERS[wanted.state],
        tabs=_tabs(wanted, user, counts),
        views=shown,
        chips=chips,
        clear=Link("", Filter(state=wanted.state).to_query()).address,
        mailboxes=boxes,
        # A retired category may still be asked for by an address that somebody kept.
        categories=[*categories, *(name for name in wanted.categories if name not in categories)],
        people=people,
        can_save=bool(chips) and view is None,
    )


def _tabs(wanted: Filter, user: User, counts: Mapping[str, str]) -> list[Link]:
    states = [*counts, ""] if wanted.text or not wanted.state else list(counts)
    return [
        Link(
            TITLES[state],
            replace(wanted, state=state).to_query(me=user.id),
            # Filtered, the numbers of the whole states would be those of other lists.
            count=counts.get(state, ""),
            current=state == wanted.state,
            state=state,
        )
        for state in states
    ]


def _views(session: Session, wanted: Filter, user: User, sight: Sight) -> list[Link]:
    saved = views.of(session, user)
    everything: list[View | views.BuiltIn] = [*views.BUILT_IN, *saved]
    counts = views.counts(session, everything, user=user, sight=sight)
    here = wanted.to_query(me=user.id)
    owners = assignees.names(session, (view.user_id for view in saved))
    links = []
    for view, number in zip(everything, counts, strict=True):
        own = isinstance(view, View) and view.user_id == user.id
        shared = isinstance(view, View) and view.shared
        links.append(
            Link(
                view.name,
                view.query,
                count=say_number(number, views.MAX_COUNTED),
                current=Filter.from_query(view.query).to_query() == here,
                view_id=view.id if isinstance(view, View) and (own or user.role == "admin") else None,
                shared=shared,
                by=owners.get(view.user_id, "") if isinstance(view, View) and not own else "",
            )
        )
    return links


def _chips(wanted: Filter, user: User, people: Sequence[User], boxes: Sequence[Mailbox]) -> list[Set]:
    names = {box.id: box.name for box in boxes}
    found: list[tuple[str, Filter]] = []
    if wanted.text:
        state = wanted.state or "open"
        found.append((f"“{wanted.text}”", replace(wanted, text="", state=state)))
    for id_ in wanted.mailboxes:
        rest = tuple(other for other in wanted.mailboxes if other != id_)
        found.append((names.get(id_, f"mailbox {id_}"), replace(wanted, mailboxes=rest)))
    for name in (p for p in PRIORITIES if p in wanted.priorities):
        rest_names = tuple(other for other in wanted.priorities if other != name)
        found.append((name, replace(wanted, priorities=rest_names)))
    for name in wanted.categories:
        rest_names = tuple(other for other in wanted.categories if other != name)
        found.append((name, replace(wanted, categories=rest_names)))
    if wanted.assigned:
        found.append((_who(wanted.assigned, user, people), replace(wanted, assigned="")))
    if wanted.needs_human:
        found.append(("needs a human", replace(wanted, needs_human=False)))
    if wanted.overdue:
        found.append(("overdue", replace(wanted, overdue=False)))
    return [Set(name, rest.to_query(me=user.id)) for name, rest in found]


def _who(assigned: str, user: User, people: Sequence[User]) -> str:
    if assigned == "none":
        return "unassigned"
    if assigned == str(user.id):
        return "mine"
    person = next((person for person in people if str(person.id) == assigned), None)
    return f"of {person.name or person.email}" if person else f"of user {assigned}"
