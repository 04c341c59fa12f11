"""What a run reports after every epoch: for us in full, for Optuna the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sqlalchemy import case, func, select, update
from sqlalchemy.engine import Connection

from tuner.store import optuna_rows
from tuner.store.database import Database
from tuner.store.leases import Lease, guard
from tuner.store.tables import attempts, db_now, metrics, runs
from tuner.store.upsert import upsert


def store_report(
    db: Database,
    lease: Lease,
    *,
    epoch: int,
    values: Mapping[str, float],
    objective: float,
    seconds: float,
    extend: float,
) -> None:
    """Store one epoch; the same epoch again replaces what this attempt said of it before.

    Args:
        epoch: 1-based.
        values: Validation metrics; non-finite ones are left out, since JSON and the databases cannot hold them all.
        objective: The metric that is compared; finite.
        seconds: Device seconds of this attempt so far.
        extend: Seconds by which the lease is extended: a report is a sign of life.

    Raises:
        LeaseLost: If the lease does not hold; nothing was written.
        UnavailableError: If the database cannot be reached.
    """

    def _store(tx: Connection) -> None:
        # An epoch that is reported again after a resume must not count backwards.
        done = case((runs.c.epochs_done > epoch, runs.c.epochs_done), else_=epoch)
        # A run that gets on is not the reason why its processes die: only losses without progress count against it.
        losses = case((runs.c.epochs_done < epoch, 0), else_=runs.c.losses)
        guard(tx, lease, {"epochs_done": done, "losses": losses, "expires_at": db_now() + extend})
        earlier = _earlier_seconds(tx, lease)
        tx.execute(
            update(attempts)
            .where(attempts.c.run_id == lease.run_id, attempts.c.attempt == lease.attempt)
            .values(seconds=seconds)
        )
        _write(tx, lease, epoch=epoch, values=values, objective=objective, seconds=earlier + seconds)

    db.write(_store)


def store_missing(db: Database, lease: Lease, *, epoch: int, values: Mapping[str, float], objective: float) -> None:
    """Store an epoch of an earlier attempt if no attempt of the run has stored it.

    Args:
        epoch: 1-based.
        values: Validation metrics, as in :func:`store_report`.
        objective: The metric that is compared; finite.

    Raises:
        LeaseLost: If the lease does not hold; nothing was written.
        UnavailableError: If the database cannot be reached.
    """

    def _store(tx: Connection) -> None:
        done = case((runs.c.epochs_done > epoch, runs.c.epochs_done), else_=epoch)
        guard(tx, lease, {"epochs_done": done})
        known = select(metrics.c.epoch).where(metrics.c.run_id == lease.run_id, metrics.c.epoch == epoch).limit(1)
        if tx.execute(known).first() is None:
            # When exactly it was measured is not known any more.
            seconds = _earlier_seconds(tx, lease)
            _write(tx, lease, epoch=epoch, values=values, objective=objective, seconds=seconds)

    db.write(_store)


def _earlier_seconds(tx: Connection, lease: Lease) -> float:
    """Device seconds of the run's earlier attempts."""
    total = select(func.coalesce(func.sum(attempts.c.seconds), 0.0)).where(
        attempts.c.run_id == lease.run_id, attempts.c.attempt < lease.attempt
    )
    return float(tx.execute(total).scalar_one())


def _write(
    tx: Connection, lease: Lease, *, epoch: int, values: Mapping[str, float], objective: float, seconds: float
) -> None:
    said = {("validation", name): value for name, value in values.items() if math.isfinite(value)}
    said[("device", "seconds")] = seconds
    place = {"run_id": lease.run_id, "attempt": lease.attempt, "epoch": epoch}
    rows = [place | {"split": split, "name": name, "value": float(value)} for (split, name), value in said.items()]
    upsert(tx, metrics, rows, key=("run_id", "attempt", "epoch", "split", "name"))
    if lease.purpose == "search":
        optuna_rows.set_intermediate(tx, lease.trial_id, step=epoch, value=objective)
