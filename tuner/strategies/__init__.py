"""How a pretrained model is adapted: one file for each strategy, one line here.

Nothing in this package imports torch before a model is adapted, so the registry can be read at once.
"""

from __future__ import annotations

from tuner.errors import NotFoundError, UsageError
from tuner.strategies.adapter import Adapter
from tuner.strategies.base import Strategy
from tuner.strategies.bitfit import BitFit
from tuner.strategies.combine import Combination
from tuner.strategies.full import Full
from tuner.strategies.gradual import Gradual
from tuner.strategies.head import Head
from tuner.strategies.layerwise_decay import LayerwiseDecay
from tuner.strategies.lora import Lora
from tuner.strategies.norm import Norm
from tuner.strategies.reinit import Reinit
from tuner.strategies.top_layers import TopLayers
from tuner.study.names import COMBINE, components, did_you_mean

STRATEGIES: dict[str, Strategy] = {
    "full": Full(),
    "head": Head(),
    "top_layers": TopLayers(),
    "gradual": Gradual(),
    "layerwise_decay": LayerwiseDecay(),
    "reinit": Reinit(),
    "lora": Lora(),
    "bitfit": BitFit(),
    "norm": Norm(),
    "adapter": Adapter(),
}


def resolve(name: str) -> Strategy:
    """The strategy of a name, or the combination of names joined by ``+``.

    Raises:
        NotFoundError: If there is no such strategy.
        UsageError: If a component may not be combined, or stands twice.
    """
    parts = components(name)
    for part in parts:
        if part not in STRATEGIES:
            raise NotFoundError(f'no strategy "{part}"{did_you_mean(part, STRATEGIES)}')
    if len(parts) == 1:
        return STRATEGIES[name]
    combinable = [key for key, strategy in STRATEGIES.items() if strategy.info.combinable]
    if len(set(parts)) < len(parts) or not set(parts) <= set(combinable):
        fix = f"write different ones of {', '.join(combinable)}, joined by {COMBINE}"
        raise UsageError(f'"{name}" cannot be combined', fix=fix)
    return Combination([STRATEGIES[part] for part in parts])


__all__ = ["STRATEGIES", "Strategy", "resolve"]
