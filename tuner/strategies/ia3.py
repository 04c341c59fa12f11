"""IA3: activations are scaled by learnt vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy
from tuner.strategies.injection import fold, inject
from tuner.strategies.targets import attention_targets, feed_forward_targets, linear_targets, refuse_wrapped
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

if TYPE_CHECKING:
    from torch import nn


class IA3(Strategy):
    """PEFT's IA3: keys, values and the inner activations of the feed-forwards are scaled, element by element.

    Where one layer makes queries, keys and values at once (GPT-2, ModernBERT), all of its output is scaled: PEFT does so
    too, and scaling queries and keys is hardly more than scaling keys. A convolutional network has neither keys nor
    values: there the inputs of the convolutions are scaled, channel by channel. Their outputs would not do, because the
    batch normalisation that follows undoes any scaling.
    """

    info = StrategyInfo(
        name="ia3",
        summary="factors of keys, values and feed-forward activations, and the head",
        # BERT-tiny on Reuters R8 (1200 rows, 4 epochs): .68 / .67 / .45 at 1e-2 / 3e-2 / 1e-1; 3e-3 to 5e-3 for 3 B (T-Few,
        # PEFT's MetaMathQA comparison).
        learning_rate=((4.4e6, 1.5e-2), (1.1e8, 8e-3), (3e9, 4e-3)),
        source="Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Inject the factors, which are 1 in the beginning.

        Raises:
            TrialInfeasible: If no keys, values, feed-forwards or convolutions are found.
        """
        from peft import IA3Config
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        scaled_inputs = feed_forward_targets(model)
        targets = attention_targets(model, roles="kv") | scaled_inputs
        if not targets:
            layers = linear_targets(model)
            scaled_inputs = targets = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
        if not targets:
            raise TrialInfeasible(
                f"ia3 cannot adapt {type(model).__name__}",
                why="its backbone has no keys, values, feed-forwards or convolutions that are known by their names",
                fix="take ia3 out of strategies",
            )
        why, fix = "PEFT has no IA3 around a wrapped convolution", "take the combination out of strategies"
        refuse_wrapped(model, targets, method="ia3", why=why, fix=fix, kind=nn.Conv2d)
        config = IA3Config(
            target_modules=list(targets),
            feedforward_modules=list(scaled_inputs),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in targets.values()),
        )
        inject(model, config)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Multiply the factors into the weights and put the layers back in their places."""
        return fold(model)
