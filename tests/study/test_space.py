from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tuner.study.domains import Choice, Fixed, Range
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.space import SearchSpace, StrategySpace, learning_rate_prior

CURVE = ((1e6, 1e-2), (1e8, 1e-4))

SPACE = SearchSpace(
    strategies=(
        StrategySpace(
            strategy="head",
            prior=1e-3,
            domains={
                RELATIVE_LEARNING_RATE: Range(low=-1, high=1),
                "batch_size": Choice(options=(8, 16)),
                "dropout": Fixed(value=0.0),
            },
            recipe={RELATIVE_LEARNING_RATE: 0.0, "batch_size": 16},
        ),
    )
)


def test_decades_become_a_learning_rate() -> None:
    absolute = SPACE.absolute("head", {RELATIVE_LEARNING_RATE: 0.5, "batch_size": 8})
    assert absolute == {"learning_rate": pytest.approx(1e-3 * math.sqrt(10)), "batch_size": 8, "dropout": 0.0}


def test_searched_values_are_those_that_are_not_fixed() -> None:
    block = SPACE.block("head")
    domains = {**block.domains, "head.batch_size": Fixed(value=4), "head.share": Fixed(value=0.5)}
    del domains["batch_size"]
    space = SearchSpace(strategies=(replace(block, domains=domains),))
    absolute = space.absolute("head", {RELATIVE_LEARNING_RATE: 0.0})
    assert absolute == {"learning_rate": 1e-3, "dropout": 0.0, "batch_size": 4, "head.share": 0.5}
    assert space.searched("head", absolute) == {"learning_rate": 1e-3}


def test_names_and_blocks() -> None:
    assert SPACE.names == ("head",)
    with pytest.raises(KeyError):
        SPACE.block("lora")


@pytest.mark.parametrize(
    ("size", "rate"), [(1e6, 1e-2), (1e7, 1e-3), (1e8, 1e-4), (1e3, 1e-2), (0, 1e-2), (1e12, 1e-4)]
)
def test_prior_is_interpolated_on_log_axes_and_constant_beyond(size: float, rate: float) -> None:
    assert learning_rate_prior([CURVE], size) == pytest.approx(rate)


def test_prior_of_a_combination_is_the_geometric_mean() -> None:
    assert learning_rate_prior([((1e6, 1e-2),), ((1e6, 1e-4),)], 1e6) == pytest.approx(1e-3)
