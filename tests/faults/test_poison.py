"""Configurations that kill every process which trains them, and runners that never come up: the others are not hurt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import make_study, mob
from tests.faults.toy_training import PLAGUE_FROM, is_poison
from tuner.api import load_study
from tuner.store.breaker import MOST_POISONS
from tuner.store.ends import MOST_LOSSES
from tuner.store.records import Outcome, StudyState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 300)]

TRIALS = 100 if LONG else 16
WORKERS = 3


def test_poison_is_tried_three_times_and_hurts_nobody_else(
    tmp_path: Path, sqlite_url: str, record_property: RecordProperty
) -> None:
    make_study(sqlite_url, trials=TRIALS, name="poison", sampler="random", pruner="none")
    with mob(tmp_path, url=sqlite_url, study="poison") as crowd:
        for _ in range(WORKERS):
            crowd.start()
        crowd.wait_until_over()
        findings = check(url=sqlite_url, study="poison", ledger=crowd.ledger, trials=TRIALS)
        exits = [line["status"] for line in crowd.lines("Exited")]
    trials = load_study("poison", storage=sqlite_url).trials
    poisons = [trial for trial in trials if is_poison("poison", trial.number, trial.params or {})]
    others = [trial for trial in trials if trial not in poisons]
    most = max(len(trial.attempts) for trial in poisons)
    figures = {
        "trials": len(trials),
        "poisons": len(poisons),
        "most attempts of one": most,
        "other trials hurt": sum(len(trial.attempts) > 1 for trial in others),
        "workers hurt": sum(status != 0 for status in exits),
    }
    record(record_property, row=24, database=sqlite_url, figures=figures)
    assert findings.wrong == {}
    assert {trial.outcome for trial in poisons} == {Outcome.ERRORED}
    assert most == MOST_LOSSES
    assert all("SIGABRT" in trial.reason and "given up after" in trial.reason for trial in poisons)
    assert {trial.outcome for trial in others} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert figures["other trials hurt"] == figures["workers hurt"] == 0
    assert len(exits) == WORKERS


def test_a_plague_pauses_the_study(tmp_path: Path, sqlite_url: str, record_property: RecordProperty) -> None:
    make_study(sqlite_url, trials=100, name="plague", sampler="random", pruner="none")
    with mob(tmp_path, url=sqlite_url, study="plague") as crowd:
        for _ in range(WORKERS):
            crowd.start()
        crowd.wait_until_over()
    snapshot = load_study("plague", storage=sqlite_url)
    errored = sum(trial.outcome is Outcome.ERRORED for trial in snapshot.trials)
    figures = {"poisons before the study is paused": errored, "trials begun": len(snapshot.trials)}
    record(record_property, row=24, database=sqlite_url, figures=figures)
    assert snapshot.study.state is StudyState.PAUSED
    assert "ended with an error" in snapshot.study.state_reason
    assert MOST_POISONS <= errored < MOST_POISONS + WORKERS
    assert len(snapshot.trials) <= PLAGUE_FROM + MOST_POISONS + WORKERS


def test_a_runner_that_never_comes_up_burns_no_trial(
    tmp_path: Path, sqlite_url: str, record_property: RecordProperty
) -> None:
    make_study(sqlite_url, trials=3)
    with mob(tmp_path, url=sqlite_url) as crowd:
        crowd.start(runner="tests.faults.no_such_runner", failpoint="" if LONG else "hurried_starts")
        crowd.wait(lambda: not crowd.alive(), what="it has given up")
        (left,) = crowd.lines("Exited")
        said = crowd.tail()
    trials = load_study("toy", storage=sqlite_url).trials
    record(record_property, row=25, database=sqlite_url, figures={"failed starts": 5, "trials burnt": len(trials)})
    assert trials == ()
    assert left["status"] != 0
    assert "ended 5 times before it was ready" in said
    assert "no_such_runner" in said
