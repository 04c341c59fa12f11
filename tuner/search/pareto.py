"""Pruning where several objectives count: a trial stops when half of those that got as far lie in better fronts.

Optuna's pruners compare one number, and its trials report none where there are several. So trials are compared at equal epochs by
non-dominated sorting: of the metrics so far, of the device seconds so far, and of what is known from the start (parameters) or measured
after the epoch (memory). Rungs double: 1, 2, 4, 8 … epochs. A trial that nothing dominates is never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuner.search.pruners import FEW_EPOCHS
from tuner.study.constraints import show_fact
from tuner.study.front import dominates, front_ranks
from tuner.study.spec import ObjectiveSpec

_COARSE = {"seconds": 0.05, "peak_memory": 0.05}
"""Measured costs differ by chance: they are compared in steps of this share."""

Standings = Mapping[int, Mapping[str, float]]
"""What each trial, by its number, had reported at one epoch."""


def is_rung(epoch: int) -> bool:
    """Whether trials are compared after this epoch."""
    return epoch.bit_count() == 1


def why_dominated(
    standings: Standings,
    *,
    number: int,
    epoch: int,
    epochs: int,
    objectives: Sequence[ObjectiveSpec],
    is_recipe: bool,
) -> str:
    """Why a trial that has just reported, with epochs left, shall stop; an empty string if it shall go on.

    Args:
        standings: All trials that have reported the epoch, this one included.
        number: The trial.
        epoch: What it has reported.
        epochs: Epochs of a trial that is not pruned.
        objectives: What counts, each with its goal.
        is_recipe: Whether it is one of the recipes: none is stopped after its first epoch, and where epochs are few not at all.
    """
    spared = epochs if epochs < FEW_EPOCHS else 1
    if not is_rung(epoch) or (is_recipe and epoch <= spared):
        return ""
    points = {other: point for other, facts in standings.items() if (point := _point(facts, objectives)) is not None}
    if number not in points:
        return ""
    numbers = list(points)
    ranks = dict(zip(numbers, front_ranks([points[other] for other in numbers]), strict=True))
    better = sum(rank < ranks[number] for rank in ranks.values())
    if better < max(len(points) // 2, 1):
        return ""
    by = min(other for other in numbers if ranks[other] == 0 and dominates(points[other], points[number]))
    words = ", ".join(
        f"{one.metric} {_shown(standings[by], one)} against {_shown(standings[number], one)}" for one in objectives
    )
    others = f"{better} of the {len(points) - 1} others" if len(points) > 2 else "the other trial"
    fronts = "a better front" if better == 1 else "better fronts"
    return (
        f"{others} {'is' if better == 1 else 'are'} in {fronts} at epoch {epoch}; trial {by} is nowhere worse: {words}"
    )


def _shown(facts: Mapping[str, float], objective: ObjectiveSpec) -> str:
    return show_fact(objective.metric, facts.get(objective.metric))


def _point(facts: Mapping[str, float], objectives: Sequence[ObjectiveSpec]) -> tuple[float, ...] | None:
    """What is compared, less being better; None where something is not known."""
    point = []
    for one in objectives:
        value = facts.get(one.metric)
        if value is None or not math.isfinite(value):
            return None
        if (step := _COARSE.get(one.metric)) is not None:
            value = math.floor(math.log(max(value, 1e-9)) / math.log1p(step))
        point.append(-value if one.goal == "maximize" else value)
    return tuple(point)
