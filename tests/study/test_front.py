from __future__ import annotations

import random

import optuna
import pytest

from tuner.study.front import dominates, find_knee, front_ranks, spread


def test_dominates() -> None:
    assert dominates((1, 1), (1, 2))
    assert not dominates((1, 2), (2, 1))
    assert not dominates((1, 1), (1, 1))


@pytest.mark.parametrize("objectives", [2, 3])
def test_front_is_optunas(objectives: int) -> None:
    generator = random.Random(objectives)
    points = [tuple(generator.randrange(8) for _ in range(objectives)) for _ in range(60)]  # with equal ones
    study = optuna.create_study(directions=["minimize"] * objectives)
    study.add_trials([optuna.trial.create_trial(values=[float(value) for value in point]) for point in points])
    ranks = front_ranks(points)
    assert [trial.number for trial in study.best_trials] == [i for i, rank in enumerate(ranks) if rank == 0]
    for index, rank in enumerate(ranks):
        better = [ranks[other] for other in range(len(points)) if dominates(points[other], points[index])]
        assert rank == max(better, default=-1) + 1


def test_knee_is_where_both_are_nearly_best() -> None:
    assert find_knee([(0.0, 1.0), (0.1, 0.1), (1.0, 0.0)]) == 1
    assert find_knee([(0.0, 1000.0), (1e-6, 100.0), (1e-5, 0.0)]) == 1  # scaled, not by units
    assert find_knee([(0.0, 1.0), (0.9, 0.2), (1.0, 0.0)]) == 1  # no end
    assert find_knee([(1.0, 0.0, 0.0), (0.1, 0.6, 0.9), (0.0, 1.0, 1.0)]) == 1  # nor where two things go together
    assert find_knee([(0.0, 1.0), (1.0, 0.0)]) is None
    assert find_knee([]) is None


def test_spread_goes_to_the_farthest() -> None:
    points = [(0.0, 1.0), (0.05, 0.9), (0.4, 0.4), (0.9, 0.1), (1.0, 0.0)]
    assert spread(points, first=[0, 2])[:3] == [0, 2, 4]
    assert sorted(spread(points, first=[])) == [0, 1, 2, 3, 4]
