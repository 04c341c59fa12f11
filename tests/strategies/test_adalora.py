from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora import AdaLoraLayer, RankAllocator
from safetensors.torch import load_file
from torch import nn

from tests.contract.architectures import LABELS, build, inputs
from tests.strategies.reference import PREFIX, adapted
from tests.training.samples import plan, run, study
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.adalora import AdaLora
from tuner.strategies.rank_budget import Schedule, allocate, orthogonality
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state, trained_names
from tuner.training.checkpoint import WEIGHTS

STEPS = 30
LAYERS = 2 * 6 + 1  # of BERT: queries, keys, values, output, the two of the feed-forward; and the pooler


def peft_config(schedule: Schedule, *, steps: int) -> AdaLoraConfig:
    """The schedule in PEFT's words."""
    return AdaLoraConfig(
        init_r=6, target_r=4, lora_alpha=12, total_step=steps, tinit=schedule.first, tfinal=steps - schedule.last,
        deltaT=schedule.interval, orth_reg_weight=0.1, target_modules=["query", "key", "value", "dense"],
    )  # fmt: skip


def train(
    model: nn.Module, *, start: int = 0, stop: int = STEPS, steps: int = STEPS, skipped: Collection[int] = ()
) -> list[list[int]]:
    """Some steps of a run by plain gradient descent; the ranks of all layers after each.

    After skipped ones the strategy is not asked, as where float16 overflowed.
    """
    strategy, optimizer = AdaLora(), torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=3.0)
    ranks = []
    for step in range(start, stop):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(**inputs("bert")).logits, LABELS).backward()
        optimizer.step()
        if step not in skipped:
            strategy.after_step(model, {"adalora.r": 4}, step=step, steps=steps)
        ranks.append(ranks_of(model))
    return ranks


def layers_of(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, AdaLoraLayer)]


def ranks_of(model: nn.Module) -> list[int]:
    return [int(layer.lora_E["default"].count_nonzero()) for layer in layers_of(model)]


@pytest.mark.parametrize("steps", [4, 7, 30, 299, 1000])
def test_the_budget_is_that_of_peft(steps: int) -> None:
    schedule = Schedule.of_run(steps)
    theirs = RankAllocator(nn.ModuleDict(), peft_config(schedule, steps=steps), "default")
    theirs.init_bgt, theirs.target_bgt = 6 * LAYERS, 4 * LAYERS
    for step in range(steps):
        budget, is_due = theirs.budget_schedule(step)
        assert schedule.budget(step, first=6 * LAYERS, final=4 * LAYERS) == budget
        if step < schedule.last:  # afterwards PEFT's model forces one allocation and keeps its result
            assert schedule.is_due(step) == is_due
    assert not any(schedule.is_due(step) for step in range(schedule.last, steps))


def test_a_run_takes_the_ranks_away_that_peft_takes_away() -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    names = trained_names(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that it will lose
        theirs: Any = get_peft_model(build("bert"), peft_config(Schedule.of_run(STEPS), steps=STEPS))
    parameters = {name.removeprefix(PREFIX): parameter for name, parameter in theirs.named_parameters()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(model.get_parameter(name))
            parameter.requires_grad_(name in names)
    ranks = train(model)
    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=3.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(**inputs("bert")).logits, LABELS).backward()
        optimizer.step()
        theirs.base_model.update_and_allocate(step)
        assert ranks_of(theirs) == ranks[step], step
    for name in names:
        torch.testing.assert_close(model.get_parameter(name), parameters[name], rtol=1e-4, atol=1e-6)
    assert sum(ranks[0]) == 6 * LAYERS
    assert all(sum(after) <= 4 * LAYERS for after in ranks[STEPS // 2 :])
    assert len(set(ranks[-1])) > 1  # some layers have kept more than others


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    whole = adapted("adalora", "bert", {"adalora.r": 4})
    train(whole)
    for stop in (8, 20):  # while ranks are taken away, and when they are final
        part = adapted("adalora", "bert", {"adalora.r": 4})
        train(part, stop=stop)
        rest = adapted("adalora", "bert", {"adalora.r": 4}, seed=9)
        with torch.no_grad():
            load_trainable_state(rest, {name: tensor.clone() for name, tensor in trainable_state(part).items()})
        train(rest, start=stop)
        found = trainable_state(rest)
        assert all(torch.equal(tensor, found[name]) for name, tensor in trainable_state(whole).items())


def test_the_penalty_is_that_of_peft() -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # see above
        theirs: Any = get_peft_model(build("bert"), peft_config(Schedule.of_run(STEPS), steps=STEPS))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(model.get_parameter(name.removeprefix(PREFIX)))
        logits = theirs(**inputs("bert")).logits
        # PEFT adds it in the tuner's forward, by which a model without a task type passes.
        loss = theirs.base_model(**inputs("bert"), labels=LABELS).loss - nn.functional.cross_entropy(logits, LABELS)
    penalty = AdaLora().penalty(model, {"adalora.orthogonality": 0.1})
    assert penalty is not None
    torch.testing.assert_close(penalty.detach(), loss, rtol=1e-4, atol=1e-5)
    assert AdaLora().penalty(model, {"adalora.orthogonality": 0.0}) is None
    penalty.backward()
    assert all(layer.lora_A["default"].grad is not None for layer in layers_of(model))


def test_orthonormal_factors_cost_nothing() -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    with torch.no_grad():
        for layer in layers_of(model):
            nn.init.orthogonal_(layer.lora_A["default"])
            nn.init.orthogonal_(layer.lora_B["default"])
    assert orthogonality(model).item() < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_run_may_be_too_short_to_take_anything_away(steps: int) -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    ranks = train(model, stop=steps, steps=steps)
    assert 4 * LAYERS - LAYERS <= sum(ranks[-1]) <= 6 * LAYERS
    assert torch.isfinite(model(**inputs("bert")).logits).all()


@pytest.mark.parametrize("skipped", [{15}, {14, 15, 16}])
def test_the_ranks_become_final_though_the_step_of_it_was_not_taken(skipped: set[int]) -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    assert Schedule.of_run(STEPS).last == 15
    ranks = train(model, skipped=skipped)
    assert sum(ranks[max(skipped)]) > 4 * LAYERS
    assert all(sum(after) <= 4 * LAYERS for after in ranks[max(skipped) + 1 :])
    kept = torch.cat([layer.memory.kept for layer in layers_of(model)])
    assert int(kept.sum()) == sum(ranks[-1]) == sum(ranks[max(skipped) + 1])


def test_a_step_that_overflowed_is_forgotten() -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    train(model, stop=2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    allocate(model, schedule=Schedule.of_run(STEPS), step=2, ranks=(6, 4))
    assert all(torch.isfinite(tensor).all() for name, tensor in trainable_state(model).items() if ".memory." in name)
    assert any(tensor.any() for name, tensor in trainable_state(model).items() if ".memory.mean" in name)


def test_ranks_are_not_touched_while_something_else_is_trained() -> None:
    model = adapted("adalora", "bert", {"adalora.r": 4})
    before = {name: tensor.clone() for name, tensor in trainable_state(model).items()}
    allocate(model, schedule=Schedule.of_run(STEPS), step=STEPS // 2, ranks=(6, 4))  # without gradients
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(model).items())


@pytest.mark.parametrize("strategy", ["adalora", "norm+adalora"])
def test_an_average_keeps_the_budget(tmp_path: Path, strategy: str) -> None:
    spec = study(tmp_path, training={"epochs": 4, "select": "last"})
    values: dict[str, Any] = {"adalora.r": 4, "ema": 0.9}
    result = run(plan(spec, tmp_path / "run", strategy=strategy, **values))
    weights = load_file(Path(result.checkpoint) / WEIGHTS)
    components = [tensor for name, tensor in weights.items() if ".lora_E." in name]
    kept = [tensor for name, tensor in weights.items() if name.endswith(".memory.kept")]
    assert 0 < sum(int(tensor.count_nonzero()) for tensor in components) <= 4 * LAYERS
    assert len(components) == len(kept) == LAYERS


def test_it_trains_one_factor_more_for_each_rank_than_lora() -> None:
    sizes = {
        name: count_parameters(adapted(name, "bert", {"lora.r": 6, "adalora.r": 4}))[0] for name in ("lora", "adalora")
    }
    assert sizes["adalora"] == sizes["lora"] + 6 * LAYERS


def test_the_first_rank_must_fit() -> None:
    with pytest.raises(TrialInfeasible, match=r"adalora\.r 12 begins with rank 18, which exceeds the width 16 of"):
        adapted("adalora", "bert", {"adalora.r": 12})
    assert resolve("adalora").info.combinable
