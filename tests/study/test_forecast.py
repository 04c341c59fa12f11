from __future__ import annotations

from typing import Any

import pytest

from tests.study.samples import CATALOGUE
from tuner.study.build import build_space
from tuner.study.file import validate_study
from tuner.study.forecast import Forecast, forecast
from tuner.study.spec import ConfirmSpec


def of(train_rows: int | None = 100, **sections: Any) -> Forecast:
    study = {
        "name": "demo",
        "task": "text-classification",
        "model": "owner/model",
        "data": {"train": "/train.csv"},
        "objective": {"metric": "loss"},
        "strategies": ["head", "lora"],
    }
    spec = validate_study({**study, **sections}, catalogue=CATALOGUE)
    return forecast(spec, space=build_space(spec, catalogue=CATALOGUE, parameters=1e8), train_rows=train_rows)


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        ({"trials": 10}, "search: at most 10 trials of up to 3 epochs, 30 epochs in all"),
        ({"trials": 10, "epochs": 20}, "search: at most 10 trials of up to 3 epochs, 20 epochs in all"),
        ({"epochs": 2000}, "search: trials until the budget is used of up to 3 epochs, 2,000 epochs in all"),
        ({"gpu_hours": 1.5}, "search: trials until the budget is used of up to 3 epochs, 1.5 device hours"),
        (
            {"trials": 4, "gpu_hours": 2.0},
            "search: at most 4 trials of up to 3 epochs, 12 epochs in all, 2 device hours",
        ),
        (
            {"trials": 4, "gpu_hours": 1.0, "hours": 3.0},
            "search: at most 4 trials of up to 3 epochs, 12 epochs in all, 1 device hour, 3 hours by the clock",
        ),
        (
            {"money": 2.0, "price_per_hour": 2.5},
            "search: trials until the budget is used of up to 3 epochs, a cost of 2 (0.8 device hours)",
        ),
        (
            {"money": 2.0, "price_per_hour": 2.5, "gpu_hours": 1.0},
            "search: trials until the budget is used of up to 3 epochs, 1 device hour, "
            "a cost of 2 (0.8 device hours, so the money binds)",
        ),
        (
            {"money": 2.0, "price_per_hour": 2.0, "gpu_hours": 0.001},
            "search: trials until the budget is used of up to 3 epochs, 3.6 device seconds, "
            "a cost of 2 (1 device hour, so the hours bind)",
        ),
    ],
)
def test_budget_in_words(budget: dict[str, float], line: str) -> None:
    assert of(budget=budget).lines()[1] == line


def test_one_of_everything() -> None:
    found = of(strategies=["head"], training={"epochs": 1}, space={"batch_size": 32}, confirm={"finalists": 0})
    assert found.lines() == (
        "1 strategy, 4 searched hyperparameters",
        "search: at most 30 trials of up to 1 epoch, 30 epochs in all",
        "steps: 4 in an epoch",
        "confirmation: none",
    )


def test_the_first_strategy_is_the_baseline_without_full() -> None:
    assert of(confirm={"finalists": 2, "seeds": 2}).lines()[-1] == (
        "confirmation: up to 6 runs with fresh seeds, 18 epochs "
        "(who falls out of the race is spared the last; the default recipe of head competes in any case)"
    )


@pytest.mark.parametrize(
    ("finalists", "seeds", "fewest", "most"),
    [(0, 5, 0, 0), (4, 1, 4, 5), (4, 2, 8, 10), (4, 5, 11, 19), (1, 5, 5, 10), (8, 3, 17, 27), (8, 4, 18, 24)],
)
def test_retrainings_of_a_race(finalists: int, seeds: int, fewest: int, most: int) -> None:
    confirm = ConfirmSpec(finalists=finalists, seeds=seeds)
    assert (confirm.fewest_runs, confirm.most_runs) == (fewest, most)


def test_steps_of_a_range_and_of_one_strategy() -> None:
    assert of(space={"batch_size": {"low": 10, "high": 50}, "lora": {"batch_size": 4}}).steps == (2, 10)


def test_unknown_rows_have_no_steps() -> None:
    assert of(train_rows=None).steps is None
