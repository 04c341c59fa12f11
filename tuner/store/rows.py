"""Whether a trial is trained on the rows that its study began with: a file may be another one by now, or on another box."""

from __future__ import annotations

import json

from sqlalchemy import select

from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.records import Outcome
from tuner.store.tables import attempts, runs

_COUNT = (Outcome.RUNNING, Outcome.WAITING, Outcome.COMPLETE, Outcome.PRUNED)
"""Trials whose rows others must have: what ended badly is compared with nobody, and its rows may have been the reason."""


def first_rows(db: Database, lease: Lease) -> tuple[int, str]:
    """On which rows the first trial of a study was trained.

    Args:
        db: The database.
        lease: A run of the study, whose own rows are stored already.

    Returns:
        The number of the trial, and the digest of its training and validation rows; empty where none has told it yet.
    """
    first = (
        select(runs.c.number, attempts.c.facts)
        .join(attempts, attempts.c.run_id == runs.c.run_id)
        .where(
            runs.c.study_id == lease.study_id,
            runs.c.purpose == "search",
            runs.c.outcome.in_([outcome.value for outcome in _COUNT]),
            # What was given back need not have trained: where another box had other rows it was given back for these.
            attempts.c.outcome != Outcome.PREEMPTED.value,
            attempts.c.facts.contains('"data"'),
        )
        .order_by(attempts.c.started_at, attempts.c.run_id)
        .limit(1)
    )
    row = db.read(lambda tx: tx.execute(first).first())
    return (-1, "") if row is None else (row.number, str(json.loads(row.facts).get("data", "")))
