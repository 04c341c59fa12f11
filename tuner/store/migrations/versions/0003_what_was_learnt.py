"""Where a trial's recipe was learnt.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = (("tuner_runs", "learnt_from", sa.String(length=120), ""),)


def upgrade() -> None:
    """Add columns."""
    for table, name, kind, value in COLUMNS:
        _add(table, sa.Column(name, kind, nullable=False, server_default=value))


def downgrade() -> None:
    """Remove them."""
    for table, name, _, _ in COLUMNS:
        op.drop_column(table, name)


def _add(table: str, column: sa.Column[object]) -> None:
    """Add a column that is not there yet: MySQL commits each change, and whoever made the first ones may have died."""
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)
