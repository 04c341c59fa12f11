"""How a pretrained model is adapted: one file for each strategy, one line here.

Nothing in this package imports torch before a model is adapted, so the registry can be read at once.
"""

from __future__ import annotations

from tuner.errors import NotFoundError, UsageError
from tuner.strategies.adalora import AdaLora
from tuner.strategies.adapter import Adapter
from tuner.strategies.base import Strategy
from tuner.strategies.bitfit import BitFit
from tuner.strategies.combine import Combination
from tuner.strategies.full import Full
from tuner.strategies.gradual import Gradual
from tuner.strategies.head import Head
from tuner.strategies.ia3 import IA3
from tuner.strategies.intrinsic import Intrinsic
from tuner.strategies.layerwise_decay import LayerwiseDecay
from tuner.strategies.lora import Lora
from tuner.strategies.norm import Norm
from tuner.strategies.p_tuning import PTuning
from tuner.strategies.peft_layers import Loha, Lokr, Oft, Vera
from tuner.strategies.prefix import Prefix
from tuner.strategies.prompt import Prompt
from tuner.strategies.reinit import Reinit
from tuner.strategies.sequence import Sequence
from tuner.strategies.top_layers import TopLayers
from tuner.study.names import COMBINE, THEN, components, did_you_mean, listed, stages

STRATEGIES: dict[str, Strategy] = {
    "full": Full(),
    "head": Head(),
    "top_layers": TopLayers(),
    "gradual": Gradual(),
    "layerwise_decay": LayerwiseDecay(),
    "reinit": Reinit(),
    "lora": Lora(),
    "adalora": AdaLora(),
    "vera": Vera(),
    "oft": Oft(),
    "loha": Loha(),
    "lokr": Lokr(),
    "ia3": IA3(),
    "intrinsic": Intrinsic(),
    "bitfit": BitFit(),
    "norm": Norm(),
    "adapter": Adapter(),
    "prefix": Prefix(),
    "prompt": Prompt(),
    "p_tuning": PTuning(),
}


def resolve(name: str) -> Strategy:
    """The strategy of a name, the combination of names joined by ``+``, or a sequence of two of these around ``>``.

    Raises:
        NotFoundError: If there is no such strategy.
        UsageError: If a component may not be combined or stand in a sequence, or stands twice.
    """
    parts = components(name)
    for part in parts:
        if part not in STRATEGIES:
            raise NotFoundError(f'no strategy "{part}"{did_you_mean(part, STRATEGIES)}')
    written = stages(name)
    combined = [_combination(stage) for stage in written]
    if len(combined) == 1:
        return combined[0]
    if len(combined) > 2:
        raise UsageError(f'"{name}" has {len(combined)} stages', fix=f"write two, such as head{THEN}lora")
    sequential = [key for key, strategy in STRATEGIES.items() if strategy.info.sequential]
    single = [part for part in parts if part not in sequential]
    if single:
        raise UsageError(
            f'"{name}" is no sequence',
            why=f"{single[0]} has a schedule or a start of its own",
            fix=f"write two of {listed(sequential)} around {THEN}",
        )
    if len(set(parts)) < len(parts):
        twice = next(part for part in parts if parts.count(part) > 1)
        raise UsageError(f'"{name}" is no sequence', why=f"{twice} stands in both stages", fix="leave it out of one")
    return Sequence(*combined)


def _combination(name: str) -> Strategy:
    """What one stage trains; all names are known."""
    parts = components(name)
    if len(parts) == 1:
        return STRATEGIES[name]
    combinable = [key for key, strategy in STRATEGIES.items() if strategy.info.combinable]
    single = next((part for part in parts if part not in combinable), None)
    if single or len(set(parts)) < len(parts):
        raise UsageError(
            f'"{name}" cannot be combined',
            why=f"{single} stands alone" if single else "a component is named twice",
            fix=f"write different ones of {listed(combinable)}, joined by {COMBINE}",
        )
    return Combination([STRATEGIES[part] for part in parts])


__all__ = ["STRATEGIES", "Strategy", "resolve"]
