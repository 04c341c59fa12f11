"""What a study will cost, before it begins."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.store.toy import toy_spec
from tuner.study.outlook import (
    Cost,
    Outlook,
    PastTraining,
    Span,
    conclude,
    foresee,
    mixed,
    rows_of_an_epoch,
    strategy_costs,
)


def past(strategy: str, per_epoch: float, *, fixed: float = 10.0, rows: float = 0.0, length: int = 128) -> PastTraining:
    return PastTraining(
        strategy=strategy, max_length=length, rows=rows, fixed=fixed, per_epoch=per_epoch, device="H100"
    )


PAST = (past("lora", 100.0), past("full", 200.0))  # 310 s and 610 s for three epochs


def of(*, workers: int = 1, seen: tuple[PastTraining, ...] = PAST, rows: float = 0.0, **changes: Any) -> Outlook:
    return foresee(toy_spec(**changes), past=seen, tried_first=2, rows=rows, workers=workers)


def test_the_high_end_is_everything_trained_to_the_end_and_half_of_it_dear() -> None:
    found = of(budget={"trials": 6}, search={"pruner": {"name": "none"}})
    mean, dear, cheap = 460.0, (460.0 + 610.0) / 2, (460.0 + 310.0) / 2
    assert found.device_hours.high == pytest.approx((2 * mean + 4 * dear) * 1.25 / 3600)
    assert found.device_hours.low == pytest.approx((mean + 4 * cheap) * 0.8 / 3600)
    assert found.money is None
    assert found.stands_on == "2 past trials of this model on H100"


def test_pruning_makes_the_low_end() -> None:
    kept = of(budget={"trials": 50}, search={"pruner": {"name": "none"}}, training={"epochs": 10})
    pruned = of(budget={"trials": 50}, training={"epochs": 10})
    patient = of(budget={"trials": 50}, search={"pruner": {"name": "none"}}, training={"epochs": 10, "patience": 2})
    assert pruned.device_hours.high == kept.device_hours.high == patient.device_hours.high
    assert pruned.device_hours.low < 0.4 * kept.device_hours.low
    assert pruned.device_hours.low < patient.device_hours.low < kept.device_hours.low
    epochs = of(budget={"epochs": 500}, training={"epochs": 10})  # what is saved is spent on other trials
    assert epochs.device_hours.low == kept.device_hours.low


def test_more_workers_take_less_time_and_the_same_device_hours() -> None:
    one, four = of(budget={"trials": 40}), of(budget={"trials": 40}, workers=4)
    assert one.device_hours == four.device_hours
    assert one.hours.low == pytest.approx(4 * four.hours.low)
    assert four.hours.high > four.device_hours.high / 4  # the last trial is waited for


def test_a_slot_waits_for_its_next_trial_where_only_time_ends_the_search() -> None:
    """Two slots that share 300 s are busy for 150 s, and for longer by the clock the more trials there are."""
    short = of(budget={"gpu_hours": 300 / 3600}, seen=(past("lora", 1.0, fixed=0.0),), workers=2)
    long = of(budget={"gpu_hours": 300 / 3600}, seen=(past("lora", 20.0, fixed=0.0),), workers=2)
    assert short.hours.high * 3600 - 3 * 1.25 > 150 + 10  # a hundred trials and more
    assert long.hours.high * 3600 - 60 * 1.25 < 150 + 5


def test_limits_cut_it_and_a_price_makes_it_money() -> None:
    assert of(budget={"trials": 6, "gpu_hours": 0.2}).device_hours.high == 0.2
    only = of(budget={"gpu_hours": 3.0, "price_per_hour": 2.0})
    assert (only.device_hours.low, only.device_hours.high) == pytest.approx((2.1, 3.0))
    assert only.money is not None
    assert (only.money.low, only.money.high) == pytest.approx((4.2, 6.0))
    assert of(budget={"money": 1.0, "price_per_hour": 2.0}).device_hours.high == pytest.approx(0.5)
    clock = of(budget={"hours": 2.0}, workers=3)
    assert (clock.hours.high, clock.device_hours.high) == pytest.approx((2.0, 6.0))
    assert not math.isinf(clock.device_hours.low)


def test_the_confirmation_is_part_of_it() -> None:
    without = of(budget={"trials": 6})
    found = of(budget={"trials": 6}, confirm={"finalists": 2, "seeds": 3})
    assert found.device_hours.high == pytest.approx(without.device_hours.high + 9 * 610.0 * 1.25 / 3600)
    assert found.device_hours.low > without.device_hours.low


def test_more_rows_and_longer_ones_cost_more() -> None:
    spec = toy_spec(training={"epochs": 3, "max_length": 128})
    seen = [
        past("lora", 100.0, rows=1000.0),
        past("lora", 50.0, rows=500.0),
        past("lora", 50.0, rows=1000.0, length=32),
    ]
    costs = strategy_costs(spec, past=seen, rows=2000.0)
    assert costs["lora"].per_epoch == pytest.approx(200.0)
    assert costs["full"] == costs["lora"]  # never trained: as the mean of those that were
    assert costs["lora"].fixed == 10.0
    assert rows_of_an_epoch(900, 300) == 1000.0


def test_a_trial_of_any_strategy() -> None:
    span = mixed({"a": Cost(fixed=1.0, per_epoch=1.0), "b": Cost(fixed=1.0, per_epoch=3.0)}, share=0.5, epochs=4)
    assert (span.low, span.high) == (4.0, 6.0)


@pytest.mark.parametrize("search", [Span(low=100.0, high=900.0), None])
@pytest.mark.parametrize("budget", [{"hours": 1.0}, {"gpu_hours": 0.5}, {"money": 1.0, "price_per_hour": 2.0}])
def test_what_is_past_its_limit_has_used_what_it_has_used(budget: dict[str, float], search: Span | None) -> None:
    """Hours go by while no worker is there, and `study set` may lower a limit."""
    found = conclude(
        toy_spec(budget={"trials": 9, **budget}),
        search=search,
        confirmation=Span(low=0.0, high=50.0),
        longest=20.0,
        trials=3,
        a_trial=10.0,
        workers=2,
        stands_on="trials",
        spent=1900.0,
        elapsed=36000.0,
    )
    assert found.device_hours.low >= 1900.0 / 3600.0
    assert found.hours.low >= 10.0
    if "hours" in budget:
        assert found.device_hours.high == pytest.approx(1900.0 / 3600.0)
        assert found.hours.high == pytest.approx(10.0)
