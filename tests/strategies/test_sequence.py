from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.contract.architectures import build, build_on_meta, inputs, logits
from tests.training.samples import Recorder, plan, run, study
from tuner.strategies import STRATEGIES, resolve
from tuner.strategies.base import Phase, Strategy
from tuner.strategies.inserted import Inserted
from tuner.strategies.sequence import Sequence
from tuner.strategies.state import count_parameters, trained_names
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value
from tuner.study.plan import Verdict
from tuner.study.switch import SWITCH_AT, SWITCH_RATE

RANK: Mapping[str, Value] = {"lora.r": 2}


def stages(name: str, *, kind: str = "bert", params: Mapping[str, Value] = RANK) -> tuple[nn.Module, tuple[Phase, ...]]:
    model = build(kind)
    torch.manual_seed(1)
    strategy = resolve(name)
    strategy.apply(model, params)
    return model, strategy.phases(model, params)


def alone(name: str) -> set[str]:
    torch.manual_seed(1)
    return plain(trained_names(resolve(name).apply(build("bert"), RANK)))


def plain(names: frozenset[str]) -> set[str]:
    """Without the wrappers of layers that another stage adapts."""
    return {name.replace(".base_layer", "") for name in names}


@pytest.mark.parametrize(
    "name", ["head>full", "head>lora", "head>lora+bitfit", "bitfit>lora", "lora>bitfit", "adapter>lora", "lora>full"]
)
def test_each_stage_trains_what_it_would_train_alone(name: str) -> None:
    first, second = name.split(">")
    model, phases = stages(name)
    assert [plain(phase.trained) for phase in phases] == [alone(first), alone(second)]
    assert trained_names(model) == phases[0].trained | phases[1].trained


def test_each_stage_is_a_training_of_its_own() -> None:
    params = {"switch.at": 0.3, "switch.rate": 40.0}
    model, phases = stages("head>full", params=params)
    head = frozenset({"classifier.weight", "classifier.bias"})
    assert phases == (
        Phase(start=0.0, trained=head, rate=40.0, restarts=True),
        Phase(start=0.3, trained=trained_names(model), rate=1.0, restarts=True),
    )


def test_the_recipe_switches_after_a_quarter() -> None:
    _, phases = stages("head>lora")
    assert [(phase.start, phase.rate) for phase in phases] == [(0.0, 1.0), (0.25, 1.0)]


def test_its_facts_are_those_of_both_stages_and_the_switch() -> None:
    info = resolve("head>lora+bitfit").info
    assert info.name == "head>lora+bitfit"
    assert info.hyperparameters == (*STRATEGIES["lora"].info.hyperparameters, SWITCH_AT, SWITCH_RATE)
    assert info.learning_rate == STRATEGIES["lora"].info.learning_rate
    assert not info.combinable
    assert not info.sequential


@pytest.mark.parametrize("kind", ["bert", "t5", "resnet"])
def test_what_waits_for_its_stage_changes_no_logits(kind: str) -> None:
    before = logits(build(kind), inputs(kind))
    model, _ = stages("head>lora", kind=kind)
    assert torch.equal(logits(model, inputs(kind)), before)


def test_factors_of_learning_rates_are_those_of_the_stage_that_trains_last() -> None:
    params: Mapping[str, Value] = {"layerwise_decay.decay": 0.5}
    model, _ = stages("layerwise_decay>bitfit", params=params)
    found = resolve("layerwise_decay>bitfit").learning_rates(model, params)
    assert found["bert.encoder.layer.1.output.dense.weight"] == 0.5
    assert "bert.encoder.layer.1.output.dense.bias" not in found  # bitfit trains it last, and has no factors
    model, _ = stages("bitfit>layerwise_decay", params=params)
    found = resolve("bitfit>layerwise_decay").learning_rates(model, params)
    assert found["bert.encoder.layer.1.output.dense.bias"] == 0.5
    assert found["bert.embeddings.word_embeddings.weight"] == 0.125


class Projecting(Strategy):
    """Inserts one weight that is trained and one that never is."""

    info = StrategyInfo(name="projecting", summary="", learning_rate=((1e6, 1e-3),))

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        inserted = Inserted()
        inserted.trained = nn.Parameter(torch.zeros(2))
        inserted.fixed = nn.Parameter(torch.zeros(2), requires_grad=False)
        model.add_module("projecting", inserted)
        return model


def test_what_the_first_stage_never_trains_the_second_does_not_either() -> None:
    model = build("bert")
    sequence = Sequence(Projecting(), STRATEGIES["full"])
    sequence.apply(model, {})
    first, second = sequence.phases(model, {})
    assert first.trained == {"classifier.weight", "classifier.bias", "projecting.trained"}
    assert second.trained == {name for name, _ in build("bert").named_parameters()}
    assert trained_names(model) == first.trained | second.trained


@pytest.mark.parametrize("name", ["head>lora", "lora>full", "adapter>lora"])
def test_a_model_without_weights_is_counted(name: str) -> None:
    model = resolve(name).apply(build_on_meta("bert"), RANK)
    assert count_parameters(model) == count_parameters(stages(name)[0])


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_goes_on_bit_for_bit_before_and_after_the_switch(epoch: int, tmp_path: Path) -> None:
    spec = study(tmp_path, training={"epochs": 3})
    params: dict[str, Any] = {
        "strategy": "head>lora",
        "switch.at": 0.5,
        "switch.rate": 2.0,
        "lora.r": 2,
        "dropout": 0.2,
    }
    whole, first, second = Recorder(), Recorder(after=epoch, verdict=Verdict.RELEASE), Recorder()
    expected = run(plan(spec, tmp_path / "whole", **params), report=whole)
    run(plan(spec, tmp_path / "part", **params), report=first)
    found = run(plan(spec, tmp_path / "rest", resume_from=[tmp_path / "part"], **params), report=second)
    assert second.curve == whole.curve[epoch - 1 :]
    ours, theirs = (load_file(Path(result.checkpoint) / "weights.safetensors") for result in (expected, found))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(".lora_B." in name and tensor.any() for name, tensor in ours.items())


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_what_does_something_over_time_stands_in_no_sequence(strategy: Strategy) -> None:
    own = [name for name in ("phases", "penalty", "after_step") if name in overridden(strategy)]
    assert not (own and strategy.info.sequential), own


def overridden(strategy: Strategy) -> set[str]:
    return {name for name, method in inspect.getmembers(Strategy) if getattr(type(strategy), name) is not method}
