"""The first schema: studies, workers, runs, attempts, metrics, events.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DOUBLE = sa.Float(precision=53).with_variant(mysql.DOUBLE(asdecimal=False), "mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Create the tables."""
    op.create_table('tuner_events',
    sa.Column('event_id', sa.Integer(), nullable=False),
    sa.Column('at', DOUBLE, nullable=False),
    sa.Column('study_id', sa.Integer(), nullable=True),
    sa.Column('number', sa.Integer(), nullable=True),
    sa.Column('run_id', sa.Integer(), nullable=True),
    sa.Column('worker_id', sa.String(length=64), nullable=True),
    sa.Column('kind', sa.String(length=32), nullable=False),
    sa.Column('text', LONG_TEXT, nullable=False),
    sa.PrimaryKeyConstraint('event_id')
    )
    op.create_index('tuner_events_by_study', 'tuner_events', ['study_id', 'event_id'], unique=False)
    op.create_table('tuner_studies',
    sa.Column('study_id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column("name", sa.String(length=100), nullable=False),
    sa.Column("uid", sa.String(length=32), nullable=False),
    sa.Column('spec', LONG_TEXT, nullable=False),
    sa.Column('space', LONG_TEXT, nullable=False),
    sa.Column('metric', sa.String(length=100), nullable=False),
    sa.Column('maximize', sa.Boolean(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('state_reason', LONG_TEXT, nullable=False),
    sa.Column("search_over", LONG_TEXT, nullable=False),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('created_at', DOUBLE, nullable=False),
    sa.Column('finished_at', DOUBLE, nullable=True),
    sa.PrimaryKeyConstraint('study_id'),
    sa.UniqueConstraint('name')
    )
    op.create_table('tuner_workers',
    sa.Column('worker_id', sa.String(length=64), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('boot', sa.String(length=100), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('process_started', DOUBLE, nullable=False),
    sa.Column('devices', LONG_TEXT, nullable=False),
    sa.Column('version', sa.String(length=32), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('started_at', DOUBLE, nullable=False),
    sa.Column('seen_at', DOUBLE, nullable=False),
    sa.Column('expires_at', DOUBLE, nullable=False),
    sa.PrimaryKeyConstraint('worker_id')
    )
    op.create_table('tuner_runs',
    sa.Column('run_id', sa.Integer(), nullable=False),
    sa.Column('study_id', sa.Integer(), nullable=False),
    sa.Column('trial_id', sa.Integer(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('purpose', sa.String(length=8), nullable=False),
    sa.Column('seed', sa.Integer(), nullable=False),
    sa.Column('outcome', sa.String(length=16), nullable=False),
    sa.Column('reason', LONG_TEXT, nullable=False),
    sa.Column('strategy', sa.String(length=200), nullable=True),
    sa.Column('params', LONG_TEXT, nullable=True),
    sa.Column('is_recipe', sa.Boolean(), nullable=False),
    sa.Column("attempt", sa.Integer(), nullable=False),
    sa.Column("token", sa.String(length=32), nullable=False),
    sa.Column('losses', sa.Integer(), nullable=False),
    sa.Column('worker_id', sa.String(length=64), nullable=True),
    sa.Column('expires_at', DOUBLE, nullable=True),
    sa.Column('reserved_epochs', sa.Integer(), nullable=False),
    sa.Column('epochs_done', sa.Integer(), nullable=False),
    sa.Column('value', DOUBLE, nullable=True),
    sa.Column('best_epoch', sa.Integer(), nullable=True),
    sa.Column('trainable_params', sa.BigInteger(), nullable=True),
    sa.Column('peak_memory', sa.BigInteger(), nullable=True),
    sa.Column('result', LONG_TEXT, nullable=True),
    sa.Column('checkpoint', LONG_TEXT, nullable=False),
    sa.Column('finalist_rank', sa.Integer(), nullable=True),
    sa.Column('is_baseline', sa.Boolean(), nullable=False),
    sa.Column('created_at', DOUBLE, nullable=False),
    sa.Column('ended_at', DOUBLE, nullable=True),
    sa.ForeignKeyConstraint(['study_id'], ['tuner_studies.study_id'], ),
    sa.PrimaryKeyConstraint('run_id'),
    sa.UniqueConstraint('study_id', 'number', 'purpose', 'seed', name='tuner_runs_once')
    )
    op.create_index('tuner_runs_by_outcome', 'tuner_runs', ['study_id', 'outcome'], unique=False)
    op.create_table('tuner_attempts',
    sa.Column('run_id', sa.Integer(), nullable=False),
    sa.Column('attempt', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('worker_id', sa.String(length=64), nullable=False),
    sa.Column('host', sa.String(length=255), nullable=False),
    sa.Column('slot', sa.String(length=64), nullable=False),
    sa.Column('outcome', sa.String(length=16), nullable=False),
    sa.Column('reason', LONG_TEXT, nullable=False),
    sa.Column('facts', LONG_TEXT, nullable=False),
    sa.Column('started_at', DOUBLE, nullable=False),
    sa.Column('ended_at', DOUBLE, nullable=True),
    sa.Column('seconds', DOUBLE, nullable=False),
    sa.Column('log_tail', LONG_TEXT, nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['tuner_runs.run_id'], ),
    sa.PrimaryKeyConstraint('run_id', 'attempt')
    )
    op.create_table('tuner_metrics',
    sa.Column('run_id', sa.Integer(), nullable=False),
    sa.Column('attempt', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('epoch', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('split', sa.String(length=16), nullable=False),
    sa.Column('name', sa.String(length=100), nullable=False),
    sa.Column('value', DOUBLE, nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['tuner_runs.run_id'], ),
    sa.PrimaryKeyConstraint('run_id', 'attempt', 'epoch', 'split', 'name')
    )


def downgrade() -> None:
    """Drop the tables, children first."""
    for table in ("tuner_metrics", "tuner_attempts", "tuner_runs", "tuner_workers", "tuner_studies", "tuner_events"):
        op.drop_table(table)
