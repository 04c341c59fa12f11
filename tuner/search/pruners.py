"""Pruners by name: Optuna's own classes, with the options a study file gives them.

Adding one: one function and one line in :data:`PRUNERS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from tuner.errors import ConfigurationError
from tuner.search.samplers import Options, construct
from tuner.store.optuna_rows import RUNGS
from tuner.study.names import did_you_mean
from tuner.study.spec import ChoiceSpec

FEW_EPOCHS = 10
"""With fewer the first epoch is a large share of the schedule, after which the ranks of strategies still cross."""


def make_pruner(choice: ChoiceSpec, *, epochs: int) -> BasePruner:
    """The pruner that a study asks for.

    Args:
        choice: Its name and the arguments of its class.
        epochs: Epochs of a trial that is not pruned: the largest resource.

    Raises:
        ConfigurationError: If the name or an option is unknown or wrong.
    """
    make = PRUNERS.get(choice.name)
    if make is None:
        raise ConfigurationError(f'unknown pruner "{choice.name}"{did_you_mean(choice.name, PRUNERS)}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make(choice.options, epochs)


def later_rungs(pruner: BasePruner, study: optuna.Study, trial: FrozenTrial, *, epoch: int) -> list[str]:
    """The system attributes in which halving keeps what a trial scored on its rungs after an epoch.

    Args:
        pruner: Of the study.
        study: The study.
        trial: The trial.
        epoch: Counted from 1.
    """
    halving = _halving(pruner, study, trial)
    least = None if halving is None else halving._min_resource  # noqa: SLF001 - Optuna has no public read of where rungs are
    if halving is None or least is None:  # none, or it has not found out yet
        return []
    factor, rate = halving._reduction_factor, halving._min_early_stopping_rate  # noqa: SLF001 - as above
    rungs = {key: int(key.removeprefix(RUNGS)) for key in trial.system_attrs if key.startswith(RUNGS)}
    return [key for key, rung in rungs.items() if least * factor ** (rate + rung) > epoch]


def _halving(
    pruner: BasePruner | None, study: optuna.Study, trial: FrozenTrial
) -> optuna.pruners.SuccessiveHalvingPruner | None:
    """The halving that judges a trial; None where there is none."""
    if isinstance(pruner, optuna.pruners.PatientPruner):
        return _halving(pruner._wrapped_pruner, study, trial)  # noqa: SLF001 - as above
    if isinstance(pruner, optuna.pruners.HyperbandPruner):
        if not pruner._pruners:  # noqa: SLF001 - it makes its brackets when it is first asked
            pruner._try_initialization(study)  # noqa: SLF001 - as above
        brackets = pruner._pruners  # noqa: SLF001 - as above
        return brackets[pruner._get_bracket_id(study, trial)] if brackets else None  # noqa: SLF001 - as above
    return pruner if isinstance(pruner, optuna.pruners.SuccessiveHalvingPruner) else None


def _plain(cls: type[BasePruner], name: str) -> Callable[[Options, int], BasePruner]:
    def _make(options: Options, epochs: int) -> BasePruner:
        # "auto" resources are guessed from the first finished trial, so that nothing is pruned before: say them.
        defaults: dict[str, Any] = {"min_resource": 1, "max_resource": epochs}
        if cls is optuna.pruners.PercentilePruner:
            defaults["percentile"] = 25.0
        pruner: BasePruner = construct(cls, what=f"pruner {name}", options=options, defaults=defaults)
        return pruner

    return _make


def _auto(options: Options, epochs: int) -> BasePruner:
    # Plain halving: where recipes are tried first, Hyperband's brackets cost at 10 and 20 trainings more than they bring at 50
    # (docs/search.md). Where epochs are few it keeps the better half instead of the best third.
    factor = 2 if epochs < FEW_EPOCHS else 3
    defaults: dict[str, Any] = {"min_resource": 1, "reduction_factor": factor}
    cls = optuna.pruners.SuccessiveHalvingPruner
    pruner: BasePruner = construct(cls, what="pruner auto", options=options, defaults=defaults)
    return pruner


def _patient(options: Options, epochs: int) -> BasePruner:
    pruner: BasePruner = construct(
        optuna.pruners.PatientPruner,
        what="pruner patient",
        options=options,
        defaults={"wrapped_pruner": _auto({}, epochs), "patience": 1},
    )
    return pruner


PRUNERS: Mapping[str, Callable[[Options, int], BasePruner]] = {
    "auto": _auto,
    "none": _plain(optuna.pruners.NopPruner, "none"),
    "median": _plain(optuna.pruners.MedianPruner, "median"),
    "percentile": _plain(optuna.pruners.PercentilePruner, "percentile"),
    "successive_halving": _plain(optuna.pruners.SuccessiveHalvingPruner, "successive_halving"),
    "hyperband": _plain(optuna.pruners.HyperbandPruner, "hyperband"),
    "patient": _patient,
    "threshold": _plain(optuna.pruners.ThresholdPruner, "threshold"),
    "wilcoxon": _plain(optuna.pruners.WilcoxonPruner, "wilcoxon"),
}
