"""The database goes away while trials train, and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.boxes import Box, assert_whole, killed_at_exit
from tests.faults.checker import check, read_ledger
from tests.faults.mob import LEASE, make_study, mob
from tests.postgres import running_server
from tuner.api import load_study

pytestmark = pytest.mark.slow


def test_an_outage_costs_time_but_no_trial(tmp_path: Path) -> None:
    with running_server() as server, server.database() as url:
        box = Box(tmp_path, url, budget={"trials": 4})
        with killed_at_exit(box.start()) as worker:
            box.wait_for_epoch()
            server.stop()
            time.sleep(6.0)
            assert worker.poll() is None
            server.start()
            said = box.finish(worker)
        snapshot = box.snapshot()
    assert "training goes on" in said
    assert "the database is back after" in said
    assert_whole(snapshot, trials=4)
    assert all(len(trial.attempts) == 1 for trial in snapshot.trials)


def test_training_goes_on_while_the_database_is_gone(tmp_path: Path) -> None:
    """Two boxes, an outage of three leases: every epoch is there, nobody takes over from anybody."""
    epochs, outage = 60, 3 * LEASE
    with running_server() as server, server.database() as url:
        make_study(url, trials=2, epochs=epochs, name="long")
        with mob(tmp_path, url=url, study="long") as crowd:
            for _ in range(2):
                crowd.start(other_box=True)
            crowd.wait(lambda: _reported(crowd.ledger) >= 4, what="epochs are reported")
            server.stop()
            before = _reported(crowd.ledger)
            time.sleep(outage)
            during = _reported(crowd.ledger) - before
            server.start()
            crowd.wait(crowd.is_done, what="the study is over")
            crowd.wait(lambda: not crowd.alive(), what="all workers have left")
            findings = check(url=url, study="long", ledger=crowd.ledger, trials=2)
            trials = load_study("long", storage=url).trials
    assert during == 0, "nothing can be acknowledged by a database that is gone"
    assert findings.wrong == {}
    assert all(len(trial.attempts) == 1 and len(trial.epochs) == epochs for trial in trials)
    # A trial that had waited for the database would have taken as much longer.
    for trial in trials:
        assert trial.ended_at is not None
        assert trial.ended_at - trial.started_at < epochs * 0.15 * 1.6 + outage / 2


def test_a_worker_gives_up_after_its_outage_budget(tmp_path: Path) -> None:
    """It ends by itself with the status of something that may work later, and the next one goes on from the checkpoint."""
    with running_server() as server, server.database() as url:
        make_study(url, trials=1, epochs=60, name="long")
        with mob(tmp_path, url=url, study="long") as crowd:
            crowd.start(outage=3.0)
            crowd.wait(lambda: _reported(crowd.ledger) >= 4, what="epochs are reported")
            server.stop()
            crowd.wait(lambda: not crowd.alive(), what="it has given up")
            assert "was gone for more than" in crowd.tail()
            server.start()
            crowd.start()
            crowd.wait(crowd.is_done, what="the study is over")
            crowd.wait(lambda: not crowd.alive(), what="the worker has left")
            (trial,) = load_study("long", storage=url).trials
            claims = [line for line in read_ledger(crowd.ledger) if line["event"] == "RunClaimed"]
    assert [len(claims), len(trial.attempts)] == [2, 2]
    resumed = [epoch.epoch for epoch in trial.epochs if epoch.attempt == 2]
    assert resumed[0] > 4
    assert [epoch.epoch for epoch in trial.epochs] == list(range(1, 61))


def _reported(ledger: Path) -> int:
    return sum(line["event"] == "EpochReported" for line in read_ledger(ledger)) if ledger.exists() else 0
