"""The moving average of the trained weights: it is what is judged and kept, while the training goes on beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_RAW = "raw/"  # before the names of the weights that the training goes on with


class Average:
    """An exponential moving average of a model's trained weights; with a decay of 0 there is none, and it does nothing.

    The decay rises with the steps, ``min(decay, (1 + t) / (10 + t))``: else a short run's average would be made of its
    first steps, when little was learnt.

    Source: Polyak & Juditsky 1992; the rising decay is that of TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: nn.Module, *, names: Collection[str], decay: float) -> None:
        """An average that begins at the model's weights.

        Args:
            model: An adapted model, on its device.
            names: The parameters that are ever trained.
            decay: What the average keeps of itself at each step, at most.
        """
        self._decay = decay
        self._weights = {name: parameter for name, parameter in model.named_parameters() if decay and name in names}
        self._averages = {name: parameter.detach().clone() for name, parameter in self._weights.items()}

    @property
    def is_kept(self) -> bool:
        """Whether there is an average."""
        return bool(self._weights)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step of the optimizer.

        Args:
            step: 0-based step over the whole run.
        """
        if not self._weights:
            return
        update = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))
        update(list(self._averages.values()), [weight.detach() for weight in self._weights.values()], step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def raw_state(self) -> dict[str, Tensor]:
        """Inside :meth:`in_place`, the weights that the training goes on with."""
        return {f"{_RAW}{name}": tensor for name, tensor in self._averages.items()}

    def resume(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Go on from a checkpoint whose weights, the averaged ones, the model has.

        Args:
            state: What was saved with them.

        Returns:
            The state without what belongs to the average.
        """
        for name, weight in self._weights.items():
            self._averages[name].copy_(weight.detach())
            if f"{_RAW}{name}" in state:  # a final checkpoint has none, and nobody goes on from it
                weight.data.copy_(state[f"{_RAW}{name}"])
        return {name: tensor for name, tensor in state.items() if not name.startswith(_RAW)}

    def _exchange(self) -> None:
        """Swap the storage of both: nothing is copied."""
        for name, weight in self._weights.items():
            weight.data, self._averages[name] = self._averages[name], weight.data
