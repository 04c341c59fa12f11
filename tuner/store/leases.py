"""Leases: who may run what, until when, and the only ways in which a run changes hands.

A run is claimed in one transaction under its study's lock: the budget is checked, the run's row gets ``attempt + 1``, the worker
and an expiry by the database's clock, and a new trial's Optuna row is created. There is nothing between these steps that a
crash could leave behind. Every later write of the worker names the claim's random token in the same statement that takes
effect; when it no longer fits, nothing is written and :class:`LeaseLost` is raised (fencing, Kleppmann 2016: a lease alone does not
stop a process that was paused).
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, exists, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from tuner.errors import LeaseLost
from tuner.store import ends, events, optuna_rows
from tuner.store.breaker import pause_if_hopeless
from tuner.store.costs import count_running
from tuner.store.database import Database
from tuner.store.records import Asked, BudgetUse, Outcome, StudyState
from tuner.store.studies import budget_use, lock_study, read_budget, why_search_is_over
from tuner.store.tables import attempts, db_now, runs, workers
from tuner.store.transactions import inserted_id
from tuner.study.domains import Value
from tuner.study.plan import TrialResult
from tuner.study.space import Recipe
from tuner.study.spec import BudgetSpec

_REPEAT_STEP = 500_009  # the seeds of repeats meet neither each other nor those of the confirmation


@dataclass(kw_only=True, slots=True)
class Beats:
    """How many signs of life a worker has given that the database acknowledged; see :func:`tuner.store.workers.beat`."""

    number: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who claims: a slot of a worker, and for how long.

    Attributes:
        worker: The worker's id.
        host: Its host name.
        slot: Which device share, such as ``cuda:0/1``.
        lease: Seconds until an unrenewed claim may be taken over.
        beats: The worker's signs of life, if it gives any: a database that knows fewer was restored from an older backup, and what was
            claimed before is not written to it.
    """

    worker: str
    host: str
    slot: str
    lease: float
    beats: Beats | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to run one attempt of one run.

    Attributes:
        seed: Seed of this run.
        purpose: ``search`` or ``confirm``.
        is_recipe: Whether it is a strategy's default recipe.
        learnt_from: The past trial whose values it takes, as ``STUDY/NUMBER``; empty for none.
        attempt: Grows with every claim of the run.
        token: Random; the fencing token.
        strategy: None until a proposal is bound.
        params: Absolute values; None until a proposal is bound.
        beats: As in :class:`Holder`.
        epochs: Epochs that it may train.
    """

    run_id: int
    study_id: int
    trial_id: int
    number: int
    purpose: str
    seed: int
    is_recipe: bool
    attempt: int
    token: str
    worker: str
    strategy: str | None
    params: Mapping[str, Value] | None
    beats: Beats | None = field(default=None, compare=False, repr=False)
    learnt_from: str = ""
    epochs: int = 0

    @property
    def is_tried_first(self) -> bool:
        """Whether its values are a recipe: its strategy's own, or one that was learnt."""
        return self.is_recipe or bool(self.learnt_from)


Quota = Callable[[BudgetSpec, BudgetUse], str]
"""Says why no new trial may start, or an empty string if one may."""

Limit = Callable[[BudgetSpec, BudgetUse, bool], str]
"""Says why a run, of the search or not, may not go on, or an empty string if it may."""

Room = Callable[[BudgetSpec, BudgetUse, str], str]
"""Says why a re-training of a strategy could not be finished, or an empty string if it could."""

Recipes = Sequence[Recipe]
"""What the first trials must take, in order."""


def claim(
    db: Database,
    *,
    study_id: int,
    uid: str,
    holder: Holder,
    quota: Quota,
    limit: Limit,
    room: Room | None = None,
    recipes: Recipes,
    epochs: int,
    seed: int,
    grace: float = 0.0,
) -> Lease | None:
    """Take a waiting run of a study, or a new trial if its budget allows one.

    Args:
        quota: Judges the budget under the study's lock, so that eight workers never start trial 51 of 50.
        limit: Judges whether a waiting run may go on; where it may not, the run is ended as pruned.
        room: Judges whether a re-training can be finished; where it cannot, it waits for what others leave, and is ended if none runs.
        recipes: The first new trials take these values, one after the other; those that people enqueued do not count.
        epochs: Epochs that a new trial reserves.
        seed: Seed of a new trial.
        grace: Seconds beyond its end for which a lease is respected; see :func:`reclaim_expired`.

    Returns:
        The lease, or None if there is nothing to do now.

    Raises:
        UnavailableError: If the database cannot be reached.
    """
    token = uuid.uuid4().hex
    tries = itertools.count()

    def _claim(tx: Connection) -> Lease | None:
        state = lock_study(tx, study_id, uid=uid)
        if next(tries) and (taken := _claimed_with(tx, study_id, token)) is not None:
            return _lease(taken, holder)  # an earlier try took effect although its connection broke
        if state is None or not state.is_open or not _is_known(tx, holder):
            return None
        if ends.reclaim_expired(tx, study_id, grace=grace):
            state = lock_study(tx, study_id)
            if state is None or not state.is_open:
                return None  # the last of them paused it
        budget = read_budget(tx, study_id)
        if (waiting := _next_allowed(tx, study_id, budget=budget, limit=limit, room=room)) is not None:
            return _take(tx, waiting, holder, token=token)
        if state is not StudyState.SEARCHING or why_search_is_over(tx, study_id):
            return None
        if quota(budget, budget_use(tx, study_id)):
            return None
        return _create(tx, study_id, holder, token=token, recipes=recipes, epochs=epochs, seed=seed)

    return db.write(_claim)


def _claimed_with(tx: Connection, study_id: int, token: str) -> Row[Any] | None:
    return tx.execute(
        select(runs).where(runs.c.study_id == study_id, runs.c.outcome == Outcome.RUNNING.value, runs.c.token == token)
    ).first()


def _why_stopped(tx: Connection, row: Row[Any]) -> str:
    """Who asked for the end of a run whose worker died or left before it saw that; an empty string if nobody did."""
    if row.asked != Asked.STOP.value:
        return ""
    return events.why_asked(tx, events.STOP_ASKED, run_id=row.run_id) or "stopped"


def _next_allowed(
    tx: Connection, study_id: int, *, budget: BudgetSpec, limit: Limit, room: Room | None
) -> Row[Any] | None:
    """The run that waits and may go on, if any; those that may not are ended."""
    while (waiting := _next_waiting(tx, study_id)) is not None:
        in_search, used = waiting.purpose == "search", budget_use(tx, study_id)
        reason = _why_stopped(tx, waiting) or limit(budget, used, in_search)
        if room is not None and not reason and not in_search and not waiting.epochs_done:
            reason = room(budget, used, waiting.strategy)
            if reason and count_running(used.groups):
                return None  # what runs may need less than it was promised
        if not reason:
            return waiting
        ends.cut_waiting(tx, waiting, reason=reason)
    return None


def _next_waiting(tx: Connection, study_id: int) -> Row[Any] | None:
    """Search runs first; then every finalist with one seed, before any has two: a cut confirmation still compares."""
    return tx.execute(
        select(runs)
        .where(runs.c.study_id == study_id, runs.c.outcome == Outcome.WAITING.value)
        .order_by(runs.c.purpose.desc(), runs.c.seed, runs.c.finalist_rank, runs.c.number)
        .limit(1)
    ).first()


def _create(
    tx: Connection, study_id: int, holder: Holder, *, token: str, recipes: Recipes, epochs: int, seed: int
) -> Lease:
    # Not by the trial's number: trials that people enqueued come between.
    tried = tx.execute(
        select(func.count()).where(
            runs.c.study_id == study_id, runs.c.purpose == "search", runs.c.is_recipe | (runs.c.learnt_from != "")
        )
    ).scalar_one()
    recipe = recipes[tried] if tried < len(recipes) else None
    fixed_params = recipe.params if recipe is not None else None
    trial_id, number = optuna_rows.create_trial(tx, study_id=study_id, fixed_params=fixed_params)
    run_id = inserted_id(
        tx,
        insert(runs).values(
            study_id=study_id,
            trial_id=trial_id,
            number=number,
            purpose="search",
            seed=seed,
            outcome=Outcome.RUNNING.value,
            reason=ends.running_on(holder.host, holder.slot),
            is_recipe=recipe is not None and recipe.is_default,
            learnt_from=recipe.learnt_from if recipe is not None else "",
            attempt=1,
            token=token,
            losses=0,
            asked="",
            worker_id=holder.worker,
            expires_at=db_now() + holder.lease,
            reserved_epochs=epochs,
            epochs_done=0,
            checkpoint="",
            is_baseline=False,
            created_at=db_now(),
        ),
    )
    return _open_attempt(tx, run_id, holder=holder)


def _take(tx: Connection, row: Row[Any], holder: Holder, *, token: str) -> Lease:
    taken = tx.execute(
        update(runs)
        .where(runs.c.run_id == row.run_id, runs.c.attempt == row.attempt, runs.c.outcome == Outcome.WAITING.value)
        .values(
            outcome=Outcome.RUNNING.value,
            reason=ends.running_on(holder.host, holder.slot, waited=row.reason),
            asked="",
            attempt=row.attempt + 1,
            token=token,
            worker_id=holder.worker,
            expires_at=db_now() + holder.lease,
        )
    )
    assert taken.rowcount == 1, "the study's lock was held"
    if row.purpose == "search":
        optuna_rows.set_state(tx, row.trial_id, Outcome.RUNNING)
    return _open_attempt(tx, row.run_id, holder=holder)


def _open_attempt(tx: Connection, run_id: int, *, holder: Holder) -> Lease:
    lease = _lease(tx.execute(select(runs).where(runs.c.run_id == run_id)).one(), holder)
    tx.execute(
        insert(attempts).values(
            run_id=run_id,
            attempt=lease.attempt,
            worker_id=holder.worker,
            host=holder.host,
            slot=holder.slot,
            outcome=Outcome.RUNNING.value,
            reason="",
            facts="{}",
            started_at=db_now(),
            seconds=0.0,
            log_tail="",
        )
    )
    _record(tx, lease, kind="run_claimed", text=f"attempt {lease.attempt} on {holder.host}, {holder.slot}")
    return lease


def _lease(row: Row[Any], holder: Holder) -> Lease:
    return Lease(
        run_id=row.run_id,
        study_id=row.study_id,
        trial_id=row.trial_id,
        number=row.number,
        purpose=row.purpose,
        seed=row.seed,
        is_recipe=bool(row.is_recipe),
        attempt=row.attempt,
        token=row.token,
        worker=row.worker_id,
        strategy=row.strategy,
        params=json.loads(row.params) if row.params is not None else None,
        beats=holder.beats,
        learnt_from=row.learnt_from,
        epochs=row.reserved_epochs,
    )


def guard(tx: Connection, lease: Lease, values: Mapping[str, Any]) -> None:
    """Write to the run's row if the lease still holds, in one statement; the fence of every write.

    Raises:
        LeaseLost: If the run has another owner, was given up or is gone; then nothing was written.
    """
    is_ours = (
        (runs.c.run_id == lease.run_id)
        & (runs.c.token == lease.token)
        & (runs.c.attempt == lease.attempt)
        & (runs.c.worker_id == lease.worker)
        & (runs.c.outcome == Outcome.RUNNING.value)
    )
    if lease.beats is not None:
        is_ours &= _knows(lease.worker, lease.beats)
    written = tx.execute(update(runs).where(is_ours).values(values))
    if written.rowcount != 1:
        raise LeaseLost(f"trial {lease.number} (attempt {lease.attempt}) is no longer ours")


def _knows(worker: str, beats: Beats) -> ColumnElement[bool]:
    """Whether the database has all signs of life of a worker that it acknowledged, as a condition."""
    return exists().where(workers.c.worker_id == worker, workers.c.beat >= beats.number)


def _is_known(tx: Connection, holder: Holder) -> bool:
    return holder.beats is None or bool(tx.execute(select(_knows(holder.worker, holder.beats))).scalar_one())


def bind_proposal(
    db: Database,
    lease: Lease,
    *,
    strategy: str,
    params: Mapping[str, Value],
    drawn: optuna_rows.Drawn,
) -> Lease:
    """Store what the sampler proposed: in absolute units for us and for Optuna's dashboard, and as it was drawn for samplers.

    With the seed of an earlier trial of the same values the same curve would come again, so each repeat has a seed of its own.

    Returns:
        The lease, with the values and the seed.

    Raises:
        LeaseLost: If the lease does not hold.
    """
    values = {"strategy": strategy, "params": json.dumps(dict(params), allow_nan=False)}

    def _bind(tx: Connection) -> int:
        lock_study(tx, lease.study_id)  # or another worker that binds the same at this moment would take the same seed
        same = (runs.c.strategy == values["strategy"]) & (runs.c.params == values["params"])
        is_other = (runs.c.study_id == lease.study_id) & (runs.c.purpose == "search") & (runs.c.run_id != lease.run_id)
        taken = set(tx.execute(select(runs.c.seed).where(same & is_other)).scalars())
        seeds = (int((lease.seed + _REPEAT_STEP * repeat) % 2**31) for repeat in itertools.count())
        seed = next(seed for seed in seeds if seed not in taken)
        guard(tx, lease, {**values, "seed": seed})
        optuna_rows.set_params(tx, lease.trial_id, drawn)
        optuna_rows.set_user_attributes(tx, lease.trial_id, {f"tuner:{name}": value for name, value in params.items()})
        return seed

    return replace(lease, strategy=strategy, params=dict(params), seed=db.write(_bind))


def set_aside_rungs(db: Database, lease: Lease, *, only: Sequence[str] | None = None) -> None:
    """Let halving judge others, and the run itself, as if it had scored nothing yet; see :func:`tuner.store.optuna_rows.set_aside_rungs`.

    Raises:
        LeaseLost: If the lease does not hold: what is there then, another attempt has scored.
    """

    def _set_aside(tx: Connection) -> None:
        # Changes nothing, and keeps the run ours to the end of the transaction.
        guard(tx, lease, {"token": lease.token})
        optuna_rows.set_aside_rungs(tx, lease.trial_id, only=only)

    db.write(_set_aside)


def epochs_done(tx: Connection, lease: Lease) -> int:
    """Epochs that the run has reported, since it last began anew; 0 if it is gone."""
    return tx.execute(select(runs.c.epochs_done).where(runs.c.run_id == lease.run_id)).scalar_one_or_none() or 0


def store_facts(db: Database, lease: Lease, facts: Mapping[str, Any]) -> None:
    """Store what the runner said when the model stood: device, versions, ``trainable_params``.

    Raises:
        LeaseLost: If the lease does not hold.
    """

    def _store(tx: Connection) -> None:
        guard(tx, lease, {"trainable_params": facts.get("trainable_params")})
        _update_attempt(tx, lease, facts=json.dumps(dict(facts), allow_nan=False))

    db.write(_store)


def renew(db: Database, *, held: Sequence[tuple[Lease, float]], lease: float) -> list[Lease]:
    """Extend leases.

    Args:
        held: Each lease with its device seconds so far.
        lease: Seconds from now.

    Returns:
        Those that are no longer ours: stop them, write nothing more.
    """

    def _renew(tx: Connection) -> list[Lease]:
        lost = []
        for one, seconds in held:
            try:
                guard(tx, one, {"expires_at": db_now() + lease})
            except LeaseLost:
                lost.append(one)
            else:
                _update_attempt(tx, one, seconds=seconds)
        return lost

    return db.write(_renew)


def release(db: Database, lease: Lease, *, reason: str, seconds: float) -> None:
    """Give a run back: it waits for any worker and goes on from its last checkpoint.

    Raises:
        LeaseLost: If the lease does not hold.
    """

    def _release(tx: Connection) -> None:
        if _has_given_back(tx, lease, Outcome.PREEMPTED) is not None:
            return  # an earlier try took effect although its connection broke
        why = ends.waiting_again(reason)
        guard(tx, lease, {"outcome": Outcome.WAITING.value, "reason": why, "worker_id": None, "expires_at": None})
        _update_attempt(tx, lease, outcome=Outcome.PREEMPTED.value, reason=reason, ended_at=db_now(), seconds=seconds)
        if lease.purpose == "search":
            optuna_rows.set_state(tx, lease.trial_id, Outcome.WAITING)
        _record(tx, lease, kind="run_preempted", text=reason)

    db.write(_release)


def lose(
    db: Database,
    lease: Lease,
    *,
    reason: str,
    seconds: float,
    log_tail: str = "",
    ended: Outcome = Outcome.LOST,
) -> Outcome:
    """Say that an attempt ended badly, and that another one may succeed. The run waits for it, or is given up.

    Args:
        ended: LOST if its process died without a word; ERRORED if it told an error that may not come again.

    Returns:
        WAITING, or ERRORED after :data:`tuner.store.ends.MOST_LOSSES` such attempts without progress.

    Raises:
        LeaseLost: If the lease does not hold.
    """

    def _lose(tx: Connection) -> Outcome:
        if (before := _has_given_back(tx, lease, ended)) is not None:
            return before  # an earlier try took effect although its connection broke
        guard(tx, lease, {"reason": reason})
        row = tx.execute(select(runs).where(runs.c.run_id == lease.run_id)).one()
        _update_attempt(tx, lease, seconds=seconds, log_tail=log_tail)
        return ends.mark_lost(tx, row, reason=reason, ended=ended)

    outcome = db.write(_lose)
    if outcome is Outcome.ERRORED:
        _check_hope(db, lease.study_id, reason=reason)
    return outcome


def _has_given_back(tx: Connection, lease: Lease, ended: Outcome) -> Outcome | None:
    """What the run is if this lease's attempt has ended so already and nobody has claimed it since; else None."""
    outcome = tx.execute(
        select(runs.c.outcome)
        .join(attempts, (attempts.c.run_id == runs.c.run_id) & (attempts.c.attempt == runs.c.attempt))
        .where(
            runs.c.run_id == lease.run_id,
            runs.c.token == lease.token,
            runs.c.outcome != Outcome.RUNNING.value,
            attempts.c.worker_id == lease.worker,
            attempts.c.outcome == ended.value,
        )
    ).scalar_one_or_none()
    return None if outcome is None else Outcome(outcome)


def _check_hope(db: Database, study_id: int, *, reason: str) -> None:
    """Pause the study if nothing but failures came; a transaction of its own, since locks are taken study first."""

    def _check(tx: Connection) -> None:
        if lock_study(tx, study_id) is StudyState.SEARCHING:
            pause_if_hopeless(tx, study_id, reason=reason)

    db.write(_check)


def finish(
    db: Database,
    lease: Lease,
    *,
    outcome: Outcome,
    reason: str,
    seconds: float,
    value: float | None = None,
    values: Sequence[float] | None = None,
    bounds: Mapping[str, float] | None = None,
    result: TrialResult | None = None,
    log_tail: str = "",
) -> None:
    """End a run for good: our row, its attempt and Optuna's trial in one transaction.

    Args:
        outcome: COMPLETE, PRUNED, INFEASIBLE, DIVERGED or ERRORED.
        reason: Why, in words; empty for a plain end.
        seconds: Device seconds of this attempt.
        value: The objective, the first of several: required for COMPLETE.
        values: What Optuna is told where a study has several objectives: all of them, or nothing.
        bounds: By what share of its bound each constraint is broken; at or below 0 it is kept.
        result: What the training answered, if it did.
        log_tail: Last lines of the runner's log, for bad ends.

    Raises:
        LeaseLost: If the lease does not hold; nothing was written.
    """
    assert outcome.is_finished
    told = values if values is not None else () if value is None else (value,)

    def _finish(tx: Connection) -> None:
        if _is_finished_by(tx, lease, outcome):
            return  # an earlier try took effect although its connection broke, perhaps minutes ago
        end: dict[str, Any] = {"outcome": outcome.value, "reason": reason, "value": value, "expires_at": None}
        guard(tx, lease, end | {"ended_at": db_now()} | ends.result_values(result))
        _update_attempt(
            tx, lease, outcome=outcome.value, reason=reason, ended_at=db_now(), seconds=seconds, log_tail=log_tail
        )
        if lease.purpose == "search":
            ends.tell_optuna(tx, lease.trial_id, outcome, reason=reason, values=told, bounds=bounds)
        _record(tx, lease, kind=f"run_{outcome.value}", text=reason)

    db.write(_finish)
    if outcome is Outcome.ERRORED:
        _check_hope(db, lease.study_id, reason=reason)


def _is_finished_by(tx: Connection, lease: Lease, outcome: Outcome) -> bool:
    """Whether this lease's holder has ended the run so; an end by others takes the worker's name off the run."""
    return (
        tx.execute(
            select(runs.c.run_id).where(
                runs.c.run_id == lease.run_id,
                runs.c.token == lease.token,
                runs.c.worker_id == lease.worker,
                runs.c.outcome == outcome.value,
            )
        ).first()
        is not None
    )


def _record(tx: Connection, lease: Lease, *, kind: str, text: str) -> None:
    events.record(
        tx, kind, text, study_id=lease.study_id, number=lease.number, run_id=lease.run_id, worker_id=lease.worker
    )


def reclaim_expired(db: Database, study_id: int, *, grace: float = 0.0) -> int:
    """Give the runs of dead workers back to the study; how many. Every claim does it too.

    Args:
        grace: Seconds beyond its end for which a lease is respected. While a database was gone nobody could renew: whoever comes back
            first gives the others the time of a lease to come back too.
    """

    def _reclaim(tx: Connection) -> int:
        if lock_study(tx, study_id) is None:
            return 0
        return ends.reclaim_expired(tx, study_id, grace=grace)

    return db.write(_reclaim)


def _update_attempt(tx: Connection, lease: Lease, **values: Any) -> None:
    tx.execute(
        update(attempts).where(attempts.c.run_id == lease.run_id, attempts.c.attempt == lease.attempt).values(values)
    )
