"""How sure a difference is: a paired bootstrap over test rows and seeds, or a t interval over seeds alone.

Rows are drawn once per replicate and shared by all finalists (a paired comparison); seeds are drawn for each finalist
by itself, one fewer than there are, which makes the variance of the mean over few seeds unbiased (Rao & Wu 1988,
https://doi.org/10.1080/01621459.1988.10478591). Varying rows and seeds together is what Bouthillier et al. 2021
(https://arxiv.org/abs/2103.03098) ask for. Rows on which all runs agree in truth and prediction are exchangeable, so
counts of distinct patterns are drawn from a multinomial instead of the rows themselves: the same distribution, much
faster.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.store.records import FinalistRecord, Outcome
from tuner.study.plan import TestScore

REPLICATES = 2000
"""Bootstrap replicates: the Monte Carlo error of a probability near 0.95 is 0.005."""

_NO_SPREAD = 1e-12
"""Standard error below which scores differ by rounding alone."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The winner against one other trial; positive differences are in the winner's favour.

    Attributes:
        other: Number of the other trial. Only seeds that both were trained with are compared.
        split: ``test`` or ``validation``: where both were scored.
        rows: Test rows that were resampled; 0 if only seeds were compared.
        difference: Mean score of the winner less that of the other, signed so that more is better.
        low: Lower end of the 95 % interval, over test rows alone if there is one seed; None with too few seeds, or too
            little spread, to tell.
        high: Upper end of the 95 % interval; None like ``low``.
        probability: Probability that the winner's expected score is better; None like ``low``, and with one seed.
        seed_pairs: Seeds that both were trained with.
        seed_wins: How many of those the winner won.
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

    @property
    def is_clear(self) -> bool:
        """Whether chance is no likely reason: zero lies below the 95 % interval, which leaves 2.5 % on each side."""
        return self.probability is not None and self.probability >= 0.975

    @property
    def is_worse(self) -> bool:
        """Whether the winner is clearly worse: zero lies above the 95 % interval."""
        return self.probability is not None and self.probability <= 0.025


@dataclass(frozen=True, kw_only=True, slots=True)
class TestBootstrap:
    """Bootstrap replicates of each finalist's mean test score.

    Attributes:
        rows: Test rows.
        replicates: For each trial number, its mean score over the drawn seeds in every replicate; shape (replicates,).
    """

    rows: int
    replicates: Mapping[int, Floats]

    def interval(self, number: int) -> tuple[float, float]:
        """The 95 % percentile interval of a finalist's test score."""
        low, high = np.percentile(self.replicates[number], [2.5, 97.5])
        return float(low), float(high)


def bootstrap_test(
    finalists: Sequence[FinalistRecord], *, metric: str, seeds: frozenset[int] | None = None, seed: int = 0
) -> TestBootstrap | None:
    """Resample test rows and seeds of all finalists together.

    Args:
        finalists: Finalists; runs without a test score are left out.
        metric: The objective's metric.
        seeds: Training seeds to keep, None for all.
        seed: Seed of the resampling, so that the same study always gives the same report.

    Returns:
        The replicates, or None if the metric cannot be had from predictions (``auc``, ``loss``) or if the runs were
        not scored on the same rows.
    """
    tests = {
        finalist.number: [
            run.test
            for run in finalist.runs
            if run.outcome is Outcome.COMPLETE and run.test is not None and (seeds is None or run.seed in seeds)
        ]
        for finalist in finalists
    }
    tests = {number: runs for number, runs in tests.items() if runs}
    flat = [run for runs in tests.values() for run in runs]
    score = SCORES.get(metric)
    if score is None or not flat or not flat[0].truth or any(run.truth != flat[0].truth for run in flat):
        return None
    rng = np.random.default_rng(seed)
    truth, predictions, weights = _draw_rows(flat, rng)
    classes = 1 + int(max(truth.max(), predictions.max()))
    scores = np.stack(
        [_score_replicates(truth, column, weights=weights, classes=classes, score=score) for column in predictions]
    )
    replicates, start = {}, 0
    for number, runs in tests.items():
        replicates[number] = _mean_over_seeds(scores[start : start + len(runs)], rng)
        start += len(runs)
    return TestBootstrap(rows=len(flat[0].truth), replicates=replicates)


def compare_seeds(winner: Sequence[float], other: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Welch's t: 95 % interval of ``mean(winner) - mean(other)`` and the probability that it is above zero.

    Returns:
        Low, high, probability; all None where a side has fewer than two seeds, or where neither side's seeds
        differ in score: that happens by rounding to whole rows, and does not mean that chance plays no part.
    """
    # Loaded here: it takes longer to import than all of this package, and most comparisons do without.
    from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

    if len(winner) < 2 or len(other) < 2:
        return None, None, None
    difference = statistics.fmean(winner) - statistics.fmean(other)
    parts = [statistics.variance(side) / len(side) for side in (winner, other)]
    error = math.sqrt(sum(parts))
    if error <= _NO_SPREAD:
        return None, None, None
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (winner, other), strict=True)
    )
    reach = float(stdtrit(freedom, 0.975)) * error
    return difference - reach, difference + reach, float(stdtr(freedom, difference / error))


def compare_replicates(
    winner: Floats, other: Floats, *, sign: float
) -> tuple[float | None, float | None, float | None]:
    """Low, high and probability from paired bootstrap replicates; ties count half.

    All are None where every replicate gives the same difference: nothing varied, so nothing was measured.

    Args:
        winner: The winner's replicates, shape (replicates,).
        other: The other's replicates, shape (replicates,).
        sign: 1.0 if more is better, else -1.0.
    """
    differences = sign * (winner - other)
    if np.ptp(differences) <= _NO_SPREAD:
        return None, None, None
    low, high = np.percentile(differences, [2.5, 97.5])
    better = np.mean(differences > 0.0) + 0.5 * np.mean(differences == 0.0)
    return float(low), float(high), float(better)


def _draw_rows(
    runs: Sequence[TestScore], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Distinct (truth, predictions) patterns and how often each replicate draws them.

    Returns:
        Truth of each pattern, shape (patterns,); predictions, shape (runs, patterns); weights, shape
        (replicates, patterns).
    """
    table = np.array([runs[0].truth, *(run.predictions for run in runs)], dtype=np.int64)
    patterns, counts = np.unique(table, axis=1, return_counts=True)
    rows = int(counts.sum())
    weights = rng.multinomial(rows, counts / rows, size=REPLICATES).astype(np.float64)
    return patterns[0], patterns[1:], weights


def _mean_over_seeds(scores: Floats, rng: np.random.Generator) -> Floats:
    """Mean over drawn seeds in each replicate; ``scores`` has shape (seeds, replicates)."""
    seeds, replicates = scores.shape
    drawn = rng.integers(0, seeds, size=(max(1, seeds - 1), replicates))
    return np.asarray(scores[drawn, np.arange(replicates)].mean(axis=0), dtype=np.float64)


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
