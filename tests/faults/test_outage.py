"""The database goes away while trials train, and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.boxes import Box, assert_whole, killed_at_exit
from tests.postgres import running_server

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
    assert "trying again" in said
    assert_whole(snapshot, trials=4)
    assert all(len(trial.attempts) == 1 for trial in snapshot.trials)
