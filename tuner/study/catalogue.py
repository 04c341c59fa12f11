"""What a study may name: the tasks and strategies that exist, as plain facts.

`study/` may not import `tasks/` or `strategies/` (imports go one way), so whoever reads a study file hands
the catalogue in: :func:`tuner.catalogue` builds it from the two registries without importing torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.study.domains import Hyperparameter


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyInfo:
    """One way to adapt a model, as facts.

    Attributes:
        name: The word used in study files.
        summary: One line: what is trained.
        learning_rate: The prior of the learning rate as ``(model parameters, learning rate)`` pairs in ascending
            model size; between two sizes it is interpolated on log-log axes, beyond the ends it is constant.
        hyperparameters: The knobs that only this strategy has; names start with the strategy's name and a dot.
        combinable: Whether it may be a component of a combination such as ``lora+bitfit``.
        sequential: Whether it may stand in a sequence such as ``head>lora``; what has a schedule of its own may not.
        source: Paper or documentation of the method.
    """

    name: str
    summary: str
    learning_rate: tuple[tuple[float, float], ...]
    hyperparameters: tuple[Hyperparameter, ...] = ()
    combinable: bool = False
    sequential: bool = True
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricInfo:
    """One figure that a task reports after every epoch.

    Attributes:
        name: The word used in study files, such as ``macro_f1``.
        goal: ``maximize`` or ``minimize``.
        help: One line for people.
    """

    name: str
    goal: str
    help: str


RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "macro_f1", "precision", "recall", "auc"), (0.0, 1.0)),
    "loss": (0.0, math.inf),
}
"""Lowest and highest value of each metric: no interval goes beyond. A test holds it beside the metrics of the tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """One kind of problem, as facts.

    Attributes:
        name: The word used in study files, such as ``text-classification``.
        summary: One line for people.
        metrics: What it reports; the first is the default objective.
        columns: The data columns it needs, as field names of :class:`tuner.study.spec.DataSpec`.
    """

    name: str
    summary: str
    metrics: tuple[MetricInfo, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """Everything that a study file may name."""

    strategies: Mapping[str, StrategyInfo]
    tasks: Mapping[str, TaskInfo]
