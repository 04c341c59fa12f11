"""Ends told apart by type, requests of people, what fits into memory, and signs of an older backup.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import json

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
    _tell_optuna_of_infeasible_trials("PRUNED")


def downgrade() -> None:
    """Undo it; diverged trials become failed ones again."""
    _tell_optuna_of_infeasible_trials("FAIL")
    _rename({new: old for old, new in RENAMED.items()} | {"diverged": "failed"})
    op.drop_table("tuner_fits")
    for table, name in (*((table, name) for table, name, _, _ in COLUMNS), ("tuner_events", "who")):
        op.drop_column(table, name)


def _add(table: str, column: sa.Column[object]) -> None:
    """Add a column that is not there yet: MySQL commits each change, and whoever made the first ones may have died."""
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def _tell_optuna_of_infeasible_trials(state: str) -> None:
    """Give them the state that they have in Optuna's tables, and where they are pruned the constraint that says why."""
    runs = sa.table("tuner_runs", *map(sa.column, ("trial_id", "purpose", "outcome")))
    states = sa.Enum("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING", name="trialstate")
    trials = sa.table("trials", sa.column("trial_id"), sa.column("state", states))
    said = sa.table("trial_system_attributes", *map(sa.column, ("trial_id", "key", "value_json")))
    connection = op.get_bind()
    chosen = sa.select(runs.c.trial_id).where(runs.c.purpose == "search", runs.c.outcome == "infeasible")
    for trial_id in connection.execute(chosen).scalars().all():
        connection.execute(sa.update(trials).where(trials.c.trial_id == trial_id).values(state=state))
        of_it = (said.c.trial_id == trial_id) & (said.c.key == "constraints:runs")
        is_there = connection.execute(sa.select(said.c.key).where(of_it)).first() is not None
        if state != "PRUNED":
            connection.execute(sa.delete(said).where(of_it))
        elif not is_there:
            connection.execute(
                sa.insert(said).values(trial_id=trial_id, key="constraints:runs", value_json=json.dumps(1.0))
            )


def _rename(words: dict[str, str]) -> None:
    for name in ("tuner_runs", "tuner_attempts"):
        table = sa.table(name, sa.column("outcome", sa.String(16)))
        for old, new in words.items():
            op.execute(sa.update(table).where(table.c.outcome == old).values(outcome=new))
