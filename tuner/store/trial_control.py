"""What a person asks of one trial: to end, or to run again. See :mod:`tuner.store.control`."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row

from tuner.errors import ConflictError, NotFoundError
from tuner.store import confirmation, ends, events, optuna_rows
from tuner.store.control import locked, reopen
from tuner.store.database import Database
from tuner.store.records import Asked, BudgetUse, EndedRun, Outcome, StudyRecord, StudyState, TrialStory
from tuner.store.studies import budget_use, move_study
from tuner.store.tables import runs
from tuner.study.spec import StudySpec

Limit = Callable[[StudySpec, BudgetUse, EndedRun], str]
"""Says why a run may not run again, or an empty string if it may."""

_AGAIN = (Outcome.ERRORED, Outcome.INFEASIBLE, Outcome.DIVERGED)


def stop_trial(db: Database, name: str, number: int, *, who: str, reason: str = "") -> Outcome:
    """End one trial as pruned: what it has reported counts.

    Args:
        db: The database.
        name: The study.
        number: The trial.
        who: Who asks, as ``user@host``.
        reason: Why, for the others.

    Returns:
        PRUNED where it waited and is ended now; RUNNING where its worker ends it at the next sign of life.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If the trial has ended already.
    """
    why = f"stopped by {who}{f': {reason}' if reason else ''}"
    tries = itertools.count()

    def _stop(tx: Connection) -> Outcome:
        study = locked(tx, name)
        row = next(iter(_runs(tx, study, number)))
        outcome = Outcome(row.outcome)
        if next(tries) and events.why_asked(tx, events.STOP_ASKED, run_id=row.run_id) == why:
            return outcome  # an earlier try took effect although its connection broke
        if outcome.is_finished:
            value = "" if row.value is None else f" ({row.value:.4g})"
            raise ConflictError(f"trial {number} is {outcome.value} already{value}", why="nothing changed")
        events.record(tx, events.STOP_ASKED, why, study_id=study.study_id, number=number, run_id=row.run_id, who=who)
        if outcome is Outcome.WAITING:
            ends.cut_waiting(tx, row, reason=why)
            return Outcome.PRUNED
        tx.execute(update(runs).where(runs.c.run_id == row.run_id).values(asked=Asked.STOP.value))
        return Outcome.RUNNING

    return db.write(_stop)


def retry_trials(db: Database, name: str, numbers: Sequence[int], *, who: str, limit: Limit) -> StudyState:
    """Let trials run again that ended badly or were cut by the budget: each under its number, with its values, from its beginning.

    Of a trial whose search run has a result, these of its re-trainings run again.

    Args:
        db: The database.
        name: The study; one that is over goes on.
        numbers: The trials.
        who: Who asks.
        limit: Judges the budget: what has no room there would end at once, and not be what it was any more.

    Returns:
        The study's state then: a paused or stopped one stays so.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If one of the trials has not ended badly, or the budget has no room; then nothing is changed.
    """
    request = uuid.uuid4().hex
    tries = itertools.count()

    def _retry(tx: Connection) -> StudyState:
        study = locked(tx, name)
        if next(tries) and optuna_rows.changed_by(tx, study.study_id, request) is not None:
            return study.state  # an earlier try took effect although its connection broke
        purposes = set()
        for number in dict.fromkeys(numbers):
            search, *confirms = _runs(tx, study, number)
            again = [search] if _ended_badly(search) else [row for row in confirms if _ended_badly(row)]
            if not again:
                raise ConflictError(
                    f"trial {number} is {search.outcome}",
                    why=f"only what ended badly runs again ({', '.join(_words())}), and what the budget cut",
                )
            for row in again:
                _require_room(tx, study, row, limit=limit)
                _open_again(tx, row, who=who)
                purposes.add(row.purpose)
            optuna_rows.note_request(tx, search.trial_id, request)
        if "search" in purposes and study.state in (StudyState.FINISHED, StudyState.CONFIRMING):
            reopen(tx, study, reason=f"trials run again for {who}", who=who)
            return StudyState.SEARCHING
        if study.state is StudyState.FINISHED:
            reason = f"re-trainings run again for {who}"
            target = StudyState.CONFIRMING
            move_study(tx, study_id=study.study_id, source=study.state, target=target, reason=reason, who=who)
            return target
        return study.state

    return db.write(_retry)


def note_repeated(db: Database, story: TrialStory, text: str, *, who: str) -> None:
    """Write down that a trial was trained once more outside of its study, and what came of it; nothing else of it changes.

    Args:
        db: The database.
        story: The trial.
        text: What came of it.
        who: Who asked for it.
    """
    study, number = story.study.study_id, story.trial.number
    db.write(lambda tx: events.record(tx, events.REPEATED, text, study_id=study, number=number, who=who))


def _words() -> list[str]:
    return [outcome.value for outcome in _AGAIN]


def _ended_badly(row: Row[Any]) -> bool:
    return Outcome(row.outcome) in _AGAIN or confirmation.is_cut(row)


def _require_room(tx: Connection, study: StudyRecord, row: Row[Any], *, limit: Limit) -> None:
    run = EndedRun(in_search=row.purpose == "search", strategy=row.strategy or "", epochs=row.epochs_done)
    if over := limit(study.spec, budget_use(tx, study.study_id), run):
        raise ConflictError(
            f'study "{study.name}" has no room to run trial {row.number} again',
            why=over,
            fix=f"raise its budget first: tuner study set {study.name}",
        )


def _open_again(tx: Connection, row: Row[Any], *, who: str) -> None:
    reason = f"waiting again: {who} asked for it after: {row.reason or row.outcome}"
    ends.open_again(tx, row, reason=reason, who=who)


def _runs(tx: Connection, study: StudyRecord, number: int) -> Sequence[Row[Any]]:
    """A trial's search run, then its re-trainings.

    Raises:
        NotFoundError: If there is no such trial.
    """
    rows = tx.execute(
        select(runs)
        .where(runs.c.study_id == study.study_id, runs.c.number == number)
        .order_by(runs.c.purpose.desc(), runs.c.seed)
    ).all()
    if not rows:
        there = study.used.trials
        known = f"it has {there}: 0 to {there - 1}" if there else "it has none yet"
        raise NotFoundError(f'study "{study.name}" has no trial {number}', why=known)
    return rows
