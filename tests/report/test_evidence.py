from __future__ import annotations

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from sklearn import metrics

from tests.report.samples import make_finalist_of_predictions
from tuner.report.evidence import SCORES, bootstrap_test, compare_replicates, compare_seeds

REFERENCE = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": lambda truth, found: metrics.f1_score(truth, found, average="macro", zero_division=0),
    "precision": lambda truth, found: metrics.precision_score(truth, found, average="macro", zero_division=0),
    "recall": lambda truth, found: metrics.recall_score(truth, found, average="macro", zero_division=0),
}


def draw(rng: np.random.Generator, *, rows: int, wrong: float, truth: np.ndarray) -> tuple[int, ...]:
    noise = rng.integers(0, 4, size=rows)
    return tuple(int(cell) for cell in np.where(rng.uniform(size=rows) < wrong, noise, truth))


@pytest.mark.parametrize("metric", sorted(SCORES))
def test_metrics_of_counts_are_those_of_scikit_learn(metric: str) -> None:
    rng = np.random.default_rng(0)
    # Class 4 is never predicted and class 5 never true.
    truth = rng.choice([0, 1, 2, 4], size=50)
    found = rng.choice([0, 1, 2, 5], size=50)
    counts = tuple(
        np.bincount(values, minlength=6).astype(np.float64) for values in (truth[truth == found], truth, found)
    )
    assert SCORES[metric]((counts[0], counts[1], counts[2])) == pytest.approx(REFERENCE[metric](truth, found))


def test_the_bootstrap_over_patterns_is_the_bootstrap_over_rows() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, size=300)
    good, bad = (draw(rng, rows=300, wrong=wrong, truth=truth) for wrong in (0.1, 0.3))
    truth_row = tuple(int(cell) for cell in truth)
    finalists = [
        make_finalist_of_predictions(0, truth=truth_row, predictions=[good]),
        make_finalist_of_predictions(1, truth=truth_row, predictions=[bad]),
    ]
    bootstrap = bootstrap_test(finalists, metric="macro_f1")
    assert bootstrap is not None
    low, high, probability = compare_replicates(bootstrap.replicates[0], bootstrap.replicates[1], sign=1.0)

    differences = []
    for _ in range(600):
        rows = rng.integers(0, 300, size=300)
        scores = [REFERENCE["macro_f1"](truth[rows], np.array(found)[rows]) for found in (good, bad)]
        differences.append(scores[0] - scores[1])
    assert bootstrap.rows == 300
    assert probability is not None
    assert [low, high] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=0.012)
    assert probability > 0.999


def test_seeds_widen_the_interval_by_their_variance() -> None:
    """All rows alike: what is left is the variance of the mean over three seeds."""
    truth = (0,) * 1000
    finalist = make_finalist_of_predictions(
        0, truth=truth, predictions=[(0,) * right + (1,) * (1000 - right) for right in (700, 800, 900)]
    )
    bootstrap = bootstrap_test([finalist], metric="accuracy")
    assert bootstrap is not None
    # The variance of a mean of three is s²/3 = 0.01 / 3; rows add p(1-p)/1000.
    assert np.std(bootstrap.replicates[0]) == pytest.approx((0.01 / 3 + 0.16 / 1000) ** 0.5, rel=0.08)


def test_the_same_study_gives_the_same_interval() -> None:
    finalist = make_finalist_of_predictions(0, truth=(0, 1, 0, 1), predictions=[(0, 1, 1, 1), (0, 0, 0, 1)])
    first, second = (bootstrap_test([finalist], metric="macro_f1") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.interval(0) == second.interval(0)


def test_no_bootstrap_without_predictions_to_resample() -> None:
    one = make_finalist_of_predictions(0, truth=(0, 1), predictions=[(0, 1)])
    other = make_finalist_of_predictions(1, truth=(1, 1), predictions=[(0, 1)])
    assert bootstrap_test([one], metric="auc") is None
    assert bootstrap_test([one, other], metric="accuracy") is None
    assert bootstrap_test([], metric="accuracy") is None


def test_seeds_alone_are_compared_by_welchs_t() -> None:
    winner, other = [0.90, 0.93, 0.91], [0.88, 0.89, 0.84]
    reference = stats.ttest_ind(winner, other, equal_var=False, alternative="two-sided")
    interval = reference.confidence_interval(0.95)
    low, high, probability = compare_seeds(winner, other)
    assert (low, high) == pytest.approx((interval.low, interval.high))
    assert probability == pytest.approx(1 - reference.pvalue / 2)


def test_too_few_seeds_say_nothing() -> None:
    assert compare_seeds([0.9], [0.8, 0.7]) == (None, None, None)


@pytest.mark.parametrize("other", [[0.925, 0.925], [0.95, 0.95], [0.2, 0.2, 0.2]])
def test_seeds_without_spread_say_nothing(other: list[float]) -> None:
    assert compare_seeds([0.95, 0.95], other) == (None, None, None)


def test_spread_by_rounding_alone_is_no_spread() -> None:
    assert compare_seeds([0.1 + 0.2, 0.3], [0.2, 0.2]) == (None, None, None)


def test_replicates_that_never_differ_say_nothing() -> None:
    first = np.array([0.7, 0.8, 0.9])
    assert compare_replicates(first, first - 0.05, sign=1.0) == (None, None, None)
