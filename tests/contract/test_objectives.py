"""Several objectives and constraints on every kind of database; Optuna reads back what we wrote past it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import optuna
import pytest

from tests.store.toy import LEASE, holder, score, sql, toy_result, toy_study
from tuner.search.driver import StudyDriver
from tuner.store import checks, leases
from tuner.store.database import Database
from tuner.store.fronts import find_front
from tuner.store.leases import Lease
from tuner.store.location import parse_url
from tuner.store.queries import load_snapshot, read_progress
from tuner.store.records import Outcome, StudyState
from tuner.study.plan import Verdict

pytestmark = pytest.mark.slow

SEVERAL = [{"metric": "f1", "goal": "maximize"}, {"metric": "trainable_params", "goal": "minimize"}]


@pytest.fixture
def db(storage_url: str) -> Iterator[Database]:
    with Database.open(storage_url, create=True) as database:
        yield database


@pytest.fixture
def plain_optuna(storage_url: str) -> Iterator[Callable[[], optuna.Study]]:
    """Gives the study as anybody with plain Optuna sees it."""
    storages = []

    def _load() -> optuna.Study:
        storages.append(optuna.storages.RDBStorage(parse_url(storage_url).render_as_string(hide_password=False)))
        return optuna.load_study(study_name="toy", storage=storages[-1])

    yield _load
    for storage in storages:
        storage.remove_session()
        storage.engine.dispose()


def parameters(lease: Lease) -> int:
    """The more values ``lora.r`` has, the more is trained; everything for ``full``."""
    assert lease.params is not None
    return 1_000_000 if lease.strategy == "full" else 1000 * int(lease.params["lora.r"])


def quality(lease: Lease, epoch: int) -> float:
    """A smooth objective that more parameters help."""
    return score(lease, epoch) * math.pow(parameters(lease) / 1e6, 0.05)


def serve(db: Database, driver: StudyDriver, lease: Lease, **changes: Any) -> tuple[Outcome, float | None, str]:
    """Report like a runner would, facts first, and finish."""
    leases.store_facts(db, lease, {"trainable_params": parameters(lease)})
    epochs = driver.study.spec.training.epochs
    ended = {"epochs": epochs, "ended_by": "epochs"}
    for epoch in range(1, epochs + 1):
        metrics = {"f1": quality(lease, epoch), "accuracy": score(lease, epoch)}
        known = {"seconds": epoch * 1.0, "extend": LEASE, "peak_memory": 1000 * epoch}
        verdict, why = driver.report(lease, epoch=epoch, metrics=metrics, **known)  # type: ignore[arg-type]
        if verdict is Verdict.PRUNE:
            ended = {"epochs": epoch, "ended_by": "prune"}
            break
    result = toy_result(quality(lease, epoch), seconds=epoch * 1.0, **ended)  # type: ignore[arg-type]
    result = replace(
        result, trainable_params=parameters(lease), metrics={**result.metrics, "accuracy": score(lease, epoch)}
    )
    return driver.finish(lease, result=replace(result, **changes), reason=why)


def run_out(db: Database, **changes: Any) -> StudyDriver:
    """Serve a study until its end; re-trainings too."""
    driver = StudyDriver(db, name="toy")
    while driver.advance().state.is_open:
        lease = driver.claim(holder())
        if lease is not None:
            serve(db, driver, lease, **changes)
    return driver


@pytest.mark.filterwarnings("ignore:Some regimes for parameter:UserWarning")  # few trials of a rare value
def test_optuna_has_the_same_front(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db, objective=SEVERAL, budget={"trials": 20}, confirm={"finalists": 2, "seeds": 1})
    assert run_out(db).study.state is StudyState.FINISHED

    ours = load_snapshot(db, "toy")
    front = find_front(ours.trials, spec=ours.study.spec)
    theirs = plain_optuna()
    assert front is not None
    assert [direction.name for direction in theirs.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert theirs.metric_names == ["f1", "trainable_params"]
    members = {member.trial.number: member.values for member in front.members}
    assert members == {trial.number: tuple(trial.values) for trial in theirs.best_trials}
    assert len(members) > 1
    assert ours.study.counts["pruned"] > 0
    for mine, other in zip(ours.trials, theirs.trials, strict=True):
        assert (mine.outcome.value, mine.number) == (other.state.name.lower(), other.number)
        assert (other.values is None) is (mine.outcome is Outcome.PRUNED)
        assert other.intermediate_values == {}  # Optuna has no word for several
        assert mine.peak_memory in {5_000_000_000, 1000, 2000}
    assert len(theirs.trials_dataframe()) == 20
    assert ours.finalists[0].number == front.members[0].trial.number
    assert not checks.find_problems(db)


def test_a_contradiction_is_mended_with_all_values(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db, objective=SEVERAL, budget={"trials": 3})
    run_out(db)
    before = [trial.values for trial in plain_optuna().trials]
    db.write(sql("DELETE FROM trial_values"))
    db.write(sql("UPDATE trials SET state = 'RUNNING'"))
    assert checks.mend_problems(db, who="me@here")
    assert [trial.values for trial in plain_optuna().trials] == before
    assert not checks.find_problems(db)


def test_a_trial_that_others_are_better_than_in_everything_stops(db: Database) -> None:
    toy_study(db, objective=SEVERAL, budget={"trials": 9}, training={"epochs": 12})
    driver = StudyDriver(db, name="toy")
    claimed = [driver.claim(holder()) for _ in range(4)]
    standing = [(0.9, 5000), (0.8, 1000), (0.7, 6000), (0.85, 2000)]  # the third is worse than the first in everything
    verdicts = []
    for epoch in (1, 2):
        for lease, (value, size) in zip(claimed, standing, strict=True):
            assert lease is not None
            leases.store_facts(db, lease, {"trainable_params": size})
            verdicts.append(driver.report(lease, epoch=epoch, metrics={"f1": value}, seconds=1.0, extend=LEASE))
    assert [verdict.value for verdict, _ in verdicts] == ["go_on"] * 2 + ["prune", "go_on"] + ["go_on"] * 2 + [
        "prune",
        "go_on",
    ]
    assert verdicts[2][1] == (
        "2 of the 2 others are in better fronts at epoch 1; trial 0 is nowhere worse: f1 0.9000 against 0.7000, "
        "trainable_params 5,000 against 6,000"
    )


def test_a_trial_that_breaks_a_constraint_cannot_win(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(
        db,
        constraints=["trainable_params <= 10 k", "accuracy >= 0.2"],
        budget={"trials": 10},
        confirm={"finalists": 3, "seeds": 1},
        search={"pruner": "none"},
    )
    run_out(db)
    ours, theirs = load_snapshot(db, "toy"), plain_optuna()
    for trial, other in zip(ours.trials, theirs.trials, strict=True):
        broken = {name for name, excess in other.constraints.items() if excess > 0}
        is_over = trial.strategy == "full"
        accuracy = trial.epochs[-1].metrics["accuracy"]
        assert (trial.outcome is Outcome.INFEASIBLE) is (is_over or accuracy < 0.2)
        if trial.outcome is Outcome.INFEASIBLE:
            assert other.state.name == "PRUNED" and broken and "runs" not in broken
            assert "breaks the constraint" in trial.reason and trial.value is None and trial.checkpoint == ""
            assert len(trial.epochs) == (1 if is_over else 3)  # a cost ends it at once
        else:
            assert other.state.name == "COMPLETE" and set(other.constraints) == {"trainable_params", "accuracy"}
            assert not broken
    assert ours.study.counts["infeasible"] > 0
    assert {ours.trial(finalist.number).strategy for finalist in ours.finalists} == {"lora"}
    progress = read_progress(db, "toy")
    assert progress.best_strategy == "lora" and progress.best_number == theirs.best_trial.number
    assert not checks.find_problems(db)


def test_costs_end_a_trial_when_they_are_known(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db, constraints=["seconds <= 10", "peak_memory <= 5 kB"], budget={"trials": 5}, training={"epochs": 4})
    driver = StudyDriver(db, name="toy")
    slow, large, stuck = (driver.claim(holder()) for _ in range(3))
    assert slow is not None and large is not None and stuck is not None
    known: dict[str, Any] = {"metrics": {"f1": 0.5}, "extend": LEASE}
    assert driver.report(slow, epoch=1, seconds=9.0, peak_memory=4000, **known) == (Verdict.GO_ON, "")
    verdict, why = driver.report(slow, epoch=2, seconds=18.0, peak_memory=4000, **known)
    assert (verdict, why) == (Verdict.PRUNE, "seconds 18.0 s breaks the constraint seconds <= 10")
    end = replace(toy_result(0.5, epochs=2, ended_by="prune", seconds=18.0), peak_memory=4000)
    assert driver.finish(slow, result=end, reason=why) == (Outcome.INFEASIBLE, None, why)
    verdict, why = driver.report(large, epoch=1, seconds=1.0, peak_memory=6000, **known)
    assert why == "peak_memory 6 kB breaks the constraint peak_memory <= 5 kB"
    driver.fail(large, outcome=Outcome.INFEASIBLE, reason="it ended itself", seconds=1.0, log_tail="")
    driver.fail(stuck, outcome=Outcome.INFEASIBLE, reason="out of memory", seconds=1.0, log_tail="")
    told = [trial.constraints for trial in plain_optuna().trials]
    assert told[0] == {"seconds": pytest.approx(0.8), "peak_memory": pytest.approx(-0.2)}
    assert told[1] == {"seconds": pytest.approx(-0.9), "peak_memory": pytest.approx(0.2)}
    assert told[2] == {"runs": 1.0}
    assert load_snapshot(db, "toy").trial(0).peak_memory == 4000


@pytest.mark.parametrize("sampler", ["auto", "tpe", "gp", "nsgaii", "nsgaiii", "random", "qmc"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_of_several_objectives(sqlite_url: str, sampler: str) -> None:
    with Database.open(sqlite_url, create=True) as db:
        options = {"n_startup_trials": 3} if sampler in ("auto", "tpe", "gp") else {}
        options |= {"population_size": 3} if sampler.startswith("nsga") else {}
        search = {"sampler": {"name": sampler, "options": options}}
        trials = 5 if sampler == "gp" else 7  # a proposal of its own takes seconds
        toy_study(db, objective=SEVERAL, constraints=["seconds <= 100"], budget={"trials": trials}, search=search)
        study = run_out(db).study
        assert (study.state, study.used.trials) == (StudyState.FINISHED, trials)
