"""Two strategies in one run, the second after the first: ``head>lora``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.strategies.base import Phase, Strategy
from tuner.strategies.combine import merge_all, parts_of
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value
from tuner.study.names import THEN
from tuner.study.switch import SWITCH_AT, SWITCH_HYPERPARAMETERS, SWITCH_RATE

if TYPE_CHECKING:
    from torch import nn

_STAGES = "tuner_stages"
"""Attribute of an adapted model: the names of the parameters that each stage trains."""


class Sequence(Strategy):
    """The first strategy is trained for a share of the steps, then the second for the rest, each as a run of its own.

    Both are applied before the first step. Everything that the second inserts is there from the beginning, and stands
    still until it is its turn; what the first inserted stays in its place, and stands still afterwards. Each stage
    trains what its strategy would train alone. The use of it: a head that is fitted first does not pull the pretrained
    layers out of shape while it is still random.

    Source: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution.
    """

    def __init__(self, first: Strategy, second: Strategy) -> None:
        """Two strategies or combinations, all of whose components are different and may stand in a sequence."""
        self.first = first
        self.second = second

    @property
    def info(self) -> StrategyInfo:  # type: ignore[override]
        """The facts of both stages, joined; the learning rate is that of the second."""
        infos = (self.first.info, self.second.info)
        return StrategyInfo(
            name=THEN.join(info.name for info in infos),
            summary=f"first {infos[0].summary}; then {infos[1].summary}",
            learning_rate=infos[1].learning_rate,
            hyperparameters=(*(knob for info in infos for knob in info.hyperparameters), *SWITCH_HYPERPARAMETERS),
            sequential=False,
            source="; ".join(info.source for info in infos),
        )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Apply both stages to a model whose head alone is trainable."""
        head = _trained(model)
        pretrained = set(model.parameters())
        model = self.first.apply(model, params)
        first = _trained(model)
        inserted = set(model.parameters()) - pretrained
        _train_only(model, head)
        model = self.second.apply(model, params)
        second = _trained(model) - inserted
        _train_only(model, first | second)
        # By name, now that all layers are wrapped; in the model, since a strategy remembers no model.
        stages = tuple(
            frozenset(name for name, parameter in model.named_parameters() if parameter in chosen)
            for chosen in (first, second)
        )
        setattr(model, _STAGES, stages)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Merge both stages, the second one first.

        Raises:
            UsageError: If one of them cannot be merged; nothing is merged then.
        """
        model = merge_all((*parts_of(self.first), *parts_of(self.second)), model)
        delattr(model, _STAGES)
        return model

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        """The factors of the second stage for what it trains, those of the first for the rest."""
        _, second = _stages(model)
        before = self.first.learning_rates(model, params)
        after = self.second.learning_rates(model, params)
        return {name: factor for name, factor in before.items() if name not in second} | {
            name: factor for name, factor in after.items() if name in second
        }

    def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
        """One phase for each stage; each begins with a fresh optimizer."""
        first, second = _stages(model)
        at, rate = (float(self.value(params, knob.name)) for knob in (SWITCH_AT, SWITCH_RATE))
        return (
            Phase(start=0.0, trained=first, rate=rate, restarts=True),
            Phase(start=at, trained=second, restarts=True),
        )


def _trained(model: nn.Module) -> set[nn.Parameter]:
    """What requires gradients; the parameters themselves, because inserted wrappers change their names."""
    return {parameter for parameter in model.parameters() if parameter.requires_grad}


def _train_only(model: nn.Module, chosen: set[nn.Parameter]) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in chosen)


def _stages(model: nn.Module) -> tuple[frozenset[str], frozenset[str]]:
    stages: tuple[frozenset[str], frozenset[str]] = getattr(model, _STAGES)
    return stages
