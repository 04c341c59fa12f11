"""Whether a trial learns from what its study began with, the same rows and weights: a file may be another one by now, or on another box."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.records import Outcome
from tuner.store.tables import attempts, runs

_COUNT = (Outcome.RUNNING, Outcome.WAITING, Outcome.COMPLETE, Outcome.PRUNED)
"""Trials whose rows others must have: what ended badly is compared with nobody, and its rows may have been the reason."""


def first_facts(db: Database, lease: Lease) -> tuple[int, Mapping[str, Any]]:
    """From what the first trial of a study learnt.

    Args:
        db: The database.
        lease: A run of the study, whose own facts are stored already.

    Returns:
        The number of the trial and the facts of its first attempt, with the digests of its training and validation rows (``data``), of the
        pretrained weights and the teacher's (``weights``, ``teacher``); no fact where no trial has told any yet.
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
    return (-1, {}) if row is None else (row.number, json.loads(row.facts))
