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
from benchmarks.replay.own import ARM, StrategyTask, load_table
from benchmarks.replay.simulator import Trace, Trainings, replay
from benchmarks.replay.smooth import Interpolated
from benchmarks.replay.statistics import Summary, normalised_regret, summarise
from benchmarks.replay.syne import syne_version
from benchmarks.replay.tables import Floats, NearestRow, Task

BUDGETS = (5, 10, 20, 50)
"""In full trainings, over all workers together."""

Cells = dict[str, list[list[dict[str, Any]]]]
"""Of each method: tasks x seeds."""

LOOKUPS: Mapping[str, type[NearestRow | Interpolated]] = {"nearest": NearestRow, "smooth": Interpolated}
"""What an unrecorded configuration shows."""

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
        plan = replace(plan, arm=ARM, lookup="nearest")  # configurations of two strategies have nothing between them
    if plan.lookup == AUTO:
        diverges = any(np.isnan(task.scores).any() for task in tasks)
        plan = replace(plan, lookup="nearest" if diverges else "smooth")
    left_out = [name for name in plan.methods if METHODS[name].needs_syne and (plan.arm or not syne_version(plan.syne))]
    plan = replace(plan, methods=[name for name in plan.methods if name not in left_out])
    cells: Cells = {name: [] for name in plan.methods}
    for task in searched:
        others = [other for other in tasks if other is not task]
        on_task = _OnTask(plan, task=task, others=others)
        for name in plan.methods:
            cells[name].append([on_task.cell(name, seed=seed) for seed in range(plan.seeds)])
            print(f"{task.name}: {name}", file=sys.stderr, flush=True)
    tables = {}
    for reference in ("worst", "median"):
        regrets = {name: _regrets(searched, rows, reference=reference) for name, rows in cells.items()}
        tables[reference] = {
            str(budget): _summaries({name: values[:, :, index] for name, values in regrets.items()}, plan.against)
            for index, budget in enumerate(BUDGETS)
        }
    described = asdict(plan) | {
        "table": f"{plan.table.parent.name}/{plan.table.name}",
        "tasks": [task.name for task in searched],
        "keep": None,
        "syne": syne_version(plan.syne),
        "left_out": left_out,
    }
    return described | {"budgets": list(BUDGETS), "regret": tables, "cells": cells}


class _OnTask:
    """The runs on one task; its interpolation is computed when the first of them is not kept yet."""

    def __init__(self, plan: Comparison, *, task: Task, others: Sequence[Task]) -> None:
        self._plan, self._task, self._others = plan, task, others
        self._kept = KeptCells(plan.keep)
        self._table = digest_of_file(plan.table)
        self._trainings: Trainings | None = None

    def cell(self, name: str, *, seed: int) -> dict[str, Any]:
        """One method, one seed: what was found at each budget, and what the search itself cost."""
        method, plan = METHODS[name], self._plan
        what = {
            "method": {**method.made_of, "name": "" if name.startswith(OURS) else name},
            "code": digest_of_code(ours=name.startswith(OURS)),
            "table": [self._table, self._task.name, plan.lookup, plan.arm],
            "workers": plan.workers,
            "budgets": BUDGETS,
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


def _run(name: str, setting: Setting, trainings: Trainings) -> dict[str, Any]:
    method, found, tested = METHODS[name], list[float | None](), list[float | None]()
    started = time.process_time()
    trace = Trace()
    for budget in BUDGETS if method.plans_ahead else BUDGETS[-1:]:
        hour = setting.task.full_training / setting.workers
        start = method.start(replace(setting, trainings=budget))
        trace = replay(start, trainings, workers=setting.workers, seconds=budget * hour)
        instants = [one * hour for one in ([budget] if method.plans_ahead else BUDGETS)]
        found += [trace.best_at(instant) for instant in instants]
        tested += [trace.test_at(instant) for instant in instants]
    return {
        "found": found,
        "test": tested,
        "trials": trace.trials,
        "distinct": trace.distinct,
        "completed": trace.completed,
        "cpu_seconds": round(time.process_time() - started, 3),
    }


def _regrets(tasks: Sequence[Task], rows: Sequence[Sequence[Mapping[str, Any]]], *, reference: str) -> Floats:
    """Tasks x seeds x budgets."""
    return np.array(
        [
            [
                [
                    normalised_regret(value, best=task.best, reference=getattr(task, reference))
                    for value in cell["found"]
                ]
                for cell in row
            ]
            for task, row in zip(tasks, rows, strict=True)
        ]
    )


def _summaries(regrets: Mapping[str, Floats], against: str) -> dict[str, Any]:
    return {name: asdict(item) for name, item in summarise(regrets, against=against).items()}


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
        + f"{'trials':>8}{'CPU s':>7}",
    ]
    for name in sorted(result["cells"], key=lambda name: float(summaries[last][name]["mean"])):
        early, item = Summary(**summaries["10"][name]), Summary(**summaries[last][name])
        cells = [cell for row in result["cells"][name] for cell in row]
        p_values = "".join(f"{'' if one.p is None else f'{one.p:.2g}':>9}" for one in (early, item))
        lines.append(
            f"{name:34}"
            + "".join(f"{summaries[budget][name]['mean']:7.3f}" for budget in budgets)
            + f"{f'{item.low:.3f}-{item.high:.3f}':>14}{item.median:8.3f}{early.rank:9.2f}{item.rank:9.2f}"
            + f"{f'{item.wins}/{item.losses}':>10}{p_values}"
            + f"{np.mean([cell['trials'] for cell in cells]):8.0f}{np.mean([cell['cpu_seconds'] for cell in cells]):7.1f}"
        )
    if result["left_out"]:
        why = "it is asked about one way to train only" if result["arm"] else "no environment has it: see --syne"
        lines.append(f"not run: {', '.join(result['left_out'])} ({why})")
    lines.append(f"won/lost and p: against {result['against']} (Wilcoxon signed-rank over tasks x seeds, Holm)")
    return "\n".join(lines)
