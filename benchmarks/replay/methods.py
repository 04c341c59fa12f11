"""The methods that are compared, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.portfolio import learn_portfolio
from benchmarks.replay.simulator import Search
from benchmarks.replay.stock import Fixed, OptunaSearch, Screening
from benchmarks.replay.tables import Task
from tuner.study.domains import Value
from tuner.study.spec import SearchSpec

RECIPES = 8
"""Recipes that a portfolio has."""

STOCK = "stock Optuna"
"""What a user of Optuna 5 gets who names neither a sampler nor a pruner."""

OURS = "ours"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a method is told.

    Attributes:
        task: What is searched.
        others: Tasks whose curves may be learnt from: never the searched one.
        seed: Of the method's random numbers.
        trainings: The budget, in full trainings.
        workers: How many ask at once.
    """

    task: Task
    others: Sequence[Task]
    seed: int
    trainings: float
    workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One line of the table.

    Attributes:
        start: Makes a fresh search.
        plans_ahead: Whether it needs to know its budget, so that each budget is a run of its own.
    """

    start: Callable[[Setting], Search]
    plans_ahead: bool = False


def _tpe(seed: int, **options: Any) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, **options)


def _univariate(seed: int) -> BaseSampler:
    return _tpe(seed, multivariate=False, constant_liar=False)


def _hyperband(task: Task) -> BasePruner:
    return HyperbandPruner(min_resource=1, max_resource=task.epochs, reduction_factor=3)


def _asha(_task: Task) -> BasePruner:
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def _none(_task: Task) -> BasePruner:
    return NopPruner()


def _stock(sampler: Callable[[int], BaseSampler], pruner: Callable[[Task], BasePruner], *, recipes: int = 0) -> Method:
    def _start(setting: Setting) -> Search:
        return OptunaSearch(
            setting.task,
            sampler=sampler(setting.seed),
            pruner=pruner(setting.task),
            seed=setting.seed,
            first=_portfolio(setting, recipes),
        )

    return Method(start=_start)


def _judged(
    *, recipes: int = RECIPES, sampler: Mapping[str, Any] | str = "auto", pruner: Mapping[str, Any] | str = "auto"
) -> Method:
    def _start(setting: Setting) -> Search:
        search = SearchSpec.model_validate({"sampler": sampler, "pruner": pruner, "seed": setting.seed})
        return JudgedSearch(setting.task, search=search, recipes=_portfolio(setting, recipes))

    return Method(start=_start)


def _portfolio(setting: Setting, size: int) -> list[dict[str, Value]]:
    return learn_portfolio(setting.others, size=size) if size else []


def _screening(setting: Setting) -> Search:
    count = max(1, round(setting.trainings * setting.task.epochs / 2))
    return Screening(setting.task, seed=setting.seed, count=count)


METHODS: Mapping[str, Method] = {
    "random": _stock(lambda seed: RandomSampler(seed=seed), _none),
    "1 epoch, then top K": Method(start=_screening, plans_ahead=True),
    STOCK: _stock(_tpe, lambda _task: MedianPruner()),
    "TPE 5": _stock(_tpe, _none),
    "TPE 5 + Percentile 25": _stock(_tpe, lambda _task: PercentilePruner(25.0)),
    "TPE 5 + Hyperband": _stock(_tpe, _hyperband),
    "TPE 5 + ASHA": _stock(_tpe, _asha),
    "TPE univariate": _stock(_univariate, _none),
    "TPE univariate + Hyperband": _stock(_univariate, _hyperband),
    "random + ASHA": _stock(lambda seed: RandomSampler(seed=seed), _asha),
    "portfolio only": Method(start=lambda setting: Fixed(_portfolio(setting, RECIPES))),
    OURS: _judged(),
    "ours without recipes": _judged(recipes=0),
    "ours without pruning": _judged(pruner="none"),
    "ours without brackets": _judged(pruner={"name": "successive_halving", "options": {"reduction_factor": 3}}),
    "ours without TPE": _judged(sampler="random"),
    "ours without univariate TPE": _judged(sampler={"name": "auto", "options": {"multivariate": True}}),
}
"""What the table can show; those whose name begins with "ours without" are ablations."""

BASELINES = (
    "random",
    "1 epoch, then top K",
    STOCK,
    "TPE 5 + Hyperband",
    "TPE univariate + Hyperband",
    "random + ASHA",
    "portfolio only",
    OURS,
)
"""What is compared when nothing is asked for."""
