"""Gradual unfreezing: the head first, then one block after the other from the top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.strategies.base import Phase, Strategy
from tuner.strategies.layerwise_decay import decayed, distances
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn


class Gradual(Strategy):
    """Every weight is trained in the end, but not at once.

    With n blocks there are n + 2 phases: the head and what comes after the last block, then one block more in each, last
    the embeddings. The phases before the last have equal lengths. The schedule of the learning rate goes on over all of
    them, as one run.
    """

    info = StrategyInfo(
        name="gradual",
        summary="every weight, unfrozen block after block from the top",
        # BERT-tiny (4.4 M) on Reuters R8 (1200 rows, 4 epochs, 2 seeds): macro-F1 .63 / .69 / .74 / .60 at 5e-4 / 1e-3 /
        # 2e-3 / 4e-3; with a share of .2 instead of .4, .70 at 1e-3.
        learning_rate=((4.4e6, 1.6e-3), (1.1e8, 3e-5), (3e9, 1e-5)),
        hyperparameters=(
            Hyperparameter(
                name="gradual.share",
                domain=Range(low=0.2, high=0.7),
                default=0.4,
                help="share of the steps after which every weight is trained",
                allowed=Range(low=0.01, high=0.99),
            ),
            Hyperparameter(
                name="gradual.decay",
                domain=Fixed(value=1.0),
                default=1.0,
                help="learning rate of each block as a factor of that of the block above it; ULMFiT has 0.38",
                allowed=Range(low=0.01, high=1.0),
            ),
        ),
        source="Howard & Ruder 2018, Universal Language Model Fine-tuning for Text Classification",
        sequential=False,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Let every parameter require gradients.

        Raises:
            TrialInfeasible: If the backbone has no blocks.
        """
        distances(model, strategy=self.info.name)
        return model.requires_grad_(requires_grad=True)

    def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
        """The parameters down to the head, down to each block, and all of them."""
        found = distances(model, strategy=self.info.name)
        lowest = max(found.values())
        share = float(self.value(params, "gradual.share"))
        return tuple(
            Phase(
                start=share * reached / lowest,
                trained=frozenset(name for name, distance in found.items() if distance <= reached),
            )
            for reached in range(lowest + 1)
        )

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        """A power of the decay for everything below the head."""
        return decayed(model, decay=float(self.value(params, "gradual.decay")), strategy=self.info.name)
