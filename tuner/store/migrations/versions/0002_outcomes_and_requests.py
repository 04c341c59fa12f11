"""Ends told apart by type, requests of people, what fits into memory, and signs of an older backup.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOUBLE = sa.Float(precision=53).with_variant(mysql.DOUBLE(asdecimal=False), "mysql", "mariadb")
COLUMNS = (
    ("tuner_studies", "code", sa.String(length=80), ""),
    ("tuner_workers", "code", sa.String(length=80), ""),
    ("tuner_workers", "beat", sa.Integer(), "0"),
    ("tuner_workers", "asked", sa.String(length=16), ""),
    ("tuner_runs", "asked", sa.String(length=16), ""),
)
RENAMED = {"failed": "errored", "released": "preempted"}


def upgrade() -> None:
    """Add columns and a table; give stored ends their new names."""
    for table, name, kind, value in COLUMNS:
        _add(table, sa.Column(name, kind, nullable=False, server_default=value))
    _add("tuner_events", sa.Column("who", sa.String(length=200), nullable=True))
    op.create_table(
        "tuner_fits",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("strategy", sa.String(length=200), nullable=False),
        sa.Column("length", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("device", sa.String(length=100), nullable=False),
        sa.Column("micro_batch", sa.Integer(), nullable=False),
        sa.Column("at", DOUBLE, nullable=False),
        sa.PrimaryKeyConstraint("model", "strategy", "length", "device"),
        if_not_exists=True,
    )
    _rename(RENAMED)


def downgrade() -> None:
    """Undo it; diverged trials become failed ones again."""
    _rename({new: old for old, new in RENAMED.items()} | {"diverged": "failed"})
    op.drop_table("tuner_fits")
    for table, name in (*((table, name) for table, name, _, _ in COLUMNS), ("tuner_events", "who")):
        op.drop_column(table, name)


def _add(table: str, column: sa.Column[object]) -> None:
    """Add a column that is not there yet: MySQL commits each change, and whoever made the first ones may have died."""
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def _rename(words: dict[str, str]) -> None:
    for name in ("tuner_runs", "tuner_attempts"):
        table = sa.table(name, sa.column("outcome", sa.String(16)))
        for old, new in words.items():
            op.execute(sa.update(table).where(table.c.outcome == old).values(outcome=new))
