from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from tests.report.samples import make_finalist_of_predictions
from tuner.report.evidence import SCORES, find_row_luck, knows_row_luck

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
    bootstrap = find_row_luck(finalists, metric="macro_f1")
    assert bootstrap is not None
    differences = []
    for _ in range(600):
        rows = rng.integers(0, 300, size=300)
        scores = [REFERENCE["macro_f1"](truth[rows], np.array(found)[rows]) for found in (good, bad)]
        differences.append(scores[0] - scores[1])
    assert bootstrap.rows == 300
    assert bootstrap.variance(0, other=1) == pytest.approx(np.var(differences), rel=0.2)


def test_the_rows_add_what_a_proportion_varies_by() -> None:
    """All rows alike, and runs that err on other rows: the variance of their mean is what is left."""
    truth = (0,) * 1000
    finalist = make_finalist_of_predictions(0, truth=truth, predictions=[(0,) * 800 + (1,) * 200])
    bootstrap = find_row_luck([finalist], metric="accuracy")
    assert bootstrap is not None
    assert bootstrap.variance(0) == pytest.approx(0.8 * 0.2 / 1000, rel=0.15)


def test_the_same_study_gives_the_same_interval() -> None:
    finalist = make_finalist_of_predictions(0, truth=(0, 1, 0, 1), predictions=[(0, 1, 1, 1), (0, 0, 0, 1)])
    first, second = (find_row_luck([finalist], metric="macro_f1") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.variance(0) == second.variance(0)


def test_no_bootstrap_without_predictions_to_resample() -> None:
    one = make_finalist_of_predictions(0, truth=(0, 1), predictions=[(0, 1)])
    other = make_finalist_of_predictions(1, truth=(1, 1), predictions=[(0, 1)])
    assert find_row_luck([one], metric="auc") is None
    assert not knows_row_luck([one], metric="auc", split="test")
    assert find_row_luck([one, other], metric="accuracy") is None
    assert find_row_luck([], metric="accuracy") is None


def test_the_parts_of_the_rows_tell_what_drawing_them_does_to_a_loss() -> None:
    rng = np.random.default_rng(2)
    truth = (0, 1) * 200
    parts = rng.exponential(size=(2, 2, 400))  # finalists, seeds, rows
    finalists = []
    for number, runs in enumerate(parts):
        finalist = make_finalist_of_predictions(number, truth=truth, predictions=[truth, truth])
        tests = [replace(run.test, by_row=tuple(row)) for run, row in zip(finalist.runs, runs, strict=True) if run.test]
        scored = tuple(replace(run, test=test) for run, test in zip(finalist.runs, tests, strict=True))
        finalists.append(replace(finalist, runs=scored))
    luck = find_row_luck(finalists, metric="loss")
    assert knows_row_luck(finalists, metric="loss", split="test")
    assert luck is not None
    assert luck.rows == 400
    means = parts.mean(axis=1)
    drawn = [(means[0] - means[1])[rng.integers(0, 400, size=400)].mean() for _ in range(2000)]
    assert luck.variance(0, other=1) == pytest.approx(np.var(drawn), rel=0.1)
    assert luck.variance(0) == pytest.approx(means[0].var(ddof=1) / 400)
    kept = finalists[0].runs[0].test
    assert kept is not None
    without = replace(finalists[0], runs=(replace(finalists[0].runs[0], test=replace(kept, by_row=())),))
    assert find_row_luck([without, finalists[1]], metric="loss") is None
