"""Which rows judge a run where the training rows are divided into folds: that follows from its seed.

Fold 1 judges the search. The fresh seeds of the confirmation go through the other folds in turn, the same for every finalist, so that a
round of the race is a seed and a fold. No trial was judged by those rows, and they take part in no choice before.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tuner.study.spec import MOST_SEEDS, StudySpec

SEARCH_FOLD = 1
"""The fold that judges the search."""

_SEED_STEP = 1_000_003  # fresh seeds are far from the search's seed and from each other


def fresh_seed(spec: StudySpec, index: int) -> int:
    """A seed that the search does not use; of the first, second, … round of the confirmation."""
    return (spec.training.seed + _SEED_STEP * index) % 2**31


def fold_of(spec: StudySpec, *, seed: int) -> int:
    """The 1-based fold that judges a run; 0 where the rows are not divided into folds."""
    folds = spec.data.folds
    if not folds:
        return 0
    rounds = (index for index in range(1, MOST_SEEDS + 1) if fresh_seed(spec, index) == seed)
    index = next(rounds, None)
    return SEARCH_FOLD if index is None else SEARCH_FOLD + 1 + (index - 1) % (folds - 1)


def in_blocks(scores: Sequence[float], *, places: Sequence[int]) -> list[float]:
    """One score a block: the mean of those that share a place, by place.

    Two seeds that are judged by the same fold are not independent of each other; as one block they do not count as if they were.

    Args:
        scores: Of one competitor, one a seed.
        places: The fold of each; where the rows are not divided into folds, the seed.
    """
    return [
        statistics.fmean(score for score, other in zip(scores, places, strict=True) if other == place)
        for place in sorted(set(places))
    ]
