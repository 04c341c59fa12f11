from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.contract.architectures import build, inputs, logits
from tests.training.samples import tensors_of
from tuner.errors import UsageError
from tuner.strategies import resolve
from tuner.strategies.base import Phase, Strategy
from tuner.strategies.combine import Combination
from tuner.strategies.state import trained_names
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

NOTHING: Mapping[str, Value] = {}
RANK: Mapping[str, Value] = {"lora.r": 2, "oft.block_size": 4}


class Timed(Strategy):
    """A strategy that does something over time; what, is up to the test."""

    def __init__(self, *, name: str, factors: Mapping[str, float], penalty: float | None, seen: list[str]) -> None:
        self.info = StrategyInfo(name=name, summary="", learning_rate=((1e6, 1e-3),), combinable=True)  # type: ignore[misc]
        self._factors = factors
        self._penalty = penalty
        self._seen = seen

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        return model

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        return self._factors

    def penalty(self, model: nn.Module, params: Mapping[str, Value]) -> Tensor | None:
        return None if self._penalty is None else torch.tensor(self._penalty)

    def after_step(self, model: nn.Module, params: Mapping[str, Value], *, step: int, steps: int) -> None:
        self._seen.append(f"{self.info.name} {step}/{steps}")


class Scheduled(Timed):
    """A strategy with two phases, of which the first trains one bias alone."""

    def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
        first = frozenset({"classifier.bias"})
        second = first | {"classifier.weight"}
        return (Phase(start=0.0, trained=first), Phase(start=0.5, trained=second, rate=0.1, restarts=True))


def timed(name: str, *, kind: type[Timed] = Timed, penalty: float | None = None, **factors: float) -> Timed:
    return kind(name=name, factors=factors, penalty=penalty, seen=[])


def trained(name: str, kind: str = "bert") -> frozenset[str]:
    model = build(kind)
    torch.manual_seed(1)
    return trained_names(resolve(name).apply(model, RANK))


def test_factors_of_learning_rates_multiply() -> None:
    both = Combination([timed("a", x=0.5, y=2.0), timed("b", y=3.0, z=0.1)])
    assert both.learning_rates(nn.Linear(1, 1), NOTHING) == {"x": 0.5, "y": 6.0, "z": 0.1}


def test_penalties_are_added() -> None:
    model = nn.Linear(1, 1)
    both = Combination([timed("a", penalty=0.5), timed("b"), timed("c", penalty=0.25)])
    assert both.penalty(model, NOTHING) == torch.tensor(0.75)
    assert Combination([timed("a"), timed("b")]).penalty(model, NOTHING) is None


def test_each_component_is_told_of_every_step() -> None:
    seen: list[str] = []
    both = Combination([Timed(name=name, factors={}, penalty=None, seen=seen) for name in ("a", "b")])
    both.after_step(nn.Linear(1, 1), NOTHING, step=3, steps=9)
    assert seen == ["a 3/9", "b 3/9"]


def test_the_others_are_trained_in_all_phases_of_the_one_that_has_them() -> None:
    model = resolve("bitfit").apply(build("bert"), NOTHING)
    biases = trained_names(model) - {"classifier.bias", "classifier.weight"}
    both = Combination([resolve("bitfit"), timed("a", kind=Scheduled)])
    assert both.phases(model, NOTHING) == (
        Phase(start=0.0, trained=biases | {"classifier.bias"}),
        Phase(start=0.5, trained=biases | {"classifier.bias", "classifier.weight"}, rate=0.1, restarts=True),
    )
    assert Combination([resolve("bitfit"), resolve("lora")]).phases(model, NOTHING) == ()


def test_two_schedules_are_refused() -> None:
    with pytest.raises(UsageError, match=r'"a\+b" cannot be combined - each of a and b has its own schedule'):
        Combination([timed("a", kind=Scheduled), timed("b", kind=Scheduled)])


@pytest.mark.parametrize(
    "names", [("top_layers", "lora", "bitfit"), ("norm", "adapter", "lora"), ("adapter", "bitfit")]
)
def test_what_is_trained_does_not_depend_on_the_order(names: tuple[str, ...]) -> None:
    found = {trained("+".join(order)) for order in itertools.permutations(names)}
    assert len(found) == 1


def test_the_union_is_trained() -> None:
    plain = {name.replace(".base_layer", "") for name in trained("lora+norm+bitfit")}
    assert plain == {name.replace(".base_layer", "") for name in trained("lora") | trained("norm") | trained("bitfit")}


def test_biases_of_wrapped_layers_are_trained_and_no_frozen_weight() -> None:
    model = build("bert")
    biases = {name for name, _ in model.named_parameters() if name.startswith("bert.") and name.endswith(".bias")}
    found = {name.replace(".base_layer", "") for name in trained("lora+adapter+bitfit")}
    own = trained("lora") | trained("adapter")
    assert found == biases | {name.replace(".base_layer", "") for name in own}


def test_frozen_layers_below_the_trained_ones_get_the_update() -> None:
    updated = {name.rpartition(".lora_")[0] for name in trained("lora+top_layers") if ".lora_" in name}
    assert updated
    assert all(name.startswith("bert.encoder.layer.0.") for name in updated)


@pytest.mark.parametrize(
    "name", ["adapter+lora", "lora+adapter", "bitfit>lora+adapter", "lora>adapter", "adapter>lora"]
)
def test_a_refused_merge_changes_nothing(name: str) -> None:
    strategy, model = resolve(name), build("bert")
    strategy.apply(model, RANK)
    before, modules = tensors_of(model), dict(model.named_modules())
    with pytest.raises(UsageError, match="adapter cannot be merged"):
        strategy.merge(model)
    after = tensors_of(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
    assert dict(model.named_modules()) == modules
    strategy.learning_rates(model, RANK)  # a sequence still knows its stages


@pytest.mark.parametrize(
    "name",
    [
        "lora+norm+bitfit",
        "top_layers+lora",
        "lora>bitfit+norm",
        "lora>full",
        "intrinsic>oft",
        "oft>intrinsic",
        "intrinsic>lora+bitfit",
    ],
)
def test_what_can_be_merged_is_merged(name: str) -> None:
    strategy, model = resolve(name), build("bert")
    strategy.apply(model, RANK)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    expected = logits(model, inputs("bert"))
    merged = strategy.merge(model)
    assert merged is model
    assert model.state_dict().keys() == build("bert").state_dict().keys()
    torch.testing.assert_close(logits(model, inputs("bert")), expected, rtol=1e-4, atol=1e-5)
