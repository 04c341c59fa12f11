"""What the benchmark of several objectives counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.objectives import BUDGETS, hypervolume, normalised, search
from benchmarks.replay.own import load_table
from tests.source_tree import ROOT


def test_hypervolume_is_the_area_that_a_front_dominates() -> None:
    assert hypervolume(np.array([[1.0, 1.0]])) == 1.0
    assert hypervolume(np.array([[0.5, 0.5], [0.4, 0.4]])) == 0.25
    steps = np.array([[0.2, 0.9], [1.0, 0.1], [0.5, 0.5]])
    assert hypervolume(steps) == pytest.approx(1.0 * 0.1 + 0.5 * 0.4 + 0.2 * 0.4)


def test_what_is_better_is_nearer_to_one() -> None:
    task = load_table(ROOT / "benchmarks" / "data" / "strategies" / "curves.npz")[0]
    points = normalised(task)
    ended = np.isfinite(task.scores[:, -1])
    assert points.min() == 0.0
    assert points.max() == 1.0
    assert points[ended, 0].argmax() == task.scores[ended, -1].argmax()
    assert points[ended, 1].argmax() == task.seconds[ended, -1].argmin()
    assert (points[~ended] == 0.0).all()


def test_a_search_of_two_objectives_finds_more_with_more_trainings() -> None:
    task = load_table(ROOT / "benchmarks" / "data" / "strategies" / "curves.npz")[0]
    shares = search(task, sampler="auto", seed=0, recipes=True)
    assert len(shares) == len(BUDGETS)
    assert 0.3 < shares[0] <= shares[1] <= 1.0
