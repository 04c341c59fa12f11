"""Checks of our runs against Optuna's trials: where the two disagree, ours is what happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Row

from tuner.store import optuna_rows
from tuner.store.fronts import facts_of, values_of
from tuner.store.optuna_rows import STATE_OF_OUTCOME, StoredTrial
from tuner.store.problems import Check, Problem, Scope
from tuner.store.queries import read_run
from tuner.store.records import Outcome
from tuner.store.tables import db_now, runs
from tuner.study.spec import StudySpec


def _runs_by_trial(tx: Connection, scope: Scope) -> Mapping[int, Row[Any]]:
    query = select(runs).where(runs.c.study_id == scope.study_id, runs.c.purpose == "search").order_by(runs.c.number)
    return {row.trial_id: row for row in tx.execute(query).all()}


def _trials(tx: Connection, scope: Scope) -> Mapping[int, StoredTrial]:
    return {trial.trial_id: trial for trial in optuna_rows.read_trials(tx, scope.study_id)}


def _missing_trials(tx: Connection, scope: Scope) -> Iterator[Problem]:
    known = _trials(tx, scope)
    for trial_id, row in _runs_by_trial(tx, scope).items():
        if trial_id not in known:
            yield scope.problem(
                "missing_trial",
                f"trial {row.number} is not in Optuna's tables",
                repair="written there again; the sampler no longer knows its values",
                mend=partial(_add_trial, scope=scope, row=row),
                run=row,
            )


def _add_trial(tx: Connection, *, scope: Scope, row: Row[Any]) -> None:
    trial_id = optuna_rows.insert_trial(tx, study_id=scope.study_id, number=row.number)
    optuna_rows.set_state(tx, trial_id, Outcome(row.outcome), values=_values(tx, row, scope=scope))
    tx.execute(
        update(runs).where(runs.c.study_id == scope.study_id, runs.c.number == row.number).values(trial_id=trial_id)
    )


def _other_numbers(tx: Connection, scope: Scope) -> Iterator[Problem]:
    known = _trials(tx, scope)
    for trial_id, row in _runs_by_trial(tx, scope).items():
        if trial_id in known and known[trial_id].number != row.number:
            yield scope.problem(
                "wrong_number",
                f"trial {row.number} has the number {known[trial_id].number} in Optuna's tables",
                repair="numbered there as here",
                mend=partial(optuna_rows.set_number, trial_id=trial_id, number=row.number),
                run=row,
            )


def _strangers(tx: Connection, scope: Scope) -> Iterator[Problem]:
    """Open trials that no run of ours stands behind: nobody will ever end them, and they repel the sampler."""
    ours = _runs_by_trial(tx, scope)
    for trial in _trials(tx, scope).values():
        if trial.trial_id not in ours and not trial.state.is_finished():
            yield scope.problem(
                "unknown_trial",
                f"Optuna's trial {trial.number} is {trial.state.name.lower()}, but no run stands behind it",
                repair="ended there as failed",
                mend=partial(_fail_stranger, trial_id=trial.trial_id),
            )


def _fail_stranger(tx: Connection, *, trial_id: int) -> None:
    optuna_rows.set_state(tx, trial_id, Outcome.ERRORED)
    optuna_rows.set_user_attributes(tx, trial_id, {"tuner:reason": "no run stood behind it"})


def _doubled_numbers(tx: Connection, scope: Scope) -> Iterator[Problem]:
    """Two trials with one number: the one that is not ours moves to the end."""
    ours = _runs_by_trial(tx, scope)
    trials = sorted(_trials(tx, scope).values(), key=lambda trial: (trial.trial_id not in ours, trial.trial_id))
    count = Counter(trial.number for trial in trials)
    last = max(count, default=-1)
    seen: set[int] = set()
    for trial in trials:
        if trial.number in seen:
            last += 1
            yield scope.problem(
                "double_number",
                f"two trials have the number {trial.number} in Optuna's tables",
                repair=f"the one that no run stands behind is trial {last} now",
                mend=partial(optuna_rows.set_number, trial_id=trial.trial_id, number=last),
            )
        seen.add(trial.number)


def _gaps(tx: Connection, scope: Scope) -> Iterator[Problem]:
    """Numbers are counted, so that a gap would give the next trial a number that is taken."""
    numbers = {trial.number for trial in _trials(tx, scope).values()}
    numbers |= {row.number for row in _runs_by_trial(tx, scope).values()}
    for number in sorted(set(range(max(numbers, default=-1) + 1)) - numbers):
        yield scope.problem(
            "missing_number",
            f"there is no trial {number}",
            repair="a failed trial stands there for it",
            mend=partial(_fill, scope=scope, number=number),
        )


def _fill(tx: Connection, *, scope: Scope, number: int) -> None:
    trial_id = optuna_rows.insert_trial(tx, study_id=scope.study_id, number=number)
    optuna_rows.set_state(tx, trial_id, Outcome.ERRORED)
    tx.execute(
        insert(runs).values(
            study_id=scope.study_id,
            trial_id=trial_id,
            number=number,
            purpose="search",
            seed=0,
            outcome=Outcome.ERRORED.value,
            reason="the rows of this trial were lost",
            is_recipe=False,
            learnt_from="",
            attempt=0,
            token="",
            losses=0,
            reserved_epochs=0,
            epochs_done=0,
            checkpoint="",
            is_baseline=False,
            created_at=db_now(),
            ended_at=db_now(),
        )
    )


def _contradictions(tx: Connection, scope: Scope) -> Iterator[Problem]:
    known = _trials(tx, scope)
    for trial_id, row in _runs_by_trial(tx, scope).items():
        trial = known.get(trial_id)
        if trial is None:
            continue  # told before
        outcome = Outcome(row.outcome)
        here = f"{outcome.value}{'' if row.value is None else f' with {row.value:.6g}'}"
        there = f"{trial.state.name.lower()}{'' if trial.value is None else f' with {trial.value:.6g}'}"
        has_other_value = outcome is Outcome.COMPLETE and row.value is not None and trial.value != row.value
        if trial.state is not STATE_OF_OUTCOME[outcome] or has_other_value:
            yield scope.problem(
                "contradiction",
                f"trial {row.number} is {here} here, and {there} in Optuna's tables",
                repair="Optuna's tables say the same now",
                mend=partial(_set_state, scope=scope, row=row),
                run=row,
            )


def _set_state(tx: Connection, *, scope: Scope, row: Row[Any]) -> None:
    values = _values(tx, row, scope=scope)
    optuna_rows.set_state(tx, row.trial_id, Outcome(row.outcome), values=values)


def _values(tx: Connection, row: Row[Any], *, scope: Scope) -> Sequence[float]:
    """What Optuna is told of a trial: its objective, or of a complete one all of several."""
    spec = StudySpec.model_validate(json.loads(scope.spec))
    if not spec.has_front:
        return () if row.value is None else (row.value,)
    is_complete = row.outcome == Outcome.COMPLETE.value
    return (values_of(facts_of(read_run(tx, row)), spec.objectives) if is_complete else None) or ()


CHECKS: tuple[Check, ...] = (
    _missing_trials,
    _other_numbers,
    _strangers,
    _doubled_numbers,
    _gaps,
    _contradictions,
)
