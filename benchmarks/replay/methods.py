"""The methods that are compared, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from benchmarks.replay.forms import Question, by_strategy, one_way
from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.kept import digest_of_code, digest_of_file
from benchmarks.replay.own import ARM, StrategyTask, as_studied
from benchmarks.replay.past import learn_recipes
from benchmarks.replay.portfolio import learn_portfolio
from benchmarks.replay.simulator import Search
from benchmarks.replay.stock import Fixed, OptunaSearch, Screening
from benchmarks.replay.syne import SyneSearch
from benchmarks.replay.tables import NearestRow, Task
from benchmarks.replay.thrifty import ThriftySearch
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
        arm: The knob each of whose values is a strategy; empty if there is one way to train.
        syne: Interpreter of the environment that has Syne Tune; None if there is none.
    """

    task: Task
    others: Sequence[Task]
    seed: int
    trainings: float
    workers: int
    arm: str = ""
    syne: Path | None = None

    def question(self, *, relative: bool) -> Question:
        """The task as it is put to the method, with learning rates relative to each strategy's or with a knob for each."""
        if isinstance(self.task, StrategyTask):
            return as_studied(self.task, relative=relative)
        return by_strategy(self.task, arm=self.arm, relative=relative) if self.arm else one_way(self.task)

    def portfolio(self, size: int) -> list[dict[str, Value]]:
        """The recipes that the strategies come with; where they have none, those that were learnt on the other tasks."""
        return self.defaults()[:size] or self.learnt(size)

    def defaults(self) -> list[dict[str, Value]]:
        """The recipes that the strategies come with: what a new study has where nothing was learnt."""
        return self.task.recipes() if isinstance(self.task, StrategyTask) else []

    def learnt(self, size: int) -> list[dict[str, Value]]:
        """Recipes learnt on the other tasks."""
        return learn_portfolio(self.others, size=size, arm=self.arm) if size else []


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One line of the table.

    Attributes:
        start: Makes a fresh search.
        made_of: What tells it from other methods of the same code: results are kept under it.
        plans_ahead: Whether it needs to know its budget, so that each budget is a run of its own.
        needs_arms: Whether it says something only where there are several strategies.
        needs_recipes: Whether it says something only where the strategies come with recipes.
        needs_syne: Whether Syne Tune runs it, which is asked about one way to train only.
    """

    start: Callable[[Setting], Search]
    made_of: Mapping[str, Any] = field(default_factory=dict)
    plans_ahead: bool = False
    needs_arms: bool = False
    needs_recipes: bool = False
    needs_syne: bool = False


def _tpe(seed: int, **options: Any) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, **options)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed)


_SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "TPE": _tpe,
    "univariate TPE": lambda seed: _tpe(seed, multivariate=False, constant_liar=False),
    "GP": _gp,
}
_PRUNERS: Mapping[str, Callable[[Task], BasePruner]] = {
    "none": lambda _task: NopPruner(),
    "median": lambda _task: MedianPruner(),
    "percentile": lambda _task: PercentilePruner(25.0),
    "Hyperband": lambda task: HyperbandPruner(min_resource=1, max_resource=task.epochs, reduction_factor=3),
    "ASHA": lambda _task: SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
}


def _stock(sampler: str, pruner: str, *, recipes: int = 0) -> Method:
    def _start(setting: Setting) -> Search:
        return OptunaSearch(
            setting.question(relative=False),
            sampler=_SAMPLERS[sampler](setting.seed),
            pruner=_PRUNERS[pruner](setting.task),
            seed=setting.seed,
            first=setting.portfolio(recipes),
        )

    return Method(start=_start, made_of={"sampler": sampler, "pruner": pruner, "recipes": recipes})


def _judged(
    *,
    recipes: int = RECIPES,
    sampler: Mapping[str, Any] | str = "auto",
    pruner: Mapping[str, Any] | str = "auto",
    relative: bool = True,
    learnt: bool = False,
    needs_arms: bool = False,
    **how: Any,
) -> Method:
    def _start(setting: Setting) -> Search:
        search = SearchSpec.model_validate({"sampler": sampler, "pruner": pruner, "seed": setting.seed})
        return JudgedSearch(
            setting.question(relative=relative),
            epochs=setting.task.epochs,
            search=search,
            recipes=setting.learnt(recipes) if learnt else setting.portfolio(recipes),
            **how,
        )

    made_of = {"sampler": sampler, "pruner": pruner, "recipes": recipes, "relative": relative, **how}
    if learnt:
        made_of["learnt"] = True
    return Method(start=_start, made_of=made_of, needs_arms=needs_arms, needs_recipes=learnt)


def _warm(*, studies: int | None = None) -> Method:
    """Ours, with what the product learns from searches of other tasks instead of their whole tables.

    Args:
        studies: How many past studies there are; None: one of each other task.
    """

    def _start(setting: Setting) -> Search:
        def _ask(task: Task) -> Question:
            return replace(setting, task=task).question(relative=True)

        others = setting.others[:studies]
        return JudgedSearch(
            _ask(setting.task),
            epochs=setting.task.epochs,
            search=SearchSpec(seed=setting.seed),
            recipes=learn_recipes(setting.task, others=others, ask=_ask, seed=setting.seed, size=RECIPES),
        )

    return Method(start=_start, made_of={"past studies": studies, "learnt by": digest_of_code(ours=True)})


def _thrifty(power: float) -> Method:
    """Ours, with strategies by their expected gain for each second.

    Args:
        power: Of the seconds.
    """

    def _start(setting: Setting) -> Search:
        recipes, table = setting.defaults(), NearestRow(setting.task)
        return ThriftySearch(
            setting.question(relative=True),
            epochs=setting.task.epochs,
            search=SearchSpec(seed=setting.seed),
            recipes=recipes,
            costs={str(values[ARM]): float(table.curve(values).seconds[-1]) for values in recipes},
            power=power,
        )

    code = digest_of_file(Path(__file__).with_name("thrifty.py"))
    return Method(start=_start, made_of={"power of seconds": power, "by": code}, needs_recipes=True)


def _syne(method: str) -> Method:
    def _start(setting: Setting) -> Search:
        assert setting.syne is not None
        task = setting.task
        return SyneSearch(setting.syne, method=method, knobs=task.knobs, epochs=task.epochs, seed=setting.seed)

    return Method(start=_start, needs_syne=True)


def _screening(setting: Setting) -> Search:
    count = max(1, round(setting.trainings * setting.task.epochs / 2))
    return Screening(setting.task, seed=setting.seed, count=count)


METHODS: Mapping[str, Method] = {
    "random": _stock("random", "none"),
    "1 epoch, then top K": Method(start=_screening, plans_ahead=True),
    STOCK: _stock("TPE", "median"),
    "TPE 5": _stock("TPE", "none"),
    "TPE 5 + Percentile 25": _stock("TPE", "percentile"),
    "TPE 5 + Hyperband": _stock("TPE", "Hyperband"),
    "TPE 5 + ASHA": _stock("TPE", "ASHA"),
    "TPE univariate": _stock("univariate TPE", "none"),
    "TPE univariate + Hyperband": _stock("univariate TPE", "Hyperband"),
    "random + ASHA": _stock("random", "ASHA"),
    "GP": _stock("GP", "none"),
    "GP + median": _stock("GP", "median"),
    "GP + Hyperband": _stock("GP", "Hyperband"),
    "Syne Tune ASHA": _syne("ASHA"),
    "Syne Tune BOHB": _syne("BOHB"),
    "Syne Tune MOBSTER": _syne("MOBSTER"),
    "portfolio only": Method(start=lambda setting: Fixed(setting.portfolio(RECIPES)), made_of={"recipes": RECIPES}),
    OURS: _judged(),
    "ours with learnt recipes": _judged(learnt=True),
    "ours without recipes": _judged(recipes=0),
    "ours without sparing recipes": _judged(spares_recipes=False),
    "ours without pruning": _judged(pruner="none"),
    "ours with brackets": _judged(pruner="hyperband"),
    "ours without TPE": _judged(sampler="random"),
    "ours without univariate TPE": _judged(sampler={"name": "auto", "options": {"multivariate": True}}),
    "ours without recipes and univariate TPE": _judged(
        recipes=0, sampler={"name": "auto", "options": {"multivariate": True}}
    ),
    "ours without constant liar": _judged(sampler={"name": "auto", "options": {"constant_liar": False}}),
    "ours without relative rate": _judged(relative=False, needs_arms=True),
    "ours with a Gaussian process": _judged(sampler="gp"),
    "ours with random third": _judged(random_share=1 / 3),
    "ours with strategies by gain": _thrifty(0.0),
    "ours with gain per root second": _thrifty(0.5),
    "ours with gain per second": _thrifty(1.0),
    "ours with past studies": _warm(),
    "ours with two past studies": _warm(studies=2),
    "ours with one past study": _warm(studies=1),
}
"""What the table can show; those whose name begins with "ours with" are variations of ours."""

BASELINES = (
    "random",
    "1 epoch, then top K",
    STOCK,
    "TPE 5 + Hyperband",
    "TPE univariate + Hyperband",
    "random + ASHA",
    "Syne Tune ASHA",
    "Syne Tune BOHB",
    "Syne Tune MOBSTER",
    "portfolio only",
    OURS,
)
"""What is compared when nothing is asked for."""


ABLATIONS = tuple(name for name in METHODS if name.startswith(OURS))
"""Ours, and its variations."""
