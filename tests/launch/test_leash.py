"""A leashed command ends with its parent and is deaf to the signals by which schedulers announce the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tuner.launch import leash

PATIENCE = 30
# Says when it is up, and which signal ended it.
COMMAND = """
import os, signal, sys, time
def ended(number, _frame):
    with open(sys.argv[1] + ".ended", "w") as file:
        file.write(signal.Signals(number).name)
    os._exit(0)  # an exception would be lost where the signal comes while a file is closed
signal.signal(signal.SIGTERM, ended)
with open(sys.argv[1], "w") as file:
    file.write("up")
time.sleep(60)
"""
PARENT = """
import subprocess, sys
from tuner.launch import leash
child = subprocess.Popen(leash.words([sys.executable, "-c", sys.argv[1], sys.argv[2]]), start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def wait_for(path: Path) -> str:
    for _ in range(PATIENCE * 50):
        if path.exists() and (text := path.read_text(encoding="utf-8")):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} never came")


def test_a_killed_parent_ends_its_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, COMMAND, str(mark)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_for(mark)
        parent.kill()
    assert wait_for(mark.with_suffix(".ended")) == "SIGTERM"
    assert psutil.wait_procs([child], timeout=PATIENCE)[1] == []


def test_a_scheduler_may_signal_every_process_of_a_job(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with subprocess.Popen(leash.words([sys.executable, "-c", COMMAND, str(mark)])) as child:
        wait_for(mark)
        for sent in (signal.SIGUSR1, signal.SIGUSR2):
            child.send_signal(sent)
        assert child.poll() is None
        child.terminate()
        assert child.wait(PATIENCE) == 0
    assert wait_for(mark.with_suffix(".ended")) == "SIGTERM"


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    words = [*leash.words([sys.executable, "-c", "print('ran')"])]
    words[3] = str(os.getpid() + 1)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ended before" in done.stderr
    assert done.stdout == ""
