"""What cannot run is told to the sampler, which then proposes less of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.store.toy import LEASE, holder, sql, toy_study, train
from tuner.search.budget import why_not_again
from tuner.search.driver import StudyDriver
from tuner.store import checks, optuna_rows, trial_control
from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.optuna_rows import NO_ANSWER, VIOLATED
from tuner.store.records import Outcome
from tuner.study.plan import Verdict

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


def say(driver: StudyDriver, lease: Lease, f1: float, *, epoch: int = 1, seconds: float = 1.0) -> tuple[Verdict, str]:
    return driver.report(lease, epoch=epoch, metrics={"f1": f1}, seconds=seconds, extend=LEASE)


def leading(db: Database, **changes: Any) -> tuple[StudyDriver, StudyDriver, list[Lease]]:
    """A driver, another worker's, and three trials of that one, which lead after an epoch; the first driver has seen them run."""
    toy_study(db, training={"epochs": 9}, budget={"trials": 20}, **changes)
    driver, other = StudyDriver(db, name="toy"), StudyDriver(db, name="toy")
    leases = [lease for _ in range(3) if (lease := other.claim(holder("w2"))) is not None]
    assert {say(other, lease, 0.9)[0] for lease in leases} == {Verdict.GO_ON}
    return driver, other, leases


def require_only_the_worse_to_stop(driver: StudyDriver, good: Lease) -> None:
    assert say(driver, good, 0.5) == (Verdict.GO_ON, "")
    worse = driver.claim(holder())
    assert worse is not None
    assert say(driver, worse, 0.4) == (Verdict.PRUNE, "f1 0.4 at epoch 1 is rank 2 of 2 there (best 0.5)")


@pytest.mark.parametrize("outcome", NO_ANSWER)
def test_a_trial_that_ends_without_an_answer_stops_no_other(db: Database, outcome: Outcome) -> None:
    driver, other, leases = leading(db)
    good = driver.claim(holder())
    assert good is not None
    for lease in leases:
        other.fail(lease, outcome=outcome, reason="why", seconds=1.0, log_tail="")
    require_only_the_worse_to_stop(driver, good)
    assert not checks.find_problems(db)


def test_a_trial_that_breaks_a_constraint_stops_no_other_before_it_has_ended(db: Database) -> None:
    driver, other, leases = leading(db, constraints=["seconds <= 5"])
    good = driver.claim(holder())
    assert good is not None
    for lease in leases:
        assert say(other, lease, 0.9, epoch=2, seconds=6.0)[0] is Verdict.PRUNE
    assert say(driver, good, 0.5) == (Verdict.GO_ON, "")


def test_a_trial_that_broke_two_constraints_can_be_tried_again(db: Database) -> None:
    _, other, (lease, *_) = leading(db, constraints=["seconds <= 5", "peak_memory <= 1 GB"])
    other.report(lease, epoch=2, metrics={"f1": 0.9}, seconds=6.0, extend=LEASE, peak_memory=2 * 10**9)
    other.fail(lease, outcome=Outcome.INFEASIBLE, reason="why", seconds=6.0, log_tail="")
    trial_control.retry_trials(db, "toy", [lease.number], who="anna@box", limit=why_not_again)
    trial = optuna.load_study(study_name="toy", storage=db.optuna_storage()).trials[lease.number]
    assert (trial.state.name, trial.constraints) == ("WAITING", {})
