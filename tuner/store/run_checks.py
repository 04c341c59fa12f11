"""Checks of our own tables: leases, attempts, metrics, values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.engine import Connection, Row

from tuner.store import ends, optuna_rows
from tuner.store.problems import Check, Problem, Scope
from tuner.store.records import Outcome
from tuner.store.tables import attempts, db_now, metrics, runs

EXPIRED_SECONDS = 60.0
"""A lease that ended so long ago would have been taken over if any worker served the study."""


def describe(row: Row[Any]) -> str:
    """A run in words: ``trial 3``, or ``the confirmation of trial 3 with seed 7``."""
    return (
        f"trial {row.number}"
        if row.purpose == "search"
        else f"the confirmation of trial {row.number} with seed {row.seed}"
    )


def _expired(tx: Connection, scope: Scope) -> Iterator[Problem]:
    query = select(runs, (db_now() - runs.c.expires_at).label("ago")).where(
        runs.c.study_id == scope.study_id,
        runs.c.outcome == Outcome.RUNNING.value,
        runs.c.worker_id.is_not(None),
        runs.c.expires_at < db_now() - EXPIRED_SECONDS,
    )
    for row in tx.execute(query).all():
        yield scope.problem(
            "expired_lease",
            f"{describe(row)} is running, but the lease of worker {row.worker_id} ended {row.ago / 60:.0f} min ago",
            repair="given back, as any worker of the study would",
            mend=partial(_lose, row=row, reason=f"worker {row.worker_id} fell silent"),
            run=row,
        )


def _unheld(tx: Connection, scope: Scope) -> Iterator[Problem]:
    query = select(runs).where(
        runs.c.study_id == scope.study_id,
        runs.c.outcome == Outcome.RUNNING.value,
        or_(runs.c.worker_id.is_(None), runs.c.expires_at.is_(None)),
    )
    for row in tx.execute(query).all():
        yield scope.problem(
            "no_lease",
            f"{describe(row)} is running, but nobody holds a lease on it",
            repair="given back",
            mend=partial(_lose, row=row, reason="nobody held a lease on it"),
            run=row,
        )


def _lose(tx: Connection, *, row: Row[Any], reason: str) -> None:
    ends.mark_lost(tx, row, reason=reason)


def _missing_attempts(tx: Connection, scope: Scope) -> Iterator[Problem]:
    newest = and_(attempts.c.run_id == runs.c.run_id, attempts.c.attempt == runs.c.attempt)
    query = (
        select(runs)
        .outerjoin(attempts, newest)
        .where(runs.c.study_id == scope.study_id, runs.c.attempt > 0, attempts.c.run_id.is_(None))
    )
    for row in tx.execute(query).all():
        yield scope.problem(
            "missing_attempt",
            f"{describe(row)} has no record of its attempt {row.attempt}",
            repair="an empty record was written",
            mend=partial(_add_attempt, row=row),
            run=row,
        )


def _add_attempt(tx: Connection, *, row: Row[Any]) -> None:
    outcome = Outcome.LOST if row.outcome == Outcome.WAITING.value else Outcome(row.outcome)
    tx.execute(
        insert(attempts).values(
            run_id=row.run_id,
            attempt=row.attempt,
            worker_id=row.worker_id or "unknown",
            host="",
            slot="",
            outcome=outcome.value,
            reason="the record of this attempt was lost",
            facts="{}",
            started_at=row.created_at,
            ended_at=None if outcome is Outcome.RUNNING else row.ended_at or row.created_at,
            seconds=0.0,
            log_tail="",
        )
    )


def _open_attempts(tx: Connection, scope: Scope) -> Iterator[Problem]:
    query = (
        select(runs, attempts.c.attempt.label("open_attempt"))
        .join(attempts, attempts.c.run_id == runs.c.run_id)
        .where(
            runs.c.study_id == scope.study_id,
            attempts.c.outcome == Outcome.RUNNING.value,
            or_(runs.c.outcome != Outcome.RUNNING.value, attempts.c.attempt < runs.c.attempt),
        )
    )
    for row in tx.execute(query).all():
        yield scope.problem(
            "open_attempt",
            f"attempt {row.open_attempt} of {describe(row)} is running, but the run is not in it",
            repair="ended as lost",
            mend=partial(_end_attempt, row=row),
            run=row,
        )


def _end_attempt(tx: Connection, *, row: Row[Any]) -> None:
    tx.execute(
        update(attempts)
        .where(attempts.c.run_id == row.run_id, attempts.c.attempt == row.open_attempt)
        .values(outcome=Outcome.LOST.value, reason="its end was not written", ended_at=db_now())
    )


def _unknown_metrics(tx: Connection, scope: Scope) -> Iterator[Problem]:
    its = and_(attempts.c.run_id == metrics.c.run_id, attempts.c.attempt == metrics.c.attempt)
    query = (
        select(runs, metrics.c.attempt.label("unknown"))
        .join(metrics, metrics.c.run_id == runs.c.run_id)
        .outerjoin(attempts, its)
        .where(runs.c.study_id == scope.study_id, attempts.c.run_id.is_(None))
        .distinct()
    )
    for row in tx.execute(query).all():
        yield scope.problem(
            "unknown_metrics",
            f"{describe(row)} has metrics of attempt {row.unknown}, which never was",
            repair="deleted",
            mend=partial(_delete_metrics, row=row),
            run=row,
        )


def _delete_metrics(tx: Connection, *, row: Row[Any]) -> None:
    tx.execute(delete(metrics).where(metrics.c.run_id == row.run_id, metrics.c.attempt == row.unknown))


def _without_value(tx: Connection, scope: Scope) -> Iterator[Problem]:
    query = select(runs).where(
        runs.c.study_id == scope.study_id, runs.c.outcome == Outcome.COMPLETE.value, runs.c.value.is_(None)
    )
    for row in tx.execute(query).all():
        value = _value_of(tx, row, metric=scope.metric)
        found = f"{scope.metric} {value:.6g} was taken from its result" if value is not None else "it counts as failed"
        yield scope.problem(
            "no_value",
            f"{describe(row)} is complete, but has no value",
            repair=found,
            mend=partial(_set_value, row=row, value=value),
            run=row,
        )


def _value_of(tx: Connection, row: Row[Any], *, metric: str) -> float | None:
    """What the training answered, else what Optuna has."""
    said = json.loads(row.result).get("metrics", {}).get(metric) if row.result else None
    if isinstance(said, int | float) and math.isfinite(said):
        return float(said)
    return optuna_rows.read_value(tx, row.trial_id) if row.purpose == "search" else None


def _set_value(tx: Connection, *, row: Row[Any], value: float | None) -> None:
    changes: dict[str, Any] = {"value": value}
    if value is None:
        changes |= {"outcome": Outcome.ERRORED.value, "reason": "its value was lost"}
    tx.execute(update(runs).where(runs.c.run_id == row.run_id).values(changes))


CHECKS: tuple[Check, ...] = (_expired, _unheld, _missing_attempts, _open_attempts, _unknown_metrics, _without_value)
