"""The benchmark of folds: its studies are as the product would run them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import folds


@pytest.fixture(scope="module")
def study() -> folds.Study:
    return folds.search(3)


def test_the_network_learns_and_new_rows_are_of_the_same_problem(study: folds.Study) -> None:
    trained = folds.train(study.problem, folds.DEFAULT, fold=1, seed=[0])
    assert trained.curve[-1] > 50.0, "three classes: chance gives a third"
    assert abs(trained.on_new_rows(study.problem, epoch=8) - trained.curve[-1]) < 20.0
    assert trained.curve == folds.train(study.problem, folds.DEFAULT, fold=1, seed=[0]).curve


def test_a_fold_is_judged_by_a_network_that_has_not_seen_it(study: folds.Study) -> None:
    """What the rows of a fold say may change: no weight changes."""
    weights = folds.train(study.problem, folds.DEFAULT, fold=2, seed=[0]).weights
    other = folds.draw_problem(3)
    other.classes[other.folds == 2] = 0
    assert all(
        np.array_equal(layer, same)
        for now, then in zip(folds.train(other, folds.DEFAULT, fold=2, seed=[0]).weights, weights, strict=True)
        for layer, same in zip(now, then, strict=True)
    )


def test_the_race_has_every_other_fold_and_keeps_the_default(study: folds.Study) -> None:
    scores, trainings = study.race(by_fold=False)
    assert {len(row) for row in scores.values()} == {folds.FOLDS - 1}
    assert 0 in scores
    assert len(study.epochs) * 2 <= trainings <= len(study.epochs) * 4


def test_a_fold_that_chooses_its_epoch_is_never_told_less(study: folds.Study) -> None:
    fixed, chosen = (folds.Study.race(study, by_fold=by_fold)[0] for by_fold in (False, True))
    both = fixed.keys() & chosen.keys()
    assert both
    assert all(mine <= its for number in both for mine, its in zip(fixed[number], chosen[number], strict=True))


def test_the_table_names_every_way() -> None:
    told = folds.table(folds.measure(2))
    assert [line.split(" | ")[0].strip("| ") for line in told[2:-1]] == list(folds.WAYS)
