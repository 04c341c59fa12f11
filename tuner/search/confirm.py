"""Which trials are trained again with fresh seeds, and with which seeds.

The score of the best of n trials overstates its true score (measured on multi-seed tables: +1.35 points for the best of 100),
so the best few compete again on fresh seeds. The default recipe of the baseline strategy is always among them: a search that
cannot beat it should say so. From the second seed on it is a race: who cannot be expected to win any more is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuner import contest
from tuner.store.confirmation import Finalist
from tuner.store.fronts import rank_for_confirmation
from tuner.store.records import ConfirmationRecord, FinalistRecord, Outcome, StudyRecord, TrialRecord
from tuner.study.folds import fold_of, fresh_seed, in_blocks

BASELINES = ("full",)
"""Strategies whose default recipe is what people would do without tuner; the study's first strategy stands in."""


def choose_finalists(trials: Sequence[TrialRecord], *, study: StudyRecord) -> list[Finalist]:
    """The best complete trials, one for each configuration, and the baseline's recipe.

    Args:
        trials: All trials of the study.
        study: Asks for so many finalists, and says whether more is better.

    Returns:
        In order of rank; empty if the study asks for no confirmation or nothing is complete.
    """
    asked = study.spec.confirm.finalists
    complete = [trial for trial in trials if trial.outcome is Outcome.COMPLETE and trial.value is not None]
    if asked == 0 or not complete:
        return []
    sign = -1.0 if study.maximize else 1.0
    complete.sort(key=lambda trial: (sign * float(trial.value or 0.0), trial.number))
    complete = rank_for_confirmation(trials, study=study) or complete  # of several objectives the front comes first
    chosen: list[TrialRecord] = []
    for trial in complete:
        if len(chosen) < asked and all(_configuration(trial) != _configuration(other) for other in chosen):
            chosen.append(trial)
    baseline = find_baseline(trials, study=study)
    if baseline is not None and all(trial.number != baseline.number for trial in chosen):
        chosen.append(baseline)
    return [
        Finalist(
            number=trial.number,
            rank=rank,
            is_baseline=baseline is not None and trial.number == baseline.number,
            epochs=_epochs(trial, study=study),
        )
        for rank, trial in enumerate(chosen, start=1)
    ]


def _epochs(trial: TrialRecord, *, study: StudyRecord) -> int:
    """Epochs of each re-training; 0: all. With folds as many as counted in the search: a fold that chose its own would flatter it."""
    return trial.best_epoch or 0 if study.spec.data.folds and trial.outcome is Outcome.COMPLETE else 0


def find_baseline(trials: Sequence[TrialRecord], *, study: StudyRecord) -> TrialRecord | None:
    """The trial of the default recipe that the winner is compared with; None if it could not run here."""
    names = study.space.names
    strategy = next((name for name in BASELINES if name in names), names[0])
    for trial in trials:
        if trial.is_recipe and trial.strategy == strategy:
            return trial if trial.outcome in (Outcome.COMPLETE, Outcome.PRUNED) else None
    return None


def fresh_seeds(study: StudyRecord) -> list[int]:
    """Seeds that the search did not use, the same for every finalist so that comparisons are paired."""
    return [fresh_seed(study.spec, index) for index in range(1, study.spec.confirm.seeds + 1)]


def find_fallen(finalists: Sequence[FinalistRecord], *, study: StudyRecord) -> dict[int, str]:
    """The finalists that cannot be expected to win any more, and why; the default recipe stays for the comparison.

    Judged by the seeds that all who are still in the race have a score with, two at least, on the rows that choose the
    winner: a round that is not over says nothing.

    Args:
        finalists: With their re-trainings so far.
        study: Says what is best.
    """
    sign = 1.0 if study.maximize else -1.0
    racing = [finalist for finalist in finalists if not finalist.why_out and _may_finish(finalist)]
    scored = {
        finalist.number: {run.seed: sign * score for run in finalist.runs if (score := _score(run, study)) is not None}
        for finalist in racing
    }
    common = sorted(set.intersection(*(set(seeds) for seeds in scored.values()))) if scored else []
    places = [fold_of(study.spec, seed=seed) or seed for seed in common]
    rows = {number: in_blocks([seeds[seed] for seed in common], places=places) for number, seeds in scored.items()}
    count = len(set(places))
    spared = [finalist.number for finalist in racing if finalist.is_baseline]
    to_come = max((len(finalist.runs) for finalist in racing), default=0) - len(common)
    return {
        number: f"after {count} {'folds' if study.spec.data.folds else 'seeds'} its mean {study.metric} is {behind.difference:.4f} behind the leader's, "
        f"{_why(behind)}"
        for number, behind in contest.fallen(rows, spared=spared, to_come=to_come).items()
    }


def _why(behind: contest.Lead) -> str:
    if behind.is_measured and 1.0 - behind.probability <= contest.LEVEL:
        return f"and chance alone puts it as far ahead in {100.0 * (1.0 - behind.probability):.2g} % of the cases"
    return f"and {contest.FINAL} others go on"


def _may_finish(finalist: FinalistRecord) -> bool:
    """Whether no re-training has ended without a score: whoever lacks one would keep all others from being compared."""
    return all(run.outcome is Outcome.COMPLETE or not run.outcome.is_finished for run in finalist.runs)


def _score(run: ConfirmationRecord, study: StudyRecord) -> float | None:
    if run.outcome is not Outcome.COMPLETE:
        return None
    judged = run.metrics if run.held_back is None else run.held_back.metrics
    return judged.get(study.metric)


def _configuration(trial: TrialRecord) -> tuple[str, tuple[tuple[str, object], ...]]:
    return trial.strategy, tuple(sorted(trial.params.items()))
