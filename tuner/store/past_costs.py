"""What trainings of a model took, over all studies of the database: what a forecast stands on before a study begins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.store.tables import attempts, metrics, runs, studies
from tuner.study.outlook import PastTraining, rows_of_an_epoch
from tuner.study.spec import StudySpec

_MOST = 2000
"""Trainings that are looked at, the newest first."""


def past_trainings(db: Database, *, spec: StudySpec) -> tuple[PastTraining, ...]:
    """Trainings of a study's model that ran in one go to their end, or until they were pruned after two epochs or more.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _read(tx: Connection) -> tuple[PastTraining, ...]:
        alike = _studies_alike(tx, spec)
        if not alike:
            return ()
        curves = (
            select(
                metrics.c.run_id,
                func.min(metrics.c.epoch).label("first"),
                func.max(metrics.c.epoch).label("last"),
                func.min(metrics.c.value).label("begin"),
                func.max(metrics.c.value).label("end"),
            )
            .join(runs, runs.c.run_id == metrics.c.run_id)
            .where(runs.c.study_id.in_(alike), metrics.c.split == "device", metrics.c.name == "seconds")
            .group_by(metrics.c.run_id)
            .subquery()
        )
        rows = tx.execute(
            select(runs.c.study_id, runs.c.strategy, attempts.c.seconds, attempts.c.facts, curves)
            .join(attempts, attempts.c.run_id == runs.c.run_id)
            .join(curves, curves.c.run_id == runs.c.run_id)
            .where(
                runs.c.attempt == 1,
                runs.c.outcome.in_((Outcome.COMPLETE.value, Outcome.PRUNED.value)),
                curves.c.first == 1,
                curves.c.last > 1,
            )
            .order_by(runs.c.run_id.desc())
            .limit(_MOST)
        ).all()
        return tuple(_training(row, length=alike[row.study_id]) for row in rows)

    return db.read(_read)


def _studies_alike(tx: Connection, spec: StudySpec) -> Mapping[int, int]:
    """The studies of the same model with the same teacher, or none; the most tokens of a row of each."""
    found = {}
    for study_id, text in tx.execute(select(studies.c.study_id, studies.c.spec)):
        other = json.loads(text)
        same = (other["task"], other["model"], bool(other.get("distill"))) == (
            spec.task,
            spec.model,
            spec.distill is not None,
        )
        if same and (spec.revision is None or other.get("revision") in (None, spec.revision)):
            found[study_id] = int(other["training"]["max_length"])
    return found


def _training(row: Any, *, length: int) -> PastTraining:
    facts = json.loads(row.facts or "{}")
    per_epoch = (row.end - row.begin) / (row.last - row.first)
    return PastTraining(
        strategy=row.strategy,
        max_length=length,
        rows=rows_of_an_epoch(*facts.get("rows", (0, 0))),
        fixed=max(0.0, row.seconds - per_epoch * row.last),
        per_epoch=per_epoch,
        device=str(facts.get("device", "")),
    )
