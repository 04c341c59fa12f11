"""Confirmation runs: the finalists, trained again with fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, Row

from tuner.store import ends
from tuner.store.database import Database
from tuner.store.records import OUT_OF_BUDGET, OUT_OF_THE_RACE, BudgetUse, Outcome, StudyState
from tuner.store.studies import budget_use, lock_study, move_study, read_budget, why_search_is_over
from tuner.store.tables import db_now, runs
from tuner.study.spec import BudgetSpec

Quota = Callable[[BudgetSpec, BudgetUse], str]
"""Says why no new trial may start, or an empty string if one may: judged under the study's lock, since people change budgets at any moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A trial chosen for confirmation.

    Attributes:
        number: The trial.
        rank: 1 for the best.
        is_baseline: Whether it is the default recipe that the winner is compared with.
        epochs: Epochs of each re-training; 0: as many as of any other trial.
    """

    number: int
    rank: int
    is_baseline: bool
    epochs: int = 0


def start_confirmation(
    db: Database, *, study_id: int, finalists: Sequence[Finalist], seeds: Sequence[int], epochs: int, quota: Quota
) -> bool:
    """End the search and queue the finalists' re-trainings, in one transaction.

    Args:
        finalists: In order of rank; with none, the study is finished at once.
        seeds: A re-training for each, for every finalist: the same seeds, so that comparisons are paired.
        epochs: Epochs of a trial.
        quota: Judges the budget.

    Returns:
        False if another worker was faster, runs are still open, or the search is not over: its budget was raised meanwhile.
    """

    def _start(tx: Connection) -> bool:
        if lock_study(tx, study_id) is not StudyState.SEARCHING or has_open_runs(tx, study_id):
            return False
        if not (reason := _why_over(tx, study_id, quota)):
            return False
        target = StudyState.CONFIRMING if finalists else StudyState.FINISHED
        move_study(tx, study_id=study_id, source=StudyState.SEARCHING, target=target, reason=reason)
        _demote(tx, study_id, finalists)
        reopen_cut(tx, study_id, reason="waiting again: the search went on, and the confirmation with it")
        for finalist in finalists:
            _queue(tx, study_id, finalist, seeds=seeds, epochs=epochs)
        return True

    return db.write(_start)


def _demote(tx: Connection, study_id: int, finalists: Sequence[Finalist]) -> None:
    """Rank the finalists of an earlier confirmation behind: the search went on after it, and their scores stay."""
    confirms = (runs.c.study_id == study_id) & (runs.c.purpose == "confirm")
    ranks = tx.execute(select(runs.c.number, runs.c.finalist_rank).where(confirms).distinct()).all()
    chosen = {finalist.number for finalist in finalists}
    earlier = [row.number for row in sorted(ranks, key=lambda row: int(row.finalist_rank)) if row.number not in chosen]
    for rank, number in enumerate(earlier, start=len(finalists) + 1):
        values = {"finalist_rank": rank, "is_baseline": False}
        tx.execute(update(runs).where(confirms, runs.c.number == number).values(values))


def _queue(tx: Connection, study_id: int, finalist: Finalist, *, seeds: Sequence[int], epochs: int) -> None:
    """One waiting run for each seed that the finalist was not trained with yet."""
    of_trial = (runs.c.study_id == study_id) & (runs.c.number == finalist.number)
    trial = tx.execute(select(runs).where(of_trial, runs.c.purpose == "search")).one()
    values = {"finalist_rank": finalist.rank, "is_baseline": finalist.is_baseline}
    for seed in seeds:
        again = of_trial & (runs.c.purpose == "confirm") & (runs.c.seed == seed)
        if tx.execute(update(runs).where(again).values(values)).rowcount:
            continue  # from before the search went on
        tx.execute(
            insert(runs).values(
                study_id=study_id,
                trial_id=trial.trial_id,
                number=trial.number,
                purpose="confirm",
                seed=seed,
                outcome=Outcome.WAITING.value,
                reason="",
                strategy=trial.strategy,
                params=trial.params,
                is_recipe=trial.is_recipe,
                learnt_from=trial.learnt_from,
                attempt=0,
                token="",
                losses=0,
                asked="",
                reserved_epochs=finalist.epochs or epochs,
                epochs_done=0,
                checkpoint="",
                created_at=db_now(),
                **values,
            )
        )


def is_cut(row: Row[Any]) -> bool:
    """Whether the budget ended a run, or kept it from its beginning; not what lost, nor what fell out of the race."""
    return row.outcome == Outcome.PRUNED.value and str(row.reason).startswith(OUT_OF_BUDGET)


def reopen_cut(tx: Connection, study_id: int, *, reason: str) -> int:
    """Let the re-trainings wait again that the budget cut, those of earlier finalists too: means are over seeds that all have.

    Args:
        tx: The transaction; its caller holds the study's lock.
        study_id: The study.
        reason: Why, in words.

    Returns:
        How many.
    """
    ended = (runs.c.study_id == study_id) & (runs.c.outcome == Outcome.PRUNED.value)
    cut = [row for row in tx.execute(select(runs).where(ended, runs.c.purpose == "confirm")).all() if is_cut(row)]
    for row in cut:
        ends.open_again(tx, row, reason=reason)
    return len(cut)


def confirmations_over(db: Database, study_id: int) -> int:
    """How many re-trainings of a study gave a score while others wait; 0 where none waits: cheap enough for every second."""

    def _count(tx: Connection) -> int:
        query = (
            select(runs.c.outcome, func.count())
            .where(runs.c.study_id == study_id, runs.c.purpose == "confirm")
            .group_by(runs.c.outcome)
        )
        counts = {outcome: int(number) for outcome, number in tx.execute(query)}
        return counts.get(Outcome.COMPLETE.value, 0) if counts.get(Outcome.WAITING.value) else 0

    return db.read(_count)


def drop_finalists(db: Database, *, study_id: int, reasons: Mapping[int, str]) -> int:
    """Cancel what waits of finalists that cannot be expected to win any more; what runs goes on.

    Args:
        db: The database.
        study_id: The study.
        reasons: Why, for each trial's number.

    Returns:
        How many re-trainings were cancelled; 0 if another worker was faster, or the study is not confirming.
    """

    def _drop(tx: Connection) -> int:
        if lock_study(tx, study_id) is not StudyState.CONFIRMING:
            return 0
        waiting = tx.execute(
            select(runs).where(
                runs.c.study_id == study_id,
                runs.c.purpose == "confirm",
                runs.c.outcome == Outcome.WAITING.value,
                runs.c.number.in_(reasons),
            )
        ).all()
        for row in waiting:
            ends.cut_waiting(tx, row, reason=f"{OUT_OF_THE_RACE}: {reasons[row.number]}")
        return len(waiting)

    return db.write(_drop)


def finish_confirmation(db: Database, *, study_id: int, quota: Quota) -> bool:
    """End a confirmation whose runs have all ended: the study is finished, or searches again where its budget was raised meanwhile.

    Args:
        db: The database.
        study_id: The study.
        quota: Judges the budget.

    Returns:
        False if some runs are open or another worker was faster.
    """

    def _finish(tx: Connection) -> bool:
        if lock_study(tx, study_id) is not StudyState.CONFIRMING or has_open_runs(tx, study_id):
            return False
        outcomes = [
            Outcome(row.outcome)
            for row in tx.execute(
                select(runs.c.outcome, runs.c.reason).where(runs.c.study_id == study_id, runs.c.purpose == "confirm")
            )
            if not row.reason.startswith(OUT_OF_THE_RACE)
        ]
        scored = outcomes.count(Outcome.COMPLETE)
        reason = "finalists are confirmed"
        if scored < len(outcomes):
            reason = f"the confirmation is incomplete: {scored} of {len(outcomes)} re-trainings gave a score"
        target = StudyState.FINISHED
        if not _why_over(tx, study_id, quota):
            target, reason = StudyState.SEARCHING, "its budget has room again"
        elif early := why_search_is_over(tx, study_id):
            reason += f"; the search ended early: {early}"
        return move_study(tx, study_id=study_id, source=StudyState.CONFIRMING, target=target, reason=reason)

    return db.write(_finish)


def _why_over(tx: Connection, study_id: int, quota: Quota) -> str:
    """Why the search is over by the budget that stands there now, or an empty string; the caller holds the study's lock."""
    return why_search_is_over(tx, study_id) or quota(read_budget(tx, study_id), budget_use(tx, study_id))


def has_open_runs(tx: Connection, study_id: int) -> bool:
    """Whether any run of the study waits or runs."""
    is_open = runs.c.outcome.in_((Outcome.WAITING.value, Outcome.RUNNING.value))
    return tx.execute(select(runs.c.run_id).where(runs.c.study_id == study_id, is_open).limit(1)).first() is not None
