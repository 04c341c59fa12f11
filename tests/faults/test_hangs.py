"""Runs that no longer move are ended, with a record of where they hung; slow ones are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import make_study, mob
from tuner.api import load_study
from tuner.store.records import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 300)]

PATIENCE = 2.0
TRIALS, WORKERS = (20, 4) if LONG else (2, 1)
STEPS = 60  # of a tenth of a second, in which a slow run does something


def test_a_run_that_hangs_is_ended_and_tried_again(
    tmp_path: Path, sqlite_url: str, record_property: RecordProperty
) -> None:
    make_study(sqlite_url, trials=TRIALS, name="hangs", epochs=2, pruner="none")
    with mob(tmp_path, url=sqlite_url, study="hangs") as crowd:
        for _ in range(WORKERS):
            crowd.start(hang_after=PATIENCE)
        crowd.wait_until_over()
        findings = check(url=sqlite_url, study="hangs", ledger=crowd.ledger, trials=TRIALS)
        trials = load_study("hangs", storage=sqlite_url).trials
    ended = [
        attempt.ended_at - attempt.started_at for trial in trials for attempt in trial.attempts[:1] if attempt.ended_at
    ]
    figures: dict[str, float | str] = {
        "hung runs": len(trials),
        "ended and run again": sum(len(trial.attempts) == 2 for trial in trials),
    }
    times = {"patience s": PATIENCE, "ended after at most s": round(max(ended), 1)}
    record(record_property, row=22, database=sqlite_url, figures=figures | times)
    assert findings.wrong == {}
    for trial in trials:
        hung, done = trial.attempts
        assert (hung.outcome, done.outcome) == (Outcome.LOST, trial.outcome)
        assert hung.reason.startswith("it hung: no step for")
        assert "toy_training.py" in hung.log_tail, "the stacks are in the log"
        assert "_misbehave" in hung.log_tail
        assert hung.ended_at is not None
        assert hung.ended_at - hung.started_at < 10 * PATIENCE


def test_a_slow_run_is_left_alone(tmp_path: Path, sqlite_url: str, record_property: RecordProperty) -> None:
    """An epoch of three times the patience, in which something moves all the time."""
    make_study(sqlite_url, trials=TRIALS, name="crawls", epochs=2, pruner="none")
    with mob(tmp_path, url=sqlite_url, study="crawls") as crowd:
        for _ in range(WORKERS):
            crowd.start(hang_after=PATIENCE)
        crowd.wait_until_over()
        trials = load_study("crawls", storage=sqlite_url).trials
    ended = sum(len(trial.attempts) - 1 for trial in trials)
    record(
        record_property, row=22, database=sqlite_url, figures={"slow steps": STEPS * TRIALS, "ended for them": ended}
    )
    assert (len(trials), ended) == (TRIALS, 0)
