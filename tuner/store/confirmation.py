"""Confirmation runs: the finalists, trained again with fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from tuner.store.database import Database
from tuner.store.records import Outcome, StudyState
from tuner.store.studies import lock_study, move_study
from tuner.store.tables import db_now, runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A trial chosen for confirmation.

    Attributes:
        number: The trial.
        rank: 1 for the best.
        is_baseline: Whether it is the default recipe that the winner is compared with.
    """

    number: int
    rank: int
    is_baseline: bool


def start_confirmation(
    db: Database, *, study_id: int, finalists: Sequence[Finalist], seeds: Sequence[int], epochs: int, reason: str
) -> bool:
    """End the search and queue the finalists' re-trainings, in one transaction.

    Args:
        finalists: In order of rank; with none, the study is finished at once.
        seeds: A re-training for each, for every finalist: the same seeds, so that comparisons are paired.
        epochs: Epochs of each re-training.
        reason: Why the search is over.

    Returns:
        False if another worker was faster, or search runs are still open.
    """

    def _start(tx: Connection) -> bool:
        if lock_study(tx, study_id) is not StudyState.SEARCHING or has_open_runs(tx, study_id):
            return False
        target = StudyState.CONFIRMING if finalists else StudyState.FINISHED
        move_study(tx, study_id=study_id, source=StudyState.SEARCHING, target=target, reason=reason)
        for finalist in finalists:
            trial = tx.execute(
                select(runs).where(
                    runs.c.study_id == study_id, runs.c.number == finalist.number, runs.c.purpose == "search"
                )
            ).one()
            for seed in seeds:
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
                        attempt=0,
                        token="",
                        losses=0,
                        reserved_epochs=epochs,
                        epochs_done=0,
                        checkpoint="",
                        finalist_rank=finalist.rank,
                        is_baseline=finalist.is_baseline,
                        created_at=db_now(),
                    )
                )
        return True

    return db.write(_start)


def finish_confirmation(db: Database, *, study_id: int) -> bool:
    """Finish a study whose confirmation runs have all ended; False if some are open or another worker was faster."""

    def _finish(tx: Connection) -> bool:
        if lock_study(tx, study_id) is not StudyState.CONFIRMING or has_open_runs(tx, study_id):
            return False
        outcomes = [
            Outcome(outcome)
            for (outcome,) in tx.execute(
                select(runs.c.outcome).where(runs.c.study_id == study_id, runs.c.purpose == "confirm")
            )
        ]
        scored = outcomes.count(Outcome.COMPLETE)
        reason = "finalists are confirmed"
        if scored < len(outcomes):
            reason = f"the confirmation is incomplete: {scored} of {len(outcomes)} re-trainings gave a score"
        return move_study(
            tx, study_id=study_id, source=StudyState.CONFIRMING, target=StudyState.FINISHED, reason=reason
        )

    return db.write(_finish)


def has_open_runs(tx: Connection, study_id: int) -> bool:
    """Whether any run of the study waits or runs."""
    is_open = runs.c.outcome.in_((Outcome.WAITING.value, Outcome.RUNNING.value))
    return tx.execute(select(runs.c.run_id).where(runs.c.study_id == study_id, is_open).limit(1)).first() is not None
