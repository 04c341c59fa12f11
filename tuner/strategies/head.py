"""Linear probing: the backbone stays as it was pretrained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

if TYPE_CHECKING:
    from torch import nn


class Head(Strategy):
    """Only the classification head, and what the checkpoint did not contain, is trained.

    Where the head reads one vector of each row, the training computes these vectors once and keeps them
    (:mod:`tuner.training.features`); the dropout inside the frozen backbone is off then.
    """

    info = StrategyInfo(
        name="head",
        summary="the classification head on a frozen backbone",
        learning_rate=((4.4e6, 5e-3), (1.1e8, 1e-3), (3e9, 1e-3)),
        source="Alain & Bengio 2016, Understanding intermediate layers using linear classifier probes",
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Nothing to do: the head alone requires gradients already."""
        return model
