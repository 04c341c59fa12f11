"""Every method on every task of a table, and what came of it as a table of text."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay.kept import KeptCells, digest_of_code, digest_of_file
from benchmarks.replay.methods import METHODS, OURS, Setting
from benchmarks.replay.own import ARM, NearestUntried, StrategyTask, load_table
from benchmarks.replay.simulator import Trace, replay
from benchmarks.replay.smooth import Interpolated
from benchmarks.replay.statistics import Summary, first_as_good, normalised_regret, summarise
from benchmarks.replay.syne import syne_version
from benchmarks.replay.tables import Floats, NearestRow, Task

BUDGETS = (5, 10, 20, 50)
"""In full trainings, over all workers together."""

MOMENTS = tuple(np.arange(1, 4 * BUDGETS[-1] + 1) / 4)
"""In full trainings: when a method is looked at to see how soon it is as good as another at the end."""

Cells = dict[str, list[list[dict[str, Any]]]]
"""Of each method: tasks x seeds."""

LOOKUPS: Mapping[str, type[NearestRow | NearestUntried | Interpolated]] = {
    "nearest": NearestRow,
    "untried": NearestUntried,
    "smooth": Interpolated,
}
"""What an unrecorded configuration shows."""

_INSTANT = 1e-9  # of a training: a clock that was divided and multiplied may stand a little later

WHY_LEFT_OUT = "Syne Tune needs --syne and one way to train; recipes and learning rates of strategies need strategies"

AUTO = "auto"
"""The smooth lookup, which is much nearer to the truth, unless trainings diverged: these cannot be interpolated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What is compared.

    Attributes:
        table: An ``.npz`` of recorded curves.
        methods: Names of :data:`benchmarks.replay.methods.METHODS`.
        tasks: Those to search; empty for all. Recipes are learnt on all others of the table.
        seeds: Runs of each method on each task.
        workers: Simulated workers.
        lookup: A name of :data:`LOOKUPS`, or :data:`AUTO`.
        against: The method that the others are tested against.
        arm: The knob each of whose values is a strategy; empty if there is one way to train.
        keep: Folder with the results of earlier runs, and for those of this one; None for neither.
        syne: Interpreter of an environment that has Syne Tune; None if there is none.
    """

    table: Path
    methods: Sequence[str]
    tasks: Sequence[str]
    seeds: int
    workers: int
    lookup: str
    against: str
    arm: str = ""
    keep: Path | None = None
    syne: Path | None = None


def compare(plan: Comparison) -> dict[str, Any]:
    """Run all methods on a table's tasks.

    Returns:
        What is written as JSON: the cells and their summaries.

    Raises:
        ValueError: If the table is in no known format, or has none of the tasks.
    """
    tasks = load_table(plan.table)
    searched = [task for task in tasks if not plan.tasks or task.name in plan.tasks]
    if not searched:
        raise ValueError(f"{plan.table}: has none of the tasks {', '.join(plan.tasks)}")
    if isinstance(tasks[0], StrategyTask):
        # Configurations of two strategies have nothing between them.
        plan = replace(plan, arm=ARM, lookup="nearest" if plan.lookup == "nearest" else "untried")
    if plan.lookup == AUTO:
        diverges = any(np.isnan(task.scores).any() for task in tasks)
        plan = replace(plan, lookup="nearest" if diverges else "smooth")
    has_recipes = isinstance(tasks[0], StrategyTask)
    left_out = [name for name in plan.methods if not _can_run(name, plan, has_recipes=has_recipes)]
    plan = replace(plan, methods=[name for name in plan.methods if name not in left_out])
    cells: Cells = {name: [] for name in plan.methods}
    for task in searched:
        others = [other for other in tasks if other is not task]
        on_task = _OnTask(plan, task=task, others=others)
        for name in plan.methods:
            cells[name].append([on_task.cell(name, seed=seed) for seed in range(plan.seeds)])
            print(f"{task.name}: {name}", file=sys.stderr, flush=True)
    tables = {kind: _tables(searched, cells, kind=kind, against=plan.against) for kind in ("worst", "median", "unseen")}
    described = asdict(plan) | {
        "table": f"{plan.table.parent.name}/{plan.table.name}",
        "tasks": [task.name for task in searched],
        "keep": None,
        "syne": syne_version(plan.syne),
        "left_out": left_out,
    }
    soon = _trainings_needed(searched, cells, against=plan.against)
    return described | {"budgets": list(BUDGETS), "regret": tables, "trainings_needed": soon, "cells": cells}


def _can_run(name: str, plan: Comparison, *, has_recipes: bool) -> bool:
    method = METHODS[name]
    if method.needs_syne and (plan.arm or not syne_version(plan.syne)):
        return False  # it is asked about one way to train only
    return (has_recipes or not method.needs_recipes) and (bool(plan.arm) or not method.needs_arms)


class _OnTask:
    """The runs on one task; its interpolation is computed when the first of them is not kept yet."""

    def __init__(self, plan: Comparison, *, task: Task, others: Sequence[Task]) -> None:
        self._plan, self._task, self._others = plan, task, others
        self._kept = KeptCells(plan.keep)
        self._table = digest_of_file(plan.table)
        self._trainings: NearestRow | NearestUntried | Interpolated | None = None

    def cell(self, name: str, *, seed: int) -> dict[str, Any]:
        """One method, one seed: what was found at each budget, and what the search itself cost."""
        method, plan = METHODS[name], self._plan
        what = {
            "method": {**method.made_of, "name": "" if name.startswith(OURS) else name},
            "code": digest_of_code(ours=name.startswith(OURS)),
            "table": [self._table, self._task.name, plan.lookup, plan.arm],
            "workers": plan.workers,
            "budgets": BUDGETS,
            "keeps": "improvements",
            "seed": seed,
            "syne": syne_version(plan.syne) if method.needs_syne else "",
        }
        found = self._kept.find(what)
        if found is None:
            if self._trainings is None:
                self._trainings = LOOKUPS[plan.lookup](self._task)
            setting = Setting(
                task=self._task,
                others=self._others,
                seed=seed,
                trainings=BUDGETS[-1],
                workers=plan.workers,
                arm=plan.arm,
                syne=plan.syne,
            )
            found = _run(name, setting, self._trainings)
            self._kept.keep(what, found)
        return found


def _run(name: str, setting: Setting, trainings: NearestRow | NearestUntried | Interpolated) -> dict[str, Any]:
    method, found, tested = METHODS[name], list[float | None](), list[float | None]()
    started = time.process_time()
    trace = Trace()
    for budget in BUDGETS if method.plans_ahead else BUDGETS[-1:]:
        hour = setting.task.full_training / setting.workers
        start = method.start(replace(setting, trainings=budget))
        trace = replay(start, trainings.anew(), workers=setting.workers, seconds=budget * hour)
        instants = [one * hour for one in ([budget] if method.plans_ahead else BUDGETS)]
        found += [trace.best_at(instant) for instant in instants]
        tested += [trace.test_at(instant) for instant in instants]
    improvements = [[at / hour, score] for at, score in zip(trace.instants, trace.best, strict=True)]
    return {
        "found": found,
        "test": tested,
        "improvements": improvements,
        "trials": trace.trials,
        "distinct": trace.distinct,
        "completed": trace.completed,
        "cpu_seconds": round(time.process_time() - started, 3),
    }


def _tables(tasks: Sequence[Task], cells: Cells, *, kind: str, against: str) -> dict[str, dict[str, Any]]:
    """Of each budget, each method's summary.

    Args:
        tasks: That were searched.
        cells: Their runs.
        kind: What a regret is relative to: the "worst" or the "median" final score; or "unseen": the picks' test scores, or those
            of other seeds, relative to the worst of these.
        against: The method that the others are tested against.
    """
    regrets = {name: _regrets(tasks, rows, kind=kind) for name, rows in cells.items()}
    tables = {}
    for index, budget in enumerate(BUDGETS):
        found = summarise({name: values[:, :, index] for name, values in regrets.items()}, against=against)
        tables[str(budget)] = {name: asdict(item) for name, item in found.items()}
    return tables


def _regrets(tasks: Sequence[Task], rows: Sequence[Sequence[Mapping[str, Any]]], *, kind: str) -> Floats:
    """Tasks x seeds x budgets."""
    found = "test" if kind == "unseen" else "found"
    return np.array(
        [
            [[normalised_regret(value, best=best, reference=reference) for value in cell[found]] for cell in row]
            for (best, reference), row in zip((_span(task, kind) for task in tasks), rows, strict=True)
        ]
    )


def _span(task: Task, kind: str) -> tuple[float, float]:
    if kind == "unseen":
        return float(np.nanmax(task.test)), float(np.nanmin(task.test[:, -1]))
    return task.best, float(getattr(task, kind))


def _trainings_needed(tasks: Sequence[Task], cells: Cells, *, against: str) -> dict[str, float | None]:
    """Of each method, after how many trainings its mean regret is what the reference's is at the end; None if it never is."""
    if against not in cells:
        return {}

    def _course(rows: Sequence[Sequence[Mapping[str, Any]]]) -> Floats:
        best = [[[_best_until(cell, moment) for moment in MOMENTS] for cell in row] for row in rows]
        regrets = [
            [[normalised_regret(score, best=task.best, reference=task.worst) for score in scores] for scores in row]
            for task, row in zip(tasks, best, strict=True)
        ]
        return np.asarray(np.mean(regrets, axis=(0, 1)))

    goal = float(_course(cells[against])[-1])
    return {name: first_as_good(_course(rows), moments=MOMENTS, goal=goal) for name, rows in cells.items()}


def _best_until(cell: Mapping[str, Any], moment: float) -> float | None:
    return max((score for at, score in cell["improvements"] if at <= moment + _INSTANT), default=None)


def render(result: Mapping[str, Any]) -> str:
    """A result as text: mean regret relative to the worst final score, with its interval where the budget is largest."""
    budgets = [str(budget) for budget in result["budgets"]]
    summaries, last = result["regret"]["worst"], budgets[-1]
    what = f"{len(result['tasks'])} tasks x {result['seeds']} seeds, {result['workers']} workers, lookup {result['lookup']}"
    if result["arm"] not in ("", ARM):
        what += f", each {result['arm']} a strategy"
    lines = [
        f"{result['table']}: {what}",
        f"{'mean regret after N trainings':34}"
        + "".join(f"{'@' + budget:>7}" for budget in budgets)
        + f"{'95 % @' + last:>14}{'median':>8}{'rank@10':>9}{'rank@' + last:>9}{'won/lost':>10}{'p@10':>9}{'p@' + last:>9}"
        + f"{'unseen':>8}{'needs':>7}{'trials':>8}{'CPU s':>7}",
    ]
    for name in sorted(result["cells"], key=lambda name: float(summaries[last][name]["mean"])):
        early, item = Summary(**summaries["10"][name]), Summary(**summaries[last][name])
        cells = [cell for row in result["cells"][name] for cell in row]
        needed = result["trainings_needed"].get(name)
        p_values = "".join(f"{'' if one.p is None else f'{one.p:.2g}':>9}" for one in (early, item))
        lines.append(
            f"{name:34}"
            + "".join(f"{summaries[budget][name]['mean']:7.3f}" for budget in budgets)
            + f"{f'{item.low:.3f}-{item.high:.3f}':>14}{item.median:8.3f}{early.rank:9.2f}{item.rank:9.2f}"
            + f"{f'{item.wins}/{item.losses}':>10}{p_values}"
            + f"{result['regret']['unseen'][last][name]['mean']:8.3f}{'-' if needed is None else f'{needed:g}':>7}"
            + f"{np.mean([cell['trials'] for cell in cells]):8.0f}{np.mean([cell['cpu_seconds'] for cell in cells]):7.1f}"
        )
    if result["left_out"]:
        lines.append(f"not run: {', '.join(result['left_out'])} ({WHY_LEFT_OUT})")
    lines.append(f"won/lost and p: against {result['against']} (Wilcoxon signed-rank over tasks x seeds, Holm)")
    lines.append(f"unseen: the pick's regret @{last} by test rows, or by other seeds where they were recorded")
    lines.append(f"needs: trainings after which the mean regret is no larger than that of {result['against']} @{last}")
    return "\n".join(lines)
