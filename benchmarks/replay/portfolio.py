"""Recipes for a task that were learnt on other tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.replay.tables import Floats, Task
from tuner.study.domains import Value


def learn_portfolio(tasks: Sequence[Task], *, size: int, arm: str = "") -> list[dict[str, Value]]:
    """Greedy coverage: each next recipe is the one that most lowers the mean over the tasks of the best regret so far.

    Args:
        tasks: With the same recorded configurations; the one that is searched must not be among them.
        size: Number of recipes.
        arm: A knob each of whose values gets a recipe before any gets a second one; empty for none.
    """
    if not tasks:
        return []
    regrets = np.stack([_regrets(task) for task in tasks])
    covered = np.ones(len(tasks))
    chosen: list[int] = []
    arms = np.array([tasks[0].values(row)[arm] if arm else 0 for row in range(regrets.shape[1])])
    for _ in range(size):
        means = np.minimum(regrets, covered[:, None]).mean(axis=0)
        means[chosen] = np.inf
        is_new = ~np.isin(arms, arms[chosen])
        if arm and is_new.any():
            means[~is_new] = np.inf
        row = int(means.argmin())
        if chosen and means[row] >= covered.mean() - 1e-9 and not (arm and is_new.any()):
            # all is covered: begin a second cover
            covered = np.ones(len(tasks))
            means = regrets.mean(axis=0)
            means[chosen] = np.inf
            row = int(means.argmin())
        chosen.append(row)
        covered = np.minimum(covered, regrets[:, row])
    return [tasks[0].values(row) for row in chosen]


def _regrets(task: Task) -> Floats:
    """Of each configuration's final score: 0 is the best of the table, 1 its median or worse."""
    final = np.nan_to_num(task.scores[:, -1], nan=task.worst)
    regrets: Floats = np.clip((final.max() - final) / (final.max() - task.median), 0.0, 1.0)
    return regrets
