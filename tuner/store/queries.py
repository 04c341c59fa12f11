"""A study and everything that happened in it, read in one transaction."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.engine import Connection, Row

from tuner.errors import NotFoundError
from tuner.store.database import Database
from tuner.store.records import (
    AttemptRecord,
    ConfirmationRecord,
    EpochRecord,
    EventRecord,
    FinalistRecord,
    Outcome,
    StudyRecord,
    StudySnapshot,
    TrialRecord,
    TrialStory,
)
from tuner.store.studies import read_study
from tuner.store.tables import attempts, db_now, events, metrics, runs
from tuner.store.workers import list_workers, read_workers
from tuner.study.plan import TrialResult

__all__ = ["StudyProgress", "list_workers", "load_snapshot", "load_trial", "read_progress"]


def load_snapshot(db: Database, name: str) -> StudySnapshot:
    """The study of this name with its trials, finalists and workers, at one moment.

    Raises:
        NotFoundError: If there is none; the message names a close match.
        UnavailableError: If the database cannot be reached.
    """

    def _load(tx: Connection) -> StudySnapshot:
        study = read_study(tx, name)
        rows = tx.execute(
            select(runs).where(runs.c.study_id == study.study_id).order_by(runs.c.number, runs.c.seed)
        ).all()
        of_attempts = _attempts(tx, runs.c.study_id == study.study_id)
        of_epochs = _epochs(tx, runs.c.study_id == study.study_id)
        return StudySnapshot(
            study=study,
            trials=tuple(
                _trial(row, of_attempts[row.run_id], of_epochs[row.run_id]) for row in rows if row.purpose == "search"
            ),
            finalists=_finalists([row for row in rows if row.purpose == "confirm"], of_attempts),
            workers=tuple(read_workers(tx)),
            read_at=float(tx.execute(select(db_now())).scalar_one()),
        )

    return db.read(_load)


def load_trial(db: Database, name: str, number: int) -> TrialStory:
    """One trial of the study of this name, with all that happened to it.

    Raises:
        NotFoundError: If there is no such study or trial.
        UnavailableError: If the database cannot be reached.
    """

    def _load(tx: Connection) -> TrialStory:
        study = read_study(tx, name)
        this = (runs.c.study_id == study.study_id) & (runs.c.number == number)
        rows = tx.execute(select(runs).where(this).order_by(runs.c.purpose.desc(), runs.c.seed)).all()
        if not rows or rows[0].purpose != "search":
            there = study.used.trials
            known = f"it has {there}: 0 to {there - 1}" if there else "it has none yet"
            raise NotFoundError(
                f'study "{name}" has no trial {number}', why=known, fix=f"see: tuner study trials {name}"
            )
        of_attempts, of_epochs = _attempts(tx, this), _epochs(tx, this)
        search, *confirms = rows
        return TrialStory(
            study=study,
            trial=_trial(search, of_attempts[search.run_id], of_epochs[search.run_id]),
            retrainings=tuple(_confirmation(row, of_attempts[row.run_id]) for row in confirms),
            events=_events(tx, study.study_id, number, seeds={row.run_id: row.seed for row in confirms}),
            read_at=float(tx.execute(select(db_now())).scalar_one()),
        )

    return db.read(_load)


def _events(tx: Connection, study_id: int, number: int, *, seeds: Mapping[int, int]) -> tuple[EventRecord, ...]:
    query = select(events).where(events.c.study_id == study_id, events.c.number == number).order_by(events.c.event_id)
    return tuple(
        EventRecord(
            at=row.at,
            kind=row.kind,
            text=row.text,
            seed=seeds.get(row.run_id),
            worker=row.worker_id or "",
            who=row.who or "",
        )
        for row in tx.execute(query)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyProgress:
    """Where a study stands, in a few numbers; cheap enough to read every second.

    Attributes:
        study: The study.
        best_number: Trial with the best value so far, None without a complete one.
        best_value: Its value.
        best_strategy: Its strategy.
        confirmations: ``(finished, all)`` confirmation runs.
    """

    study: StudyRecord
    best_number: int | None
    best_value: float | None
    best_strategy: str | None
    confirmations: tuple[int, int]


def read_progress(db: Database, name: str) -> StudyProgress:
    """Where the study of this name stands.

    Raises:
        NotFoundError: If there is none.
        UnavailableError: If the database cannot be reached.
    """

    def _read(tx: Connection) -> StudyProgress:
        study = read_study(tx, name)
        order = runs.c.value.desc() if study.maximize else runs.c.value.asc()
        best = tx.execute(
            select(runs.c.number, runs.c.value, runs.c.strategy)
            .where(
                runs.c.study_id == study.study_id,
                runs.c.purpose == "search",
                runs.c.outcome == Outcome.COMPLETE.value,
            )
            .order_by(order, runs.c.number)
            .limit(1)
        ).first()
        confirmations = [
            Outcome(outcome).is_finished
            for (outcome,) in tx.execute(
                select(runs.c.outcome).where(runs.c.study_id == study.study_id, runs.c.purpose == "confirm")
            )
        ]
        return StudyProgress(
            study=study,
            best_number=best.number if best else None,
            best_value=best.value if best else None,
            best_strategy=best.strategy if best else None,
            confirmations=(sum(confirmations), len(confirmations)),
        )

    return db.read(_read)


def _attempts(tx: Connection, which: ColumnElement[bool]) -> Mapping[int, list[AttemptRecord]]:
    found: defaultdict[int, list[AttemptRecord]] = defaultdict(list)
    query = select(attempts).join(runs, runs.c.run_id == attempts.c.run_id).where(which)
    for row in tx.execute(query.order_by(attempts.c.run_id, attempts.c.attempt)):
        found[row.run_id].append(
            AttemptRecord(
                attempt=row.attempt,
                worker=row.worker_id,
                host=row.host,
                slot=row.slot,
                outcome=Outcome(row.outcome),
                reason=row.reason,
                started_at=row.started_at,
                ended_at=row.ended_at,
                seconds=row.seconds,
                log_tail=row.log_tail,
                facts=json.loads(row.facts or "{}"),
            )
        )
    return found


def _epochs(tx: Connection, which: ColumnElement[bool]) -> Mapping[int, tuple[EpochRecord, ...]]:
    """Per run, each epoch once: as the newest attempt reported it, without those from before it began anew."""
    said: defaultdict[int, dict[int, dict[int, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    query = select(metrics).join(runs, runs.c.run_id == metrics.c.run_id).where(which)
    for row in tx.execute(query.where(metrics.c.epoch <= runs.c.epochs_done)):
        said[row.run_id][row.epoch].setdefault(row.attempt, {})[row.name] = row.value
    found: defaultdict[int, tuple[EpochRecord, ...]] = defaultdict(tuple)
    for run_id, epochs in said.items():
        records = []
        for epoch, by_attempt in sorted(epochs.items()):
            newest = max(by_attempt)
            values = dict(by_attempt[newest])
            seconds = values.pop("seconds", 0.0)
            values.pop("peak_memory", None)  # the run's own row has it
            records.append(EpochRecord(epoch=epoch, metrics=values, seconds=seconds, attempt=newest))
        found[run_id] = tuple(records)
    return found


def _result(row: Row[Any]) -> TrialResult | None:
    return TrialResult.from_json(json.loads(row.result)) if row.result else None


def _trial(row: Row[Any], tried: Sequence[AttemptRecord], epochs: tuple[EpochRecord, ...]) -> TrialRecord:
    result = _result(row)
    return TrialRecord(
        number=row.number,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        strategy=row.strategy or "",
        params=json.loads(row.params) if row.params else {},
        is_recipe=bool(row.is_recipe),
        learnt_from=row.learnt_from,
        value=row.value,
        best_epoch=row.best_epoch,
        epochs=epochs,
        attempts=tuple(tried),
        seconds=sum(attempt.seconds for attempt in tried),
        trainable_params=row.trainable_params,
        peak_memory=row.peak_memory,
        confusion=result.confusion if result else None,
        checkpoint=row.checkpoint,
        notes=result.notes if result else (),
        started_at=row.created_at,
        ended_at=row.ended_at,
        seed=row.seed,
        micro_batches=result.micro_batches if result else (),
    )


def read_run(tx: Connection, row: Row[Any]) -> TrialRecord:
    """The trial of a run of the search, from its row, inside a transaction of the caller."""
    this = runs.c.run_id == row.run_id
    return _trial(row, _attempts(tx, this)[row.run_id], _epochs(tx, this)[row.run_id])


def _finalists(
    rows: Sequence[Row[Any]], of_attempts: Mapping[int, Sequence[AttemptRecord]]
) -> tuple[FinalistRecord, ...]:
    by_rank: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_rank[row.finalist_rank].append(row)
    return tuple(
        FinalistRecord(
            number=group[0].number,
            rank=rank,
            is_baseline=bool(group[0].is_baseline),
            runs=tuple(_confirmation(row, of_attempts[row.run_id]) for row in group),
        )
        for rank, group in sorted(by_rank.items())
    )


def _confirmation(row: Row[Any], tried: Sequence[AttemptRecord]) -> ConfirmationRecord:
    result = _result(row)
    return ConfirmationRecord(
        seed=row.seed,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        metrics=result.metrics if result else {},
        test=result.test if result else None,
        held_back=result.held_back if result else None,
        checkpoint=row.checkpoint,
        seconds=sum(attempt.seconds for attempt in tried),
        attempts=tuple(tried),
    )
