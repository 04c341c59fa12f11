"""Whether what is stored agrees with itself, and how it is mended.

tuner never leaves such rows behind by itself; backups, hands and other tools do. Every repair takes the smallest step back to
a state that workers can go on from, keeps what was measured, and is written down as an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from tuner.store import events, optuna_rows, run_checks, trial_checks
from tuner.store.database import Database
from tuner.store.problems import Check, Problem, Scope
from tuner.store.records import Outcome, StudyState
from tuner.store.studies import delete_ours, lock_study, move_study
from tuner.store.tables import db_now, runs, studies, workers

SILENT_SECONDS = 3600.0
"""A worker that has been silent for so long is not coming back."""


def _over_too_early(tx: Connection, scope: Scope) -> Iterator[Problem]:
    """A study that nobody serves, with runs that wait; after the other checks, which may give runs back."""
    study = tx.execute(select(studies.c.state).where(studies.c.study_id == scope.study_id)).scalar_one()
    open_runs = (Outcome.WAITING.value, Outcome.RUNNING.value)
    query = select(runs.c.number).where(runs.c.study_id == scope.study_id, runs.c.outcome.in_(open_runs))
    numbers = sorted({row.number for row in tx.execute(query)})
    if study != StudyState.FINISHED.value or not numbers:
        return
    texts = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    yield scope.problem(
        "finished_too_early",
        f'study "{scope.name}" is finished, but not its trial{"s" if len(numbers) > 1 else ""} {texts}',
        repair="the study was opened again; a worker brings it to its end",
        mend=lambda tx: _reopen(tx, scope.study_id),
    )


def _reopen(tx: Connection, study_id: int) -> None:
    move_study(
        tx,
        study_id=study_id,
        source=StudyState.FINISHED,
        target=StudyState.SEARCHING,
        reason="it was finished, but not all of its trials were",
    )


CHECKS: tuple[Check, ...] = (*run_checks.CHECKS, *trial_checks.CHECKS, _over_too_early)


def find_problems(db: Database) -> list[Problem]:
    """All problems of all studies; nothing is changed.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _find(tx: Connection) -> list[Problem]:
        found = [*_orphans(tx), *_silent_workers(tx)]
        for scope in _scopes(tx):
            for check in CHECKS:
                found += check(tx, scope)
        return found

    return db.read(_find)


def mend_problems(db: Database, *, who: str) -> list[Problem]:
    """Mend all problems, one transaction for each study; those that were mended.

    Args:
        db: The database, opened by somebody who may delete rows.
        who: Goes into the events, such as ``anna@box``.

    Raises:
        ConfigurationError: If the database's user may not do that.
        UnavailableError: If the database cannot be reached.
    """
    mended = db.write(lambda tx: _mend(tx, [*_orphans(tx), *_silent_workers(tx)], who=who))
    for scope in db.read(_scopes):

        def _study(tx: Connection, scope: Scope = scope) -> list[Problem]:
            if lock_study(tx, scope.study_id) is None:
                return []
            # One check after the other: each sees what the one before it has mended.
            return [problem for check in CHECKS for problem in _mend(tx, list(check(tx, scope)), who=who)]

        mended += db.write(_study)
    return mended


def _mend(tx: Connection, problems: Sequence[Problem], *, who: str) -> list[Problem]:
    for problem in problems:
        problem.mend(tx)
        events.record(
            tx,
            "repaired",
            f"{problem.text}; {problem.repair}",
            study_id=problem.study_id,
            number=problem.number,
            run_id=problem.run_id,
            who=who,
        )
    return list(problems)


def _scopes(tx: Connection) -> list[Scope]:
    query = select(studies).where(optuna_rows.has_study(studies.c.study_id)).order_by(studies.c.study_id)
    return [Scope(study_id=row.study_id, name=row.name, metric=row.metric, spec=row.spec) for row in tx.execute(query)]


def _orphans(tx: Connection) -> Iterator[Problem]:
    """Studies that were deleted with Optuna's own tools; our half is useless without the other."""
    for row in tx.execute(select(studies).where(~optuna_rows.has_study(studies.c.study_id))).all():
        yield Problem(
            kind="orphan_study",
            text=f'study "{row.name}" was deleted with Optuna\'s own tools',
            repair="deleted here, too",
            mend=lambda tx, study_id=row.study_id: delete_ours(tx, study_id),  # type: ignore[misc]
            study=row.name,
        )


def _silent_workers(tx: Connection) -> Iterator[Problem]:
    holding = select(runs.c.worker_id).where(
        runs.c.outcome == Outcome.RUNNING.value, runs.c.worker_id == workers.c.worker_id
    )
    query = select(workers, (db_now() - workers.c.expires_at).label("silent")).where(
        workers.c.expires_at < db_now() - SILENT_SECONDS, ~holding.exists()
    )
    for row in tx.execute(query).all():
        yield Problem(
            kind="silent_worker",
            text=f"worker {row.worker_id} on {row.host} has been silent for {row.silent / 3600:.1f} h",
            repair="taken off the list",
            mend=lambda tx, worker=row.worker_id: _take_off(tx, worker),  # type: ignore[misc]
        )


def _take_off(tx: Connection, worker: str) -> None:
    tx.execute(delete(workers).where(workers.c.worker_id == worker))
