"""Optuna's rows, written in our transactions.

Optuna's own storage commits every call by itself, so a result and the lease that permits it could not be written
together. These few functions write the same rows that `optuna.storages.RDBStorage` of 5.0 writes (optuna is pinned to
5.0.*; the contract tests read everything back through Optuna), on the connection of the caller.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, select, update
from sqlalchemy.engine import Connection

from tuner.store.records import Outcome
from tuner.store.tables import db_now
from tuner.store.transactions import inserted_id
from tuner.store.upsert import upsert

_studies = models.StudyModel.__table__
_directions = models.StudyDirectionModel.__table__
_trials = models.TrialModel.__table__
_params = models.TrialParamModel.__table__
_values = models.TrialValueModel.__table__
_intermediates = models.TrialIntermediateValueModel.__table__
_user_attributes = models.TrialUserAttributeModel.__table__
_system_attributes = models.TrialSystemAttributeModel.__table__
_study_attributes = models.StudySystemAttributeModel.__table__

STATE_OF_OUTCOME: Mapping[Outcome, TrialState] = {
    Outcome.WAITING: TrialState.WAITING,
    Outcome.RUNNING: TrialState.RUNNING,
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.INFEASIBLE: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.ERRORED: TrialState.FAIL,
}
"""How a trial of ours looks to Optuna."""

VIOLATED: Mapping[Outcome, str] = {Outcome.INFEASIBLE: "runs", Outcome.DIVERGED: "finite"}
"""The constraint that such an end violates. Samplers never look at a failed trial, so they would propose the same again; a pruned one whose
constraint is violated counts as worse than all others (TPE, the default). Those that learn from complete trials alone (GP, NSGA,
CMA-ES) cannot be told."""

NO_ANSWER = (Outcome.INFEASIBLE, Outcome.DIVERGED, Outcome.ERRORED)
"""Ends of trials that are no measure of others."""

RUNGS = "completed_rung_"
"""Where `SuccessiveHalvingPruner` keeps what a trial scored on each rung; it compares with trials of every state."""

Drawn = Mapping[str, tuple[float, BaseDistribution]]
"""What a sampler drew of each parameter: the value's internal form, and what it was drawn from."""

_STEPS = 100_000  # more than a trial has epochs

_REQUEST = "tuner:request:"

_VIOLATION = "constraints:"  # where Optuna's `Trial.set_constraint` keeps them; above 0 is violated


def create_study(connection: Connection, *, name: str, maximize: Sequence[bool]) -> int:
    """Insert a study, with a direction for each objective; returns Optuna's study id."""
    study_id = inserted_id(connection, insert(_studies).values(study_name=name))
    for place, more in enumerate(maximize):
        direction = StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE
        connection.execute(insert(_directions).values(study_id=study_id, direction=direction, objective=place))
    return study_id


def name_objectives(connection: Connection, study_id: int, names: Sequence[str]) -> None:
    """Let Optuna's dashboard and plots call the objectives by their names, as `Study.set_metric_names` does."""
    row = {"study_id": study_id, "key": "study:metric_names", "value_json": json.dumps(list(names))}
    upsert(connection, _study_attributes, [row], key=("study_id", "key"))


def study_exists(connection: Connection, name: str) -> bool:
    """Whether Optuna knows a study of this name, ours or not."""
    return connection.execute(select(_studies.c.study_id).where(_studies.c.study_name == name)).first() is not None


def has_study(study_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether Optuna has a study of this id, as a condition."""
    return exists().where(_studies.c.study_id == study_id)


def delete_study(connection: Connection, study_id: int) -> None:
    """Delete a study with all that hangs on it, children first; its rows are locked before, so that Optuna adds no child meanwhile."""
    connection.execute(select(_studies.c.study_id).where(_studies.c.study_id == study_id).with_for_update()).all()
    its_trials = select(_trials.c.trial_id).where(_trials.c.study_id == study_id)
    connection.execute(its_trials.order_by(_trials.c.trial_id).with_for_update()).all()
    trial_ids = its_trials.scalar_subquery()
    trial_children = (
        models.TrialUserAttributeModel,
        models.TrialSystemAttributeModel,
        models.TrialParamModel,
        models.TrialValueModel,
        models.TrialIntermediateValueModel,
        models.TrialHeartbeatModel,
    )
    for model in trial_children:
        table = model.__table__
        connection.execute(delete(table).where(table.c.trial_id.in_(trial_ids)))
    for model in (
        models.TrialModel,
        models.StudyDirectionModel,
        models.StudyUserAttributeModel,
        models.StudySystemAttributeModel,
        models.StudyModel,
    ):
        table = model.__table__
        connection.execute(delete(table).where(table.c.study_id == study_id))


def create_trial(connection: Connection, *, study_id: int, fixed_params: Mapping[str, Any] | None) -> tuple[int, int]:
    """Insert a RUNNING trial under the study's lock.

    Args:
        fixed_params: Values that the sampler must take, under the key that Optuna's `Trial` reads.

    Returns:
        The trial's id and its number. The number is the count of the trials before it, as in Optuna.
    """
    number = connection.execute(select(func.count()).where(_trials.c.study_id == study_id)).scalar_one()
    row = {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": _utc_now(connection)}
    trial_id = inserted_id(connection, insert(_trials).values(row))
    if fixed_params is not None:
        connection.execute(
            insert(_system_attributes).values(
                trial_id=trial_id, key="fixed_params", value_json=json.dumps(fixed_params)
            )
        )
    return trial_id, number


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTrial:
    """A trial as Optuna has it.

    Attributes:
        value: The objective; None if there is none.
    """

    trial_id: int
    number: int
    state: TrialState
    value: float | None


def read_trials(connection: Connection, study_id: int) -> list[StoredTrial]:
    """All trials of a study, in the order in which they were made."""
    query = (
        select(_trials.c.trial_id, _trials.c.number, _trials.c.state, _values.c.value)
        .outerjoin(_values, (_values.c.trial_id == _trials.c.trial_id) & (_values.c.objective == 0))
        .where(_trials.c.study_id == study_id)
        .order_by(_trials.c.trial_id)
    )
    return [
        StoredTrial(trial_id=row.trial_id, number=row.number, state=row.state, value=row.value)
        for row in connection.execute(query)
    ]


def read_value(connection: Connection, trial_id: int) -> float | None:
    """The objective of one trial; None if there is none."""
    query = select(_values.c.value).where(_values.c.trial_id == trial_id, _values.c.objective == 0)
    value = connection.execute(query).scalar_one_or_none()
    return None if value is None else float(value)


def insert_trial(connection: Connection, *, study_id: int, number: int) -> int:
    """Insert a bare trial under a number that is free; returns its id. For repairs."""
    row = {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": _utc_now(connection)}
    return inserted_id(connection, insert(_trials).values(row))


def set_number(connection: Connection, *, trial_id: int, number: int) -> None:
    """Give a trial another number. For repairs."""
    connection.execute(update(_trials).where(_trials.c.trial_id == trial_id).values(number=number))


def set_state(
    connection: Connection,
    trial_id: int,
    outcome: Outcome,
    *,
    values: Sequence[float] = (),
    bounds: Mapping[str, float] | None = None,
) -> None:
    """Set a trial's state, and its values, its end and its constraints where the outcome has them.

    Args:
        values: Finite, one for each objective: required for COMPLETE, optional for PRUNED of one objective, ignored otherwise.
        bounds: By what share of its bound each constraint of the study is broken; at or below 0 it is kept.
    """
    changes: dict[str, Any] = {"state": STATE_OF_OUTCOME[outcome]}
    changes["datetime_complete"] = _utc_now(connection) if outcome.is_finished else None  # one may run again
    connection.execute(update(_trials).where(_trials.c.trial_id == trial_id).values(changes))
    for place, value in enumerate(values if outcome in (Outcome.COMPLETE, Outcome.PRUNED) else ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        row: dict[str, Any] = {"trial_id": trial_id, "objective": place, "value": stored, "value_type": kind}
        upsert(connection, _values, [row], key=("trial_id", "objective"))
    violated = dict(bounds or {})
    if outcome in VIOLATED and not any(excess > 0 for excess in violated.values()):
        violated[VIOLATED[outcome]] = 1.0
    for name, excess in violated.items():
        row = {"trial_id": trial_id, "key": f"{_VIOLATION}{name}", "value_json": json.dumps(excess)}
        upsert(connection, _system_attributes, [row], key=("trial_id", "key"))
    if outcome is Outcome.WAITING:  # whatever it violated, it gets another chance
        _set_aside(connection, trial_id, _system_attributes.c.key.startswith(_VIOLATION))
    if outcome in NO_ANSWER:
        set_aside_rungs(connection, trial_id)


def set_aside_rungs(connection: Connection, trial_id: int, *, only: Sequence[str] | None = None) -> None:
    """Let halving compare no other trial with what this one has scored until now, and judge it as if it had scored nothing yet.

    Where it ends, this must be in the transaction of its end: Optuna's cache never reads a trial again that it has seen ended.

    Args:
        connection: Of the caller's transaction.
        trial_id: The trial.
        only: The rungs, by their attributes; None: all.
    """
    key = _system_attributes.c.key
    _set_aside(connection, trial_id, key.startswith(RUNGS, autoescape=True) if only is None else key.in_(only))


def _set_aside(connection: Connection, trial_id: int, which: ColumnElement[bool]) -> None:
    """Give system attributes names that mean nothing to Optuna: a worker may not delete."""
    aside = literal(f"tuner:aside:{uuid.uuid4().hex}:") + _system_attributes.c.key
    connection.execute(
        update(_system_attributes).where(_system_attributes.c.trial_id == trial_id, which).values(key=aside)
    )


def set_intermediate(connection: Connection, trial_id: int, *, step: int, value: float) -> None:
    """Set the objective at one step; a later word on the same step replaces the earlier."""
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    row = {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
    upsert(connection, _intermediates, [row], key=("trial_id", "step"))


def set_aside_intermediates(connection: Connection, trial_id: int, *, attempt: int) -> None:
    """Give what a trial reported until now steps below 0, another range for each attempt: it begins anew, and a worker may not delete.

    Samplers and pruners look at the last step, or at the same step of others, and find what the trial says from now on. Halving keeps its
    own record of what a trial has scored, and would not judge it again where it had.
    """
    set_aside_rungs(connection, trial_id)
    its = (_intermediates.c.trial_id == trial_id) & (_intermediates.c.step > 0)
    step = _intermediates.c.step - _STEPS * attempt
    connection.execute(update(_intermediates).where(its).values(step=step))


def note_request(connection: Connection, trial_id: int, request: str) -> None:
    """Keep with a trial which request has changed it, where neither Optuna nor a claim overwrites it.

    Args:
        request: Random, by which whoever asks knows the change again.
    """
    row = {"trial_id": trial_id, "key": f"{_REQUEST}{request}", "value_json": "true"}
    connection.execute(insert(_system_attributes).values(row))


def changed_by(connection: Connection, study_id: int, request: str) -> int | None:
    """The number of a trial of a study that a request has changed; None if there is none."""
    of_trial = _system_attributes.c.trial_id == _trials.c.trial_id
    is_it = (_trials.c.study_id == study_id) & (_system_attributes.c.key == f"{_REQUEST}{request}")
    query = select(_trials.c.number).join(_system_attributes, of_trial).where(is_it).limit(1)
    return connection.execute(query).scalar_one_or_none()


def set_params(connection: Connection, trial_id: int, drawn: Drawn) -> None:
    """Set what a sampler drew, as samplers read it: the internal form of each value, and what it was drawn from."""
    rows = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in drawn.items()
    ]
    upsert(connection, _params, rows, key=("trial_id", "param_name"))


def set_user_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Set what Optuna's dashboard shows beside the parameters."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value, allow_nan=False)}
        for key, value in attributes.items()
    ]
    upsert(connection, _user_attributes, rows, key=("trial_id", "key"))


def _utc_now(connection: Connection) -> dt.datetime:
    """The database's clock as Optuna stores it: naive UTC."""
    seconds = float(connection.execute(select(db_now())).scalar_one())
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).replace(tzinfo=None)
