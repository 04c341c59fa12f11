"""Which few configurations to try first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tuner.search.portfolio import choose_cover, expected_regrets, regrets


def test_regrets_go_from_the_best_to_the_median() -> None:
    scores = np.array([0.9, 0.8, 0.5, 0.1, np.nan])
    assert regrets(scores, best=0.9) == pytest.approx([0.0, 0.1 / 0.25, 1.0, 1.0, 1.0])  # the median is 0.65
    assert regrets(scores, best=0.8).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert regrets(np.array([0.5, 0.5, np.nan]), best=0.5).tolist() == [0.0, 0.0, 1.0]


def test_a_study_knows_what_it_tried_and_guesses_its_neighbours() -> None:
    tried, found = np.array([[0.2, 0.5], [0.8, 0.5]]), np.array([0.0, 0.7])
    there, near_good, near_bad, far = expected_regrets(
        np.array([[0.2, 0.5], [0.25, 0.5], [0.75, 0.5], [0.5, 0.0]]), tried=tried, found=found
    )
    assert there == 0.0
    assert there < near_good < near_bad < 1.0
    assert near_good < far
    assert expected_regrets(np.zeros((2, 3)), tried=np.zeros((0, 3)), found=np.zeros(0)).tolist() == [1.0, 1.0]


def test_two_specialists_come_before_two_that_are_good_on_average() -> None:
    worth = np.array([[0.0, 0.9, 0.2, 0.25], [0.9, 0.0, 0.2, 0.25]])
    assert choose_cover(worth, size=3) == [2, 0, 1]
    assert choose_cover(worth[:, [0, 1, 3]], size=1) == [2]
    assert choose_cover(worth, size=9) == [2, 0, 1, 3]  # a second cover begins when nothing is left to lower
    assert choose_cover(worth, size=1, weights=[1.0, 9.0]) == [1]
    assert choose_cover(np.zeros((0, 0)), size=3) == []


def test_each_kind_has_its_turn() -> None:
    worth = np.array([[0.0, 0.1, 0.8, 0.9]])
    assert choose_cover(worth, size=4, kinds=["a", "a", "b", "b"]) == [0, 2, 1, 3]


def test_a_greedy_cover_is_near_the_best_set() -> None:
    worth = np.random.default_rng(0).random((6, 14))
    best = min(worth[:, list(chosen)].min(axis=1).mean() for chosen in itertools.combinations(range(14), 3))
    greedy = worth[:, choose_cover(worth, size=3)].min(axis=1).mean()
    assert best <= greedy <= best + (1.0 - best) / np.e
