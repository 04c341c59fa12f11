"""Runs that no longer move are ended, with a record of where they hung; slow ones are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.mob import make_study, mob
from tuner.api import load_study
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow

PATIENCE = 2.0
TRIALS = 3


def test_a_run_that_hangs_is_ended_and_tried_again(tmp_path: Path, sqlite_url: str) -> None:
    make_study(sqlite_url, trials=TRIALS, name="hangs")
    with mob(tmp_path, url=sqlite_url, study="hangs") as crowd:
        crowd.start(hang_after=PATIENCE)
        crowd.wait(crowd.is_done, what="the study is over")
        crowd.wait(lambda: not crowd.alive(), what="the worker has left")
        findings = check(url=sqlite_url, study="hangs", ledger=crowd.ledger, trials=TRIALS)
        trials = load_study("hangs", storage=sqlite_url).trials
    assert findings.wrong == {}
    for trial in trials:
        hung, done = trial.attempts
        assert (hung.outcome, done.outcome) == (Outcome.LOST, trial.outcome)
        assert hung.reason.startswith("it hung: no step for")
        assert "toy_training.py" in hung.log_tail, "the stacks are in the log"
        assert "_misbehave" in hung.log_tail
        assert hung.ended_at is not None
        assert hung.ended_at - hung.started_at < 10 * PATIENCE


def test_a_slow_run_is_left_alone(tmp_path: Path, sqlite_url: str) -> None:
    """An epoch of three times the patience, in which something moves all the time."""
    make_study(sqlite_url, trials=TRIALS, name="crawls")
    with mob(tmp_path, url=sqlite_url, study="crawls") as crowd:
        crowd.start(hang_after=PATIENCE)
        crowd.wait(crowd.is_done, what="the study is over")
        crowd.wait(lambda: not crowd.alive(), what="the worker has left")
        trials = load_study("crawls", storage=sqlite_url).trials
    assert [len(trial.attempts) for trial in trials] == [1] * TRIALS
