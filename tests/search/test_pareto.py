"""Pruning by fronts: who is stopped, and when."""

from __future__ import annotations

import pytest

from tuner.search.pareto import why_dominated
from tuner.search.pruners import FEW_EPOCHS
from tuner.study.spec import ObjectiveSpec

OBJECTIVES = (ObjectiveSpec(metric="f1", goal="maximize"), ObjectiveSpec(metric="seconds", goal="minimize"))
STANDINGS = {0: {"f1": 0.9, "seconds": 1.0}, 1: {"f1": 0.8, "seconds": 2.0}, 2: {"f1": 0.1, "seconds": 9.0}}


@pytest.mark.parametrize(
    ("epoch", "epochs", "is_recipe", "is_stopped"),
    [
        (1, FEW_EPOCHS, False, True),
        (1, FEW_EPOCHS, True, False),  # a recipe is not judged by its first epoch
        (2, FEW_EPOCHS, True, True),
        (3, FEW_EPOCHS, False, False),  # no rung
        (4, FEW_EPOCHS - 1, False, True),
        (4, FEW_EPOCHS - 1, True, False),  # nor where epochs are few
    ],
)
def test_a_dominated_trial_is_stopped_on_a_rung_and_a_recipe_is_spared(
    epoch: int, epochs: int, is_recipe: bool, is_stopped: bool
) -> None:
    why = why_dominated(STANDINGS, number=2, epoch=epoch, epochs=epochs, objectives=OBJECTIVES, is_recipe=is_recipe)
    assert bool(why) is is_stopped
