from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.strategies.reference import adapted
from tests.training.samples import Recorder, plan, run, study
from tuner.errors import ConflictError
from tuner.study.domains import Choice
from tuner.study.hyperparameters import SHARED_HYPERPARAMETERS
from tuner.study.plan import Verdict
from tuner.training.checkpoint import WEIGHTS
from tuner.training.optimizer import (
    build_optimizer,
    is_vector,
    load_optimizer_state,
    optimizer_state,
    set_learning_rate,
)

(_KINDS,) = (knob.allowed for knob in SHARED_HYPERPARAMETERS if knob.name == "optimizer")
assert isinstance(_KINDS, Choice)
OPTIMIZERS = [str(kind) for kind in _KINDS.options]


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    module(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


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


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), True),
        ((3,), True),
        ((3, 1), True),
        ((1, 3, 1, 1), True),
        ((1, 1), True),
        ((3, 2), False),
        ((2, 1, 3), False),
    ],
)
def test_a_vector_is_one_row_however_it_is_stored(shape: tuple[int, ...], expected: bool) -> None:
    assert is_vector(torch.zeros(shape)) == expected


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_factors_that_begin_at_one_stay_there(kind: str) -> None:
    module = adapted("ia3", kind)
    factors = [parameter for name, parameter in module.named_parameters() if "ia3_l" in name]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(module, learning_rate=0.5, weight_decay=0.5).step()
    assert factors and all(bool((factor == 1.0).all()) for factor in factors)


def test_frozen_parameters_are_left_out() -> None:
    module = model()
    module[0].requires_grad_(requires_grad=False)
    optimizer = build_optimizer(module, learning_rate=0.1, weight_decay=0.5)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_only_vectors_make_one_group() -> None:
    module = nn.LayerNorm(3)
    assert len(build_optimizer(module, learning_rate=0.1, weight_decay=0.5).param_groups) == 1


def test_a_factor_makes_a_group_of_its_own() -> None:
    module = model()
    optimizer = build_optimizer(
        module, learning_rate=0.1, weight_decay=0.5, factors={"0.weight": 0.25, "0.bias": 0.25, "2.weight": 16.0}
    )
    set_learning_rate(optimizer, 0.2)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name: found[id(parameter)] for name, parameter in module.named_parameters()} == {
        "0.weight": (0.05, 0.5),
        "0.bias": (0.05, 0.0),
        "1.weight": (0.2, 0.0),
        "1.bias": (0.2, 0.0),
        "2.weight": (3.2, 0.5),
        "2.bias": (0.2, 0.0),
    }


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_saved_moments_go_on_bit_for_bit(kind: str) -> None:
    first, second = model(), model()
    one = build_optimizer(first, learning_rate=0.1, weight_decay=0.1, kind=kind)
    two = build_optimizer(second, learning_rate=0.1, weight_decay=0.1, kind=kind)
    for _ in range(3):
        step(first, one)
    second.load_state_dict(first.state_dict())
    saved = {name: tensor.clone() for name, tensor in optimizer_state(one, first).items()}
    load_optimizer_state(two, second, saved)
    assert {key.rpartition("/")[0] for key in saved} == {name for name, _ in first.named_parameters()}
    for module, optimizer in ((first, one), (second, two)):
        step(module, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "decoupled"), [("adamw", True), ("lion", True), ("adafactor", True), ("adam", False)])
def test_decay_is_decoupled_or_an_l2_penalty(kind: str, decoupled: bool) -> None:
    module = nn.Linear(2, 2, bias=False)
    nn.init.constant_(module.weight, 4.0)
    optimizer = build_optimizer(module, learning_rate=0.1, weight_decay=0.5, kind=kind)
    module.weight.grad = torch.zeros(2, 2)
    optimizer.step()
    # Decoupled: w (1 - lr wd). As a penalty its gradient is all there is, and Adam's first step has the size of the rate.
    expected = 4.0 * (1 - 0.1 * 0.5) if decoupled else 4.0 - 0.1
    torch.testing.assert_close(module.weight.detach(), torch.full((2, 2), expected))


def test_lion_steps_by_the_sign() -> None:
    module = nn.Linear(2, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    optimizer = build_optimizer(module, learning_rate=0.1, weight_decay=0.0, kind="lion")
    for gradient in ([3.0, -0.01], [-0.3, 0.5]):
        module.weight.grad = torch.tensor([gradient])
        optimizer.step()
    # Chen et al. 2023: c = .9 m + .1 g with m = .01 g of the step before; (.027 - .03, -.00009 + .05).
    torch.testing.assert_close(module.weight.detach(), torch.tensor([[1.0, 1.0]]))


def test_adafactors_rate_is_relative_and_capped() -> None:
    found = {}
    for rate in (0.01, 0.5, 0.9):
        module = nn.Linear(2, 1, bias=False)
        nn.init.constant_(module.weight, 4.0)
        optimizer = build_optimizer(module, learning_rate=rate, weight_decay=0.0, kind="adafactor")
        for _ in range(9):
            before = module.weight.detach().clone()
            module.weight.grad = torch.ones(1, 2)
            optimizer.step()
        found[rate] = (1 - module.weight.detach() / before).tolist()[0]
    assert found[0.01] == pytest.approx([0.01, 0.01], rel=1e-3)  # a hundredth of the weight
    assert found[0.5] == pytest.approx([1 / 3, 1 / 3], rel=1e-3)  # 1/sqrt(9) and no more
    assert found[0.9] == pytest.approx([1 / 3, 1 / 3], rel=1e-3)


def test_moments_of_other_parameters_are_refused() -> None:
    module = model()
    with pytest.raises(ConflictError, match="elsewhere"):
        load_optimizer_state(
            build_optimizer(module, learning_rate=0.1, weight_decay=0.0), module, {"elsewhere/exp_avg": torch.zeros(1)}
        )


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path, kind: str) -> None:
    spec, whole, rest = study(tmp_path, training={"epochs": 2}), Recorder(), Recorder()
    values: dict[str, Any] = {"optimizer": kind, "learning_rate": 3e-3, "weight_decay": 0.1}
    expected = run(plan(spec, tmp_path / "whole", **values), report=whole)
    run(plan(spec, tmp_path / "part", **values), report=Recorder(after=1, verdict=Verdict.RELEASE))
    found = run(plan(spec, tmp_path / "rest", resume_from=[tmp_path / "part"], **values), report=rest)
    assert rest.curve == whole.curve
    ours, theirs = (load_file(Path(result.checkpoint) / WEIGHTS) for result in (expected, found))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
