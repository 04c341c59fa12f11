"""What a run reports after every epoch: for us in full, for Optuna the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sqlalchemy import case, func, select, update
from sqlalchemy.engine import Connection

from tuner.store import optuna_rows
from tuner.store.database import Database
from tuner.store.events import RETRIED
from tuner.store.leases import Lease, guard
from tuner.store.tables import attempts, db_now, events, metrics, runs
from tuner.store.upsert import upsert

_NO_ANSWER = [outcome.value for outcome in optuna_rows.NO_ANSWER]


def store_report(
    db: Database,
    lease: Lease,
    *,
    epoch: int,
    values: Mapping[str, float],
    objective: float | None,
    seconds: float,
    extend: float,
    peak_memory: int = 0,
) -> None:
    """Store one epoch; the same epoch again replaces what this attempt said of it before.

    Args:
        epoch: 1-based.
        values: Validation metrics; non-finite ones are left out, since JSON and the databases cannot hold them all.
        objective: The metric that is compared; finite. None where there are several: Optuna has no word for it.
        seconds: Device seconds of this attempt so far.
        extend: Seconds by which the lease is extended: a report is a sign of life.
        peak_memory: Bytes at most so far; 0: not known.

    Raises:
        LeaseLost: If the lease does not hold; nothing was written.
        UnavailableError: If the database cannot be reached.
    """

    def _store(tx: Connection) -> None:
        # An epoch that is reported again after a resume must not count backwards.
        done = case((runs.c.epochs_done > epoch, runs.c.epochs_done), else_=epoch)
        # A run that gets on is not the reason why its processes die: only losses without progress count against it.
        losses = case((runs.c.epochs_done < epoch, 0), else_=runs.c.losses)
        known = {"peak_memory": peak_memory} if peak_memory else {}
        guard(tx, lease, {"epochs_done": done, "losses": losses, "expires_at": db_now() + extend, **known})
        earlier = _earlier_seconds(tx, lease, epoch=epoch)
        tx.execute(
            update(attempts)
            .where(attempts.c.run_id == lease.run_id, attempts.c.attempt == lease.attempt)
            .values(seconds=seconds)
        )
        costs = {"seconds": earlier + seconds, **known}
        _write(tx, lease, epoch=epoch, values=values, objective=objective, costs=costs)

    db.write(_store)


def store_missing(
    db: Database, lease: Lease, *, epoch: int, values: Mapping[str, float], objective: float | None
) -> None:
    """Store an epoch of an earlier attempt if no attempt of the run has stored it.

    Args:
        epoch: 1-based.
        values: Validation metrics, as in :func:`store_report`.
        objective: The metric that is compared, as in :func:`store_report`.

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
            seconds = _earlier_seconds(tx, lease, epoch=epoch)
            _write(tx, lease, epoch=epoch, values=values, objective=objective, costs={"seconds": seconds})

    db.write(_store)


def _earlier_seconds(tx: Connection, lease: Lease, *, epoch: int | None = None) -> float:
    """Device seconds of the run's earlier attempts up to the epoch that this one goes on from.

    What an attempt lost after it, or all where the run began anew, was nobody's training: it is paid for, but no constraint counts it.

    Args:
        tx: The transaction.
        lease: The run.
        epoch: What this attempt reports now; None: nothing.
    """
    mine, retries = metrics.alias(), select(func.max(events.c.at)).where(events.c.run_id == lease.run_id)
    is_own = (mine.c.run_id == lease.run_id) & (mine.c.attempt == lease.attempt)
    # A run that goes on says its checkpoint's epoch again.
    own = select(func.min(mine.c.epoch)).where(is_own).scalar_subquery()
    began_anew = func.coalesce(retries.where(events.c.kind == RETRIED).scalar_subquery(), 0.0)
    newest = (
        select(metrics.c.value)
        .join(runs, runs.c.run_id == metrics.c.run_id)
        .join(attempts, (attempts.c.run_id == metrics.c.run_id) & (attempts.c.attempt == metrics.c.attempt))
        .where(metrics.c.run_id == lease.run_id, metrics.c.split == "device", metrics.c.name == "seconds")
        .where(metrics.c.attempt < lease.attempt, attempts.c.started_at >= began_anew)
        .where(metrics.c.epoch <= func.coalesce(own, runs.c.epochs_done if epoch is None else epoch))
        .order_by(metrics.c.epoch.desc(), metrics.c.attempt.desc())
        .limit(1)
    )
    return float(tx.execute(newest).scalar_one_or_none() or 0.0)


def _write(
    tx: Connection,
    lease: Lease,
    *,
    epoch: int,
    values: Mapping[str, float],
    objective: float | None,
    costs: Mapping[str, float],
) -> None:
    said = {("validation", name): value for name, value in values.items() if math.isfinite(value)}
    said |= {("device", name): value for name, value in costs.items()}
    place = {"run_id": lease.run_id, "attempt": lease.attempt, "epoch": epoch}
    rows = [place | {"split": split, "name": name, "value": float(value)} for (split, name), value in said.items()]
    upsert(tx, metrics, rows, key=("run_id", "attempt", "epoch", "split", "name"))
    if lease.purpose == "search" and objective is not None:
        optuna_rows.set_intermediate(tx, lease.trial_id, step=epoch, value=objective)


def costs_so_far(db: Database, lease: Lease) -> dict[str, float]:
    """What a run has cost until now, as far as it is known: trainable_params, peak_memory, and the device seconds that it stands on.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _read(tx: Connection) -> dict[str, float]:
        query = select(runs.c.trainable_params, runs.c.peak_memory).where(runs.c.run_id == lease.run_id)
        row = tx.execute(query).first()
        its = (attempts.c.run_id == lease.run_id) & (attempts.c.attempt == lease.attempt)
        spent = float(tx.execute(select(attempts.c.seconds).where(its)).scalar_one_or_none() or 0.0)
        known = {} if row is None else {name: value for name, value in row._mapping.items() if value is not None}  # noqa: SLF001 - SQLAlchemy's public name
        return {name: float(value) for name, value in known.items()} | {"seconds": _earlier_seconds(tx, lease) + spent}

    return db.read(_read)


def earlier_seconds(db: Database, lease: Lease) -> float:
    """Device seconds of a run's earlier attempts up to the epoch that this one goes on from."""
    return db.read(lambda tx: _earlier_seconds(tx, lease))


def last_value(db: Database, lease: Lease, *, metric: str) -> float | None:
    """A metric at the last epoch that a run has reported since it last began anew; None before the first."""
    newest = (
        select(metrics.c.value)
        .join(runs, runs.c.run_id == metrics.c.run_id)
        .where(runs.c.run_id == lease.run_id, metrics.c.name == metric, metrics.c.split == "validation")
        .where(metrics.c.epoch <= runs.c.epochs_done)
        .order_by(metrics.c.epoch.desc(), metrics.c.attempt.desc())
        .limit(1)
    )
    value = db.read(lambda tx: tx.execute(newest).scalar_one_or_none())
    return None if value is None else float(value)


def standings(db: Database, study_id: int, *, epoch: int) -> dict[int, dict[str, float]]:
    """What every trial of the search that has reached an epoch had reported there: metrics, seconds, memory and parameters.

    Trials that broke a constraint or broke down are left out: what is no answer is no measure of others.

    Args:
        db: The database.
        study_id: The study.
        epoch: 1-based.

    Returns:
        By trial number; of several attempts the newest one's word.
    """
    query = (
        select(runs.c.number, runs.c.trainable_params, metrics.c.name, metrics.c.value)
        .join(runs, runs.c.run_id == metrics.c.run_id)
        .where(runs.c.study_id == study_id, runs.c.purpose == "search", metrics.c.epoch == epoch)
        .where(metrics.c.epoch <= runs.c.epochs_done, runs.c.outcome.not_in(_NO_ANSWER))
        .order_by(runs.c.number, metrics.c.attempt)
    )

    def _read(tx: Connection) -> dict[int, dict[str, float]]:
        found: dict[int, dict[str, float]] = {}
        for row in tx.execute(query):
            facts = found.setdefault(row.number, {})
            facts[row.name] = row.value
            if row.trainable_params is not None:
                facts["trainable_params"] = float(row.trainable_params)
        return found

    return db.read(_read)
