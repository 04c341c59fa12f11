"""When the search is over."""

from __future__ import annotations

import pytest

from tests.store.toy import toy_spec
from tuner.search.budget import (
    has_clock,
    least_limits,
    seconds_until_stop,
    used_share,
    why_no_new_trial,
    why_no_retraining,
    why_run_must_stop,
)
from tuner.store.records import BudgetUse, Outcome, RunGroup


def use(
    trials: int = 0,
    epochs: int = 0,
    gpu: float = 0.0,
    confirm: float = 0.0,
    wall: float = 0.0,
    groups: tuple[RunGroup, ...] = (),
) -> BudgetUse:
    return BudgetUse(
        trials=trials, epochs=epochs, gpu_seconds=gpu, confirm_seconds=confirm, wall_seconds=wall, groups=groups
    )


def runs(count: int, *, seconds: float, outcome: Outcome = Outcome.COMPLETE, in_search: bool = True) -> RunGroup:
    """So many runs of three epochs, each with these device seconds; those that run have not finished an epoch."""
    return RunGroup(
        in_search=in_search,
        strategy="lora",
        outcome=outcome,
        runs=count,
        epochs=3 if outcome is Outcome.COMPLETE else 0,
        reserved=3,
        seconds=count * seconds,
    )


@pytest.mark.parametrize(
    ("budget", "used", "reason"),
    [
        ({"trials": 5}, use(trials=4), ""),
        ({"trials": 5}, use(trials=5), "budget of 5 trials is used"),
        ({"epochs": 9}, use(epochs=6), ""),
        ({"epochs": 9}, use(epochs=7), "budget of 9 epochs is used (7 trained, a trial needs 3)"),
        ({"gpu_hours": 1.0}, use(gpu=2879.0), ""),
        (
            {"gpu_hours": 1.0},
            use(gpu=2880.0),
            "budget of 1 device hour is used (a fifth is kept for the confirmation)",
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
    assert why_no_new_trial(spec, use(gpu=3600.0)) == "budget of 1 device hour is used"


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


TEN = runs(10, seconds=300.0)


@pytest.mark.parametrize(
    ("used", "reason"),
    [
        (use(gpu=3000.0, groups=(TEN,)), ""),
        (use(gpu=3300.0, groups=(TEN,)), ""),
        (use(gpu=3310.0, groups=(TEN,)), "budget of 1 device hour has 4.83 min left; a trial needs about 5 min"),
        (
            use(gpu=3200.0, groups=(TEN, runs(2, seconds=100.0, outcome=Outcome.RUNNING))),
            "budget of 1 device hour has 6.67 min left, 6.67 min of them promised to what runs; a trial needs about 5 min",
        ),
        (use(gpu=3600.0, groups=(TEN,)), "budget of 1 device hour is used"),
    ],
)
def test_a_trial_that_could_not_be_finished_is_refused(used: BudgetUse, reason: str) -> None:
    assert why_no_new_trial(toy_spec(budget={"gpu_hours": 1.0}), used) == reason


def test_the_search_leaves_what_the_confirmation_needs_and_at_most_a_fifth() -> None:
    spec = toy_spec(budget={"gpu_hours": 1.0}, confirm={"finalists": 2, "seeds": 1})
    cheap = runs(30, seconds=100.0)  # three re-trainings of 100 s
    assert not why_run_must_stop(spec, use(gpu=3299.0, groups=(cheap,)), in_search=True)
    assert why_run_must_stop(spec, use(gpu=3300.0, groups=(cheap,)), in_search=True) == (
        "budget of 1 device hour is used (5 min are kept for the confirmation)"
    )
    dear = runs(9, seconds=320.0)
    assert not why_run_must_stop(spec, use(gpu=2879.0, groups=(dear,)), in_search=True)
    assert why_run_must_stop(spec, use(gpu=2880.0, groups=(dear,)), in_search=True)


def test_a_retraining_that_could_not_be_finished_is_refused() -> None:
    spec = toy_spec(budget={"gpu_hours": 1.0}, confirm={"finalists": 2})
    assert why_no_retraining(spec, use(gpu=3300.0, confirm=300.0, groups=(TEN,)), "lora") == ""
    running = runs(1, seconds=50.0, outcome=Outcome.RUNNING, in_search=False)
    assert why_no_retraining(spec, use(gpu=3300.0, confirm=300.0, groups=(TEN, running)), "lora") == (
        "budget of 1 device hour has 5 min left, 4.17 min of them promised to what runs; a re-training needs about 5 min"
    )
    assert why_no_retraining(toy_spec(), use(gpu=1e9, groups=(TEN,)), "lora") == ""


def test_money_is_device_hours_at_a_price() -> None:
    spec = toy_spec(budget={"money": 5.0, "price_per_hour": 2.5, "gpu_hours": 3.0})
    assert why_no_new_trial(spec, use(gpu=7199.0)) == ""
    assert why_no_new_trial(spec, use(gpu=7200.0)) == "budget of 5 (2 device hours at 2.5) is used"
    assert used_share(spec, use(gpu=3600.0)) == 0.5
    assert has_clock(spec.budget)
    dear = toy_spec(budget={"money": 50.0, "price_per_hour": 2.5, "gpu_hours": 3.0})
    assert why_no_new_trial(dear, use(gpu=10800.0)) == "budget of 3 device hours is used"
    assert not has_clock(toy_spec(budget={"trials": 3, "price_per_hour": 2.5}).budget)


def test_hours_by_the_clock() -> None:
    spec = toy_spec(budget={"hours": 1.0})
    assert why_no_new_trial(spec, use(wall=3599.0)) == ""
    assert why_no_new_trial(spec, use(wall=3600.0)) == "budget of 1 hour since the first trial is used"
    assert why_no_new_trial(spec, use(wall=3400.0, groups=(TEN,))) == (
        "budget of 1 hour has 3.33 min left; a trial needs about 5 min"
    )
    assert used_share(spec, use(wall=1800.0)) == 0.5
    kept = toy_spec(budget={"hours": 1.0}, confirm={"finalists": 1})
    assert why_run_must_stop(kept, use(wall=2880.0), in_search=True) == (
        "budget of 1 hour since the first trial is used (a fifth is kept for the confirmation)"
    )
    assert not why_run_must_stop(kept, use(wall=3599.0), in_search=False)
    assert why_run_must_stop(kept, use(wall=3600.0), in_search=False)


def test_how_soon_the_limit_may_be_reached() -> None:
    running = runs(4, seconds=0.0, outcome=Outcome.RUNNING)
    assert seconds_until_stop(toy_spec(), use(groups=(running,)), in_search=True) == float("inf")
    hours = toy_spec(budget={"gpu_hours": 1.0})
    assert seconds_until_stop(hours, use(gpu=3560.0, groups=(running,)), in_search=True) == 10.0
    both = toy_spec(budget={"gpu_hours": 1.0, "hours": 1.0})
    assert seconds_until_stop(both, use(gpu=3560.0, wall=3597.0, groups=(running,)), in_search=True) == 3.0
    assert seconds_until_stop(both, use(gpu=3700.0), in_search=True) == 0.0


def test_the_least_limits_are_those_of_which_not_too_much_is_used() -> None:
    spec = toy_spec(budget={"gpu_hours": 10.0}, confirm={"finalists": 2, "seeds": 1})
    assert least_limits(spec, use(gpu=2880.0, wall=360.0)).gpu_hours == 1.0
    assert least_limits(spec, use(gpu=2880.0, wall=360.0)).hours == 0.13
    cheap = runs(30, seconds=100.0)
    found = least_limits(spec, use(gpu=3300.0, groups=(cheap,))).gpu_hours
    assert found == 1.0
    tight = toy_spec(budget={"gpu_hours": found}, confirm={"finalists": 2, "seeds": 1})
    assert not why_run_must_stop(tight, use(gpu=3299.0, groups=(cheap,)), in_search=True)
