"""The categories, for admins: what the model may answer, in which order it reads them, and what became of old ones.

A merge or a new name is shown first, with what will happen, and done by a second step.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlmodel import Session

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.errors import ConflictError, InvalidValueError
from briefbox.store import adapters
from briefbox.store import categories as store
from briefbox.tables import Category
from desk.access import Admin
from desk.context import Fields, TheDesk, page

router = APIRouter(prefix="/admin/categories")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
LIST = "/admin/categories"
NOTES = {
    "added": "Added. The next mail may get it.",
    "described": "Saved. The model reads it with the next mail.",
    "moved": "Moved.",
    "retired": "Retired. No new mail gets it; what has it keeps it.",
    "back": "It is in use again.",
    "merged": "Merged.",
    "renamed": "Renamed.",
}


@router.get("")
def list_page(request: Request, desk: TheDesk, user: Admin, note: str = "") -> Response:
    """All categories with their numbers."""
    return _list(request, desk, note=NOTES.get(note, ""))


@router.post("")
def add(request: Request, desk: TheDesk, user: Admin, fields: Fields) -> Response:
    """A new one. What was typed stays on the page when it is refused."""
    name, description = fields.get("name", ""), fields.get("description", "")
    try:
        with desk.database.write() as session:
            store.add(session, name, description, actor=user.email)
    except InvalidValueError as error:
        return _list(request, desk, status=400, problem=str(error), name=name, description=description)
    return RedirectResponse(f"{LIST}?note=added", status_code=303)


@router.get("/{category_id}")
def edit_page(request: Request, desk: TheDesk, user: Admin, category_id: Id) -> Response:
    """One category: its description, another name, another one that takes its conversations."""
    return _edit(request, desk, category_id)


@router.post("/{category_id}/description")
def describe(request: Request, desk: TheDesk, user: Admin, category_id: Id, fields: Fields) -> Response:
    """What the model is told about it."""
    try:
        with desk.database.write() as session:
            store.describe(session, category_id, fields.get("description", ""), actor=user.email)
    except InvalidValueError as error:
        return _edit(
            request, desk, category_id, status=400, problem=str(error), typed=fields.get("description", "")
        )
    return RedirectResponse(f"{LIST}?note=described", status_code=303)


@router.post("/{category_id}/{change}")
def change(desk: TheDesk, user: Admin, category_id: Id, change: str) -> Response:
    """Up, down, retire, bring back."""
    with desk.database.write() as session:
        if change in ("up", "down"):
            store.move(session, category_id, up=change == "up", actor=user.email)
            return RedirectResponse(f"{LIST}?note=moved#category-{category_id}", status_code=303)
        if change == "retire":
            store.retire(session, category_id, actor=user.email)
        elif change == "back":
            store.bring_back(session, category_id, actor=user.email)
        else:
            raise InvalidValueError(f"“{change}” is none of up, down, retire, back.")
    return RedirectResponse(f"{LIST}?note={'retired' if change == 'retire' else 'back'}", status_code=303)


@router.get("/{category_id}/merge")
def merge_page(
    request: Request,
    desk: TheDesk,
    user: Admin,
    category_id: Id,
    into: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    name: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """What would happen: of a merge into another one, or of a new name."""
    with desk.database.read() as session:
        category = store.get(session, category_id)
        target = store.get(session, into) if into is not None else None
        if target is None and not name.strip():
            return _edit(request, desk, category_id, status=400, problem="Choose another category first.")
        return page(
            request,
            "category_merge.html",
            category=category,
            target=target,
            name=name.strip(),
            num=store.num_of(session, category.name),
            num_open=store.num_of(session, category.name, state="open"),
            counted=store.COUNTED,
            batch=store.BATCH,
        )


@router.post("/{category_id}/merge/now")
def merge(request: Request, desk: TheDesk, user: Admin, category_id: Id, fields: Fields) -> Response:
    """The second step: merge, or rename."""
    into = fields.get("into", "")
    try:
        with desk.database.write() as session:
            if into:
                if not into.isdecimal() or len(into) > 9:
                    raise InvalidValueError(f"“{into}” is no category.")
                store.merge(session, category_id, int(into), actor=user.email)
            else:
                store.rename(session, category_id, fields.get("name", ""), actor=user.email)
    except (InvalidValueError, ConflictError) as error:
        return _edit(
            request, desk, category_id, status=400, problem=str(error), new_name=fields.get("name", "")
        )
    return RedirectResponse(f"{LIST}?note={'merged' if into else 'renamed'}", status_code=303)


# --- pages


def _list(
    request: Request,
    desk: TheDesk,
    *,
    status: int = 200,
    note: str = "",
    problem: str = "",
    name: str = "",
    description: str = "",
) -> Response:
    with desk.database.read() as session:
        found = store.counted(session)
        active = [view for view in found if view.category.retired_at is None]
        merged = {view.category.name: view.num_all for view in found if view.category.merged_into}
        return page(
            request,
            "categories.html",
            status=status,
            active=active,
            retired=[view for view in found if view.category.retired_at is not None],
            to_move=sum(merged.values()),
            counted=store.COUNTED,
            least=store.LEAST,
            max_name=store.MAX_NAME,
            max_description=store.MAX_DESCRIPTION,
            learned=_learned(session, [view.category for view in active]),
            note=note,
            problem=problem,
            name=name,
            description=description,
        )


def _edit(
    request: Request,
    desk: TheDesk,
    category_id: int,
    *,
    status: int = 200,
    problem: str = "",
    typed: str | None = None,
    new_name: str = "",
) -> Response:
    with desk.database.read() as session:
        category = store.get(session, category_id)
        others = [c for c in store.all_of(session) if c.retired_at is None and c.id != category.id]
        return page(
            request,
            "category.html",
            status=status,
            category=category,
            others=others,
            num=store.num_of(session, category.name),
            counted=store.COUNTED,
            may_retire=len(others) >= store.LEAST,
            max_name=store.MAX_NAME,
            max_description=store.MAX_DESCRIPTION,
            problem=problem,
            description=category.description if typed is None else typed,
            new_name=new_name,
        )


def _learned(session: Session, active: Sequence[Category]) -> str:
    """What the adapter in use knows of the list, in a sentence."""
    adapter = adapters.champion(session)
    if adapter is None:
        return (
            "No adapter is in use: the base model reads names and descriptions, and has learned none of them."
        )
    _run, dataset = adapters.origin(session, adapter)
    if dataset is None:
        known = {category.name for category in DEFAULT_CATEGORIES}
        source = "examples of the categories of a new installation"
    else:
        known = set(dataset.counts.get("category", {}))
        source = f"the examples of {dataset.name}"
    new = [category.name for category in active if category.name not in known]
    if not new:
        return f"The adapter in use, {adapter.name}, has learned from {source}, and knows every category of this list."
    names = ", ".join(f"“{name}”" for name in new)
    return f"The adapter in use, {adapter.name}, has learned from {source}. It has seen no example of {names}: there it goes by name and description, and is less sure, until corrections have taught the next one."
