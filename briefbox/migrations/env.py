"""Alembic's entry point; briefbox.db calls it with an engine in config.attributes."""

from alembic import context
from sqlmodel import SQLModel

import briefbox.tables  # noqa: F401 - fills SQLModel.metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    # SQLite cannot ALTER most things: batch mode copies the table instead.
    context.configure(
        connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True, compare_type=True
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
