"""Many rows of one table at once, without an object for each and without a statement that names each value."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection, Dialect, Table, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, SQLModel, func, select

# Fewer rows go in an INSERT, which PostgreSQL is asked once; a COPY takes two questions.
MIN_COPIED = 8


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
    if connection.dialect.name != "postgresql":
        # SQLite would return ids of many rows in no order, but nobody else writes while we do.
        first = (connection.execute(select(func.max(table.c.id))).scalar() or 0) + 1
        ids = list(range(first, first + len(values)))
        names, tuples = _tuples(connection.dialect, table, ids, values)
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {table.name} ({_quoted(names)}) VALUES ({marks})"  # noqa: S608 - our own names
        connection.exec_driver_sql(statement, tuples)
        return ids
    if len(values) < MIN_COPIED:
        returning = table.insert().returning(table.c.id, sort_by_parameter_order=True)
        return list(connection.execute(returning, values).scalars())
    return _copy(connection, table, values)


def _copy(connection: Connection, table: Table, values: Sequence[Mapping[str, Any]]) -> list[int]:
    """COPY, with ids that are taken from the sequence first: an INSERT of many rows costs several times as much."""
    reserve = text("SELECT nextval(pg_get_serial_sequence(:table, 'id')) FROM generate_series(1, :number)")
    ids = list(connection.execute(reserve, {"table": table.name, "number": len(values)}).scalars())
    names, tuples = _tuples(connection.dialect, table, ids, values)
    statement = f"COPY {table.name} ({_quoted(names)}) FROM STDIN"
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in tuples:
                copy.write_row(row)
    except psycopg.Error as error:
        # As every other statement's: the callers know SQLAlchemy's errors only.
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, dialect=connection.dialect
        ) from error
    return ids


def _quoted(names: Sequence[str]) -> str:
    # "left" is a word of SQL.
    return ", ".join(f'"{name}"' for name in names)


def _tuples(
    dialect: Dialect, table: Table, ids: Sequence[int], values: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names, and the rows as the driver takes them."""
    names = list(values[0])
    columns = [
        _column(
            [row[name] for row in values], table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        )
        for name in names
    ]
    return ["id", *names], list(zip(ids, *columns, strict=True))


def _column(values: list[Any], process: Callable[[Any], Any] | None) -> list[Any]:
    if process is not None:
        return [process(value) for value in values]
    # A driver would take an enumeration for a type of its own.
    return [value.value if isinstance(value, Enum) else value for value in values]


@cache
def _blank(model: type[SQLModel]) -> dict[str, Any]:
    """The columns that have a default, with it: shared by all rows and never changed."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if name != "id" and not field.is_required()
    }
