from __future__ import annotations

import random

import optuna
import pytest

from tests.report.samples import KINDS, make_space
from tuner.report.curves import Parameter, Point
from tuner.report.importance import measure_importance, rebuild_study

PARAMETERS = (
    Parameter(name="learning_rate", log=True, options=(), low=1e-6, high=1.0),
    Parameter(name="batch_size", log=False, options=(8, 16, 32), low=0.0, high=0.0),
    Parameter(name="lora.r", log=False, options=(4, 8, 16), low=0.0, high=0.0),
)


def make_points(count: int, *, sign: float = 1.0) -> list[Point]:
    """Only the learning rate relative to the strategy's own decides, in every strategy alike."""
    rng = random.Random(0)
    points = []
    for number in range(count):
        strategy = rng.choice(("lora", "full"))
        offset = rng.uniform(-1.5, 1.5)
        own = {"lora.r": rng.choice((4, 8, 16))} if strategy == "lora" else {}
        params = {"learning_rate": KINDS[strategy].prior * 10**offset, "batch_size": rng.choice((8, 16, 32)), **own}
        value = sign * (1.0 - (offset - 0.5) ** 2)
        points.append(Point(number=number, strategy=strategy, params=params, value=value, pruned=value < -1.0))
    return points


@pytest.mark.parametrize("maximize", [True, False])
def test_what_decides_is_found(maximize: bool) -> None:
    points = make_points(60, sign=1.0 if maximize else -1.0)
    shares = measure_importance(points, PARAMETERS, space=make_space(), maximize=maximize)
    assert next(iter(shares)) == "learning_rate"
    assert shares["learning_rate"] > 0.7
    assert set(shares) == {"learning_rate", "batch_size", "lora.r", "strategy"}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_few_trials_have_no_importance() -> None:
    assert measure_importance(make_points(7), PARAMETERS, space=make_space(), maximize=True) == {}
    assert measure_importance([], [], space=make_space(), maximize=True) == {}


def test_trials_that_do_not_differ_have_no_importance() -> None:
    point = Point(number=0, strategy="lora", params={"batch_size": 8}, value=0.5, pruned=False)
    assert measure_importance([point] * 20, (), space=make_space(), maximize=True) == {}


def test_pruned_trials_stand_below_the_worst_complete_one_and_optuna_stays_quiet(
    capfd: pytest.CaptureFixture[str],
) -> None:
    points = [
        Point(number=0, strategy="lora", params={"batch_size": 8}, value=0.5, pruned=False),
        Point(number=1, strategy="lora", params={"batch_size": 16}, value=0.9, pruned=True),
    ]
    before = optuna.logging.get_verbosity()
    study = rebuild_study(points, PARAMETERS, space=make_space(), maximize=True)
    assert [trial.value for trial in study.trials] == [0.5, 0.5]
    assert study.trials[0].params == {"strategy": "lora", "batch_size": 8}
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""
