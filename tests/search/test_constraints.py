"""What cannot run is told to the sampler, which then proposes less of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from tests.store.toy import holder, sql, toy_study, train
from tuner.search.driver import StudyDriver
from tuner.store import checks, optuna_rows
from tuner.store.database import Database
from tuner.store.optuna_rows import VIOLATED
from tuner.store.records import Outcome

TRIALS = 40


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def serve(db: Database, *, seed: int, bad: Outcome) -> list[bool]:
    """Serve a study in which batches of 16 rows end badly; for each trial whether it was one of them."""
    name = f"{bad.value}-{seed}"
    search = {"seed": seed, "pruner": "none", "sampler": {"name": "auto", "options": {"n_startup_trials": 8}}}
    toy_study(db, name, budget={"trials": TRIALS}, search=search)
    driver, was_bad = StudyDriver(db, name=name), []
    while (lease := driver.claim(holder())) is not None:
        assert lease.params is not None
        was_bad.append(lease.params["batch_size"] == 16)
        if was_bad[-1]:
            driver.fail(lease, outcome=bad, reason="it does not fit", seconds=0.1, log_tail="")
        else:
            train(driver, lease)
    return was_bad


@pytest.mark.slow
@pytest.mark.parametrize("bad", list(VIOLATED))
def test_the_sampler_learns_what_cannot_run(db: Database, bad: Outcome) -> None:
    late = [was for seed in (1, 2, 3) for was in serve(db, seed=seed, bad=bad)[-20:]]
    assert sum(late) / len(late) < 0.35, "told nothing, it proposes hardly anything else"


def test_optuna_sees_a_violated_constraint(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    for outcome in (Outcome.INFEASIBLE, Outcome.DIVERGED, Outcome.ERRORED):
        lease = driver.claim(holder())
        assert lease is not None
        driver.fail(lease, outcome=outcome, reason="why", seconds=0.1, log_tail="")
    lease = driver.claim(holder())
    assert lease is not None
    train(driver, lease)
    plain = optuna.load_study(study_name="toy", storage=db.optuna_storage())
    states = [(trial.state.name, trial.constraints) for trial in plain.trials]
    assert states == [("PRUNED", {"runs": 1.0}), ("PRUNED", {"finite": 1.0}), ("FAIL", {}), ("COMPLETE", {})]
    assert plain.best_trial.number == 3
    assert not checks.find_problems(db)


def test_a_trial_that_is_tried_again_violates_nothing(db: Database) -> None:
    study = toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.fail(lease, outcome=Outcome.INFEASIBLE, reason="why", seconds=0.1, log_tail="")
    db.write(lambda tx: optuna_rows.set_state(tx, lease.trial_id, Outcome.WAITING))
    db.write(sql(f"UPDATE tuner_runs SET outcome = 'waiting' WHERE run_id = {lease.run_id}"))
    again = driver.claim(holder())
    assert again is not None
    assert (again.number, again.attempt) == (0, 2)
    train(driver, again)
    trial = optuna.load_study(study_name=study.name, storage=db.optuna_storage()).trials[0]
    assert (trial.state.name, trial.constraints) == ("COMPLETE", {})
