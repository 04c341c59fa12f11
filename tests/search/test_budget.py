"""When the search is over."""

from __future__ import annotations

import pytest

from tests.store.toy import toy_spec
from tuner.search.budget import used_share, why_no_new_trial, why_run_must_stop
from tuner.store.records import BudgetUse


def use(trials: int = 0, epochs: int = 0, gpu: float = 0.0, confirm: float = 0.0) -> BudgetUse:
    return BudgetUse(trials=trials, epochs=epochs, gpu_seconds=gpu, confirm_seconds=confirm)


@pytest.mark.parametrize(
    ("budget", "used", "reason"),
    [
        ({"trials": 5}, use(trials=4), ""),
        ({"trials": 5}, use(trials=5), "budget of 5 trials is used"),
        ({"epochs": 9}, use(epochs=6), ""),
        ({"epochs": 9}, use(epochs=7), "budget of 9 epochs is used (7 trained, 3 are needed for a trial)"),
        ({"gpu_hours": 1.0}, use(gpu=2879.0), ""),
        (
            {"gpu_hours": 1.0},
            use(gpu=2880.0),
            "budget of 1 device hours is used (a fifth is kept for the confirmation)",
        ),
        ({"gpu_hours": 1.0}, use(gpu=3000.0, confirm=500.0), ""),
        ({"trials": 5, "gpu_hours": 1.0}, use(trials=5, gpu=1.0), "budget of 5 trials is used"),
    ],
)
def test_the_first_limit_ends_the_search(budget: dict[str, float], used: BudgetUse, reason: str) -> None:
    assert why_no_new_trial(toy_spec(budget=budget, confirm={"finalists": 2}), used) == reason


def test_without_a_confirmation_the_search_has_all_hours() -> None:
    spec = toy_spec(budget={"gpu_hours": 1.0}, confirm={"finalists": 0})
    assert why_no_new_trial(spec, use(gpu=3599.0)) == ""
    assert why_no_new_trial(spec, use(gpu=3600.0)) == "budget of 1 device hours is used"


def test_running_trials_stop_at_their_part_of_the_hours() -> None:
    spec = toy_spec(budget={"gpu_hours": 1.0}, confirm={"finalists": 2})
    assert not why_run_must_stop(spec, use(gpu=2879.0), in_search=True)
    assert why_run_must_stop(spec, use(gpu=2880.0), in_search=True)
    assert not why_run_must_stop(spec, use(gpu=3599.0, confirm=700.0), in_search=False)
    assert why_run_must_stop(spec, use(gpu=3600.0, confirm=700.0), in_search=False)
    assert not why_run_must_stop(toy_spec(budget={"trials": 1}), use(gpu=1e9), in_search=True)


def test_the_tightest_limit_tells_the_share() -> None:
    spec = toy_spec(budget={"trials": 10, "epochs": 100, "gpu_hours": 1.0}, confirm={"finalists": 0})
    assert used_share(spec, use(trials=5, epochs=10, gpu=360.0)) == 0.5
    assert used_share(spec, use(trials=1, epochs=80, gpu=360.0)) == 0.8
    assert used_share(spec, use(trials=1, epochs=1, gpu=7200.0)) == 1.0
