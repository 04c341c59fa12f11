"""Runs whose loss is no number any more, or no loss any more, are ended."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuner.errors import TrialDiverged

MOST_GROWTH = 1_000.0
"""Times the first loss of a run that a later one may be; a first loss below 1 counts as 1, since a model may begin with almost none."""

_CHECK_STEPS = 16  # on CUDA, steps between two looks at the loss: each look waits for the device
_FIX = "lower the learning rate"


class DivergenceWatch:
    """Finds the first step whose loss or gradient is not finite, or whose loss has exploded, without waiting for a GPU at every step.

    Attributes:
        first: The first loss of the run, None before it was looked at.
    """

    def __init__(self, device: torch.device, *, first: float | None = None) -> None:
        """Nothing seen yet.

        Args:
            device: Where the run is trained.
            first: The run's first loss, where an earlier attempt saw it.
        """
        self.first = first
        self._every = _CHECK_STEPS if device.type == "cuda" else 1
        self._seen: list[tuple[Tensor, Tensor, int, int]] = []

    def see(self, loss: Tensor, *, norm: Tensor | None, epoch: int, step: int) -> None:
        """Remember a step; look at all that are remembered from time to time.

        Args:
            loss: What was minimised, a scalar.
            norm: The gradient's norm, a scalar; None where it may well not be finite.
            epoch: 1-based.
            step: 1-based within the epoch.
        """
        self._seen.append((loss, loss if norm is None else norm, epoch, step))
        if len(self._seen) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at all remembered steps.

        Raises:
            TrialDiverged: With the first of them that was not finite, or whose loss was more than :data:`MOST_GROWTH` times the first.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        values = torch.stack([torch.stack([loss for loss, *_ in seen]), torch.stack([norm for _, norm, *_ in seen])])
        losses, norms = values.tolist()  # one wait for the device
        for loss, norm, (_, _, epoch, step) in zip(losses, norms, seen, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrialDiverged(f"loss or gradient became non-finite in epoch {epoch}, step {step}", fix=_FIX)
            self.first = loss if self.first is None else self.first
            if loss > MOST_GROWTH * max(self.first, 1.0):
                what = f"the loss grew to {loss:.3g} in epoch {epoch}, step {step}"
                raise TrialDiverged(what, why=f"it began at {self.first:.3g}", fix=_FIX)
