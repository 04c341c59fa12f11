"""Every sampler and pruner that a study file may name runs a study to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.toy import run_out, toy_space, toy_study
from tuner.errors import ConfigurationError
from tuner.search.driver import StudyDriver
from tuner.search.pruners import PRUNERS, make_pruner
from tuner.search.samplers import SAMPLERS, Draw, make_sampler
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudyState
from tuner.study import names
from tuner.study.spec import ChoiceSpec

pytestmark = pytest.mark.slow

OPTIONS = {"threshold": {"lower": 0.2}, "wilcoxon": {"p_threshold": 0.1}}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def test_the_names_are_those_of_the_study_file() -> None:
    assert tuple(SAMPLERS) == names.SAMPLERS
    assert tuple(PRUNERS) == names.PRUNERS


@pytest.mark.parametrize("name", names.SAMPLERS)
def test_every_sampler_finishes_a_study(db: Database, name: str) -> None:
    is_grid = name in {"grid", "brute_force"}
    toy_study(
        db,
        space=toy_space(finite=is_grid),
        search={"sampler": {"name": name}, "pruner": {"name": "none"}},
        budget={"trials": 40 if is_grid else 13},
    )
    run_out(StudyDriver(db, name="toy"))
    snapshot = load_snapshot(db, "toy")
    assert snapshot.study.state is StudyState.FINISHED
    assert all(trial.outcome is Outcome.COMPLETE for trial in snapshot.trials)
    if is_grid:
        points = {(trial.strategy, tuple(sorted(trial.params.items()))) for trial in snapshot.trials}
        assert len(points) == len(snapshot.trials) == 3 * 2 * 2 + 3 * 2  # every point of both strategies, once
        assert snapshot.study.state_reason == "every point of the space was tried"
    else:
        assert len(snapshot.trials) == 13
        assert len({trial.params["learning_rate"] for trial in snapshot.trials}) >= 10


@pytest.mark.parametrize("name", names.PRUNERS)
def test_every_pruner_finishes_a_study(db: Database, name: str) -> None:
    toy_study(
        db,
        search={"sampler": {"name": "random"}, "pruner": {"name": name, "options": OPTIONS.get(name, {})}},
        training={"epochs": 9},
        budget={"trials": 24},
    )
    run_out(StudyDriver(db, name="toy"))
    counts = load_snapshot(db, "toy").study.counts
    assert counts["complete"] + counts["pruned"] == 24
    assert counts["complete"] >= 1
    if name in {"auto", "median", "percentile", "successive_halving", "hyperband", "threshold"}:
        assert counts["pruned"] >= 1
    if name == "none":
        assert counts["pruned"] == 0


def test_a_sampler_gives_every_worker_other_values_but_the_same_for_the_same_history(tmp_path: Path) -> None:
    rates = []
    for run in ("a", "b"):
        with Database.open(f"sqlite:///{tmp_path / run}.db", create=True) as database:
            toy_study(database, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}})
            leases = run_out(StudyDriver(database, name="toy"))
            rates.append([lease.params["learning_rate"] for lease in leases if lease.params])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == len(rates[0])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ChoiceSpec(name="tpee"), 'unknown sampler "tpee"; did you mean "tpe"?'),
        (
            ChoiceSpec(name="tpe", options={"n_startup": 5}),
            'sampler tpe: unknown option "n_startup"; did you mean "n_startup_trials"?',
        ),
        (ChoiceSpec(name="grid"), 'sampler grid: "learning_rate" of strategy lora is a range without a step'),
    ],
)
def test_a_wrong_sampler_is_named(choice: ChoiceSpec, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_sampler(choice, space=toy_space(), draw=Draw(seed=0))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ChoiceSpec(name="medain"), 'unknown pruner "medain"; did you mean "median"?'),
        (ChoiceSpec(name="median", options={"warmup": 5}), 'pruner median: unknown option "warmup"'),
        (ChoiceSpec(name="threshold"), "pruner threshold: "),
    ],
)
def test_a_wrong_pruner_is_named(choice: ChoiceSpec, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_pruner(choice, epochs=3)
    assert message in str(caught.value)
