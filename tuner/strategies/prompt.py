"""Prompt tuning: a few trained vectors are put among the embeddings of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from tuner.errors import UsageError
from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

_NOISE = 0.02
"""Standard deviation of the virtual patches at first: that of the class token in a fresh vision transformer."""


class Prompt(Strategy):
    """Virtual tokens in the input, and nothing else in the backbone.

    They begin as embeddings of random tokens of the vocabulary, and in a picture as noise.
    """

    info = StrategyInfo(
        name="prompt",
        summary="trained virtual tokens in the input, and the head",
        # BERT-tiny on Reuters R8: macro-F1 .58 / .66 / .56 at 3e-3 / 1e-2 / 3e-2. Larger models: 1e-3 to 3e-2 with AdamW.
        learning_rate=((4.4e6, 1e-2), (1.1e8, 5e-3), (3e9, 5e-3)),
        hyperparameters=(
            Hyperparameter(
                name="prompt.length",
                domain=Choice(options=(8, 16, 32, 64)),
                default=16,
                help="virtual tokens",
                allowed=Range(low=1, high=512, kind="int"),
            ),
            Hyperparameter(
                name="prompt.intrinsic_dimension",
                domain=Fixed(value=0),
                default=0,
                help="train the prompt in a random subspace of so many dimensions (Qin et al. 2021); 0: in all of them",
                allowed=Range(low=0, high=10_000, kind="int"),
            ),
        ),
        source="Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning; pictures: Jia et al. 2022, "
        "Visual Prompt Tuning; subspace: Qin et al. 2021, Exploring Universal Intrinsic Task Subspace",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Put the virtual tokens into the input.

        Raises:
            TrialInfeasible: If the backbone reads neither tokens nor patches, or no position is left for the text.
        """
        from tuner.strategies.virtual_tokens import FreeVectors, SubspaceVectors, Vectors, fixed_generator, insert

        length = int(self.value(params, "prompt.length"))
        vectors: Vectors
        if dimension := int(self.value(params, "prompt.intrinsic_dimension")):
            # Where a subspace begins is no weight that is saved: it must be the same in every model.
            vectors = SubspaceVectors(_start(model, length=length, generator=fixed_generator()), dimension=dimension)
        else:
            vectors = FreeVectors(_start(model, length=length))
        insert(model, vectors, length=length, name="prompt")
        return model

    def merge(self, model: nn.Module) -> NoReturn:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise UsageError("prompt cannot be merged", why="no weight of the architecture holds tokens of the input")


def _start(model: nn.Module, *, length: int, generator: Generator | None = None) -> Tensor:
    """Where the vectors begin, (length, width), drawn by a generator on the CPU; None: torch's global one."""
    import torch

    from tuner.strategies.virtual_tokens import own_vectors, reads_text

    own = own_vectors(model, name="prompt")
    if reads_text(model):
        rows = torch.randint(len(own), (length,), generator=generator, device="cpu")
        return own[rows.to(own.device)]
    return _NOISE * torch.randn(length, own.shape[-1], generator=generator, device="cpu").to(own)
