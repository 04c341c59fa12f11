"""SIGKILL at any instant: nothing acknowledged is lost, nothing counts twice, nothing is stuck.

`make test` runs the short form; `make faults` sets TUNER_FAULTS=long and runs as many kills as docs/reliability.md reports.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import LEASE, Mob, make_study, median, mob, percentile
from tests.faults.nursery import FAILPOINTS

pytestmark = pytest.mark.slow

KILLS, TRIALS = (200, 300) if LONG else (12, 40)
ROUNDS = 50 if LONG else 1
WORKERS = 6
USUAL = 2.5  # seconds until the first epoch of six workers on two cores that do nothing else
SWEEP = 35.0  # seconds beyond the lease within which a dead worker's run must go on


@pytest.fixture(params=["sqlite", "postgres", "mariadb"] if LONG else ["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.mark.timeout(3600 if LONG else 300)
def test_random_kills(tmp_path: Path, url: str, record_property: RecordProperty) -> None:
    make_study(url, trials=TRIALS)
    with mob(tmp_path, url=url) as crowd:
        _kill_until_done(crowd, kills=KILLS)
        findings = check(url=url, study="toy", ledger=crowd.ledger, trials=TRIALS)
        waits = crowd.reclaim_seconds()
    figures = {
        "kills": len(crowd.kills),
        "trials": findings.trials,
        "acknowledged": findings.acknowledged,
        "lost": findings.lost,
        "double": findings.double,
        "stuck": findings.stuck,
        "wrong otherwise": findings.total - findings.lost - findings.double - findings.stuck,
        "runs interrupted": len(waits),
        "gone on after median s": round(median(waits), 1),
        "p95 s": round(percentile(waits, 0.95), 1),
    }
    record(record_property, row=1, database=url, figures=figures)
    assert findings.wrong == {}, figures
    assert len(crowd.kills) >= KILLS
    assert percentile(waits, 0.95) <= LEASE + SWEEP


def _kill_until_done(crowd: Mob, *, kills: int) -> None:
    """Kill and replace workers until there were enough kills, then let the study come to its end.

    On a machine that has other work to do kills are as much rarer as everything is slower: where nobody lives to its first epoch,
    three attempts without one end each trial, and the breaker pauses the study, which is another test. Where trials end faster than kills
    come, they come as fast as they can: the study must not be over before.
    """
    draw = random.Random(1)
    begun = time.monotonic()
    for number in range(WORKERS):
        crowd.start(other_box=number % 2 == 0)
    crowd.wait(lambda: bool(crowd.lines("EpochReported")), what="an epoch was reported")
    slowness = max(1.0, (time.monotonic() - begun) / USUAL)
    while len(crowd.kills) < kills:
        ended = len({line["number"] for line in crowd.lines("RunEnded")})
        is_late = ended * kills > len(crowd.kills) * TRIALS
        time.sleep(draw.uniform(0.0, 0.5) * (1.0 if is_late else slowness))
        crowd.kill_one()
        if crowd.is_done():
            raise AssertionError(f"the study was over after {len(crowd.kills)} kills; {crowd.tail()}")
        while len(crowd.alive()) < WORKERS:
            crowd.start(other_box=draw.random() < 0.5)
    crowd.wait_until_over()


@pytest.mark.timeout(3600 if LONG else 300)
def test_kills_at_the_worst_moments(tmp_path: Path, url: str, record_property: RecordProperty) -> None:
    """Workers die just there, again and again; whoever comes next makes it good."""
    trials = ROUNDS * len(FAILPOINTS) + 12
    make_study(url, trials=trials, epochs=2)
    with mob(tmp_path, url=url) as crowd:
        crowd.start(max_trials=4)
        crowd.wait(lambda: not crowd.alive(), what="a few trials are done")
        for number in range(ROUNDS):
            for failpoint in FAILPOINTS:
                crowd.start(failpoint=failpoint, other_box=number % 2 == 0)
            crowd.wait(lambda: not crowd.alive(), what="all have died")
            assert not crowd.is_done()
        crowd.start()
        crowd.wait_until_over()
        findings = check(url=url, study="toy", ledger=crowd.ledger, trials=trials)
    early = ("after_claim", "during_proposal", "before_first_beat")
    figures = {"kills at each": ROUNDS, "trials": findings.trials, "wrong": findings.total}
    record(record_property, row=2, database=url, figures={"moments": len(early)} | figures)
    record(record_property, row=3, database=url, figures={"moments": len(FAILPOINTS) - len(early)} | figures)
    assert findings.wrong == {}
