"""The database goes away while trials train, and comes back."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.boxes import Box, assert_whole, killed_at_exit
from tests.faults.checker import check, read_ledger
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import Mob, make_study, mob
from tests.faults.toy_training import EPOCH_SECONDS
from tests.postgres import running_server
from tuner.api import load_study
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow


def test_an_outage_costs_time_but_no_trial(tmp_path: Path) -> None:
    with running_server() as server, server.database() as url:
        box = Box(tmp_path, url, budget={"trials": 2})
        with killed_at_exit(box.start()) as worker:
            box.wait_for_epoch()
            server.stop()
            time.sleep(3.0)
            assert worker.poll() is None
            server.start()
            said = box.finish(worker)
        snapshot = box.snapshot()
    assert "training goes on" in said
    assert "the database is back after" in said
    assert_whole(snapshot, trials=2)
    assert all(len(trial.attempts) == 1 for trial in snapshot.trials)


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("seconds", [5.0, 30.0, 120.0] if LONG else [5.0])
def test_training_goes_on_while_the_database_is_gone(
    tmp_path: Path, seconds: float, record_property: RecordProperty
) -> None:
    """Two boxes, an outage of more than a lease: every epoch is there, nobody takes over from anybody."""
    epochs = int(1.5 * seconds / EPOCH_SECONDS)
    with running_server() as server, server.database() as url:
        make_study(url, trials=2, epochs=epochs, name="long", pruner="none")
        with mob(tmp_path, url=url, study="long") as crowd:
            for _ in range(2):
                crowd.start(other_box=True)
            crowd.wait(lambda: _reported(crowd) >= 4, what="epochs are reported")
            server.stop()
            reported, trained = _reported(crowd), _trained(tmp_path)
            time.sleep(seconds)
            reported, trained = _reported(crowd) - reported, _trained(tmp_path) - trained
            server.start()
            crowd.wait_until_over()
            findings = check(url=url, study="long", ledger=crowd.ledger, trials=2)
            trials = load_study("long", storage=url).trials
    figures = {
        "outage s": seconds,
        "epochs trained meanwhile": trained,
        "epochs lost": 2 * epochs - sum(len(trial.epochs) for trial in trials),
        "runs begun again": sum(len(trial.attempts) - 1 for trial in trials),
    }
    record(record_property, row=10, database="postgresql", figures=figures)
    assert reported == 0, "nothing can be acknowledged by a database that is gone"
    assert trained > 0.3 * 2 * seconds / EPOCH_SECONDS, "no device waits for it"
    assert findings.wrong == {}
    assert (figures["epochs lost"], figures["runs begun again"]) == (0, 0)


@pytest.mark.timeout(3600 if LONG else 300)
def test_a_database_may_crash_and_come_back_at_any_time(tmp_path: Path, record_property: RecordProperty) -> None:
    restarts, trials = (20, 200) if LONG else (3, 24)
    draw = random.Random(1)
    with running_server() as server, server.database() as url:
        make_study(url, trials=trials)
        with mob(tmp_path, url=url) as crowd:
            pids = [crowd.start(other_box=True) for _ in range(4)]
            crowd.wait(lambda: _reported(crowd) >= 4, what="epochs are reported")
            for _ in range(restarts):
                server.restart()
                time.sleep(draw.uniform(0.2, 1.0))
            at_work = not crowd.is_done()
            living = len(set(pids) & set(crowd.alive()))
            crowd.wait_until_over()
            findings = check(url=url, study="toy", ledger=crowd.ledger, trials=trials)
            ended = load_study("toy", storage=url).trials
    figures = {
        "crashes": restarts,
        "trials": len(ended),
        "errored": sum(trial.outcome is Outcome.ERRORED for trial in ended),
        "false stale": sum(len(trial.attempts) - 1 for trial in ended),
        "workers that died": len(pids) - living,
    }
    record(record_property, row=9, database="postgresql", figures=figures)
    assert at_work, "the last crash came while there was work"
    assert findings.wrong == {}
    assert (figures["errored"], figures["false stale"], figures["workers that died"]) == (0, 0, 0)


def test_a_worker_gives_up_after_its_outage_budget(tmp_path: Path, record_property: RecordProperty) -> None:
    """It ends by itself with the status of something that may work later, and the next one goes on from the checkpoint."""
    with running_server() as server, server.database() as url:
        make_study(url, trials=1, epochs=40, name="long")
        with mob(tmp_path, url=url, study="long") as crowd:
            crowd.start(outage=2.0)
            crowd.wait(lambda: _reported(crowd) >= 4, what="epochs are reported")
            server.stop()
            crowd.wait(lambda: not crowd.alive(), what="it has given up")
            told = _reported(crowd)
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
    assert [epoch.epoch for epoch in trial.epochs] == list(range(1, 41))
    figures = {"epochs acknowledged": told, "gone on from epoch": resumed[0], "attempts": len(trial.attempts)}
    record(record_property, row=11, database="postgresql", figures=figures)


def _reported(crowd: Mob) -> int:
    return len(crowd.lines("EpochReported"))


def _trained(folder: Path) -> int:
    """Epochs of all runs, as their checkpoints say."""
    newest: dict[Path, int] = {}
    for path in folder.glob("files/checkpoints/*/trial-*/attempt-*/epoch-*"):
        newest[path.parent] = max(newest.get(path.parent, 0), int(path.name.removeprefix("epoch-")))
    return sum(newest.values())
