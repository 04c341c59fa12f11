"""The power goes: the server and all workers are gone at once, in the middle of whatever they did."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import make_study, mob
from tests.postgres import PostgresServer, running_server

pytestmark = pytest.mark.slow

LOSSES, WORKERS = (20, 4) if LONG else (2, 3)
TRIALS = 200 if LONG else 12
DURABLE = ("fsync=on", "full_page_writes=on", "synchronous_commit=on")


@pytest.mark.timeout(3600 if LONG else 300)
def test_what_was_acknowledged_outlives_the_power(tmp_path: Path, record_property: RecordProperty) -> None:
    draw = random.Random(1)
    with running_server(*DURABLE) as server, server.database() as url:
        make_study(url, trials=TRIALS)
        with mob(tmp_path, url=url) as crowd:
            for _ in range(LOSSES):
                begin = time.time()
                pids = [crowd.start(other_box=draw.random() < 0.5) for _ in range(WORKERS)]
                crowd.wait(
                    lambda begin=begin: any(line["at"] > begin for line in crowd.lines("EpochReported")),  # type: ignore[misc]
                    what="they train",
                )
                time.sleep(draw.uniform(0.0, 1.0))
                _kill_server(server)
                for pid in pids:
                    crowd.kill(pid)
                crowd.wait(lambda: not crowd.alive(), what="all have died")
                server.start()
                assert not crowd.is_done()
            for _ in range(WORKERS):
                crowd.start()
            crowd.wait_until_over()
            findings = check(url=url, study="toy", ledger=crowd.ledger, trials=TRIALS)
    figures = {"losses of power": LOSSES, "acknowledged": findings.acknowledged, "lost": findings.lost}
    record(record_property, row=38, database="postgresql", figures=figures | {"wrong": findings.total})
    assert findings.wrong == {}


def _kill_server(server: PostgresServer) -> None:
    first = psutil.Process(int((server.data / "postmaster.pid").read_text().splitlines()[0]))
    processes = [first, *first.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
