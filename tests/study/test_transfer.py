"""What a trial of one study means in another."""

from __future__ import annotations

from typing import Any

import pytest

from tests.study.samples import CATALOGUE
from tuner.study.build import resolve_space
from tuner.study.domains import Choice, Domain, Fixed, Range, Value
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.transfer import Transferred, transfer, unit_point


def block(raw: dict[str, Any], *, parameters: float = 1e8, strategy: str = "lora") -> StrategySpace:
    resolved = resolve_space(raw, strategies=[strategy], catalogue=CATALOGUE, parameters=parameters)
    assert resolved.problems == ()
    return resolved.space.strategies[0]


def params_of(source: StrategySpace, **changes: Any) -> dict[str, Any]:
    """A trial of the recipe, absolute, with some values changed."""
    return SearchSpace(strategies=(source,)).absolute(source.strategy, source.recipe) | changes


def carried(params: dict[str, Any], *, source: StrategySpace, target: StrategySpace) -> Transferred:
    found = transfer(params, source=source, target=target)
    assert found is not None
    return found


def test_a_default_recipe_is_the_default_recipe_of_another_size() -> None:
    small, large = block({}, parameters=4e6), block({}, parameters=3e8)
    assert small.prior != large.prior
    assert dict(carried(params_of(small), source=small, target=large).values) == dict(large.recipe)


def test_the_learning_rate_keeps_its_distance_from_the_strategys_own() -> None:
    small, large = block({}, parameters=4e6), block({}, parameters=3e8)
    found = carried(params_of(small, learning_rate=small.prior * 4), source=small, target=large)
    assert found.values["learning_rate_decades"] == pytest.approx(0.602, abs=1e-3)
    absolute = block({"learning_rate": {"low": 1e-6, "high": 1.0, "log": True}}, parameters=3e8)
    found = carried(params_of(small, learning_rate=small.prior * 4), source=small, target=absolute)
    assert found.values["learning_rate"] == pytest.approx(large.prior * 4)


def test_numbers_outside_the_ranges_are_clipped_and_named() -> None:
    source, target = block({}), block({"batch_size": [4, 8], "dropout": {"low": 0.0, "high": 0.05}})
    found = carried(params_of(source, learning_rate=source.prior * 1e3), source=source, target=target)
    assert (found.values["batch_size"], found.values["dropout"], found.values["learning_rate_decades"]) == (
        8,
        0.05,
        1.5,
    )
    assert sorted(found.clipped) == ["batch_size", "dropout", "learning_rate"]


def test_what_the_study_fixes_stays_and_what_the_trial_did_not_have_is_the_recipes() -> None:
    source, target = block({}), block({"batch_size": 4, "schedule": "cosine", "ema": [0.0, 0.99]})
    params = params_of(source)
    del params["ema"]
    found = carried(params, source=source, target=target)
    assert "batch_size" not in found.values and "schedule" not in found.values
    assert found.values["ema"] == target.recipe["ema"]
    assert found.clipped == ()


def test_a_word_that_is_not_offered_or_another_optimizer_does_not_carry_over() -> None:
    source = block({"schedule": ["linear", "cosine"], "optimizer": ["adamw", "lion"]})
    params = params_of(source, schedule="cosine")
    assert transfer(params, source=source, target=block({"schedule": ["linear", "wsd"]})) is None
    assert transfer(params, source=source, target=block({"schedule": ["cosine", "wsd"]})) is not None
    assert transfer(params | {"optimizer": "lion"}, source=source, target=block({})) is None
    assert transfer(params | {"optimizer": "lion"}, source=source, target=source) is not None


def test_points_lie_in_the_unit_cube() -> None:
    domains: dict[str, Domain] = {
        "fixed": Fixed(value=1),
        "log": Range(low=1e-4, high=1.0, log=True),
        "plain": Range(low=2.0, high=4.0),
        "point": Range(low=2.0, high=2.0),
        "number": Choice(options=(32, 8, 16)),
        "word": Choice(options=("a", "b", "c")),
        "flag": Choice(options=(False, True)),
    }
    space = StrategySpace(strategy="x", prior=1.0, domains=domains, recipe={})
    values: dict[str, Value] = {"log": 1e-2, "plain": 2.5, "point": 2.0, "number": 16, "word": "c", "flag": True}
    assert unit_point(space, values) == pytest.approx([0.5, 0.25, 0.0, 0.5, 0, 0, 1, 0, 1])
