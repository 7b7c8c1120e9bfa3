"""Alembic's entry point; briefbox.db calls it with an engine in config.attributes."""

from typing import Any

from alembic import context
from sqlmodel import SQLModel

import briefbox.tables  # noqa: F401 - fills SQLModel.metadata

engine = context.config.attributes["engine"]
# Full text is each database's own, so that these are no tables of the model; SQLite adds tables to each.
_SEARCH = ("email_search", "brief_search", "search_words")


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return not (kind == "table" and name is not None and name.startswith(_SEARCH))


with engine.connect() as connection:
    driver = connection.connection.dbapi_connection
    if engine.dialect.name == "sqlite":
        # A copied table is dropped and renamed: with the keys enforced meanwhile, rows that point to it would be
        # broken references. The pragma does nothing inside a transaction, so it goes past SQLAlchemy's own BEGIN.
        driver.execute("PRAGMA foreign_keys=OFF")
    # SQLite cannot ALTER most things: batch mode copies the table instead.
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=True,
        compare_type=True,
        include_name=_is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()
        if engine.dialect.name == "sqlite" and (
            broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        ):
            raise RuntimeError(f"the migration would break {len(broken)} references, first {broken[0]}")
    connection.commit()
    if engine.dialect.name == "sqlite":
        driver.execute("PRAGMA foreign_keys=ON")
