"""What a study aims at: one objective or several, and the constraints that its trials must keep.

Like the other rules it reads raw data of any shape, and passes over what has the wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.study.catalogue import Catalogue, TaskInfo
from tuner.study.constraints import ConstraintError, parse_constraint
from tuner.study.costs import COSTS
from tuner.study.messages import quoted
from tuner.study.names import PRUNERS_OF_SEVERAL, SAMPLERS_OF_ONE, did_you_mean
from tuner.study.ranges import Findings
from tuner.study.spec import StudySpec


def aim_problems(data: Mapping[str, Any], *, task: TaskInfo | None, catalogue: Catalogue, findings: Findings) -> None:
    """Note what is wrong with a study's objectives and constraints.

    Args:
        data: The study file's data, of any shape.
        task: What is learnt; None if that is not known.
        catalogue: Tasks that exist.
        findings: Takes the mistakes.
    """
    aims = _Aims(task=task, catalogue=catalogue, findings=findings)
    objective = data.get("objective")
    if isinstance(objective, list | tuple):
        aims.several(objective)
        if len(objective) > 1:
            _search(data.get("search"), findings=findings)
    elif isinstance(objective, Mapping):
        aims.one(objective, key="objective", is_first=True)
    texts = data.get("constraints")
    if isinstance(texts, list | tuple):
        aims.constraints(texts)


def with_goals(spec: StudySpec, *, catalogue: Catalogue) -> StudySpec:
    """The study with the goal of each objective, where it has several: whoever reads it then needs no catalogue."""
    if not spec.has_front:
        return spec
    goals = {metric.name: metric.goal for metric in catalogue.tasks[spec.task].metrics}
    goals |= dict.fromkeys(COSTS, "minimize")
    several = tuple(one.model_copy(update={"goal": goals[one.metric]}) for one in spec.objectives)
    return spec.model_copy(update={"objective": several})


class _Aims:
    def __init__(self, *, task: TaskInfo | None, catalogue: Catalogue, findings: Findings) -> None:
        self._whose = task.name if task is not None else "no task"
        tasks = [task] if task is not None else list(catalogue.tasks.values())
        self._goals = {metric.name: metric.goal for known in tasks for metric in known.metrics}
        self._findings = findings

    def several(self, objectives: list[Any] | tuple[Any, ...]) -> None:
        seen: dict[str, int] = {}
        for index, objective in enumerate(objectives):
            if not isinstance(objective, Mapping):
                continue
            self.one(objective, key=f"objective.{index}", is_first=index == 0)
            name = objective.get("metric")
            if isinstance(name, str) and name in seen:
                self._findings.refuse(f"objective.{index}.metric", f"{quoted(name)} is an objective already")
            elif isinstance(name, str):
                seen[name] = index

    def one(self, objective: Mapping[str, Any], *, key: str, is_first: bool) -> None:
        name, goal = objective.get("metric"), objective.get("goal")
        if not isinstance(name, str):
            return
        known = self._goals if is_first else {**self._goals, **dict.fromkeys(COSTS, "minimize")}
        if is_first and name in COSTS:
            metric = next(iter(self._goals), "accuracy")
            self._findings.refuse(
                f"{key}.metric",
                f"{name} is a cost, and the first objective must be a metric: it decides which epoch of a trial counts; "
                f"write [{{metric: {metric}}}, {{metric: {name}}}]",
            )
        elif name not in known:
            has = "has a" if self._whose == "no task" else "has no"
            hint = did_you_mean(name, known)
            if is_first and "did you mean" not in hint:
                hint += f"; for a further objective also {', '.join(COSTS)}"
            self._findings.refuse(f"{key}.metric", f"{self._whose} {has} metric {quoted(name)}{hint}")
        elif goal in ("maximize", "minimize") and goal != known[name]:
            better = "higher" if known[name] == "maximize" else "lower"
            self._findings.refuse(
                f"{key}.goal", f"{name} is better the {better} it is; write {known[name]} or remove the line"
            )

    def constraints(self, texts: list[Any] | tuple[Any, ...]) -> None:
        seen: set[str] = set()
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                continue
            key = f"constraints.{index}"
            try:
                constraint = parse_constraint(text, goals=self._goals)
            except ConstraintError as error:
                self._findings.refuse(key, str(error))
                continue
            if constraint.name in seen:
                self._findings.refuse(key, f"{constraint.name} has a bound already; keep one")
            seen.add(constraint.name)


def _search(search: Any, *, findings: Findings) -> None:
    """Samplers and pruners that compare one number."""
    given: Mapping[str, Any] = search if isinstance(search, Mapping) else {}
    for kind in ("sampler", "pruner"):
        choice = given.get(kind)
        name = choice.get("name") if isinstance(choice, Mapping) else choice
        key = f"search.{kind}.name" if isinstance(choice, Mapping) else f"search.{kind}"
        if kind == "sampler" and name in SAMPLERS_OF_ONE:
            findings.refuse(key, f"{name} knows one objective only; with several use auto, tpe, nsgaii, nsgaiii or gp")
        if kind == "pruner" and isinstance(name, str) and name not in PRUNERS_OF_SEVERAL:
            findings.refuse(
                key, f"{name} compares one number; with several objectives use auto (by Pareto rank) or none"
            )
        if kind == "pruner" and isinstance(choice, Mapping) and name in {None, "auto"} and choice.get("options"):
            findings.refuse("search.pruner.options", "with several objectives auto has no options; remove them")
