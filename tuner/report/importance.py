"""How much each hyperparameter decided whether a trial was among the best: Optuna's PED-ANOVA.

Pruned trials count too, never above the worst complete one: PED-ANOVA only asks which values the best trials have in
common, and a pruned trial is known not to be among them. The learning rate enters relative to each strategy's own
default, as it is searched: absolute rates differ between strategies by orders of magnitude and would only repeat which
strategy it was.

Source: Watanabe et al. 2023, https://arxiv.org/abs/2304.10255; for conditional spaces https://arxiv.org/abs/2601.20800.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from tuner.report.curves import Parameter, Point
from tuner.study.domains import Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.space import SearchSpace

FEWEST_TRIALS = 8
"""Below this the importances would be noise."""


def measure_importance(
    points: Sequence[Point], parameters: Sequence[Parameter], *, space: SearchSpace, maximize: bool
) -> dict[str, float]:
    """Shares of the importance, largest first, summing to one.

    Args:
        points: Complete and pruned trials.
        parameters: The searched hyperparameters.
        space: The study's space, for the strategies' default learning rates.
        maximize: Whether more is better.

    Returns:
        A share for ``strategy`` and for each parameter; empty with too few trials to tell.
    """
    complete = [point.value for point in points if not point.pruned]
    if len(points) < FEWEST_TRIALS or len(complete) < 2:
        return {}
    study = rebuild_study(points, parameters, space=space, maximize=maximize)
    # At least five trials must be "the best" for a stable answer (Optuna's documentation), at most half of all.
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, 5 / len(points))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small regimes of conditional parameters: the page says so
        shares = get_param_importances(study, evaluator=evaluator)
    if len(set(shares.values())) == 1:  # Optuna's answer where it found no difference at all
        return {}
    return {"learning_rate" if name == RELATIVE_LEARNING_RATE else name: share for name, share in shares.items()}


def rebuild_study(
    points: Sequence[Point], parameters: Sequence[Parameter], *, space: SearchSpace, maximize: bool
) -> optuna.Study:
    """An in-memory Optuna study with these trials as complete ones."""
    complete = [point.value for point in points if not point.pruned]
    worst = min(complete) if maximize else max(complete)
    clip = min if maximize else max
    rows = [_relative(point, space) for point in points]
    distributions = _distributions(parameters, rows, [point.strategy for point in points])
    with _quiet():
        study = optuna.create_study(direction="maximize" if maximize else "minimize")
        for point, params in zip(points, rows, strict=True):
            known = {"strategy": point.strategy, **{k: v for k, v in params.items() if k in distributions}}
            study.add_trial(
                optuna.trial.create_trial(
                    params=known,
                    distributions={name: distributions[name] for name in known},
                    value=clip(point.value, worst) if point.pruned else point.value,
                )
            )
    return study


def _relative(point: Point, space: SearchSpace) -> dict[str, Value]:
    """The point's values with the learning rate in decades around the strategy's default."""
    params = dict(point.params)
    rate = params.get("learning_rate")
    if point.strategy in space.names and isinstance(rate, int | float) and rate > 0:
        del params["learning_rate"]
        params[RELATIVE_LEARNING_RATE] = math.log10(rate / space.block(point.strategy).rate(params.get("optimizer")))
    return params


def _distributions(
    parameters: Sequence[Parameter], rows: Sequence[Mapping[str, Value]], strategies: Sequence[str]
) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {"strategy": CategoricalDistribution(tuple(dict.fromkeys(strategies)))}
    for parameter in parameters:
        if parameter.options:
            found[parameter.name] = CategoricalDistribution(parameter.options)
        else:
            found[parameter.name] = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    offsets = [float(row[RELATIVE_LEARNING_RATE]) for row in rows if RELATIVE_LEARNING_RATE in row]
    if len(set(offsets)) > 1:
        found[RELATIVE_LEARNING_RATE] = FloatDistribution(min(offsets), max(offsets))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line about a new study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
