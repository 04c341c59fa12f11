from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from tuner.errors import ConflictError
from tuner.training.optimizer import (
    build_optimizer,
    learning_rate_factor,
    load_optimizer_state,
    optimizer_state,
)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    module(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedule_equals_that_of_transformers_after_the_warmup(schedule: str, warmup: int) -> None:
    optimizer = torch.optim.SGD(model().parameters(), lr=1.0)
    total = 40
    reference = {
        "linear": lambda: get_linear_schedule_with_warmup(optimizer, warmup, total),
        "cosine": lambda: get_cosine_schedule_with_warmup(optimizer, warmup, total),
        "constant": lambda: get_constant_schedule_with_warmup(optimizer, warmup),
    }[schedule]()
    for index in range(total):
        factor = learning_rate_factor(index, total=total, warmup=warmup, schedule=schedule)
        if index >= warmup:
            assert factor == pytest.approx(reference.get_last_lr()[0])
        else:  # theirs wastes the first step on a learning rate of 0
            assert factor == pytest.approx((index + 1) / warmup)
        optimizer.step()
        reference.step()


def test_a_run_of_one_step_has_the_full_rate() -> None:
    for schedule in ("linear", "cosine", "constant"):
        assert learning_rate_factor(0, total=1, warmup=0, schedule=schedule) == 1.0


def test_vectors_are_not_decayed() -> None:
    module = model()
    optimizer = build_optimizer(module, learning_rate=0.1, weight_decay=0.5)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in module.named_parameters()} == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.5,
        "2.bias": 0.0,
    }
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.1)


def test_frozen_parameters_are_left_out() -> None:
    module = model()
    module[0].requires_grad_(requires_grad=False)
    optimizer = build_optimizer(module, learning_rate=0.1, weight_decay=0.5)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_only_vectors_make_one_group() -> None:
    module = nn.LayerNorm(3)
    assert len(build_optimizer(module, learning_rate=0.1, weight_decay=0.5).param_groups) == 1


def test_saved_moments_go_on_bit_for_bit() -> None:
    first, second = model(), model()
    one = build_optimizer(first, learning_rate=0.1, weight_decay=0.1)
    two = build_optimizer(second, learning_rate=0.1, weight_decay=0.1)
    step(first, one)
    second.load_state_dict(first.state_dict())
    load_optimizer_state(two, second, {name: tensor.clone() for name, tensor in optimizer_state(one, first).items()})
    for module, optimizer in ((first, one), (second, two)):
        step(module, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_moments_of_other_parameters_are_refused() -> None:
    module = model()
    with pytest.raises(ConflictError, match="elsewhere"):
        load_optimizer_state(
            build_optimizer(module, learning_rate=0.1, weight_decay=0.0), module, {"elsewhere/exp_avg": torch.zeros(1)}
        )
