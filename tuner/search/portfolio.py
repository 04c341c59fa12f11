"""Which few configurations to try first, judged by what they were worth in past studies. Plain numpy.

A small set whose members are good for different studies is worth more than the same number of the best on average: on LCBench four
configurations that cover the other tasks equal 128 random trainings. It is chosen greedily, which is within 1 - 1/e of the best
set (Nemhauser et al. 1978, https://doi.org/10.1007/BF01588971).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH = 0.15
"""How far a result tells of its neighbours: root mean square over the knobs, each on its own scale from 0 to 1."""

DOUBT = 0.1
"""Weight of the assumption that an untried configuration is no better than the median one; a result at its very place has 1."""

_SAME = 1e-12  # squared distance; values went through logarithms and back


def regrets(scores: Floats, *, best: float) -> Floats:
    """What each configuration of a study falls short by: 0 is the best, 1 the median or worse.

    Args:
        scores: More is better; NaN where there is no result, which counts as 1.
        best: The score that counts as the best; what is above counts as it.
    """
    known = scores[np.isfinite(scores)]
    median = float(np.median(known)) if known.size else best
    if not median < best:  # all are alike: whoever has the best score has it
        return np.where(scores >= best, 0.0, 1.0)
    return np.nan_to_num(np.clip((best - scores) / (best - median), 0.0, 1.0), nan=1.0)


def expected_regrets(units: Floats, *, tried: Floats, found: Floats) -> Floats:
    """What configurations would fall short by in a study: what it found if it tried them, else a weighted mean over their neighbours.

    Where nothing near was tried, a configuration is expected to be no better than the median.

    Args:
        units: Configurations x knobs, each knob from 0 to 1.
        tried: What the study tried, likewise.
        found: The regret of each that it tried.

    Returns:
        A regret for each configuration.
    """
    if not len(tried):
        return np.ones(len(units))
    squares = (
        ((units[:, None] - tried[None]) ** 2).mean(axis=2) if units.shape[1] else np.zeros((len(units), len(tried)))
    )
    near: Floats = np.exp(-squares / (2.0 * WIDTH**2))
    expected: Floats = (near @ found + DOUBT) / (near.sum(axis=1) + DOUBT)
    same = squares < _SAME
    there = same.any(axis=1)
    expected[there] = np.where(same, found, np.inf).min(axis=1)[there]
    return expected


def choose_cover(
    worth: Floats, *, size: int, weights: Sequence[float] | None = None, kinds: Sequence[object] = ()
) -> list[int]:
    """Greedy coverage: each next choice is the one that most lowers the mean over the studies of the best regret so far.

    Where nothing is left to lower, a second cover begins.

    Args:
        worth: Studies x configurations: the regret of each configuration in each study.
        size: How many to choose; fewer if there are fewer.
        weights: How much each study counts; all alike by default.
        kinds: Of each configuration: none is chosen twice from one kind before all kinds had a turn.

    Returns:
        Columns of ``worth``, the first choice first.
    """
    if not worth.size:
        return []
    studies, configurations = worth.shape
    weight = np.ones(studies) if weights is None else np.asarray(weights, dtype=np.float64)
    chosen: list[int] = []
    left = set(kinds)
    covered = np.ones(studies)
    while len(chosen) < min(size, configurations):
        closed = np.zeros(configurations, dtype=bool)
        closed[chosen] = True
        if left:
            closed |= np.array([kind not in left for kind in kinds])
        means = _means(np.minimum(worth, covered[:, None]), weight, closed)
        column = int(means.argmin())
        if chosen and not left and means[column] >= np.average(covered, weights=weight) - 1e-9:
            covered = np.ones(studies)
            column = int(_means(worth, weight, closed).argmin())
        chosen.append(column)
        left -= {kinds[column]} if left else set()
        covered = np.minimum(covered, worth[:, column])
    return chosen


def _means(worth: Floats, weight: Floats, closed: npt.NDArray[np.bool_]) -> Floats:
    means: Floats = np.average(worth, axis=0, weights=weight)
    return np.where(closed, np.inf, means)
