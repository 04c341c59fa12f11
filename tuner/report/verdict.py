"""Which trial wins, and on what ground: the one selection rule that the command line and the report share.

Among the finalists the winner is the one with the best *mean validation score over its fresh seeds*. The score that
made a trial a finalist is the largest of many noisy ones and so too good (the winner's curse); the test rows only
report and never choose.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import Enum

from tuner.store.records import FinalistRecord, Outcome, StudySnapshot, StudyState, TrialRecord


class Basis(Enum):
    """What the choice of the winner stands on, best ground first."""

    CONFIRMED = "confirmed"  # every finalist's re-trainings have ended
    CONFIRMING = "confirming"  # some fresh seeds are still to come: provisional
    SEARCH = "search"  # single-seed values of the search: too good by an unknown amount


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalistScore:
    """A finalist's fresh-seed scores of the objective's metric.

    Attributes:
        trial: The trial.
        rank: 1 for the best value of the search.
        is_baseline: Whether it is the default recipe that the winner is compared with.
        seeds: The fresh seeds that gave a result.
        validation: Score on the validation rows, one for each of ``seeds``.
        test: Score on the test rows, one for each of ``seeds``; empty unless every one of them has it.
        planned: How many re-trainings were planned.
        open: How many re-trainings have not ended.
    """

    trial: TrialRecord
    rank: int
    is_baseline: bool
    seeds: tuple[int, ...]
    validation: tuple[float, ...]
    test: tuple[float, ...]
    planned: int
    open: int

    @property
    def mean(self) -> float | None:
        """Mean fresh-seed validation score, None before the first one."""
        return statistics.fmean(self.validation) if self.validation else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of the validation score over the seeds, None below two."""
        return statistics.stdev(self.validation) if len(self.validation) > 1 else None

    @property
    def test_mean(self) -> float | None:
        """Mean test score over the seeds, None without test rows."""
        return statistics.fmean(self.test) if self.test else None

    @property
    def test_sd(self) -> float | None:
        """Standard deviation of the test score over the seeds, None below two."""
        return statistics.stdev(self.test) if len(self.test) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """The trial that wins as far as is known.

    Attributes:
        trial: The trial.
        basis: What the choice stands on.
        claimed: Its value in the search; of its last report if it was pruned there, as a default recipe may be; None if
            that came before its first report.
        score: Its fresh-seed scores; None if the choice stands on the search alone.
        runner_up: The next best finalist by the same rule, or the next best trial of the search.
        baseline: The default recipe it is compared with, None if no recipe has a result.
    """

    trial: TrialRecord
    basis: Basis
    claimed: float | None
    score: FinalistScore | None
    runner_up: TrialRecord | None
    baseline: TrialRecord | None


def score_finalists(snapshot: StudySnapshot) -> tuple[FinalistScore, ...]:
    """The finalists' fresh-seed scores, best mean validation score first, those without a score last.

    Equal means keep the order of the search.
    """
    sign = -1.0 if snapshot.study.maximize else 1.0
    scores = [_score_finalist(snapshot, finalist) for finalist in snapshot.finalists]

    def order(score: FinalistScore) -> tuple[float, int]:
        return (math.inf if score.mean is None else sign * score.mean, score.rank)

    return tuple(sorted(scores, key=order))


def rank_trials(snapshot: StudySnapshot) -> tuple[TrialRecord, ...]:
    """The complete trials, best value of the search first; equal values in the order of their numbers."""
    sign = -1.0 if snapshot.study.maximize else 1.0
    complete = [
        (trial.value, trial)
        for trial in snapshot.trials
        if trial.outcome is Outcome.COMPLETE and trial.value is not None
    ]
    return tuple(trial for _, trial in sorted(complete, key=lambda pair: (sign * pair[0], pair[1].number)))


def choose_winner(snapshot: StudySnapshot) -> Winner | None:
    """The winner of a study as far as is known.

    Args:
        snapshot: The study, finished or not.

    Returns:
        The winner with the ground it stands on, or None while no trial is complete.
    """
    finalists = score_finalists(snapshot)
    scored = [score for score in finalists if score.mean is not None]
    ranked = rank_trials(snapshot)
    if scored:
        unfinished = any(score.open for score in finalists) or snapshot.study.state is StudyState.CONFIRMING
        return Winner(
            trial=scored[0].trial,
            basis=Basis.CONFIRMING if unfinished else Basis.CONFIRMED,
            claimed=scored[0].trial.value,
            score=scored[0],
            runner_up=scored[1].trial if len(scored) > 1 else None,
            baseline=next((score.trial for score in scored if score.is_baseline), None),
        )
    if not ranked or ranked[0].value is None:
        return None
    return Winner(
        trial=ranked[0],
        basis=Basis.SEARCH,
        claimed=ranked[0].value,
        score=None,
        runner_up=ranked[1] if len(ranked) > 1 else None,
        baseline=next((trial for trial in ranked if trial.is_recipe), None),
    )


def _score_finalist(snapshot: StudySnapshot, finalist: FinalistRecord) -> FinalistScore:
    metric = snapshot.study.metric
    done = [run for run in finalist.runs if run.outcome is Outcome.COMPLETE and metric in run.metrics]
    tests = [run.test.metrics[metric] for run in done if run.test is not None and metric in run.test.metrics]
    return FinalistScore(
        trial=snapshot.trial(finalist.number),
        rank=finalist.rank,
        is_baseline=finalist.is_baseline,
        seeds=tuple(run.seed for run in done),
        validation=tuple(run.metrics[metric] for run in done),
        test=tuple(tests) if len(tests) == len(done) else (),
        planned=len(finalist.runs),
        open=sum(not run.outcome.is_finished for run in finalist.runs),
    )
