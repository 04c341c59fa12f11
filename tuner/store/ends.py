"""What a run's row and its attempt's say when an attempt is over. All of it happens in the transaction of the caller."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from tuner.store import events, optuna_rows
from tuner.store.records import Outcome
from tuner.store.studies import pause_if_hopeless
from tuner.store.tables import attempts, db_now, runs
from tuner.study.plan import TrialResult

MOST_LOSSES = 3
"""Attempts that may end without a word before the run is given up: a configuration that kills its process every time must not
take every worker down with it."""


def cut_waiting(tx: Connection, row: Row[Any], *, reason: str) -> None:
    """End a run that waits for a budget that is used up; the caller holds the study's lock."""
    tx.execute(
        update(runs)
        .where(runs.c.run_id == row.run_id)
        .values(outcome=Outcome.PRUNED.value, reason=reason, ended_at=db_now())
    )
    if row.purpose == "search":
        optuna_rows.set_state(tx, row.trial_id, Outcome.PRUNED)
    events.record(tx, "run_pruned", reason, study_id=row.study_id, number=row.number, run_id=row.run_id)


def result_values(result: TrialResult | None) -> dict[str, Any]:
    """What a run's row keeps of the training's answer; nothing where there is none."""
    if result is None:
        return {}
    return {
        "best_epoch": result.best_epoch or None,
        "epochs_done": result.epochs,
        "trainable_params": result.trainable_params,
        "peak_memory": result.peak_memory,
        "checkpoint": result.checkpoint,
        "result": json.dumps(result.to_json(), allow_nan=False),
    }


def reclaim_expired(tx: Connection, study_id: int, *, grace: float) -> int:
    """As :func:`tuner.store.leases.reclaim_expired`; the caller holds the study's lock."""
    expired = tx.execute(
        select(runs).where(
            runs.c.study_id == study_id, runs.c.outcome == Outcome.RUNNING.value, runs.c.expires_at < db_now() - grace
        )
    ).all()
    for row in expired:
        reason = f"worker {row.worker_id} fell silent"
        if mark_lost(tx, row, reason=reason) is Outcome.ERRORED:
            pause_if_hopeless(tx, study_id, reason=reason)
    return len(expired)


def mark_lost(tx: Connection, row: Row[Any], *, reason: str) -> Outcome:
    """Take a run from its owner. The caller holds the study's lock or the lease."""
    losses = row.losses + (row.strategy is not None)  # before its values were bound they cannot be to blame
    outcome = Outcome.ERRORED if losses >= MOST_LOSSES else Outcome.WAITING
    if outcome is Outcome.ERRORED:
        reason = f"{reason}; given up after {losses} attempts"
    values: dict[str, Any] = {
        "outcome": outcome.value,
        "reason": reason,
        "losses": losses,
        "worker_id": None,
        "expires_at": None,
    }
    if outcome is Outcome.ERRORED:
        values["ended_at"] = db_now()
    taken = tx.execute(
        update(runs)
        .where(runs.c.run_id == row.run_id, runs.c.attempt == row.attempt, runs.c.outcome == Outcome.RUNNING.value)
        .values(values)
    )
    if taken.rowcount != 1:  # its owner finished it between our read and this write
        return Outcome(tx.execute(select(runs.c.outcome).where(runs.c.run_id == row.run_id)).scalar_one())
    tx.execute(
        update(attempts)
        .where(attempts.c.run_id == row.run_id, attempts.c.attempt == row.attempt)
        .values(outcome=Outcome.LOST.value, reason=reason, ended_at=db_now())
    )
    if row.purpose == "search":
        optuna_rows.set_state(tx, row.trial_id, outcome)
    events.record(
        tx, "run_lost", reason, study_id=row.study_id, number=row.number, run_id=row.run_id, worker_id=row.worker_id
    )
    return outcome
