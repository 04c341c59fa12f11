"""What a run's row and its attempt's say when an attempt is over. All of it happens in the transaction of the caller."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from tuner.store import events, optuna_rows
from tuner.store.breaker import pause_if_hopeless
from tuner.store.records import Outcome
from tuner.store.tables import attempts, db_now, runs
from tuner.study.plan import TrialResult

MOST_LOSSES = 3
"""Attempts without progress that may end badly before the run is given up: a configuration that kills its process every time must
not take every worker down with it."""


def cut_waiting(tx: Connection, row: Row[Any], *, reason: str) -> None:
    """End a run that waits, for a used budget or because somebody asked for it; the caller holds the study's lock."""
    tx.execute(
        update(runs)
        .where(runs.c.run_id == row.run_id)
        .values(outcome=Outcome.PRUNED.value, reason=reason, ended_at=db_now())
    )
    if row.purpose == "search":
        tell_optuna(tx, row.trial_id, Outcome.PRUNED, reason=reason)
    events.record(tx, "run_pruned", reason, study_id=row.study_id, number=row.number, run_id=row.run_id)


def open_again(tx: Connection, row: Row[Any], *, reason: str, who: str | None = None) -> None:
    """Let a run that has ended wait for another attempt, from its beginning; the caller holds the study's lock.

    Args:
        tx: The transaction.
        row: The run as it was read.
        reason: Why, in words.
        who: Who asked for it; None where nobody did by name.
    """
    tx.execute(
        update(runs)
        .where(runs.c.run_id == row.run_id)
        .values(
            outcome=Outcome.WAITING.value,
            reason=reason,
            token="",
            losses=0,
            asked="",
            worker_id=None,
            expires_at=None,
            epochs_done=0,
            value=None,
            best_epoch=None,
            result=None,
            ended_at=None,
        )
    )
    if row.purpose == "search":
        optuna_rows.set_state(tx, row.trial_id, Outcome.WAITING)
        optuna_rows.set_aside_intermediates(tx, row.trial_id, attempt=row.attempt)
    events.record(tx, events.RETRIED, reason, study_id=row.study_id, number=row.number, run_id=row.run_id, who=who)


def result_values(result: TrialResult | None) -> dict[str, Any]:
    """What a run's row keeps of the training's answer; nothing where there is none."""
    if result is None:
        return {}
    return {
        "best_epoch": result.best_epoch or None,
        **({"epochs_done": result.epochs} if result.epochs else {}),  # ended before it had looked for its checkpoint
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


def mark_lost(tx: Connection, row: Row[Any], *, reason: str, ended: Outcome = Outcome.LOST) -> Outcome:
    """Take a run from its owner after an attempt that ended badly: it waits for another one, or is given up.

    Args:
        tx: The transaction; its caller holds the study's lock or the lease.
        row: The run as it was read.
        reason: Why the attempt ended.
        ended: What became of the attempt: LOST, or ERRORED by an error that may not come again.

    Returns:
        WAITING, or ERRORED after :data:`MOST_LOSSES` such attempts without progress; another end if its owner was faster.
    """
    losses = row.losses + (row.strategy is not None)  # before its values were bound they cannot be to blame
    outcome = Outcome.ERRORED if losses >= MOST_LOSSES else Outcome.WAITING
    given_up = f"{reason}; given up after {losses} attempts"
    values: dict[str, Any] = {
        "outcome": outcome.value,
        "reason": given_up if outcome is Outcome.ERRORED else waiting_again(reason),
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
        .values(outcome=ended.value, reason=reason, ended_at=db_now())
    )
    if row.purpose == "search":
        tell_optuna(tx, row.trial_id, outcome, reason=given_up if outcome is Outcome.ERRORED else "")
    about: dict[str, Any] = {"study_id": row.study_id, "number": row.number, "run_id": row.run_id}
    about["worker_id"] = row.worker_id
    events.record(tx, "run_lost" if ended is Outcome.LOST else "run_stumbled", reason, **about)
    if outcome is Outcome.ERRORED:
        events.record(tx, "run_errored", given_up, **about)
    return outcome


_AGAIN = "waiting again: "


def waiting_again(reason: str) -> str:
    """Why a run that was begun waits, from why its last attempt ended."""
    return f"{_AGAIN}{reason}"


def running_on(host: str, slot: str, *, waited: str = "") -> str:
    """Where a run is running, and why it is not for the first time, from why it waited."""
    where = f"on {host}, {slot}"
    return f"{where}, again after: {waited.removeprefix(_AGAIN)}" if waited.startswith(_AGAIN) else where


def tell_optuna(
    tx: Connection,
    trial_id: int,
    outcome: Outcome,
    *,
    reason: str = "",
    values: Sequence[float] = (),
    bounds: Mapping[str, float] | None = None,
) -> None:
    """Give Optuna's trial its state, and its dashboard our words for a bad end: it has fewer of them."""
    optuna_rows.set_state(tx, trial_id, outcome, values=values, bounds=bounds)
    said: dict[str, Any] = {"tuner:reason": reason[:2000]} if reason else {}
    if outcome in optuna_rows.NO_ANSWER:
        said["tuner:outcome"] = outcome.value
    if said:
        optuna_rows.set_user_attributes(tx, trial_id, said)
