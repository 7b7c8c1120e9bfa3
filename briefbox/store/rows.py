"""Many rows of one table at once, without an object for each and without a statement that names each value."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from itertools import repeat
from typing import Any

import psycopg
from sqlalchemy import JSON, Column, Connection, Dialect, Table, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, SQLModel, func, select

from briefbox.db import to_json
from briefbox.tables import UTCDateTime

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
    session.flush()
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        # SQLite would return ids of many rows in no order, but nobody else writes while we do.
        first = (connection.execute(select(func.max(table.c.id))).scalar() or 0) + 1
        ids = list(range(first, first + len(rows)))
        names, tuples = _tuples(connection.dialect, table, ids, blank, rows)
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {table.name} ({_quoted(names)}) VALUES ({marks})"  # noqa: S608 - our own names
        connection.exec_driver_sql(statement, tuples)
        return ids
    if len(rows) < MIN_COPIED:
        returning = table.insert().returning(table.c.id, sort_by_parameter_order=True)
        return list(connection.execute(returning, [{**blank, **row} for row in rows]).scalars())
    reserve = text("SELECT nextval(pg_get_serial_sequence(:table, 'id')) FROM generate_series(1, :number)")
    ids = list(connection.execute(reserve, {"table": table.name, "number": len(rows)}).scalars())
    _copy(connection, table, *_tuples(connection.dialect, table, ids, blank, rows))
    return ids


def _copy(
    connection: Connection, table: Table, names: Sequence[str], tuples: Iterable[tuple[Any, ...]]
) -> None:
    """COPY: an INSERT of many rows costs several times as much."""
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


def _quoted(names: Sequence[str]) -> str:
    # "left" is a word of SQL.
    return ", ".join(f'"{name}"' for name in names)


def _tuples(
    dialect: Dialect,
    table: Table,
    ids: Sequence[int],
    blank: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names, and the rows as the driver takes them. A default is made ready once for all rows."""
    given = list(rows[0])
    columns = [_column([row[name] for row in rows], table.c[name], dialect) for name in given]
    defaults = [name for name in blank if name not in rows[0]]
    repeated = [repeat(*_column([blank[name]], table.c[name], dialect)) for name in defaults]
    # Not strict: a repeated default has no end.
    return ["id", *given, *defaults], list(zip(ids, *columns, *repeated, strict=False))


def _column(values: list[Any], column: Column[Any], dialect: Dialect) -> list[Any]:
    if isinstance(column.type, JSON):
        # A COPY is text, where a driver's own wrapper is only dear.
        return [to_json(value) for value in values]
    process = column.type.dialect_impl(dialect).bind_processor(dialect)
    if process is None:
        # A driver would take an enumeration for a type of its own.
        return [value.value if isinstance(value, Enum) else value for value in values]
    if isinstance(column.type, UTCDateTime):  # a batch has few moments, and many rows of each
        ready = {value: process(value) for value in set(values)}
        return [ready[value] for value in values]
    return [process(value) for value in values]


@cache
def _blank(model: type[SQLModel]) -> dict[str, Any]:
    """The columns that have a default, with it: shared by all rows and never changed."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if name != "id" and not field.is_required()
    }
