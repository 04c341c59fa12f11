"""Trials of several objectives are compared with those that may win, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.toy import LEASE, holder, toy_result, toy_study
from tuner.search.budget import why_not_again
from tuner.search.driver import StudyDriver
from tuner.store import leases, trial_control
from tuner.store.database import Database
from tuner.store.fronts import facts_of
from tuner.store.leases import Lease
from tuner.store.queries import load_snapshot
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


@pytest.mark.parametrize("again", ["retried", "lost"])
def test_what_an_attempt_lost_breaks_no_bound_of_seconds(db: Database, again: str) -> None:
    free = {"pruner": {"name": "none"}}
    toy_study(db, constraints=["seconds <= 10 s"], training={"epochs": 5}, search=free)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    for epoch in (1, 2):
        driver.report(lease, epoch=epoch, metrics={"f1": 0.5}, seconds=2.0 * epoch, extend=LEASE)
    if again == "retried":
        driver.fail(lease, outcome=Outcome.ERRORED, reason="disk", seconds=8.0, log_tail="")
        trial_control.retry_trials(db, "toy", [lease.number], who="anna@box", limit=why_not_again)
    else:
        leases.lose(db, lease, reason="killed", seconds=8.0)
    lease = driver.claim(holder())
    assert lease is not None
    begin = 1 if again == "retried" else 3  # from its beginning, or from its last checkpoint
    if again == "lost":
        driver.report(lease, epoch=2, metrics={"f1": 0.5}, seconds=0.1, extend=LEASE)  # what that one knows
    for epoch in range(begin, 6):
        spent = 1.9 * (epoch - begin + 1)
        assert driver.report(lease, epoch=epoch, metrics={"f1": 0.5}, seconds=spent, extend=LEASE)[0] is Verdict.GO_ON
    assert driver.finish(lease, result=toy_result(0.5, epochs=5, seconds=spent))[0] is Outcome.COMPLETE
    trial = load_snapshot(db, "toy").trial(lease.number)
    stands_on = spent if again == "retried" else 4.0 + spent
    assert facts_of(trial)["seconds"] == pytest.approx(stands_on)
    assert trial.epochs[-1].seconds == pytest.approx(stands_on)
    assert trial.seconds == pytest.approx(8.0 + spent)  # which the budget has paid
    last = driver.claim(holder())
    assert last is not None
    verdict, why = driver.report(last, epoch=1, metrics={"f1": 0.5}, seconds=10.5, extend=LEASE)
    assert (verdict, "seconds" in why) == (Verdict.PRUNE, True)
