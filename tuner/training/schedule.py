"""The time of a run in steps: what is trained when, and at which learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tuner.strategies.base import Phase

_COOLDOWN = 0.2  # share of all steps in which warmup-stable-decay falls: 20 % is as good as more (Hägele et al. 2024)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Steps one after the other in which the same parameters are trained.

    Attributes:
        first: Its first step over the whole run, 0-based.
        trained: Names of the parameters that are trained.
        rate: Factor of the trial's learning rate.
        restarts: Whether the optimizer begins with fresh moments.
        opens: First step of the schedule that it belongs to; stretches share one unless they restart.
        closes: The step after the last one of that schedule.
    """

    first: int
    trained: frozenset[str]
    rate: float
    restarts: bool
    opens: int
    closes: int

    def factor(self, step: int, *, warmup_ratio: float, schedule: str) -> float:
        """The learning rate of a step as a share of the trial's.

        Args:
            step: 0-based step over the whole run, inside this stretch.
            warmup_ratio: Share of the schedule's steps with a rising learning rate.
            schedule: As for :func:`learning_rate_factor`.
        """
        total = self.closes - self.opens
        warmup = round(warmup_ratio * total)
        return self.rate * learning_rate_factor(step - self.opens, total=total, warmup=warmup, schedule=schedule)

    def freeze_the_rest(self, model: nn.Module, *, trained: frozenset[str]) -> None:
        """Let what is trained now require gradients, and nothing else of what is ever trained.

        What stands still takes no part in the backward pass: below the lowest trained layer there is none.
        """
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.requires_grad_(name in self.trained)


def timetable(phases: Sequence[Phase], *, trained: frozenset[str], total: int) -> tuple[Stretch, ...]:
    """The stretches of a run, in the order of time.

    Args:
        phases: What the strategy says; none is one phase that trains everything.
        trained: Names of all parameters that are ever trained.
        total: Steps of the whole run.

    Returns:
        At least one; the first one begins at step 0. A phase that is too short for a step of its own is left out.
    """
    phases = phases or (Phase(start=0.0, trained=trained),)
    firsts = [0, *(round(phase.start * total) for phase in phases[1:])]
    ends = [*firsts[1:], total]
    opens = [0, *(first for phase, first in zip(phases[1:], firsts[1:], strict=True) if phase.restarts)]
    stretches = [
        Stretch(
            first=first,
            trained=phase.trained,
            rate=phase.rate,
            # Also where the phase that restarts has no step of its own, and this one takes its place.
            restarts=first in opens,
            opens=max(step for step in opens if step <= first),
            closes=min((step for step in opens if step > first), default=total),
        )
        for phase, first, end in zip(phases, firsts, ends, strict=True)
        if first < end
    ]
    return tuple(stretches)


def stretch_at(stretches: Sequence[Stretch], step: int) -> Stretch:
    """The stretch that a step belongs to."""
    return [stretch for stretch in stretches if stretch.first <= step][-1]


def learning_rate_factor(step: int, *, total: int, warmup: int, schedule: str) -> float:
    """The learning rate of a step as a share of its peak.

    Args:
        step: 0-based optimizer step over the whole schedule.
        total: Steps of the whole schedule.
        warmup: Steps of the linear rise from 1/warmup to 1.
        schedule: After the warmup ``constant``, ``linear`` (towards 0, which the step after the last would reach),
            ``cosine`` (half a wave, to the same end), ``polynomial`` (a parabola to the same end) or ``wsd``
            (warmup-stable-decay: constant, then a linear fall over the last fifth of the steps).

    Source: wsd: Hu et al. 2024, MiniCPM; its length and shape: Hägele et al. 2024, Scaling Laws and Compute-Optimal
        Training Beyond Fixed Training Durations.
    """
    if step < warmup:
        return (step + 1) / warmup
    passed = (step - warmup) / max(total - warmup, 1)
    cooldown = max(round(_COOLDOWN * total), 1)
    shapes = {
        "constant": 1.0,
        "linear": 1.0 - passed,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * passed)),
        "polynomial": (1.0 - passed) ** 2,
        "wsd": min((total - step) / cooldown, 1.0),
    }
    return shapes[schedule]
