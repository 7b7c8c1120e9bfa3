"""Alembic's entry point; briefbox.db calls it with an engine in config.attributes."""

from alembic import context
from sqlmodel import SQLModel

import briefbox.tables  # noqa: F401 - fills SQLModel.metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    driver = connection.connection.dbapi_connection
    if engine.dialect.name == "sqlite":
        # A copied table is dropped and renamed: with the keys enforced meanwhile, rows that point to it would be
        # broken references. The pragma does nothing inside a transaction, so it goes past SQLAlchemy's own BEGIN.
        driver.execute("PRAGMA foreign_keys=OFF")
    # SQLite cannot ALTER most things: batch mode copies the table instead.
    context.configure(
        connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True, compare_type=True
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
