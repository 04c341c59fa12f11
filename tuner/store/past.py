"""What past studies found, as far as a new one may learn from it: no curves, no test scores."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection, Row

from tuner.errors import ConfigurationError
from tuner.store import optuna_rows
from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.store.studies import read_settings
from tuner.store.tables import runs, studies
from tuner.study.domains import Value
from tuner.study.plan import TrialResult
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTrial:
    """A trial that ended.

    Attributes:
        number: Of the trial.
        strategy: What was trained.
        params: Absolute values.
        outcome: How it ended.
        value: The objective where it is complete, else None.
        confirmed: The mean of the objective over its re-trainings with fresh seeds; None without any.
    """

    number: int
    strategy: str
    params: Mapping[str, Value]
    outcome: Outcome
    value: float | None
    confirmed: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PastStudy:
    """A study with all trials that ended.

    Attributes:
        name: Of the study.
        spec: What it asked.
        space: What it searched.
        maximize: Whether more is better.
        trials: By number.
    """

    name: str
    spec: StudySpec
    space: SearchSpace
    maximize: bool
    trials: tuple[PastTrial, ...]


def list_names(db: Database) -> list[str]:
    """Names of all studies, oldest first."""
    return db.read(lambda tx: list(tx.execute(select(studies.c.name).order_by(studies.c.study_id)).scalars()))


def load_past(db: Database, *, names: Sequence[str] | None = None) -> list[PastStudy]:
    """Studies with what they found, the newest first; what this code cannot read teaches nothing, unless it is named.

    Args:
        db: The database.
        names: Only these; None: all.

    Raises:
        ConfigurationError: If this code cannot read a study that is named.
    """
    query = select(studies).where(optuna_rows.has_study(studies.c.study_id)).order_by(studies.c.study_id.desc())
    if names is not None:
        query = query.where(studies.c.name.in_(names))

    def _load(tx: Connection) -> list[PastStudy]:
        found = []
        for row in tx.execute(query).all():
            try:
                found.append(_study(tx, row))
            except ConfigurationError:
                if names is not None:
                    raise
        return found

    return db.read(_load)


def _study(tx: Connection, row: Row[Any]) -> PastStudy:
    rows = tx.execute(select(runs).where(runs.c.study_id == row.study_id).order_by(runs.c.number, runs.c.seed)).all()
    spec, space = read_settings(row)
    fresh: defaultdict[int, list[float]] = defaultdict(list)
    for run in rows:
        if spec.data.folds:
            break  # its fresh seeds were judged by folds that a new study of these rows keeps for its own confirmation
        if run.purpose == "confirm" and run.outcome == Outcome.COMPLETE.value and run.result:
            value = TrialResult.from_json(json.loads(run.result)).metrics.get(row.metric)
            fresh[run.number] += [] if value is None else [value]
    ended = [run for run in rows if run.purpose == "search" and Outcome(run.outcome).is_finished]
    return PastStudy(
        name=row.name,
        spec=spec,
        space=space,
        maximize=bool(row.maximize),
        trials=tuple(_trial(run, fresh.get(run.number, ())) for run in ended if run.strategy and run.params),
    )


def _trial(run: Row[Any], fresh: Sequence[float]) -> PastTrial:
    return PastTrial(
        number=run.number,
        strategy=run.strategy,
        params=json.loads(run.params),
        outcome=Outcome(run.outcome),
        value=run.value if run.outcome == Outcome.COMPLETE.value else None,
        confirmed=sum(fresh) / len(fresh) if fresh else None,
    )
