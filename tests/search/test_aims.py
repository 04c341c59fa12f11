"""Trials of several objectives are compared with those that may win, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.toy import LEASE, holder, toy_result, toy_study
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.records import Outcome
from tuner.study.plan import Verdict

GB = 10**9


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def serve(driver: StudyDriver, lease: Lease, *, f1: float, seconds: float, memory: int) -> Outcome:
    """Report every epoch like a runner would, and finish."""
    verdict, why, epoch = Verdict.GO_ON, "", 0
    while verdict is not Verdict.PRUNE and epoch < driver.study.spec.training.epochs:
        epoch += 1
        verdict, why = driver.report(
            lease, epoch=epoch, metrics={"f1": f1}, seconds=seconds * epoch, extend=LEASE, peak_memory=memory
        )
    ended_by = "prune" if verdict is Verdict.PRUNE else "epochs"
    result = toy_result(f1, epochs=epoch, seconds=seconds * epoch, ended_by=ended_by)
    return driver.finish(lease, result=replace(result, peak_memory=memory), reason=why)[0]


def test_trials_that_broke_a_constraint_stop_no_trial_that_keeps_it(db: Database) -> None:
    objectives = [{"metric": "f1", "goal": "maximize"}, {"metric": "seconds", "goal": "minimize"}]
    toy_study(
        db, objective=objectives, constraints=["peak_memory <= 10 GB"], training={"epochs": 12}, budget={"trials": 20}
    )
    driver = StudyDriver(db, name="toy")
    giants = [driver.claim(holder()) for _ in range(4)]
    for lease in giants:
        assert lease is not None
        assert serve(driver, lease, f1=0.9, seconds=5.0, memory=20 * GB) is Outcome.INFEASIBLE
    modest = driver.claim(holder())
    assert modest is not None
    assert serve(driver, modest, f1=0.8, seconds=8.0, memory=1 * GB) is Outcome.COMPLETE
    # Those that keep the bound are compared with each other as before.
    worse = [driver.claim(holder()) for _ in range(2)]
    for lease in worse:
        assert lease is not None
        assert serve(driver, lease, f1=0.7, seconds=9.0, memory=1 * GB) is Outcome.PRUNED
