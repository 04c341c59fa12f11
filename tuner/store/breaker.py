"""When a study is paused by itself: the rest of its budget should not be spent on finding out that something is wrong."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.engine import Connection

from tuner.store.records import FINISHED, Outcome, StudyState
from tuner.store.studies import move_study
from tuner.store.tables import events, runs, studies

FIRST_ERRORS = 5
"""Trials that end with an error before any has a result."""

LAST_TRIALS, MOST_POISONS = 20, 10
"""Of the last so many trials, so many different configurations that end with an error or kill their processes."""


def pause_if_hopeless(tx: Connection, study_id: int, *, reason: str) -> bool:
    """Pause a searching study whose trials end with errors; the caller holds its lock.

    Either nothing else came out of it so far, or half of the last trials did, each with another configuration. What was before a
    person resumed the study does not count.

    Args:
        tx: The transaction.
        study_id: The study.
        reason: Why the newest of them ended.

    Returns:
        Whether it was paused.
    """
    recent = _since_resumed(tx, study_id)
    text = _no_result(tx, recent) or _poisoned(tx, recent)
    if not text:
        return False
    name = tx.execute(select(studies.c.name).where(studies.c.study_id == study_id)).scalar_one()
    fix = f"see tuner study trials {name} --state errored, mend it, then: tuner study resume {name}"
    return move_study(
        tx,
        study_id=study_id,
        source=StudyState.SEARCHING,
        target=StudyState.PAUSED,
        reason=f"{text}, the last with: {reason}; {fix}",
    )


def _since_resumed(tx: Connection, study_id: int) -> ColumnElement[bool]:
    """The study's ended trials, without those that a person has seen and resumed it after."""
    resumed = tx.execute(
        select(func.max(events.c.at)).where(
            events.c.study_id == study_id, events.c.kind == f"study_{StudyState.SEARCHING.value}"
        )
    ).scalar_one()
    return (
        (runs.c.study_id == study_id)
        & (runs.c.purpose == "search")
        & runs.c.outcome.in_([outcome.value for outcome in FINISHED])
        & (runs.c.ended_at > (resumed or 0.0))
    )


def _no_result(tx: Connection, recent: ColumnElement[bool]) -> str:
    counts: dict[str, int] = dict(
        tx.execute(select(runs.c.outcome, func.count()).where(recent).group_by(runs.c.outcome)).all()
    )
    errored = int(counts.get(Outcome.ERRORED.value, 0))
    if errored < FIRST_ERRORS or counts.get(Outcome.COMPLETE.value) or counts.get(Outcome.PRUNED.value):
        return ""
    return f"{errored} trials ended with an error before any had a result"


def _poisoned(tx: Connection, recent: ColumnElement[bool]) -> str:
    last = tx.execute(
        select(runs.c.outcome, runs.c.strategy, runs.c.params)
        .where(recent)
        .order_by(runs.c.ended_at.desc(), runs.c.run_id.desc())
        .limit(LAST_TRIALS)
    ).all()
    poisons = {(row.strategy, row.params) for row in last if row.outcome == Outcome.ERRORED.value}
    if len(poisons) < MOST_POISONS:
        return ""
    return f"{len(poisons)} of the last {len(last)} trials, each with other values, ended with an error"
