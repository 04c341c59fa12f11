"""SIGTERM gives runs back with their checkpoints; a SIGKILL that follows too soon costs nothing but time."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import Mob, make_study, mob, percentile
from tuner.api import load_study
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow

DRAINS, KILLS, CROWD = (100, 50, 5) if LONG else (6, 3, 3)
PATIENCE = 5.0 if LONG else 1.0  # seconds between SIGTERM and SIGKILL
KINDS = ["sqlite", "postgres"] if LONG else ["sqlite"]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.mark.timeout(3600 if LONG else 300)
def test_a_drained_worker_gives_its_run_back(tmp_path: Path, url: str, record_property: RecordProperty) -> None:
    """In the middle of an epoch, again and again."""
    trials = CROWD + DRAINS // 5
    draw = random.Random(1)
    seconds: list[float] = []
    make_study(url, trials=trials, epochs=20 if LONG else 10, pruner="none")
    with mob(tmp_path, url=url) as crowd:
        while len(seconds) < DRAINS:
            pids = _working(crowd)
            time.sleep(draw.uniform(0.0, 0.3))
            begin = time.time()
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            crowd.wait(lambda: not crowd.alive(), what="all have left")
            seconds += [line["at"] - begin for line in crowd.lines("Exited") if line["pid"] in pids]
        statuses = {line["status"] for line in crowd.lines("Exited")}
        for _ in range(CROWD):
            crowd.start()
        crowd.wait_until_over()
        findings = check(url=url, study="toy", ledger=crowd.ledger, trials=trials)
    attempts = [one for trial in load_study("toy", storage=url).trials for one in trial.attempts]
    released = sum(one.outcome is Outcome.PREEMPTED for one in attempts)
    figures = {
        "drains": len(seconds),
        "given back": released,
        "between two runs": len(seconds) - released,
        "lost": sum(one.outcome is Outcome.LOST for one in attempts),
        "p95 s": round(percentile(seconds, 0.95), 1),
        "longest s": round(max(seconds), 1),
    }
    record(record_property, row=4, database=url, figures=figures)
    assert findings.wrong == {}
    assert statuses == {0}
    assert figures["lost"] == 0
    assert 0.5 * len(seconds) < released <= len(seconds)
    assert max(seconds) <= 20.0


@pytest.mark.timeout(3600 if LONG else 300)
def test_a_drain_that_is_cut_short_costs_only_time(tmp_path: Path, url: str, record_property: RecordProperty) -> None:
    """Runs that do not hear that they should stop; their supervisors and they are killed while they are waited for."""
    kills = 0
    name, trials = f"deaf-for-{1.5 * PATIENCE:g}", CROWD + KILLS // 4
    make_study(url, trials=trials, name=name, epochs=6, pruner="none")
    with mob(tmp_path, url=url, study=name) as crowd:
        while kills < KILLS:
            pids = _working(crowd)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            time.sleep(PATIENCE)
            kills += len(set(pids) & set(crowd.alive()))
            for pid in pids:
                crowd.kill(pid)
            crowd.wait(lambda: not crowd.alive(), what="all have died")
        for _ in range(CROWD):
            crowd.start()
        crowd.wait_until_over()
        findings = check(url=url, study=name, ledger=crowd.ledger, trials=trials)
    record(
        record_property,
        row=5,
        database=url,
        figures={"kills": kills, "after TERM s": PATIENCE, "wrong": findings.total},
    )
    assert findings.wrong == {}
    assert kills >= KILLS


def _working(crowd: Mob) -> list[int]:
    """A crowd of which each has a run that has told an epoch."""
    begin = time.time()
    pids = [crowd.start() for _ in range(CROWD)]
    crowd.wait(
        lambda: set(pids) <= {line["pid"] for line in crowd.lines("EpochReported") if line["at"] > begin},
        what="all of them train",
    )
    return pids
