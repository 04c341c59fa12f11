"""LoRA: a low-rank update beside every linear layer of the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "default"
"""Name of the one adapter, as PEFT calls it."""


class Lora(Strategy):
    """PEFT's LoRA on all linear layers of the backbone; the head is trained in full beside it.

    The adapter is injected rather than wrapped around the model (``PeftModel``), so that the model keeps its class and
    its forward, other strategies find its parameters, and one rule saves them all.
    """

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
        ),
        source="Hu et al. 2022, LoRA: Low-Rank Adaptation; all layers: Schulman et al. 2025, LoRA Without Regret",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Inject the adapter; what required gradients before still does.

        Raises:
            TrialInfeasible: If the backbone has no layer to adapt, or the rank exceeds the smallest one.
        """
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D

        targets = lora_targets(model)
        rank = int(self.value(params, "lora.r"))
        if not targets:
            raise TrialInfeasible(f"lora cannot adapt {type(model).__name__}", why="its backbone has no linear layer")
        narrowest = min(targets, key=lambda name: _width(targets[name]))
        if rank > _width(targets[narrowest]):
            raise TrialInfeasible(
                f"lora.r {rank} exceeds the width {_width(targets[narrowest])} of {narrowest}", fix="lower space.lora.r"
            )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        config = LoraConfig(
            r=rank,
            # PEFT says int, and divides by r: a float keeps every ratio exact.
            lora_alpha=float(self.value(params, "lora.alpha_ratio")) * rank,  # type: ignore[arg-type]
            lora_dropout=float(self.value(params, "lora.dropout")),
            target_modules=list(targets),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in targets.values()),
        )
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)  # freezes everything but the adapter
        for parameter in trained:
            parameter.requires_grad_()
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Add each update to its layer's weight and put the layer back in its place."""
        from peft.tuners.lora import LoraLayer

        adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
        for name, module in adapted:
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
        return model


def lora_targets(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that get an update, by full name.

    All frozen linear layers (``nn.Linear`` and GPT-2's ``Conv1D``): the head is trained in full and needs none. A
    backbone without any, such as ResNet's, is adapted at its ungrouped convolutions. The names are complete, because
    PEFT matches by suffix and would otherwise take ``pre_classifier`` for ``classifier``. The projection inside
    ``nn.MultiheadAttention`` is left out: its forward reads the weight directly and would pass the adapter by.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    hidden = {f"{name}.out_proj" for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    frozen: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D, nn.Conv2d)) and not module.weight.requires_grad and name not in hidden
    }
    linear = {name: module for name, module in frozen.items() if not isinstance(module, nn.Conv2d)}
    return linear or {name: module for name, module in frozen.items() if getattr(module, "groups", 1) == 1}


def _width(layer: nn.Module) -> int:
    """The smaller of a layer's inputs and outputs: the highest rank its update can have."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return min(weight.shape[:2])
