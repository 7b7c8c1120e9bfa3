"""Many rows of one table in few statements, without an object for each."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlmodel import Session, SQLModel, func, select


def table_of(model: type[SQLModel]) -> Table:
    """The table behind a model."""
    table = model.__table__  # type: ignore[attr-defined]
    assert isinstance(table, Table)
    return table


def insert(session: Session, model: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows that all name the same columns; what they leave out gets the model's defaults. Returns their ids.

    Inside a writing transaction only: on SQLite the ids are chosen here.
    """
    if not rows:
        return []
    table, blank = table_of(model), _blank(model)
    values = [{**blank, **row} for row in rows]
    session.flush()
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        statement = table.insert().returning(table.c.id, sort_by_parameter_order=True)
        return list(connection.execute(statement, values).scalars())
    # SQLite would return ids of many rows in no order, but nobody else writes while we do.
    first = (connection.execute(select(func.max(table.c.id))).scalar() or 0) + 1
    ids = list(range(first, first + len(values)))
    for id_, row in zip(ids, values, strict=True):
        row["id"] = id_
    connection.execute(table.insert(), values)
    return ids


@cache
def _blank(model: type[SQLModel]) -> dict[str, Any]:
    """The columns that have a default, with it: shared by all rows and never changed."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if name != "id" and not field.is_required()
    }
