"""Runs whose loss is no number any more are ended."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.errors import TrialDiverged

_CHECK_STEPS = 16  # on CUDA, steps between two looks at the loss: each look waits for the device


class DivergenceWatch:
    """Finds the first step whose loss or gradient is not finite, without waiting for a GPU at every step."""

    def __init__(self, device: torch.device) -> None:
        """Nothing seen yet."""
        self._every = _CHECK_STEPS if device.type == "cuda" else 1
        self._seen: list[tuple[Tensor, int, int]] = []

    def see(self, value: Tensor, *, epoch: int, step: int) -> None:
        """Remember a step's value; look at all that are remembered from time to time."""
        self._seen.append((value, epoch, step))
        if len(self._seen) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at all remembered steps.

        Raises:
            TrialDiverged: With the first of them that was not finite.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        finite = torch.stack([value for value, _, _ in seen]).isfinite().tolist()
        for good, (_, epoch, step) in zip(finite, seen, strict=True):
            if not good:
                raise TrialDiverged(
                    f"loss or gradient became non-finite in epoch {epoch}, step {step}", fix="lower the learning rate"
                )
