"""LoRA: a low-rank update beside the linear layers of the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy
from tuner.strategies.injection import ADAPTER, fold, inject
from tuner.strategies.targets import attention_targets, linear_targets, narrowest, refuse_wrapped
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn

_SWITCH = Choice(options=(False, True))
_ROLES = {"attention": "qkvo", "query_value": "qv"}


class Lora(Strategy):
    """PEFT's LoRA on the linear layers of the backbone; the head is trained in full beside it."""

    info = StrategyInfo(
        name="lora",
        summary="low-rank updates of all linear layers, and the head",
        learning_rate=((4.4e6, 5e-3), (1.1e8, 5e-4), (3e9, 2e-4)),
        hyperparameters=(
            Hyperparameter(
                name="lora.r",
                domain=Choice(options=(4, 8, 16, 32)),
                default=8,
                help="rank of the update",
                allowed=Range(low=1, high=1024, kind="int"),
            ),
            # The factor multiplies the update, as the learning rate does in effect: two knobs for one thing are not
            # searched by default. As a ratio it means the same at every rank.
            Hyperparameter(
                name="lora.alpha_ratio",
                domain=Fixed(value=2.0),
                default=2.0,
                help="factor of the update: PEFT's lora_alpha divided by r",
                allowed=Range(low=0.01, high=64.0),
            ),
            # The architecture's own dropout, which is searched, regularises the adapter too. This one needs a mask for each
            # adapted layer: on a CPU that alone is a third of a step.
            Hyperparameter(
                name="lora.dropout",
                domain=Fixed(value=0.0),
                default=0.0,
                help="dropout probability before the update, beside the dropout of the architecture",
                allowed=Range(low=0.0, high=0.9),
            ),
            # All layers do better than the attention alone at equal numbers of parameters (Schulman et al. 2025).
            Hyperparameter(
                name="lora.targets",
                domain=Fixed(value="linear"),
                default="linear",
                help="adapted layers: all linear ones, those of the attention, or its queries and values (Hu et al.)",
                allowed=Choice(options=("linear", "attention", "query_value")),
            ),
            # The variants are equal to within 1 or 2 % once the learning rate is tuned, so none of them is searched.
            Hyperparameter(
                name="lora.rank_stabilized",
                domain=Fixed(value=False),
                default=False,
                help="rsLoRA: the factor is divided by the root of r, not by r (Kalajdzievski 2023)",
                allowed=_SWITCH,
            ),
            Hyperparameter(
                name="lora.dora",
                domain=Fixed(value=False),
                default=False,
                help="DoRA: the norms of the weights are trained apart from their directions (Liu et al. 2024)",
                allowed=_SWITCH,
            ),
            Hyperparameter(
                name="lora.plus_ratio",
                domain=Fixed(value=1.0),
                default=1.0,
                help="LoRA+: learning rate of B divided by that of A (Hayou et al. 2024)",
                allowed=Range(low=1.0, high=64.0),
            ),
        ),
        source="Hu et al. 2022, LoRA: Low-Rank Adaptation; all layers: Schulman et al. 2025, LoRA Without Regret",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Inject the adapter; what required gradients before still does.

        Raises:
            TrialInfeasible: If the backbone has no layer to adapt, the rank exceeds the smallest one, or DoRA is to take
                the norm of a layer that another strategy has changed.
        """
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        targets = self._targets(model, params)
        rank = int(self.value(params, "lora.r"))
        name, width = narrowest(targets)
        if rank > width:
            raise TrialInfeasible(f"lora.r {rank} exceeds the width {width} of {name}", fix="lower space.lora.r")
        config = LoraConfig(
            r=rank,
            # PEFT says int, and divides by r or its root: a float keeps every ratio exact.
            lora_alpha=float(self.value(params, "lora.alpha_ratio")) * rank,  # type: ignore[arg-type]
            lora_dropout=float(self.value(params, "lora.dropout")),
            target_modules=list(targets),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in targets.values()),
            use_rslora=bool(self.value(params, "lora.rank_stabilized")),
            use_dora=bool(self.value(params, "lora.dora")),
        )
        inject(model, config)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Add each update to its layer's weight and put the layer back in its place."""
        return fold(model)

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        """LoRA+: the factor of every B; the trial's learning rate is that of A."""
        from peft.tuners.adalora import AdaLoraLayer
        from peft.tuners.lora import LoraLayer

        ratio = float(self.value(params, "lora.plus_ratio"))
        if ratio == 1.0:
            return {}
        return {
            f"{name}.lora_B.{ADAPTER}.weight": ratio
            for name, module in model.named_modules()
            if isinstance(module, LoraLayer) and not isinstance(module, AdaLoraLayer)
        }

    def _targets(self, model: nn.Module, params: Mapping[str, Value]) -> dict[str, nn.Module]:
        from torch import nn

        chosen = str(self.value(params, "lora.targets"))
        if chosen in _ROLES:
            targets = attention_targets(model, roles=_ROLES[chosen])
            missing, fix = "attention with layers known by name", "set space.lora.targets to linear"
        else:
            targets, missing, fix = linear_targets(model), "linear layer", ""
        if not targets:
            why = f"its backbone has no {missing}"
            raise TrialInfeasible(f"lora cannot adapt {type(model).__name__}", why=why, fix=fix)
        if bool(self.value(params, "lora.dora")):
            why = "DoRA trains the norm of a pretrained weight, and this one is changed"
            fix = "write lora before the other strategy, or switch space.lora.dora off"
            refuse_wrapped(model, targets, method="lora.dora", why=why, fix=fix)
        why, fix = "PEFT has no LoRA around a wrapped convolution", "take the combination out of strategies"
        refuse_wrapped(model, targets, method="lora", why=why, fix=fix, kind=nn.Conv2d)
        return targets
