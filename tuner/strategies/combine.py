"""Several strategies on one model: ``lora+bitfit``."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuner.errors import UsageError
from tuner.strategies.base import Phase, Strategy
from tuner.strategies.state import trained_names
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value
from tuner.study.names import COMBINE

if TYPE_CHECKING:
    from torch import Tensor, nn


class Combination(Strategy):
    """The components one after the other; each one only adds to what is trained, so the combination trains the union.

    Those that only unfreeze come first, whatever order was written: they speak of the pretrained layers, and what
    others insert is no business of theirs. So what is trained does not depend on the order.
    """

    def __init__(self, components: Sequence[Strategy]) -> None:
        """Two or more different strategies, all of them combinable.

        Raises:
            UsageError: If two of them have a schedule of what is trained when.
        """
        self.components = tuple(components)
        self.in_order = tuple(sorted(components, key=inserts))
        scheduled = [item.info.name for item in components if type(item).phases is not Strategy.phases]
        if len(scheduled) > 1:
            raise UsageError(
                f'"{self.info.name}" cannot be combined', why=f"each of {' and '.join(scheduled)} has its own schedule"
            )

    @property
    def info(self) -> StrategyInfo:  # type: ignore[override]
        """The facts of the components, joined; the learning rate's curves are combined by the search space."""
        infos = [component.info for component in self.components]
        return StrategyInfo(
            name=COMBINE.join(info.name for info in infos),
            summary="; ".join(info.summary for info in infos),
            learning_rate=infos[0].learning_rate,
            hyperparameters=tuple(knob for info in infos for knob in info.hyperparameters),
            sequential=all(info.sequential for info in infos),
            source="; ".join(info.source for info in infos),
        )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Apply each component."""
        for component in self.in_order:
            model = component.apply(model, params)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Merge each component, the last one first.

        Raises:
            UsageError: If one of them cannot be merged; nothing is merged then.
        """
        return merge_all(self.in_order, model)

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        """The product of the components' factors."""
        factors: defaultdict[str, float] = defaultdict(lambda: 1.0)
        for component in self.components:
            for name, factor in component.learning_rates(model, params).items():
                factors[name] *= factor
        return dict(factors)

    def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
        """The phases of the one component that has any; what they do not speak of is trained in all of them."""
        found = next((phases for component in self.components if (phases := component.phases(model, params))), ())
        scheduled = frozenset[str]().union(*(phase.trained for phase in found))
        always = trained_names(model) - scheduled
        return tuple(
            Phase(start=phase.start, trained=phase.trained | always, rate=phase.rate, restarts=phase.restarts)
            for phase in found
        )

    def penalty(self, model: nn.Module, params: Mapping[str, Value]) -> Tensor | None:
        """The sum of the components' penalties."""
        total: Tensor | None = None
        for component in self.components:
            penalty = component.penalty(model, params)
            if penalty is not None:
                total = penalty if total is None else total + penalty
        return total

    def after_step(self, model: nn.Module, params: Mapping[str, Value], *, step: int, steps: int) -> None:
        """What each component does, in the order in which they were applied."""
        for component in self.in_order:
            component.after_step(model, params, step=step, steps=steps)

    def constrain(self, model: nn.Module, params: Mapping[str, Value]) -> None:
        """What each component does, in the same order."""
        for component in self.in_order:
            component.constrain(model, params)


def inserts(strategy: Strategy) -> bool:
    """Whether a strategy puts new modules into a model; what has nothing to merge only unfreezes."""
    return type(strategy).merge is not Strategy.merge


def parts_of(strategy: Strategy) -> tuple[Strategy, ...]:
    """The components of a combination in the order in which they are applied; of any other strategy, itself."""
    return strategy.in_order if isinstance(strategy, Combination) else (strategy,)


def merge_all(strategies: Sequence[Strategy], model: nn.Module) -> nn.Module:
    """Merge several strategies, the last one first, or none of them.

    What moves the pretrained weights themselves, and may therefore not be combined, is merged before all others wherever
    it stands: they multiply the moved weights.

    Args:
        strategies: In the order in which they were applied.
        model: The adapted model.

    Returns:
        The same model.

    Raises:
        UsageError: If one of them cannot be merged; the model is unchanged.
    """
    merging = [strategy for strategy in reversed(strategies) if inserts(strategy)]
    merging.sort(key=lambda strategy: strategy.info.combinable)
    if len(merging) > 1:
        # One that refuses changes nothing, but others may have been merged before it is asked. So all of it is tried
        # out on a copy; whatever fails, for whatever reason, fails there.
        rehearsal = copy.deepcopy(model)
        for strategy in merging:
            rehearsal = strategy.merge(rehearsal)
    for strategy in merging:
        model = strategy.merge(model)
    return model
