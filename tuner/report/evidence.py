"""How sure a difference is: Student's t over seeds, paired, with the luck of the drawn rows added.

Two things vary: the seed that a run was trained with, and which rows it is judged by. What the seeds do is measured over the fresh
seeds that two finalists share (:mod:`tuner.contest`); what the rows do by a bootstrap in which the models stay as they are and the same
rows are drawn for all of them. The variances are added, as Bouthillier et al. 2021 (https://arxiv.org/abs/2103.03098) ask for; what both
share is counted twice, which errs on the careful side. A metric of probabilities (``auc``, ``loss``) is the mean of what its rows
contribute, and needs no bootstrap: the variance of such a mean is that of its parts. Rows on which all runs agree in truth and prediction are exchangeable, so
counts of distinct patterns are drawn from a multinomial instead of the rows themselves: the same distribution, much faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.contest import LEVEL
from tuner.store.records import ConfirmationRecord, FinalistRecord, Outcome
from tuner.study.plan import TestScore

REPLICATES = 2000
"""Bootstrap replicates: the Monte Carlo error of a standard error is 2 %."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The winner against one other trial; positive differences are in the winner's favour.

    Attributes:
        other: Number of the other trial. Only seeds that both were trained with are compared.
        split: ``test``, ``held-back``, ``folds`` or ``validation``: where both were scored.
        rows: Rows that were resampled; 0 if only seeds were compared.
        difference: Mean score of the winner less that of the other, signed so that more is better.
        low: Lower end of the 95 % interval, corrected for all comparisons of the study as ``p_value`` is; over rows alone if
            there is one seed; None with too few seeds, or too little spread, to tell.
        high: Upper end of the 95 % interval; None like ``low``.
        probability: Probability that the winner's expected score is better, of this comparison alone; None like ``low``, and
            with one seed.
        seed_pairs: Seeds that both were trained with.
        seed_wins: How many of those the winner won.
        p_value: How often chance alone gives a difference as large, Holm's correction for all comparisons included; None
            like ``probability``.
        claims: How many comparisons the interval and ``p_value`` are corrected for.
    """

    other: int
    split: str
    rows: int
    difference: float
    low: float | None
    high: float | None
    probability: float | None
    seed_pairs: int
    seed_wins: int
    p_value: float | None = None
    claims: int = 1

    @property
    def is_settled(self) -> bool:
        """Whether the two can be told apart, all comparisons considered."""
        return self.p_value is not None and self.p_value <= LEVEL

    @property
    def is_clear(self) -> bool:
        """Whether the winner is better and chance is no likely reason."""
        return self.is_settled and self.difference > 0.0

    @property
    def is_worse(self) -> bool:
        """Whether the winner is clearly worse where it was not chosen."""
        return self.is_settled and self.difference < 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLuck:
    """What drawing other rows would do to each finalist's mean score, its runs staying as they are.

    Attributes:
        rows: Rows that were drawn from.
        values: For each trial number, its mean score over its runs in every replicate; or what each row contributes to that.
        averaged: Of how many of these values a score is the mean: 1 for replicates, the rows for what they contribute.
    """

    rows: int
    values: Mapping[int, Floats]
    averaged: int = 1

    def holds(self, *numbers: int) -> bool:
        """Whether it knows these finalists."""
        return all(number in self.values for number in numbers)

    def variance(self, number: int, *, other: int | None = None) -> float:
        """Variance of a finalist's mean score, or of its difference from another one's on the same rows."""
        drawn = self.values[number]
        return float(np.var(drawn if other is None else drawn - self.values[other], ddof=1)) / self.averaged


def find_row_luck(
    finalists: Sequence[FinalistRecord],
    *,
    metric: str,
    split: str = "test",
    seeds: frozenset[int] | None = None,
    draws: int = REPLICATES,
    seed: int = 0,
) -> RowLuck | None:
    """Draw the rows again, the same ones for all finalists.

    Args:
        finalists: Finalists; runs without a score are left out.
        metric: The objective's metric.
        split: ``test`` or ``held-back``.
        seeds: Training seeds to keep, None for all.
        draws: How many replicates.
        seed: Seed of the resampling, so that the same study always gives the same report.

    Returns:
        None if the runs were not scored on the same rows, or if what was kept of the rows does not tell the metric: predicted
        classes do not tell ``auc`` and ``loss``, for which older versions kept nothing else.
    """
    scored = _scored(finalists, split=split, seeds=seeds)
    flat = [run for runs in scored.values() for run in runs]
    if not _tells_rows(flat, metric=metric):
        return None
    rows = len(flat[0].truth)
    score = SCORES.get(metric)
    if score is None:
        parts = {number: np.mean([run.by_row for run in runs], axis=0) for number, runs in scored.items()}
        return RowLuck(rows=rows, values=parts, averaged=rows)
    truth, predictions, weights = _draw_rows(flat, np.random.default_rng(seed), draws=draws)
    classes = 1 + int(max(truth.max(), predictions.max()))
    scores = np.stack(
        [_score_replicates(truth, column, weights=weights, classes=classes, score=score) for column in predictions]
    )
    replicates, start = {}, 0
    for number, runs in scored.items():
        replicates[number] = np.asarray(scores[start : start + len(runs)].mean(axis=0), dtype=np.float64)
        start += len(runs)
    return RowLuck(rows=rows, values=replicates)


def knows_row_luck(finalists: Sequence[FinalistRecord], *, metric: str, split: str) -> bool:
    """Whether :func:`find_row_luck` can tell what other rows would do."""
    scored = _scored(finalists, split=split, seeds=None)
    return _tells_rows([run for runs in scored.values() for run in runs], metric=metric)


def _scored(
    finalists: Sequence[FinalistRecord], *, split: str, seeds: frozenset[int] | None
) -> dict[int, list[TestScore]]:
    """The scores of each finalist that has any."""
    scored = {
        finalist.number: [
            rows
            for run in finalist.runs
            if run.outcome is Outcome.COMPLETE and (seeds is None or run.seed in seeds) and (rows := _rows(run, split))
        ]
        for finalist in finalists
    }
    return {number: runs for number, runs in scored.items() if runs}


def _tells_rows(runs: Sequence[TestScore], *, metric: str) -> bool:
    """Whether all runs were scored on the same rows, of which the predictions or the parts in the metric are kept."""
    truth = runs[0].truth if runs else ()
    if not truth or any(run.truth != truth for run in runs):
        return False
    return metric in SCORES or all(len(run.by_row) == len(truth) for run in runs)


def _rows(run: ConfirmationRecord, split: str) -> TestScore | None:
    return run.test if split == "test" else run.held_back


def _draw_rows(
    runs: Sequence[TestScore], rng: np.random.Generator, *, draws: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Distinct (truth, predictions) patterns and how often each replicate draws them.

    Returns:
        Truth of each pattern, shape (patterns,); predictions, shape (runs, patterns); weights, shape
        (draws, patterns).
    """
    table = np.array([runs[0].truth, *(run.predictions for run in runs)], dtype=np.int64)
    patterns, counts = np.unique(table, axis=1, return_counts=True)
    rows = int(counts.sum())
    weights = rng.multinomial(rows, counts / rows, size=draws).astype(np.float64)
    return patterns[0], patterns[1:], weights


Counts = tuple[Floats, Floats, Floats]
"""Hits, true rows and predicted rows of each class, each of shape (classes,)."""


def _score_replicates(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *,
    weights: Floats,
    classes: int,
    score: Callable[[Counts], float],
) -> Floats:
    hit = truth == predicted
    values = np.empty(len(weights))
    for index, weight in enumerate(weights):
        hits = np.bincount(truth[hit], weights=weight[hit], minlength=classes).astype(np.float64)
        true = np.bincount(truth, weights=weight, minlength=classes).astype(np.float64)
        found = np.bincount(predicted, weights=weight, minlength=classes).astype(np.float64)
        values[index] = score((hits, true, found))
    return values


def _accuracy(counts: Counts) -> float:
    hits, true, _ = counts
    return float(hits.sum() / true.sum())


def _mean_of_classes(numerator: Floats, denominator: Floats, present: NDArray[np.bool_]) -> float:
    """Mean ratio over the classes that occur; a class without a denominator scores 0, as in scikit-learn."""
    ratios = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return float(ratios[present].mean())


def _macro_f1(counts: Counts) -> float:
    hits, true, predicted = counts
    return _mean_of_classes(2 * hits, true + predicted, true + predicted > 0)


def _precision(counts: Counts) -> float:
    hits, true, predicted = counts
    return _mean_of_classes(hits, predicted, true + predicted > 0)


def _recall(counts: Counts) -> float:
    hits, true, predicted = counts
    return _mean_of_classes(hits, true, true + predicted > 0)


SCORES: Mapping[str, Callable[[Counts], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "precision": _precision,
    "recall": _recall,
}
"""Metrics that can be had from predicted classes alone."""
