"""P-tuning: the virtual tokens of a prompt are made by a small network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from tuner.errors import UsageError
from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn


class PTuning(Strategy):
    """Prompt tuning through PEFT's prompt encoder: what a step changes in one virtual token it changes in all.

    It costs more parameters than a prompt and is easier to train; the network is needed for training only, but it is kept,
    so that a checkpoint can be trained on.
    """

    info = StrategyInfo(
        name="p_tuning",
        summary="virtual tokens in the input, made by a small network, and the head",
        # BERT-tiny on Reuters R8: macro-F1 .42 / .64 / .63 at 1e-3 / 3e-3 / 1e-2. Larger models: 1e-3 in PEFT's examples.
        learning_rate=((4.4e6, 5e-3), (1.1e8, 1e-3), (3e9, 1e-3)),
        hyperparameters=(
            Hyperparameter(
                name="p_tuning.length",
                domain=Choice(options=(8, 16, 32, 64)),
                default=16,
                help="virtual tokens",
                allowed=Range(low=1, high=512, kind="int"),
            ),
            Hyperparameter(
                name="p_tuning.hidden",
                domain=Fixed(value=1.0),
                default=1.0,
                help="width of the network's hidden layers divided by the width of the model",
                allowed=Range(low=0.01, high=8.0),
            ),
        ),
        source="Liu et al. 2021, GPT Understands, Too",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Put the virtual tokens into the input.

        Raises:
            TrialInfeasible: If the backbone reads neither tokens nor patches, or no position is left for the text.
        """
        from tuner.strategies.virtual_tokens import EncodedVectors, insert, own_vectors

        length, own = int(self.value(params, "p_tuning.length")), own_vectors(model, name="p_tuning")
        hidden = max(1, round(float(self.value(params, "p_tuning.hidden")) * own.shape[-1]))
        vectors = EncodedVectors(length=length, hidden=hidden, like=own)
        insert(model, vectors, length=length, name="p_tuning")
        return model

    def merge(self, model: nn.Module) -> NoReturn:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise UsageError("p_tuning cannot be merged", why="no weight of the architecture holds tokens of the input")
