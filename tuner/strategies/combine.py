"""Several strategies on one model: ``lora+bitfit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value
from tuner.study.names import COMBINE

if TYPE_CHECKING:
    from torch import nn


class Combination(Strategy):
    """The components one after the other, in the order they were written.

    Each one only adds to what is trained, so the combination trains the union, and saves it by the same rule as any
    single strategy.
    """

    def __init__(self, components: Sequence[Strategy]) -> None:
        """Two or more different strategies, all of them combinable."""
        self.components = tuple(components)

    @property
    def info(self) -> StrategyInfo:  # type: ignore[override]
        """The facts of the components, joined; the learning rate's curves are combined by the search space."""
        infos = [component.info for component in self.components]
        return StrategyInfo(
            name=COMBINE.join(info.name for info in infos),
            summary="; ".join(info.summary for info in infos),
            learning_rate=infos[0].learning_rate,
            hyperparameters=tuple(knob for info in infos for knob in info.hyperparameters),
            source="; ".join(info.source for info in infos),
        )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Apply each component."""
        for component in self.components:
            model = component.apply(model, params)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Merge each component, the last one first."""
        for component in reversed(self.components):
            model = component.merge(model)
        return model
