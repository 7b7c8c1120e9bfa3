"""The admin's categories: what the model may answer, and what becomes of conversations when the list changes.

    in use --retire--> retired --bring back--> in use
    in use or retired --merge--> retired, and its conversations move to the other one, batch by batch

A merge is one row: from its commit on nobody gets the old name. The conversations follow in batches (`move_merged`),
so that a million of them hold nobody up, and so do those that a brief or an undo gives the old name afterwards.
"""

from dataclasses import dataclass

from sqlmodel import Session, col, func, select, update

from briefbox.db import now
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.store import audit_log
from briefbox.tables import Category, Conversation

MAX_NAME, MAX_DESCRIPTION = 60, 160
# The names stand in each prompt, and every one of them is scored for each mail.
MAX_CATEGORIES = 50
# With one category there is nothing to tell apart.
LEAST = 2
# More are not counted one by one: "10,000+" says enough, and a count over a million rows would take its time.
COUNTED = 10_000
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Counted:
    """A category with its conversations; each number is at most COUNTED + 1."""

    category: Category
    num_open: int
    num_all: int


def all_of(session: Session) -> list[Category]:
    """Those in use in their order, then the retired ones."""
    rows = session.exec(select(Category).order_by(col(Category.position), col(Category.id))).all()
    return sorted(rows, key=lambda row: row.retired_at is not None)


def counted(session: Session) -> list[Counted]:
    """The same with how many conversations have each."""
    return [
        Counted(row, num_of(session, row.name, state="open"), num_of(session, row.name))
        for row in all_of(session)
    ]


def num_of(session: Session, name: str, *, state: str = "") -> int:
    """How many conversations have this category, counted up to COUNTED + 1."""
    query = select(Conversation.id).where(Conversation.category == name, Conversation.state != "merged")
    if state:
        query = query.where(Conversation.state == state)
    return session.exec(select(func.count()).select_from(query.limit(COUNTED + 1).subquery())).one()


def get(session: Session, category_id: int) -> Category:
    """Raises NotFoundError."""
    row = session.get(Category, category_id)
    if row is None:
        raise NotFoundError(f"There is no category {category_id}.")
    return row


def merged_names(session: Session) -> dict[str, str]:
    """The name that each merged category's conversations have now."""
    rows = session.exec(select(Category.name, Category.merged_into).where(Category.merged_into != ""))
    return dict(rows.all())


# --- change


def add(session: Session, name: str, description: str, *, actor: str) -> Category:
    """A new one, at the end but for the last, which is mostly for everything else. Raises InvalidValueError."""
    rows = _locked(session)
    active = [row for row in rows if row.retired_at is None]
    if len(active) >= MAX_CATEGORIES:
        raise InvalidValueError(
            f"There are {len(active)} categories already, and more would make each brief slower and less sure. Retire or merge one first."
        )
    row = Category(name=_name(rows, name), description=_description(description))
    session.add(row)
    _place(session, [*active[:-1], row, *active[-1:]])
    audit_log.record(session, actor, "category added", row.name, description=row.description)
    return row


def describe(session: Session, category_id: int, description: str, *, actor: str) -> Category:
    """Change what the model is told about it. Raises NotFoundError, InvalidValueError."""
    row = get(session, category_id)
    before, row.description = row.description, _description(description)
    if before != row.description:
        session.add(row)
        audit_log.record(session, actor, "category described", row.name, before=before, after=row.description)
    return row


def move(session: Session, category_id: int, *, up: bool, actor: str) -> None:
    """One place up or down in the list. At its end nothing changes. Raises NotFoundError."""
    active = [row for row in _locked(session) if row.retired_at is None]
    at = next((n for n, row in enumerate(active) if row.id == category_id), None)
    if at is None:
        raise NotFoundError(f"There is no category {category_id} in use.")
    to = at - 1 if up else at + 1
    if 0 <= to < len(active):
        active[at], active[to] = active[to], active[at]
        _place(session, active)
        audit_log.record(session, actor, "category moved", active[to].name, position=to + 1)


def retire(session: Session, category_id: int, *, actor: str) -> Category:
    """No new mail gets it; conversations that have it keep it. Raises NotFoundError, ConflictError."""
    row = get(session, category_id)
    _keep_enough(_locked(session), row)
    row.retired_at = row.retired_at or now(session)
    session.add(row)
    audit_log.record(session, actor, "category retired", row.name)
    return row


def bring_back(session: Session, category_id: int, *, actor: str) -> Category:
    """Let new mail get it again. What was merged away does not come back with it. Raises NotFoundError, ConflictError."""
    row = get(session, category_id)
    rows = _locked(session)
    active = [other for other in rows if other.retired_at is None]
    if row.retired_at is None:
        return row
    if len(active) >= MAX_CATEGORIES:
        raise ConflictError(f"There are {len(active)} categories already. Retire or merge one first.")
    row.retired_at, row.merged_into = None, ""
    _place(session, [*active[:-1], row, *active[-1:]])
    audit_log.record(session, actor, "category brought back", row.name)
    return row


def rename(session: Session, category_id: int, name: str, *, actor: str) -> Category:
    """The same under another name: a new one in its place that takes its conversations.

    Raises NotFoundError, InvalidValueError, ConflictError.
    """
    old = get(session, category_id)
    if old.retired_at is not None:
        raise ConflictError(f"The category {old.name} is retired; bring it back first.")
    rows = _locked(session)
    row = Category(name=_name(rows, name), description=old.description)
    session.add(row)
    active = [row if other.id == old.id else other for other in rows if other.retired_at is None]
    _place(session, active)
    merge(session, old.id, row.id, actor=actor)
    return row


def merge(session: Session, category_id: int, into_id: int, *, actor: str) -> Category:
    """Let another one take its conversations, now and whenever one gets the old name again.

    Those that are many follow in batches. Raises NotFoundError, InvalidValueError, ConflictError.
    """
    old, new = get(session, category_id), get(session, into_id)
    if old.id == new.id:
        raise InvalidValueError(f"{old.name} cannot be merged into itself; choose another one.")
    if new.retired_at is not None:
        raise InvalidValueError(f"{new.name} is retired, so that nothing is merged into it.")
    rows = _locked(session)
    _keep_enough(rows, old)
    old.retired_at, old.merged_into = old.retired_at or now(session), new.name
    session.add(old)
    for row in rows:
        if row.merged_into == old.name:
            row.merged_into = new.name
            session.add(row)
    session.flush()
    audit_log.record(
        session,
        actor,
        "category merged",
        old.name,
        into=new.name,
        conversations=num_of(session, old.name),
    )
    move_merged(session)
    return new


def any_to_move(session: Session) -> bool:
    """Whether a conversation has the name of a merged category: asked without the right to write."""
    names = list(merged_names(session))
    query = select(Conversation.id).where(col(Conversation.category).in_(names)).limit(1)
    return bool(names) and session.exec(query).first() is not None


def move_merged(session: Session, *, limit: int = BATCH) -> int:
    """Give conversations of merged categories their new name. Returns how many. Several processes may do it at once."""
    moved = 0
    for old, new in merged_names(session).items():
        due = select(Conversation.id).where(Conversation.category == old).limit(limit - moved)
        ids = list(session.exec(due.with_for_update(skip_locked=True)).all())
        if ids:
            session.exec(
                update(Conversation)
                .where(col(Conversation.id).in_(ids))
                .values(category=new, version=col(Conversation.version) + 1, updated_at=now(session))
            )
        moved += len(ids)
        if moved >= limit:
            break
    return moved


# --- rules


def _locked(session: Session) -> list[Category]:
    """All rows in their order, held until the commit: two admins who retire at once leave two."""
    query = select(Category).order_by(col(Category.position), col(Category.id))
    return list(session.exec(query.with_for_update()))


def _place(session: Session, active: list[Category]) -> None:
    for position, row in enumerate(active):
        row.position = position
        session.add(row)
    session.flush()


def _keep_enough(rows: list[Category], going: Category) -> None:
    left = [row for row in rows if row.retired_at is None and row.id != going.id]
    if len(left) < LEAST and going.retired_at is None:
        raise ConflictError(
            f"{going.name} stays: without it {len(left)} would be left, and at least {LEAST} are needed. Add another one first."
        )


def _name(rows: list[Category], name: str) -> str:
    name = " ".join(name.split())
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidValueError(
            f"The name has {len(name)} characters; expected 1 to {MAX_NAME} that can be printed."
        )
    same = next((row for row in rows if row.name.casefold() == name.casefold()), None)
    if same is not None:
        state = "is there, but retired: bring it back" if same.retired_at else "is there already"
        raise InvalidValueError(f"The category “{same.name}” {state}.")
    return name


def _description(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > MAX_DESCRIPTION:
        raise InvalidValueError(
            f"The description has {len(text)} characters; expected at most {MAX_DESCRIPTION}. The model reads it with each mail."
        )
    return text
