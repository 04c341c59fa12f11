"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

if TYPE_CHECKING:
    from torch import nn


class Full(Strategy):
    """Every parameter of the model is trained."""

    info = StrategyInfo(
        name="full",
        summary="every weight of the model",
        # Small models bear, and need, far larger steps: 5e-4 was best for 4.4 M parameters (measured on Reuters R8),
        # 2e-5 is the rule for 110 M (Devlin et al. 2019) and 1e-5 for 3 to 8 B (PEFT's MetaMathQA comparison).
        learning_rate=((4.4e6, 5e-4), (1.1e8, 2e-5), (3e9, 1e-5)),
        source="Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers",
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Let every parameter require gradients."""
        return model.requires_grad_(requires_grad=True)
