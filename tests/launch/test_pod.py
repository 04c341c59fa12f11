"""What a worker in a pod leaves with: the Job's failure policy reads it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.launch.stub import Stub
from tuner.launch import pod


@pytest.mark.parametrize(("end", "status"), [(0, 0), (3, 3), (69, 69), (78, 78), ("killed", 137)])
def test_the_status_of_the_worker_is_handed_on(stub: Stub, end: str | int, status: int) -> None:
    stub.ends(end)
    assert pod.main(["worker", "start"]) == status
    assert stub.starts == 1  # another try is another pod, and the Job's business


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_evicted_worker_does_not_say_that_the_work_is_done(stub: Stub, sent: signal.Signals) -> None:
    stub.ends("long")

    def _evict() -> None:
        while not stub.is_up():
            time.sleep(0.01)
        os.kill(os.getpid(), sent)

    kubelet = threading.Thread(target=_evict)
    kubelet.start()
    assert pod.main(["worker", "start"]) == 75
    kubelet.join()


def test_it_is_a_program_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tuner.launch.pod", "worker", "start", "--per-device", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--per-device must be at least 1" in done.stderr
