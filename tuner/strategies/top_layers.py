"""The upper part of the model is trained; what lies below it stays as it was pretrained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.strategies.base import Strategy
from tuner.strategies.layerwise_decay import distances
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn


class TopLayers(Strategy):
    """The last blocks, everything after them (a final norm, a pooler) and the head are trained.

    How many blocks is said as a share, so that one study file, and one recipe, means the same for 2 blocks and for 24.
    """

    info = StrategyInfo(
        name="top_layers",
        summary="the last blocks and the head",
        # Half of the blocks of BERT-tiny (4.4 M) on Reuters R8 (1200 rows, 4 epochs, 2 seeds): macro-F1 .35 / .56 / .67 / .50
        # at 1.6e-4 / 5e-4 / 1.6e-3 / 5e-3, about three times the rate of full fine-tuning.
        learning_rate=((4.4e6, 1.6e-3), (1.1e8, 5e-5), (3e9, 2e-5)),
        hyperparameters=(
            Hyperparameter(
                name="top_layers.share",
                domain=Choice(options=(0.25, 0.5, 0.75)),
                default=0.5,
                help="share of the blocks that are trained, from the top: 0.25 of 12 are 3; one block at least",
                allowed=Range(low=0.01, high=1.0),
            ),
        ),
        source="Lee et al. 2019, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Let the last blocks, and what comes after them, require gradients.

        Raises:
            TrialInfeasible: If the backbone has no blocks.
        """
        chosen = top_names(model, share=float(self.value(params, "top_layers.share")), strategy=self.info.name)
        for name, parameter in model.named_parameters():
            if name in chosen:
                parameter.requires_grad_()
        return model


def top_names(model: nn.Module, *, share: float, strategy: str) -> frozenset[str]:
    """The names of the parameters in the last blocks and above them.

    Args:
        model: Any model.
        share: Of the blocks that are meant.
        strategy: Who asks, for the message.

    Raises:
        TrialInfeasible: If the backbone has no blocks.
    """
    from tuner.strategies.anatomy import find_blocks

    found = distances(model, strategy=strategy)
    trained = top_count(share, blocks=len(find_blocks(model)))
    return frozenset(name for name, distance in found.items() if distance <= trained)


def top_count(share: float, *, blocks: int) -> int:
    """A share of the blocks as a number: the nearest one, half a block counts as one, and one at least."""
    return max(1, math.floor(share * blocks + 0.5))
