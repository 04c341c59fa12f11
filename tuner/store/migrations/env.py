"""Run by Alembic: applies the migrations on the connection that :mod:`tuner.store.schema` hands in."""

from __future__ import annotations

from alembic import context

from tuner.store.schema import VERSION_TABLE
from tuner.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter a column in place
    transaction_per_migration=False,
)
context.run_migrations()
