"""What many replays say together: means and their intervals, ranks, paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.replay.tables import Floats

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One method at one budget.

    Attributes:
        mean: Mean regret over tasks and seeds.
        low: Lower end of its 95 % interval.
        high: Upper end.
        median: Median regret.
        rank: Mean rank among the methods; 1 is the best, ties share.
        p: Of the paired test that its regrets differ from the reference's, corrected for the number of methods; None for the
            reference itself.
        wins: Cells where it is better than the reference.
        losses: Cells where it is worse.
    """

    mean: float
    low: float
    high: float
    median: float
    rank: float
    p: float | None
    wins: int
    losses: int


def normalised_regret(found: float | None, *, best: float, reference: float) -> float:
    """How much of the way from a reference score to the best is missing; 1 if nothing was found yet, or if it diverged."""
    if found is None or not np.isfinite(found):
        return 1.0
    return (best - found) / (best - reference)


def first_as_good(regrets: Floats, *, moments: Sequence[float], goal: float) -> float | None:
    """The first moment at which a falling regret is at the goal; None if it never is."""
    reached = np.flatnonzero(regrets <= goal + 1e-12)
    return float(moments[reached[0]]) if len(reached) else None


def summarise(regrets: Mapping[str, Floats], *, against: str) -> dict[str, Summary]:
    """Compare methods at one budget.

    Args:
        regrets: Of each method, tasks x seeds; the same cells for all.
        against: The method that the others are tested against.
    """
    names = list(regrets)
    ranks = stats.rankdata(np.stack([regrets[name].ravel() for name in names]), axis=0).mean(axis=1)
    others = [name for name in names if name != against]
    raw = [wilcoxon(regrets[name].ravel(), regrets[against].ravel()) for name in others] if against in regrets else []
    corrected = dict(zip(others, holm(raw), strict=False))
    summaries = {}
    for name, rank in zip(names, ranks, strict=True):
        cells = regrets[name]
        low, high = interval(cells)
        versus = regrets.get(against, cells)
        summaries[name] = Summary(
            mean=float(cells.mean()),
            low=low,
            high=high,
            median=float(np.median(cells)),
            rank=float(rank),
            p=corrected.get(name),
            wins=int((cells < versus).sum()),
            losses=int((cells > versus).sum()),
        )
    return summaries


def interval(cells: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of the mean: tasks are drawn, then seeds within each, since a task's seeds are alike."""
    random = np.random.default_rng(0)
    tasks, seeds = cells.shape
    drawn = random.integers(0, tasks, (RESAMPLES, tasks, 1))
    means = cells[drawn, random.integers(0, seeds, (RESAMPLES, tasks, seeds))].mean(axis=(1, 2))
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def wilcoxon(ours: Floats, theirs: Floats) -> float:
    """P-value of the paired signed-rank test, two-sided; 1 where no pair differs."""
    if np.array_equal(ours, theirs):
        return 1.0
    return float(stats.wilcoxon(ours, theirs).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected
