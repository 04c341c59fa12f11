from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_wsd_schedule,
)

from tuner.strategies.base import Phase
from tuner.study.domains import Choice
from tuner.study.hyperparameters import SHARED_HYPERPARAMETERS
from tuner.training.schedule import learning_rate_factor, stretch_at, timetable

A, B = frozenset({"a"}), frozenset({"a", "b"})
(SCHEDULES,) = (knob.allowed for knob in SHARED_HYPERPARAMETERS if knob.name == "schedule")
assert isinstance(SCHEDULES, Choice)
NAMES = [str(name) for name in SCHEDULES.options]


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedule_equals_that_of_transformers_after_the_warmup(schedule: str, warmup: int) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    total = 40
    reference = {
        "linear": lambda: get_linear_schedule_with_warmup(optimizer, warmup, total),
        "cosine": lambda: get_cosine_schedule_with_warmup(optimizer, warmup, total),
        "constant": lambda: get_constant_schedule_with_warmup(optimizer, warmup),
        "polynomial": lambda: get_polynomial_decay_schedule_with_warmup(optimizer, warmup, total, lr_end=0.0, power=2),
        "wsd": lambda: get_wsd_schedule(
            optimizer, warmup, 8, num_training_steps=total, decay_type="linear", min_lr_ratio=0.0
        ),
    }[schedule]()
    for index in range(total):
        factor = learning_rate_factor(index, total=total, warmup=warmup, schedule=schedule)
        if index >= warmup:
            assert factor == pytest.approx(reference.get_last_lr()[0])
        else:  # theirs wastes the first step on a learning rate of 0
            assert factor == pytest.approx((index + 1) / warmup)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_short_runs_are_trained(schedule: str, total: int) -> None:
    factors = [learning_rate_factor(step, total=total, warmup=0, schedule=schedule) for step in range(total)]
    assert factors[0] == 1.0
    assert all(0.0 < factor <= 1.0 for factor in factors)


def test_no_phases_are_one_that_trains_everything() -> None:
    (stretch,) = timetable((), trained=B, total=12)
    assert (stretch.first, stretch.trained, stretch.opens, stretch.closes) == (0, B, 0, 12)
    assert [stretch.factor(step, warmup_ratio=0.25, schedule="linear") for step in (0, 2, 3, 11)] == [
        1 / 3,
        1.0,
        1.0,
        pytest.approx(1 / 9),
    ]


def test_a_phase_goes_on_with_the_schedule() -> None:
    stretches = timetable((Phase(start=0.0, trained=A), Phase(start=0.5, trained=B, rate=0.1)), trained=B, total=10)
    assert [stretch_at(stretches, step).trained for step in (0, 4, 5, 9)] == [A, A, B, B]
    factors = [stretch_at(stretches, step).factor(step, warmup_ratio=0.0, schedule="linear") for step in range(10)]
    assert factors == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.05, 0.04, 0.03, 0.02, 0.01])


def test_a_phase_that_restarts_has_a_schedule_of_its_own_and_ends_the_one_before() -> None:
    phases = (Phase(start=0.0, trained=A, rate=2.0), Phase(start=0.2, trained=B, restarts=True))
    stretches = timetable(phases, trained=B, total=10)
    factors = [stretch_at(stretches, step).factor(step, warmup_ratio=0.25, schedule="linear") for step in range(10)]
    assert factors == pytest.approx([2.0, 1.0, 0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert [stretch.restarts for stretch in stretches] == [True, True]  # at step 0 there is nothing to forget


def test_phases_too_short_for_a_step_are_left_out_but_their_restart_is_not() -> None:
    phases = (
        Phase(start=0.0, trained=A),
        Phase(start=0.5, trained=A, restarts=True),
        Phase(start=0.51, trained=B),
        Phase(start=0.99, trained=A, restarts=True),
    )
    stretches = timetable(phases, trained=B, total=10)
    assert [(stretch.first, stretch.trained, stretch.restarts) for stretch in stretches] == [(0, A, True), (5, B, True)]
    assert (stretches[1].opens, stretches[1].closes) == (5, 10)


def test_what_is_never_trained_stays_frozen() -> None:
    model = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in "abc"})
    trained = frozenset({"a.weight", "b.weight"})
    model["c"].requires_grad_(requires_grad=False)
    phases = (Phase(start=0.0, trained=frozenset({"a.weight"})), Phase(start=0.5, trained=trained | {"c.weight"}))
    for stretch, expected in zip(
        timetable(phases, trained=trained, total=2), ([True, False, False], [True, True, False]), strict=True
    ):
        stretch.freeze_the_rest(model, trained=trained)
        assert [parameter.requires_grad for parameter in model.parameters()] == expected
