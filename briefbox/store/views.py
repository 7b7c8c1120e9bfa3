"""Named filters of the queue: some that everybody has, and those that people saved, for themselves or for all."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, or_, select

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log, queue
from briefbox.store.filters import Filter
from briefbox.store.sight import Sight
from briefbox.tables import User, View

MAX_VIEWS = 50
MAX_NAME = 60
MAX_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A view that everybody has."""

    name: str
    query: str


BUILT_IN = (
    BuiltIn("Urgent and unassigned", "priority=urgent&assigned=none"),
    BuiltIn("Mine", "assigned=me"),
    BuiltIn("Needs a human", "human=1"),
    BuiltIn("Overdue", "overdue=1"),
)


def of(session: Session, user: User) -> list[View]:
    """A person's own views, then those that others share; each by its position."""
    query = select(View).where(or_(View.user_id == user.id, col(View.shared)))
    found = session.exec(query.order_by(col(View.position), col(View.id))).all()
    return sorted(found, key=lambda view: view.user_id != user.id)


def save(session: Session, user: User, name: str, query: str, *, shared: bool = False) -> View:
    """Keep a filter under a name. Raises InvalidValueError, ConflictError."""
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidValueError(f"The name has {len(name)} characters; expected 1 to {MAX_NAME}.")
    # "me" stays as it is: of a shared view, it is whoever looks.
    kept = Filter.from_query(query).to_query()
    session.exec(select(User.id).where(User.id == user.id).with_for_update()).one()
    own = session.exec(select(View).where(View.user_id == user.id)).all()
    if any(view.name.casefold() == name.casefold() for view in own):
        raise ConflictError(f"You have a view “{name}” already. Give it another name, or remove that one.")
    if len(own) >= MAX_VIEWS:
        raise InvalidValueError(f"You have {len(own)} views, which is the most. Remove one first.")
    view = View(
        user_id=user.id,
        name=name,
        query=kept,
        shared=shared,
        position=max((view.position for view in own), default=0) + 1,
        created_at=now(session),
    )
    session.add(view)
    session.flush()
    if shared:
        audit_log.record(session, user.email, "view shared", name, query=kept)
    return view


def remove(session: Session, user: User, view_id: int) -> None:
    """Take away a view of one's own; an admin may take away any that is shared. Raises NotFoundError."""
    view = session.get(View, view_id)
    if view is None or not (view.user_id == user.id or (view.shared and user.role == "admin")):
        raise NotFoundError(f"There is no view {view_id} of yours.")
    session.delete(view)
    if view.shared:
        audit_log.record(session, user.email, "view removed", view.name, query=view.query)


def counts(
    session: Session, views: Sequence[View | BuiltIn], *, user: User, sight: Sight, cap: int = MAX_COUNTED
) -> list[int]:
    """How many each view holds, in their order; `cap` is as good as "more"."""
    wanted = [Filter.from_query(view.query, me=user.id) for view in views]
    return queue.count_each(session, wanted, sight=sight, cap=cap)
