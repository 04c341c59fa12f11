"""BitFit: only the bias vectors are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy, backbone_of
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

if TYPE_CHECKING:
    from torch import nn


class BitFit(Strategy):
    """All biases of the backbone, those of the norms included, and the head are trained."""

    info = StrategyInfo(
        name="bitfit",
        summary="the biases and the head",
        learning_rate=((4.4e6, 8e-3), (1.1e8, 8e-4), (3e9, 4e-4)),
        source="Ben Zaken et al. 2022, BitFit: Simple Parameter-efficient Fine-tuning",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Let the backbone's biases require gradients.

        Raises:
            TrialInfeasible: If the backbone has no bias, as in Llama, T5 and ModernBERT.
        """
        # DeBERTa calls those of its queries and values q_bias and v_bias.
        biases = [parameter for name, parameter in backbone_of(model).named_parameters() if name.endswith("bias")]
        if not biases:
            raise TrialInfeasible(
                f"bitfit cannot adapt {type(model).__name__}",
                why="its backbone has no biases",
                fix="take bitfit out of strategies",
            )
        for bias in biases:
            bias.requires_grad_()
        return model
