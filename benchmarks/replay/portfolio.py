"""Recipes for a task that were learnt on other tasks whose whole tables are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.replay.tables import Floats, Task
from tuner.search.portfolio import choose_cover
from tuner.study.domains import Value


def learn_portfolio(tasks: Sequence[Task], *, size: int, arm: str = "") -> list[dict[str, Value]]:
    """The greedy cover of :mod:`tuner.search.portfolio`, over every recorded configuration.

    Args:
        tasks: With the same recorded configurations; the one that is searched must not be among them.
        size: Number of recipes.
        arm: A knob each of whose values gets a recipe before any gets a second one; empty for none.
    """
    if not tasks:
        return []
    worth = np.stack([_regrets(task) for task in tasks])
    kinds = [tasks[0].values(row)[arm] for row in range(worth.shape[1])] if arm else []
    return [tasks[0].values(row) for row in choose_cover(worth, size=size, kinds=kinds)]


def _regrets(task: Task) -> Floats:
    """Of each configuration's final score: 0 is the best of the table, 1 its median or worse."""
    final = np.nan_to_num(task.scores[:, -1], nan=task.worst)
    regrets: Floats = np.clip((final.max() - final) / (final.max() - task.median), 0.0, 1.0)
    return regrets
