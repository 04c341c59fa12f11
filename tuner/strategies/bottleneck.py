"""Bottleneck adapters: small networks that add to what a layer writes into the residual stream.

They hang on hooks of the layers they belong to, and stand beside them in the module tree. So every pretrained parameter
keeps its name, and a strategy that comes later finds the layers where they were. A bottleneck adds to whatever stands
in a layer's place when it is attached: to a layer with its LoRA update where that came first, and below the update where
it comes later.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN

from tuner.errors import TrialInfeasible
from tuner.strategies.inserted import Inserted


class Bottleneck(Inserted):
    """Down to a few features, an activation, and up again.

    The way up begins at zero: a model with a fresh bottleneck computes what it did before.
    """

    def __init__(
        self, *, inputs: int, width: int, outputs: int, activation: str, scale: float = 1.0, like: Tensor
    ) -> None:
        """Draw the weights of the way down as ``nn.Linear`` does, from torch's global generator.

        Args:
            inputs: Features of what is read.
            width: Features in between.
            outputs: Features of the layer's output.
            activation: A name that transformers knows.
            scale: Factor of what is added.
            like: A tensor of the model: the weights get its device and type.
        """
        super().__init__()
        self.down = nn.Linear(inputs, width, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(width, outputs, device=like.device, dtype=like.dtype)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activation: nn.Module = ACT2FN[activation]
        self.scale = scale
        self._read: Tensor | None = None
        self._argument = self._place = ""

    def forward(self, hidden: Tensor) -> Tensor:
        """What is added to the layer's output, (..., outputs)."""
        added: Tensor = self.up(self.activation(self.down(hidden)))
        return added if self.scale == 1.0 else added * self.scale

    def follow(self, layer: nn.Module) -> None:
        """Read what the layer writes (Houlsby et al. 2019)."""
        layer.register_forward_hook(self._add_to_output)

    def bypass(self, asked: nn.Module, last: nn.Module, *, place: str) -> None:
        """Read what one module is called with, and add to what a layer inside or behind it writes (He et al. 2022).

        Args:
            asked: Its first argument is read.
            last: Its output is added to, in the same forward.
            place: The name of ``last``, for messages.
        """
        self._place = place
        self._argument = next(iter(inspect.signature(asked.forward).parameters))
        asked.register_forward_pre_hook(self._remember, with_kwargs=True)
        last.register_forward_hook(self._add_beside)

    def _add_to_output(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        total: Tensor = output + self(output)
        return total

    def _remember(self, _asked: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._read = inputs[0] if inputs else named.get(self._argument)

    def _add_beside(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        read, self._read = self._read, None  # kept no longer than needed: it holds the graph of the layers before
        if read is None:
            raise self._misplaced("which writes more than once, or before the hidden states are read")
        if read.shape != (*output.shape[:-1], self.down.in_features):
            raise self._misplaced(f"which reads {tuple(read.shape)} and writes {tuple(output.shape)}")
        total: Tensor = output + self(read)
        return total

    def _misplaced(self, what: str) -> TrialInfeasible:
        return TrialInfeasible(
            f"adapter cannot stand beside {self._place}, {what}",
            why="in parallel it adds to each hidden state what it makes of the same one",
            fix="set space.adapter.form to sequential, or take adapter out of strategies",
        )
